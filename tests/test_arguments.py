"""Command lines: options are parsed to their values, errors are one line, and help fits the terminal."""

import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import pytest

from cnnjax import InputError, ModelConfig, RunConfig
from cnnjax.console.arguments import ADVANCED, Assignments, Option, parse_arguments
from cnnjax.settings.blocks import Size
from experiments.train import parse as parse_training
from terminals import ROOT, run_in_terminal

MISSPELT = {
    "experiments.train": ("--model.paddin same", "--model.padding"),
    "experiments.compare": ("--formt csv", "--format"),
    "experiments.explain": ("run --indx 3", "--index"),
    "experiments.measure.calibration": ("--studes 3", "--studies"),
    "experiments.measure.benchmark": ("--step 3", "--steps"),
    "experiments.measure.convolutions": ("--repeat 3", "--repeats"),
    "experiments.measure.halves": ("padding --division 3", "--divisions"),
    "experiments.measure.keras_reference": ("--sed 3", "--seeds"),
    "experiments.measure.reliability": ("--point 3", "--points"),
    "ablations.run": ("padding --sets train.epochs=1", "--set"),
    "ablations.plan": ("padding --al", "--all"),
    "ablations.report": ("padding --pivots a b", "--pivot"),
    "ablations.status": ("--jsn", "--json"),
    "experiments.measure.throughput": ("--trails 3", "--trials"),
    "experiments.measure.feeding": ("--image 3", "--images"),
}
"""For every command, a mistake and the option that was meant."""

IN_TURN = """
import json, runpy, sys
for module, words in json.loads(sys.argv[1]):
    sys.argv = [module, *words]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        print(f"<{module}: {end.code}>", flush=True)
"""
"""Runs many commands in one process, which spares the imports; each is followed by its exit code."""


def show(commands, **terminal):
    """Returns what each command, ``{module: words}``, shows in a terminal, and its exit code."""
    words = json.dumps([(module, words) for module, words in commands.items()])
    code, text = run_in_terminal("-W", "ignore", "-c", IN_TURN, words, **terminal)
    assert code == 0, text
    parts = re.findall(r"(.*?)<([\w.]+): (\w+)>\n", text, re.DOTALL)
    return {module: (shown, int(code)) for shown, module, code in parts}


def test_every_command_is_covered_by_these_tests():
    files = [path for folder in ("experiments", "ablations") for path in (ROOT / folder).rglob("*.py")]
    commands = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in files
        if path.read_text().endswith("    run_command(main)\n")
    }
    assert commands == set(MISSPELT)


@pytest.mark.parametrize(
    "environment", [{}, {"NO_COLOR": "1"}, {"PYTHONIOENCODING": "ascii"}], ids=["colour", "no colour", "ascii"]
)
def test_a_misspelt_option_is_one_line_in_a_terminal_that_names_the_near_match(environment):
    shown = show({module: shlex.split(words) for module, (words, _) in MISSPELT.items()}, environment=environment)
    for module, (words, meant) in MISSPELT.items():
        typed = next(word for word in shlex.split(words) if word.startswith("--"))
        line = f"error: {typed}: there is no such option; did you mean '{meant}'?\n"
        assert shown[module] == (line, 2), module


def test_long_errors_are_folded_in_a_terminal_and_one_line_elsewhere():
    words = ["--model.activation", "nonsense"]
    (text, code) = show({"experiments.train": words})["experiments.train"]
    piped = subprocess.run(
        [sys.executable, "-m", "experiments.train", *words], capture_output=True, text=True, cwd=ROOT
    )
    assert code == piped.returncode == 2
    assert piped.stderr.count("\n") == 1
    assert len(piped.stderr) > 80 >= max(map(len, text.splitlines()))
    assert text.split() == piped.stderr.split()


HELPS = {module: ["--help-all"] for module in MISSPELT} | {"experiments.explain": ["run", "--help-all"]}


@pytest.mark.parametrize(("columns", "most"), [(80, 80), (120, 100), (40, 40)])
def test_the_help_of_every_command_fits_the_terminal(columns, most):
    for module, (text, code) in show(HELPS, columns=columns).items():
        assert code == 0
        assert " ".join(text.split()).startswith(f"usage: python -m {module}")
        assert f"\n    python -m {module}" in text, "there is an example"
        for line in text.splitlines():  # a word that is too long stays whole, for it is to be copied
            is_example, is_option = line.startswith("    python -m"), line.startswith("  --")
            is_word = len(line.split()) == 1
            assert len(line) <= most or (columns == 40 and (is_example or is_option or is_word)), (module, line)
        assert "None" not in text
        assert not re.search(r"^python|\S +python -m", text.partition("\n\n")[2], re.MULTILINE)
        assert "\x1b" not in text


