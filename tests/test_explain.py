"""The explain command: what it prints, what it draws, and how it refuses bad input."""

import dataclasses
import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cnnjax
from cnnjax import DataConfig, InputError, ModelConfig, RunConfig, TrainConfig, UnavailableError
from cnnjax.data.dataset import Split, make_dataset
from cnnjax.data.loading import load
from cnnjax.runs.record import Run, pack_run
from cnnjax.runs.store import Store
from experiments import explain
from experiments.explanations import stored_run
from experiments.explanations.stored_run import StoredRunArguments, explain_run
from terminals import run_in_terminal

ROOT = Path(__file__).parent.parent
CONFIG = RunConfig(
    model=ModelConfig(filters=(4, 6), kernel_size=3, dense=(8,)),
    train=TrainConfig(epochs=1, learning_rate=0.1),
    data=DataConfig(train_size=2000),
)
FIGURES_OF_A_RUN = {
    "filters-Conv_0", "filters-Conv_1", "layers", "maps-Conv_0", "maps-MaxPool_0", "maps-Conv_1", "maps-MaxPool_1",
    "saliency", "confusion", "confident", "hardest",
}  # fmt: skip


@pytest.fixture(scope="module")
def mnist():
    return load("mnist")


@pytest.fixture(scope="module")
def out(tmp_path_factory, mnist):
    out = tmp_path_factory.mktemp("out") / "runs"
    cnnjax.fit(CONFIG, out, dataset=mnist)
    return out


@pytest.fixture
def run_main(tmp_path, capsys):
    """Runs the command in this process; gives what it returned and printed."""

    def run(*words, figures=tmp_path / "figures"):
        capsys.readouterr()
        code = explain.main([*map(str, words), "--figures", str(figures)])
        return code, capsys.readouterr().out

    return run


def list_names(folder):
    return sorted(path.name for path in folder.iterdir())


def command(*words, cwd=ROOT):
    line = [sys.executable, "-m", "experiments.explain", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, cwd=cwd, timeout=300)


# Without a run


def test_the_textbook_window_is_printed_as_letters_and_drawn(run_main, tmp_path):
    code, said = run_main("window")
    assert code == 0
    parts = said.split("\n\n")
    assert parts[0] == "5x5 image, 3x3 window, stride 1, padding valid: 3x3 output"
    assert parts[1].splitlines()[0].split() == ["1", "2", "3", "4", "5"]
    assert parts[2] == "A B C\nD E F\nG H I"
    assert parts[3].splitlines()[4] == "E: 7 8 9 / 12 13 14 / 17 18 19"
    assert parts[4] == f"Pictures:\n  {tmp_path / 'figures' / 'window.png'}\n"
    assert list_names(tmp_path / "figures") == ["window.png"]


def test_the_window_takes_any_size_window_stride_and_padding(run_main):
    _, said = run_main(
        "window", "--size", "[6,9]", "--kernel-size", "[2,3]", "--strides", "2", "--padding", "1", "--json"
    )
    values = json.loads(said)
    assert values["output_shape"] == [4, 5]
    assert values["letters"][1] == ["F", "G", "H", "I", "J"]
    assert values["windows"]["A"] == [[0, 0, 0], [0, 1, 2]]
    _, said = run_main("window", "--padding", "[[1,0],[2,0]]")
    assert said.startswith("5x5 image, 3x3 window, stride 1, padding 1 above, 0 below, 2 left, 0 right: 4x5 output\n")


def test_the_pixels_of_many_windows_are_not_printed(run_main):
    _, said = run_main("window", "--size", "20", "--kernel-size", "5")
    assert said.splitlines()[0] == "20x20 image, 5x5 window, stride 1, padding valid: 16x16 output"
    assert "/" not in said.split("Pictures:")[0]


def test_pooling_prints_and_draws_the_pooled_seven(run_main, tmp_path):
    _, said = run_main("pooling", "--format", "svg")
    assert said.split("\n\n")[2] == ". 1 1 1 1 .\n. . . . 1 .\n. . . 1 1 .\n. . . 1 . .\n. . . 1 . .\n. . . 1 . ."
    assert list_names(tmp_path / "figures") == ["pooling.svg"]
    assert json.loads(run_main("pooling", "--pool", "avg", "--json")[1])["pooled"][0][1] == 0.5


