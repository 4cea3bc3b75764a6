"""Every command and every block of Python in the README runs."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()]
FULL_TRAINING = "python -m experiments.train"
EXPECTED = {
    "use_fast_layers(": "(100, 10)",
    "cnnjax.fit(": "(5, 5, 1, 32)",
    "train_step": "loss and accuracy of the last batch: (2.",
    "cnnjax.fit_many(": "[0.",
    "Study(": "Estimate(n=3, mean=0.",
}
"""What a block of Python prints, by a call that is in it alone."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readme")


def _run(command, folder):
    words = [sys.executable if word == "python" else word for word in shlex.split(command)]
    return subprocess.run(words, capture_output=True, text=True, cwd=folder, timeout=900)


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("python") and line != FULL_TRAINING])
def test_a_readme_command_runs(command, folder):
    result = _run(command, folder)
    assert result.returncode == 0, result.stderr
    _, _, output = command.partition("--output ")
    assert (folder / output).is_file() if output else result.stdout.strip()


@pytest.mark.parametrize("block", [block for kind, block in BLOCKS if kind == "python"])
def test_a_readme_block_of_python_runs(block, folder):
    result = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, cwd=folder, timeout=300)
    assert result.returncode == 0, result.stderr
    (expected,) = (text for call, text in EXPECTED.items() if call in block)
    assert expected in result.stdout


@pytest.mark.slow
def test_the_textbook_training_reaches_its_accuracy(folder):
    result = _run(FULL_TRAINING, folder)
    assert result.returncode == 0, result.stderr
    accuracy = float(re.fullmatch(r"Test accuracy: (0\.\d{4})", result.stdout.splitlines()[-1])[1])
    assert 0.96 <= accuracy <= 0.98


def test_the_install_and_test_commands_are_the_ones_that_ci_runs():
    assert [line for line in COMMANDS if line.startswith(("pip", "pytest"))] == [
        "pip install -e .",
        "pip install -e '.[test]'",
        "pytest -n 2",
    ]