@pytest.mark.parametrize("columns", [1, 3, 5])
def test_a_terminal_of_zero_width_does_not_hang_a_command(columns):
    commands = {"experiments.train": ["--help"], "ablations.plan": ["padding"], "ablations.status": []}
    shown = show(commands, environment={"COLUMNS": str(columns)})
    assert [code for _, code in shown.values()] == [0, 0, 0]
    assert len(shown["experiments.train"][0].splitlines()) < 400


def test_the_help_of_training_is_short_and_leaves_out_advanced_options():
    shown = show({"experiments.train": ["--help"]})["experiments.train"][0]
    everything = show({"experiments.train": ["--help-all"]})["experiments.train"][0]
    assert len(shown.splitlines()) < 170
    assert re.search(r"^ +--devices N", everything, re.MULTILINE)
    assert not re.search(r"^ +--devices N", shown, re.MULTILINE)
    assert "python -m experiments.train --model" in shown[: shown.index("--model.filters")]
    assert shown.count("VALUE") <= 2


@pytest.mark.parametrize("words", [("experiments.train", "--help"), ("ablations.plan", "padding")])
def test_a_reader_that_closes_early_is_no_error(words):
    command = shlex.join([sys.executable, "-m", *words])
    result = subprocess.run(
        ["bash", "-c", f"{command} | true; exit ${{PIPESTATUS[0]}}"], cwd=ROOT, capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (0, "")


@dataclass(frozen=True)
class Table:
    """Does something."""

    word: Annotated[str | None, Option(metavar="WORD", positional=True)] = None
    """A word."""
    run: Annotated[RunConfig, Option(name="")] = field(default_factory=RunConfig)
    """The run."""
    kernel_size: Annotated[Size, Option(aliases=("--kernel",))] = 3
    """A window."""
    seeds: int | None = None
    """How many."""
    share: float = 0.5
    """Of all."""
    out: Path = Path("runs")
    """A folder."""
    set: tuple[str, ...] = ()
    """Settings."""
    log: tuple[Literal["a", "b"], ...] = ()
    """Logs."""
    pair: tuple[str, str] | None = None
    """Two."""
    form: Literal["text", "json"] = "text"
    """How."""
    force: Annotated[bool, ADVANCED] = False
    """Again."""


def parse(line, default=None):
    return parse_arguments(Table, shlex.split(line), "prog", default or Table())


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("--seeds 3", ("seeds", 3)),
        ("--seeds=3", ("seeds", 3)),
        ("--seeds none", ("seeds", None)),
        ("--share 1", ("share", 1.0)),
        ("--share -1e-3", ("share", -0.001)),
        ("--kernel-size '[3, 5]'", ("kernel_size", [3, 5])),
        ("--kernel_size 7", ("kernel_size", 7)),
        ("--kernel 7", ("kernel_size", 7)),
        ("--out none", ("out", Path("none"))),
        ("--set a=1 --set b=2", ("set", ("a=1", "b=2"))),
        ("--log a --log b", ("log", ("a", "b"))),
        ("--pair a b", ("pair", ("a", "b"))),
        ("--force", ("force", True)),
        ("--seeds 3 hello", ("word", "hello")),
        ("hello --seeds 3", ("word", "hello")),
        ("--seeds 3 --seeds 4", ("seeds", 4)),
    ],
)
def test_options_are_parsed_to_their_values(line, value):
    name, expected = value
    assert getattr(parse(line), name) == expected