def test_the_stack_takes_settings_by_set_as_by_options(run_main):
    typed = run_main("stack", "--model.filters", "[8]", "--data.name", "mnist", "--json")[1]
    assert run_main("stack", "--set", "model.filters=[8]", "--set", "data.name=mnist", "--json")[1] == typed
    with pytest.raises(InputError, match=r"--set train.epochs: is no setting of this command; legal: model.filters, "):
        run_main("stack", "--set", "train.epochs=1")


def test_the_stack_command_prints_the_layer_table_and_draws_it(run_main, tmp_path):
    _, said = run_main("stack", "--model.filters", "[8]", "--model.padding", "same")
    assert said.startswith(str(cnnjax.summarize(ModelConfig(filters=(8,), padding="same"))))
    assert list_names(tmp_path / "figures") == ["stack.png"]
    values = json.loads(run_main("stack", "--without-classifier", "--json")[1])
    assert values["parameters"] == 52096
    assert values["image_shape"] == [28, 28, 1]
    assert values["files"] == [str(tmp_path / "figures" / "stack.png")]


def test_a_second_picture_replaces_the_first(run_main, tmp_path):
    run_main("window")
    first = (tmp_path / "figures" / "window.png").read_bytes()
    run_main("window", "--strides", "2")
    assert (tmp_path / "figures" / "window.png").read_bytes() != first
    assert list_names(tmp_path / "figures") == ["window.png"]


# A stored run


def test_a_stored_run_is_explained_in_text_and_pictures(run_main, tmp_path, out, mnist):
    code, said = run_main("run", "--out", out, "--index", "7")
    run = cnnjax.load_run(Store(out).list_keys()[0], out)
    wrong = int((run.predictions != mnist.test.labels).sum())
    assert code == 0
    lines = said.splitlines()
    accuracy = f"test accuracy {run.record.test_accuracy:.4f}, {wrong:,} of 10,000 test images wrong"
    assert lines[0] == f"Run {run.key[:12]}: mnist, {accuracy}"
    assert lines[1].startswith(f"Test image 7, which is {mnist.test.labels[7]}: predicted {run.predictions[7]} (")
    assert [line.split(":")[0] for line in lines[2:5]] == [
        "Most frequent confusions", "Most confident mistakes", "Hardest images",
    ]  # fmt: skip
    assert list_names(tmp_path / "figures") == sorted(f"{name}.png" for name in FIGURES_OF_A_RUN)


def test_the_explanation_fits_a_terminal_and_is_not_cut(tmp_path, out, run_main):
    code, shown = run_in_terminal("-m", "experiments.explain", "run", "--out", out, "--figures", tmp_path / "pictures")
    assert code == 0
    told = shown.split("Pictures:")[0]
    assert max(map(len, told.splitlines())) <= 80
    piped = run_main("run", "--out", out)[1].split("Pictures:")[0]
    assert max(map(len, piped.splitlines())) > 80
    assert told.split() == piped.split()


def test_the_answers_shown_are_the_stored_predictions(run_main, out, mnist):
    values = json.loads(run_main("--out", out, "--json")[1])
    run = cnnjax.load_run(values["key"], out)
    matrix = np.array(values["confusion"])
    assert matrix.sum() == len(mnist.test)
    assert np.trace(matrix) / matrix.sum() == values["test_accuracy"] == run.record.test_accuracy
    assert (values["predicted"], values["label"]) == (run.predictions[0], mnist.test.labels[0])
    assert sum(values["probabilities"]) == pytest.approx(1, abs=1e-5)
    for name in ("confident", "hardest"):
        answers = values[name]
        assert len(answers) == 24
        assert all(run.predictions[a["index"]] == a["predicted"] for a in answers)
        assert all(mnist.test.labels[a["index"]] == a["label"] for a in answers)
    assert all(a["predicted"] != a["label"] for a in values["confident"])


def test_the_last_layer_gives_the_stored_predictions(out, mnist):
    from cnnjax.inspection.activations import compute_outputs

    run = cnnjax.load_run(Store(out).list_keys()[0], out)
    *_, logits = compute_outputs(run.rebuild(), mnist.test.images[:1000]).values()
    np.testing.assert_array_equal(logits.argmax(-1), run.predictions[:1000])


