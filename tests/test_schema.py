"""Values as users type them: TOML literals and bare words."""

import pytest

from cnnjax.errors import InputError
from cnnjax.runs.config import RunConfig
from cnnjax.settings.schema import read_literal

MEANINGS = [
    ("5", 5),
    ("-3", -3),
    ("1_000", 1000),
    ("0.1", 0.1),
    ("1e-3", 0.001),
    ("true", True),
    ("false", False),
    ("valid", "valid"),
    ('"valid"', "valid"),
    ("'two words'", "two words"),
    ("'a # b'", "a # b"),
    ("none", "none"),
    ("infinite", "infinite"),
    ("fashion_mnist", "fashion_mnist"),
    ("emnist/letters:3.1.0", "emnist/letters:3.1.0"),
    ("[]", []),
    ("[32, 64]", [32, 64]),
    ("[32,64]", [32, 64]),
    ("[relu, tanh]", ["relu", "tanh"]),
    ("[same, [[1, 2], [0, 0]]]", ["same", [[1, 2], [0, 0]]]),
    ("[[5, 3], 3]", [[5, 3], 3]),
    ("[same, 'valid', \"same\"]", ["same", "valid", "same"]),
]
REFUSED = [
    *(
        "",
        " ",
        "two words",
        "[1, 2",
        "1, 2",
        "5]",
        '"open',
        "5x5",
        "[3x3, 5]",
        "01",
        ".5",
        "5 # x",
        "valid] #, same",
        "5\n6",
        "5\r",
        "x=1",
    ),
    *("[" * 100_000, "a\x00"),
]


@pytest.mark.parametrize(("text", "value"), MEANINGS)
def test_a_literal_reads_as_its_toml_value_and_a_bare_word_as_a_string(text, value):
    read = read_literal(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: repr(text[:10]))
def test_text_that_is_no_literal_is_refused_in_one_line_with_the_valid_forms(text):
    with pytest.raises(InputError, match=r"must be a number, a word, or a list of them such as \[32, 64\]") as refusal:
        read_literal(text)
    assert "\n" not in str(refusal.value)


def test_a_number_too_long_to_read_is_refused():
    with pytest.raises(InputError, match="must be a number"):
        read_literal("9" * 5000)


def test_an_alias_is_read_as_the_setting_that_it_writes():
    schema = RunConfig.schema()
    read = schema.read_settings(["model.batch_norm=true", "train.epochs=2"], "--set", "no seeds")
    assert read == {"model.norm": "batch", "train.epochs": 2}
    assert schema.list_defaults()["model.batch_norm"] is False
