"""Explains a stored run, a sliding window, pooling, or the tensors between layers, in text and pictures.

For a stored run: its filters, its feature maps for a test image or a picture of your own, and its mistakes. The other
three need no run and take any sizes::

    python -m experiments.explain run --where model.padding=same --seed 0
    python -m experiments.explain run --image my_seven.png
    python -m experiments.explain window --size 5 --kernel-size 3 --strides 2
    python -m experiments.explain pooling --pool avg
    python -m experiments.explain stack --model.filters '[16,32,64]'

The default command is ``run``. Each command has its own ``--help``.
"""

import json
import sys
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

from cnnjax.console.arguments import WIDTH, parse_arguments, write_docstring
from cnnjax.console.terminal import find_width, run_command, say
from cnnjax.machine.files import check_folder
from cnnjax.settings.checking import choice
from experiments.explanations import Explanation, save_pictures
from experiments.explanations.geometry import (
    PoolingArguments,
    StackArguments,
    WindowArguments,
    explain_pooling,
    explain_stack,
    explain_window,
)
from experiments.explanations.stored_run import StoredRunArguments, explain_run

PROG = "python -m experiments.explain"


class Command(NamedTuple):
    """A command: the dataclass of its options, and the function that explains."""

    arguments: type[Any]
    explain: Callable[[Any], Explanation]


COMMANDS = {
    "run": Command(StoredRunArguments, explain_run),
    "window": Command(WindowArguments, explain_window),
    "pooling": Command(PoolingArguments, explain_pooling),
    "stack": Command(StackArguments, explain_stack),
}


def main(argv: list[str]) -> int:
    """Runs the command; returns 0."""
    if argv[:1] in (["-h"], ["--help"]):
        usage = f"usage: {PROG} [{'|'.join(COMMANDS)}] [OPTIONS]"
        say(f"{usage}\n\n{write_docstring(__doc__ or '', find_width() or WIDTH)}", sys.stdout)
        return 0
    name, options = (argv[0], argv[1:]) if argv and not argv[0].startswith("-") else ("run", argv)
    command = COMMANDS[choice(name, COMMANDS, "command")]
    arguments = parse_arguments(command.arguments, options, f"{PROG} {name}", command.arguments())
    check_folder(arguments.figures, "--figures")
    explanation = command.explain(arguments)
    files = [str(path) for path in save_pictures(explanation, arguments, getattr(arguments, "image", None))]
    if arguments.json:
        say(json.dumps({**explanation.values, "files": files}, allow_nan=False), sys.stdout)
    else:
        say("\n".join([_fit(explanation.text), "", "Pictures:", *(f"  {file}" for file in files)]), sys.stdout)
    return 0


def _fit(text: str) -> str:
    """Returns a text with its lines wrapped to the width of the terminal; unchanged if stdout is no terminal."""
    width = find_width()
    if width is None:
        return text
    wrapper = textwrap.TextWrapper(width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(map(wrapper.fill, text.split("\n")))


if __name__ == "__main__":
    run_command(main)