@pytest.fixture
def own_picture(tmp_path, mnist):
    """Returns a function that saves a test image, as large and dark on light as a person's drawing, or not."""

    def save(index, inverted):
        image = Image.fromarray(mnist.test.images[index, ..., 0]).resize((280, 280), Image.Resampling.NEAREST)
        path = tmp_path / f"own-{index}-{inverted}.png"
        Image.fromarray(255 - np.asarray(image) if inverted else np.asarray(image)).save(path)
        return path

    return save


def test_a_users_picture_is_classified_alike_whether_light_on_dark_or_dark_on_light(
    run_main, out, own_picture, tmp_path
):
    told = {}
    for inverted in (False, True):
        values = json.loads(run_main("--out", out, "--image", own_picture(0, inverted), "--json")[1])
        told[inverted] = values
        assert ("light and dark were left as they are" in values["remarks"]) != inverted
    stored_answer = json.loads(run_main("--out", out, "--json")[1])
    assert told[True]["predicted"] == told[False]["predicted"] == stored_answer["predicted"]
    np.testing.assert_allclose(told[True]["probabilities"], told[False]["probabilities"], atol=1e-3)
    names = [name for name in list_names(tmp_path / "figures") if name.startswith("image-")]
    followed = ("layers", "maps-Conv_0", "maps-Conv_1", "maps-MaxPool_0", "maps-MaxPool_1", "saliency")
    assert names == [f"image-{name}.png" for name in followed]


def test_every_change_to_a_users_picture_is_printed(run_main, out, own_picture):
    lines = run_main("--out", out, "--image", own_picture(3, True))[1].splitlines()
    assert lines[1].startswith(f"{own_picture(3, True)}: predicted ")
    assert lines[2] == "  280 x 280 pixels, made 28 x 28"
    assert lines[3].startswith("  light and dark were exchanged: its border")
    lines = run_main("--out", out, "--image", own_picture(3, True), "--no-invert")[1].splitlines()
    assert lines[3] == "  light and dark were left as they are"


def test_the_newest_of_several_runs_is_shown_and_settings_choose_others(out, tmp_path, capsys):
    store = Store(tmp_path / "runs")
    store.create()
    first = Store(out).load(Store(out).list_keys()[0])
    second = dataclasses.replace(first.record, config=dataclasses.replace(CONFIG, seed=1))
    store.add_all([pack_run(first), pack_run(Run(second, first.params, {}, first.predictions))])
    third = dataclasses.replace(
        second, config=dataclasses.replace(CONFIG, train=TrainConfig(epochs=1, learning_rate=0.2))
    )
    time.sleep(0.01)
    store.add(Run(third, first.params, {}, first.predictions))
    folder = tmp_path / "runs"
    capsys.readouterr()
    assert stored_run.find_run(folder, None).key == third.key
    told = capsys.readouterr().err
    assert "3 completed runs" in told
    assert "train.learning_rate (0.1, 0.2)" in told
    assert "seed (0, 1)" in told
    assert stored_run.find_run(folder, None, {"train.learning_rate": 0.1}, 0).key == first.key
    assert stored_run.find_run(folder, None, {}, 1).key == second.key
    assert capsys.readouterr().err == ""
    assert stored_run.find_run(folder, second.key[:8]).key == second.key
    with pytest.raises(
        InputError, match=r"no completed run .* has these; there are .*train.learning_rate \(0.1, 0.2\).*seed \(0"
    ):
        stored_run.find_run(folder, None, {"train.learning_rate": 3.0})
    with pytest.raises(InputError, match="--where seed: the seed is given with --seed"):
        explain.main(["run", "--out", str(folder), "--where", "seed=1"])
    with pytest.raises(InputError, match="--run: names one run; leave out --where and --seed"):
        explain.main(["run", "--out", str(folder), "--run", "0", "--seed", "1"])


