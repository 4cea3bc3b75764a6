"""Times convolutions, poolings and batch normalisation on one core: the measurements behind the rules that choose.

The default takes about five minutes, the second command two minutes::

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
from typing import Annotated, Any

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
    (34, 16, 16, 3, 1),
    (34, 64, 64, 3, 1),
    (18, 64, 128, 3, 1),
    (18, 128, 128, 3, 1),
    (33, 16, 32, 3, 2),
    (33, 64, 128, 3, 2),
    (17, 64, 128, 3, 2),
    (9, 128, 256, 3, 2),
    (32, 64, 128, 5, 1),
)
MAPS = ((32, 16), (32, 64), (16, 128))
"""Height and width, and channels of the feature maps that are pooled and normalised."""


@dataclass(frozen=True)
class ConvolutionsArguments:
    """Times convolutions, poolings and batch normalisation on one core, with their gradients, in milliseconds::

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
        from cnnjax.layers import custom_calls

        native = custom_calls.describe()
        convolutions = [_measure_shape(shape, arguments, bool(native)) for shape in SHAPES]
        others = [row for size, channels in MAPS for row in _measure_maps(size, channels, arguments)] if native else []
    document = Document(
        "Layers forward and backward",
        (f"{arguments.batch} images", f"medians of {arguments.repeats}", "one core, milliseconds"),
        (
            Table(
                (
                    *(Column(heading, right=True) for heading in ("image", "channels", "filters", "window", "stride")),
                    *(Column(name, ".2f", True) for name in ALGORITHMS),
                    Column("saved", ".2f", True),
                    Column("chosen"),
                ),
                tuple(convolutions),
                "Outputs and both gradients of a convolution, float32 unless bfloat16",
            ),
            Table(
                (
                    Column("layer"),
                    *(Column(heading, right=True) for heading in ("image", "channels")),
                    *(Column(f"{by}, {dtype}", ".2f", True) for dtype in DTYPES for by in ("XLA", "cnnjax")),
                ),
                tuple(others),
                "Outputs and gradient of other layers, by XLA and in C++",
            ),
        )[: 2 if others else 1],
        (
            "saved: how many times fewer multiplications tiles take than the definition",
            "tiles in C++: for windows of 3x3, and multiples of 16 channels and filters",
            f"oneDNN: {native}" if native else f"oneDNN: {custom_calls.explain_missing()}",
            machine,
        ),
    )
    say(write_terminal(document, find_width()), sys.stdout)
    if markdown:
        replace_file(markdown, write_markdown(document) + "\n", "--markdown")
    return 0


TILES = "tiles in C++"
ALGORITHMS = ("xla", "patches", "tiles", TILES, "oneDNN", "oneDNN bfloat16")
DTYPES = ("float32", "bfloat16")


def _measure_shape(
    shape: tuple[int, int, int, int, int], arguments: ConvolutionsArguments, has_onednn: bool
) -> tuple[Any, ...]:
    import jax.numpy as jnp

    from cnnjax.layers import convolve, custom_calls, onednn
    from cnnjax.layers.convolution import choose_plan, count_saved
    from cnnjax.layers.custom_calls import Window
    from cnnjax.layers.general import is_faster_in_jax, is_faster_tiled

    size, channels, filters, taps, stride = shape
    strides, batch = (stride, stride), arguments.batch
    images, kernel = jnp.ones((size, size, batch, channels)), jnp.ones((taps, taps, channels, filters))
    first, window = images.transpose(2, 0, 1, 3), Window(strides, ((0, 0), (0, 0)), (1, 1))

    def measure(name: str) -> float | None:
        if name in (TILES, "oneDNN", "oneDNN bfloat16"):
            dtype = "bfloat16" if name.endswith("bfloat16") else "float32"
            operands = (first.astype(dtype), kernel.astype(dtype))
            if not has_onednn or (name == TILES and not custom_calls.can_tile(first, kernel, window)):
                return None
            run = _make_pass(lambda x, w: onednn.convolve(x, w, window._replace(tiled=name == TILES)), *operands)
            return _time(run, operands, arguments.repeats)
        if name == "tiles" and stride > 1:
            return None
        run = _make_pass(lambda x, w: convolve(x, w, strides, algorithm=name), images, kernel)  # type: ignore[arg-type]
        return _time(run, (images, kernel), arguments.repeats)

    in_jax: str = choose_plan(images, kernel, strides).outputs
    native = TILES if is_faster_tiled(first, kernel, window) else "oneDNN"
    is_in_jax = not has_onednn or is_faster_in_jax(first, kernel, window)
    saved = count_saved(images, kernel) if stride == 1 else None
    return (*shape, *map(measure, ALGORITHMS), saved, in_jax if is_in_jax else native)


def _measure_maps(size: int, channels: int, arguments: ConvolutionsArguments) -> list[tuple[Any, ...]]:
    """Returns the rows of the pooling and normalisation of feature maps."""
    import flax.linen as nn
    import jax.numpy as jnp

    from cnnjax.layers import use_fast_layers

    def normalize(x: Any, scale: Any) -> Any:
        layer = nn.BatchNorm(use_running_average=False, dtype=x.dtype)
        variables = {
            "params": {"scale": scale, "bias": jnp.zeros(channels)},
            "batch_stats": {"mean": jnp.zeros(channels), "var": jnp.ones(channels)},
        }
        return layer.apply(variables, x, mutable=["batch_stats"])[0]

    layers: dict[str, Callable[[Any, Any], Any]] = {
        "max-pooling 2x2": lambda x, _: nn.max_pool(x, (2, 2), (2, 2)),
        "max-pooling 3x3 at 2": lambda x, _: nn.max_pool(x, (3, 3), (2, 2)),
        "average pooling 3x3 at 2": lambda x, _: nn.avg_pool(x, (3, 3), (2, 2)),
        "batch normalisation": normalize,
    }
    rows = []
    for name, layer in layers.items():
        times = []
        for dtype in DTYPES:
            operands = jnp.ones((arguments.batch, size, size, channels), dtype), jnp.ones(channels)
            for function in (layer, use_fast_layers(layer)):
                times.append(_time(_make_pass(function, *operands), operands, arguments.repeats))
        rows.append((name, size, channels, *times))
    return rows


def _make_pass(layer: Callable[[Any, Any], Any], *operands: Any) -> Callable[..., Any]:
    """Compiles a layer with its gradients."""
    import jax

    from cnnjax.machine.compilation import compile_program

    def run(*operands: Any) -> Any:
        outputs, pull_back = jax.vjp(layer, *operands)
        return pull_back(outputs)

    return compile_program(run, *operands)


def _time(function: Callable[..., Any], operands: tuple[Any, ...], repeats: int) -> float:
    """Returns the median time of a call in milliseconds, without the first call."""
    import jax

    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(function(*operands))
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds[1:])


if __name__ == "__main__":
    run_command(main)
