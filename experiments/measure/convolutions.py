"""Times the convolution algorithms on one core, for many shapes: the measurements behind the rule that chooses one.

The default takes about two minutes, the second command half a minute::

    python -m experiments.measure.convolutions
    python -m experiments.measure.convolutions --batch 25 --repeats 3
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

from cnnjax.console.arguments import ADVANCED, parse_arguments
from cnnjax.console.tables import Column, Document, Table, write_markdown, write_terminal
from cnnjax.console.terminal import find_width, run_command, say
from cnnjax.machine.backend import jax_started
from cnnjax.machine.files import check_output, replace_file
from cnnjax.settings.checking import Count, check
from experiments.measure.contestants.machine import write_machine

PROG = "python -m experiments.measure.convolutions"
SHAPES = (
    # size, channels, filters, window, stride
    (28, 1, 32, 5, 1),
    (28, 3, 32, 3, 1),
    (12, 8, 16, 5, 1),
    (12, 16, 32, 5, 1),
    (12, 32, 64, 5, 1),
    (12, 32, 64, 5, 2),
    (14, 32, 64, 3, 1),
    (14, 8, 16, 3, 1),
    (14, 32, 64, 2, 1),
    (14, 32, 64, 1, 1),
    (9, 32, 64, 7, 1),
    (5, 64, 64, 3, 1),
    (28, 4, 8, 5, 1),
    (28, 8, 8, 3, 1),
    (16, 16, 16, 2, 1),
    (6, 64, 64, 2, 1),
    (9, 8, 8, 7, 1),
    (13, 16, 16, 7, 1),
)


@dataclass(frozen=True)
class ConvolutionsArguments:
    """Times the convolution algorithms on one core: outputs and both gradients, in milliseconds::

    python -m experiments.measure.convolutions --batch 25 --repeats 3
    """

    batch: int = 50
    """Images in a batch."""
    repeats: int = 7
    """Measurements of each algorithm and shape; the median is shown."""
    markdown: Path | None = None
    """File for the table in Markdown."""
    debug: Annotated[bool, ADVANCED] = False
    """Show the traceback of an error."""


def main(argv: list[str]) -> int:
    """Runs the command; returns 0."""
    arguments = parse_arguments(ConvolutionsArguments, argv, PROG, ConvolutionsArguments())
    check(arguments.batch, Count, "--batch")
    check(arguments.repeats, Count, "--repeats")
    markdown = arguments.markdown and check_output(arguments.markdown, "--markdown")
    machine = write_machine("cpu")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with jax_started():
        from cnnjax.layers.convolution import Algorithm

        names = get_args(Algorithm)
        rows = [_measure_shape(shape, names, arguments.batch, arguments.repeats) for shape in SHAPES]
    columns = (
        *(Column(heading, right=True) for heading in ("image", "channels", "filters", "window", "stride")),
        *(Column(f"{name} ms", ".2f", True) for name in names),
        Column("saved", ".2f", True),
        Column("chosen"),
    )
    facts = (f"{arguments.batch} images", f"medians of {arguments.repeats}", "one core, float32")
    notes = ("saved: how many times fewer multiplications tiles take than the definition", machine)
    document = Document("Outputs and both gradients of a convolution", facts, (Table(columns, tuple(rows)),), notes)
    say(write_terminal(document, find_width()), sys.stdout)
    if markdown:
        replace_file(markdown, write_markdown(document) + "\n", "--markdown")
    return 0


def _measure_shape(
    shape: tuple[int, int, int, int, int], names: tuple[str, ...], batch: int, repeats: int
) -> tuple[Any, ...]:
    import jax.numpy as jnp

    from cnnjax.layers.convolution import choose_plan, count_saved

    size, channels, filters, window, stride = shape
    images, kernel = jnp.ones((size, size, batch, channels)), jnp.ones((window, window, channels, filters))
    times = [
        None
        if name == "tiles" and stride > 1
        else _time(_make_pass(name, stride, images, kernel), images, kernel, repeats)
        for name in names
    ]
    saved = count_saved(images, kernel) if stride == 1 else None
    return (*shape, *times, saved, choose_plan(images, kernel, (stride, stride)).outputs)


def _make_pass(algorithm: str, stride: int, images: Any, kernel: Any) -> Callable[..., Any]:
    import jax

    from cnnjax.layers.convolution import convolve
    from cnnjax.machine.compilation import compile_program

    def run(images: Any, kernel: Any) -> Any:
        outputs, pull_back = jax.vjp(
            lambda x, w: convolve(x, w, (stride, stride), algorithm=algorithm),  # type: ignore[arg-type]
            images,
            kernel,
        )
        return pull_back(outputs)

    return compile_program(run, images, kernel)


def _time(function: Callable[..., Any], images: Any, kernel: Any, repeats: int) -> float:
    """Returns the median time of a call in milliseconds, without the first call."""
    import jax

    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(function(images, kernel))
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds[1:])


if __name__ == "__main__":
    run_command(main)