def test_a_run_that_is_not_completed_is_refused(tmp_path, out, run_main):
    run = Store(out).load(Store(out).list_keys()[0])
    changes = {"status": "diverged", "reason": "loss not finite at step 3", "test_loss": None, "test_accuracy": None}
    store = Store(tmp_path / "runs")
    store.create()
    with pytest.raises(
        InputError, match=r"--out: no completed run of a network is in .*; make one with: python -m experiments\.train"
    ):
        run_main("run", "--out", tmp_path / "runs")
    store.add(Run(dataclasses.replace(run.record, **changes), run.params, {}, None))
    with pytest.raises(
        InputError, match=r"--run .*: is diverged \(loss not finite at step 3\); must be a completed run"
    ):
        run_main("run", "--out", tmp_path / "runs", "--run", run.key[:6])


def test_images_other_than_those_of_the_run_are_refused(out, mnist, monkeypatch, run_main):
    other = make_dataset("mnist", "other", mnist.train, Split(mnist.test.images[:9], mnist.test.labels[:9]), 10, "file")
    monkeypatch.setattr(stored_run, "load_data", lambda data: other)
    with pytest.raises(UnavailableError, match=r"data.name='mnist': its images are not those of run"):
        run_main("run", "--out", out)


def test_a_run_on_colour_images_is_explained_with_its_class_names(tmp_path, monkeypatch, run_main):
    random = np.random.default_rng(0)
    splits = [
        Split(random.integers(0, 256, (n, 12, 10, 3), np.uint8), random.integers(0, 3, n).astype(np.int32))
        for n in (200, 60)
    ]
    dataset = make_dataset("tiny", "1.0.0", *splits, 3, "tfds")
    config = RunConfig(
        model=ModelConfig(filters=(4,), kernel_size=3, batch_norm=True),
        train=TrainConfig(epochs=1),
        data=DataConfig(name="tiny"),
    )
    run = cnnjax.fit(config, tmp_path / "runs", dataset=dataset)
    monkeypatch.setattr(stored_run, "load_data", lambda data: dataset)
    names = ("cat", "dog", "a bird of some kind")
    monkeypatch.setattr(stored_run, "find_class_names", lambda name, classes: names)
    _, said = run_main("run", "--out", tmp_path / "runs", "--index", "5")
    assert said.splitlines()[1].startswith(f"Test image 5, which is {names[dataset.test.labels[5]]}: predicted ")
    pictures = list_names(tmp_path / "figures")
    assert "maps-BatchNorm_0.png" in pictures
    path = tmp_path / "own.png"
    Image.fromarray(dataset.test.images[5]).save(path)
    values = json.loads(run_main("run", "--out", tmp_path / "runs", "--image", path, "--json")[1])
    assert names[values["predicted"]] == names[run.predictions[5]]


def test_a_network_without_convolutions_shows_the_weights_of_its_first_dense_layer(tmp_path, mnist):
    config = dataclasses.replace(CONFIG, model=ModelConfig(filters=(), dense=(8,)))
    cnnjax.fit(config, tmp_path / "runs", dataset=mnist)
    explanation = explain_run(StoredRunArguments(out=tmp_path / "runs"))
    assert set(explanation.figures) == {"filters-Dense_0", "layers", "saliency", "confusion", "confident", "hardest"}