def test_settings_change_the_configuration_that_they_are_on_top_of():
    base = Table(run=RunConfig(model=ModelConfig(filters=(8,), batch_norm=True), seed=3))
    assert parse("", base) == base
    changed = parse("--model.no-batch-norm --model.padding same --train.learning_rate 0.1 --seed 4", base).run
    assert changed.model == replace(base.run.model, batch_norm=False, padding="same")
    assert changed.seed == 4
    assert changed.train.learning_rate == 0.1
    assert (
        parse("--model.batch-norm", replace(base, run=RunConfig(ModelConfig(norm="group")))).run.model.norm == "batch"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--seeds x", "--seeds='x': must be an integer, not str"),
        ("--seeds", "--seeds: expected one argument"),
        ("--pair a", "--pair: expected 2 arguments"),
        ("--force=yes", "--force: ignored explicit argument 'yes'"),
        ("--form xml", "--form='xml': must be one of text, json"),
        ("--log c", "--log='c': must be one of a, b"),
        ("one two", "'two': one argument too many"),
        ("--padding same", r"--padding: there is no such option; did you mean '--model.padding'\?"),
        ("--model.no-biass", r"--model.no-biass: there is no such option; did you mean '--model.no-use-bias'\?"),
        ("--zzz", "--zzz: there is no such option; --help lists them"),
        ("-x", "-x: there is no such option"),
        ("--train.epochs 0", "train.epochs=0: must be >= 1"),
    ],
)
def test_a_wrong_option_is_reported_in_one_line(line, message):
    with pytest.raises(InputError, match=message) as refusal:
        parse(line)
    assert "\n" not in str(refusal.value)


@dataclass(frozen=True)
class Assigned:
    """Does something to a run."""

    run: Annotated[RunConfig, Option(name="")] = field(default_factory=RunConfig)
    """The run."""
    set: Assignments = ()
    """Settings."""


def assign(*words):
    return parse_arguments(Assigned, [*words], "prog", Assigned()).run


@pytest.mark.parametrize(
    ("option", "assignment"),
    [
        (("--model.padding", "same"), "model.padding=same"),
        (("--model.padding", "[same, valid]"), "model.padding=[same, valid]"),
        (("--model.kernel-size", "[[5, 3], 3]"), "model.kernel_size=[[5, 3], 3]"),
        (("--model.filters", "[]"), "model.filters=[]"),
        (("--model.pool-strides", "none"), "model.pool_strides=none"),
        (("--model.pool", "none"), "model.pool=none"),
        (("--model.no-use-bias",), "model.use_bias=false"),
        (("--train.learning-rate", "1e-1"), "train.learning_rate=1e-1"),
        (("--train.optimizer", "adam"), 'train.optimizer="adam"'),
        (("--data.train-size", "100"), "data.train_size=100"),
        (("--data.name", "mnist"), "data.name=mnist"),
    ],
)
def test_an_assignment_equals_the_option_of_the_same_setting(option, assignment):
    assert assign("--set", assignment) == assign(f"--set={assignment}") == assign(*option)


def test_assignments_and_options_make_one_configuration_together():
    run = assign("--train.nesterov", "--set", "train.momentum=0.9", "--set", "model.filters=[8]", "--seed", "2")
    assert (run.train.nesterov, run.train.momentum, run.model.filters, run.seed) == (True, 0.9, (8,), 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "model.padding"], "--set 'model.padding': must be such as model.padding=same"),
        (["--set", "model.paddin=same"], r"--set: unknown setting 'model.paddin'; did you mean 'padding'\?; legal: "),
        (["--set", "model.padding=sane"], "--set model.padding='sane': must be valid, same, a number of pixels, or"),
        (["--set", "train.epochs=0"], "--set train.epochs=0: must be >= 1"),
        (["--set", "train.epochs=1", "--set", "train.epochs=2"], "--set train.epochs: given twice"),
        (["--set", "train.epochs=1", "--train.epochs", "2"], "--set train.epochs: given twice, also as --train.epochs"),
        (["--set", "seed=1"], "--set seed: the seed is given with --seed"),
        (["--set", "train.nesterov=true"], "train.nesterov=True: needs train.momentum > 0"),
    ],
)
def test_a_wrong_assignment_is_reported_in_one_line(words, message):
    with pytest.raises(InputError, match=message):
        assign(*words)


def test_every_option_of_every_command_is_explained():
    for module, (text, _) in show(HELPS).items():
        rows = re.findall(r"^  (-\S+|[A-Z]+)(.*)\n( *)(\S*)", text, re.MULTILINE)
        assert rows, module
        for option, rest, indent, word in rows:
            assert re.search(r" {2}\S", rest) or (len(indent) > 20 and word), (module, option)


@pytest.mark.parametrize(
    "words",
    [
        "--model.norm layer --model.no-batch-norm",
        "--set model.norm=none --set model.batch_norm=true",
        "--set model.norm=layer --model.batch-norm",
    ],
)
def test_two_ways_to_write_one_setting_are_not_given_both(words):
    with pytest.raises(InputError, match="give only one of them"):
        parse_training(shlex.split(words))