# Refusals


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["windows"], r"command='windows': must be one of run, window, pooling, stack; did you mean 'window'\?"),
        (["window", "--size", "0"], r"--size=0: must be an integer >= 1"),
        (["window", "--size", "65"], r"--size=65: must be at most 64 pixels a side to be drawn"),
        (["window", "--padding", "65"], r"--padding=65: must be at most 64 pixels a side to be drawn"),
        (["window", "--kernel-size", "6"], r"--kernel-size=6: its 6x6 window is larger than its 5x5 input"),
        (["window", "--padding", "sme"], r"--padding='sme': must be valid, same.*did you mean 'same'\?"),
        (["window", "--strides", "none"], r"--strides='none': must be an integer >= 1"),
        (["window", "--format", "gif"], r"--format='gif': must be one of png, svg"),
        (["pooling", "--pool-size", "13"], r"--pool-size=13: its 13x13 window is larger than its 12x12 input"),
        (["stack", "--model.kernel-size", "29"], r"model: Conv_0: its 29x29 window is larger than its 28x28 input"),
        (["run", "--index", "-1"], r"--index=-1: must be >= 0"),
        (["run", "--index", "1.5"], r"--index=1.5: must be an integer, not float"),
        (
            ["run", "--index", "1", "--image", "a.png"],
            r"--index: chooses a test image; give --index or --image, not both",
        ),
        (["run", "--image", "absent.png"], r"--image absent.png: there is no such file"),
        (["run", "--invert"], r"--invert: changes a picture; needs --image"),
        (["run", "--image", "a.png", "--invert", "--no-invert"], r"--invert: give --invert or --no-invert, not both"),
        (["run", "--out", "nowhere"], r"--out: no completed run of a network is in nowhere/runs.sqlite"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_invalid_arguments_are_refused_before_anything_is_written(words, message, run_main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        run_main(*words)
    assert list_names(tmp_path) == []


def test_an_index_beyond_the_test_images_is_refused(out, run_main):
    with pytest.raises(InputError, match=r"--index=10000: must be >= 0 and <= 9999, the last test image of mnist"):
        run_main("run", "--out", out, "--index", "10000")


def test_a_figures_path_that_cannot_be_a_folder_is_refused(run_main, tmp_path):
    (tmp_path / "file").write_text("")
    for figures in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=r"--figures .*file: .* is a file; must be a folder|is a file; must be"):
            run_main("window", figures=figures)


def test_no_picture_replaces_a_folder_or_the_users_own_file(run_main, tmp_path, out, own_picture):
    figures = tmp_path / "figures"
    (figures / "window.png").mkdir(parents=True)
    with pytest.raises(InputError, match=r"--figures .*window\.png: must be a file"):
        run_main("window")
    own = own_picture(0, False).rename(figures / "image-layers.png")
    content = own.read_bytes()
    with pytest.raises(InputError, match=r"--image .*: would be replaced by a picture of that name"):
        run_main("run", "--out", out, "--image", own)
    assert own.read_bytes() == content
    assert list_names(figures) == ["image-layers.png", "window.png"]


def test_help_imports_neither_jax_nor_matplotlib():
    code = (
        "import sys\nfrom experiments import explain\n"
        "for words in (['--help'], ['run', '--help'], ['window', '--help'], ['stack', '--help']):\n"
        "    try:\n        explain.main(words)\n    except SystemExit as end:\n        assert not end.code\n"
        "assert not {'jax', 'matplotlib', 'scipy', 'PIL', 'tensorflow_datasets'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "usage: python -m experiments.explain [run|window|pooling|stack]" in result.stdout
    assert "--kernel-size" in result.stdout


def test_the_window_pooling_and_stack_commands_import_no_jax(tmp_path):
    code = (
        "import sys\nfrom experiments import explain\n"
        f"for name in ('window', 'pooling', 'stack'):\n    explain.main([name, '--figures', {str(tmp_path)!r}])\n"
        "assert 'jax' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert result.returncode == 0, result.stderr
    assert list_names(tmp_path) == ["pooling.png", "stack.png", "window.png"]


def test_exit_codes_are_0_for_success_2_for_bad_input_and_3_for_a_corrupt_store(tmp_path):
    good = command("window", "--figures", tmp_path)
    bad = command("window", "--kernel-size", "9", "--figures", tmp_path)
    assert (good.returncode, good.stderr) == (0, "")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr == "error: --kernel-size=9: its 9x9 window is larger than its 5x5 input (shape (5, 5, 1))\n"
    store = tmp_path / "runs"
    store.mkdir()
    (store / "runs.sqlite").write_bytes(b"SQLite format 3\0 damaged" * 100)
    assert command("run", "--out", store, "--figures", tmp_path).returncode == 3


@pytest.mark.slow
def test_the_commands_of_the_explain_page_run(tmp_path):
    page = (ROOT / "docs/explain.md").read_text()
    for line in re.findall(r"^python -m .*", "".join(re.findall(r"```bash\n(.*?)```", page, re.DOTALL)), re.MULTILINE):
        words = [sys.executable if word == "python" else word for word in shlex.split(line)]
        result = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=300)
        assert result.returncode == 0, result.stderr
    every = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert every == FIGURES_OF_A_RUN | {"window", "pooling", "stack"}
