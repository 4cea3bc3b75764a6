"""What the benchmark says of its measurements: tables with the machine below them, and a bar chart."""

import io
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnnjax.config import ModelConfig
from cnnjax.processors import count_cores
from cnnjax.provenance import describe_source, find_version
from cnnjax.summary import summarize
from cnnjax.tables import Column, Document, Table
from experiments.contestants.measuring import EPOCH, GridResult, Result

PACKAGES = ("cnnjax", "jax", "jaxlib", "flax", "optax", "keras", "tensorflow", "tensorflow-cpu", "torch", "numpy")


def describe(results: Sequence[Result], grids: Sequence[GridResult], notes: Sequence[str], peak: float) -> Document:
    """Returns the tables, the fastest first, with the machine below them.

    Args:
        results: of one network.
        grids: of the grid; none where it was not measured.
        notes: how it was measured, a line each.
        peak: floating-point operations a second of one large matrix product.
    """
    flops = count_flops()
    remarks = (
        *notes,
        f"GFLOP/s: of the direct convolution's {flops / 1e6:.1f} MFLOP an image, forward and backward; dot: "
        f"{peak / 1e9:.0f} GFLOP/s, one lax.dot of 2048x2048 in float32",
        "two processes: side by side, each with one core and one thread, an epoch of both divided by two",
        "start: from the start of the process to the end of its first step, at its second start",
        write_machine(results[0].device),
    )
    tables = [_tabulate(results, flops, peak)] + ([_tabulate_grids(grids)] if grids else [])
    return Document("Training the textbook network", (), tuple(tables), remarks)


def count_flops() -> int:
    """Returns the floating-point operations of the textbook network an image, forward and backward."""
    layers = summarize(ModelConfig()).layers
    # Backward, every layer has a gradient for its kernel and one for its input, but the images need none.
    return 3 * sum(layer.flops for layer in layers) - layers[0].flops


def write_machine(device: str) -> str:
    """Returns a line: the machine, the versions of what is installed, and the commit."""
    machine = describe_machine()
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, {device}, Python {machine['python']}, {versions}, "
        f"commit {machine['commit']}"
    )


def describe_machine() -> dict[str, Any]:
    """Returns JSON values: processor, cores, and versions of what is installed."""
    source = describe_source()
    commit = (source["commit"] or "unknown")[:12] + (" with changes" if source["dirty"] else "")
    return {
        "processor": _find_processor(),
        "cores": count_cores(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := find_version(name))},
        "commit": commit,
    }


def draw(results: Sequence[Result]) -> bytes:
    """Returns a PNG with the seconds an epoch as bars, and the range of the measurements."""
    from matplotlib.figure import Figure

    ordered = sorted(results, key=lambda result: -statistics.median(result.epochs))
    figure = Figure(figsize=(7, 0.5 + 0.55 * len(ordered)), layout="constrained")
    axes = figure.subplots()
    series = [("one process, all cores", 0.2, "#1f4e79", [r.epochs for r in ordered])]
    if all(r.pair_epochs for r in ordered):
        series.append(("two processes, a core each", -0.2, "#e0a030", [r.pair_epochs for r in ordered]))
    for label, offset, colour, measured in series:
        medians = [statistics.median(each) for each in measured]
        spread = [
            [median - min(each) for median, each in zip(medians, measured, strict=True)],
            [max(each) - median for median, each in zip(medians, measured, strict=True)],
        ]
        places = [place + offset for place in range(len(ordered))]
        axes.barh(places, medians, 0.36, xerr=spread, color=colour, label=label, error_kw={"capsize": 2})
        for place, median, more in zip(places, medians, spread[1], strict=True):
            axes.text(median + more, place, f"  {median:.1f}", va="center", fontsize=8)
    axes.set_yticks(range(len(ordered)), [r.name for r in ordered])
    axes.set_xlabel("seconds an epoch of 60,000 images (less is better)")
    axes.margins(x=0.12)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=150, format="png")
    return picture.getvalue()


def _tabulate(results: Sequence[Result], flops: int, peak: float) -> Table:
    columns = (
        Column("contestant"),
        Column("s/epoch", ".2f", True),
        Column("range", right=True),
        Column("to cnnjax", ".2f", True),
        Column("images/s", ",.0f", True),
        Column("GFLOP/s", ".0f", True),
        Column("% of dot", ".0f", True),
        Column("two processes: s/epoch", ".2f", True),
        Column("to cnnjax", ".2f", True),
        Column("start s", ".1f", True),
        Column("peak MiB", ",.0f", True),
    )
    rows = []
    for result in sorted(results, key=lambda result: statistics.median(result.epochs)):
        epoch = statistics.median(result.epochs)
        pair = statistics.median(result.pair_epochs) if result.pair_epochs else None
        rows.append(
            (
                result.name,
                epoch,
                f"{min(result.epochs):.1f}-{max(result.epochs):.1f}",
                _compare(epoch, [r.epochs for r in results if r.name == "cnnjax"]),
                EPOCH / epoch,
                EPOCH * flops / epoch / 1e9,
                100 * EPOCH * flops / epoch / peak,
                pair,
                None if pair is None else _compare(pair, [r.pair_epochs for r in results if r.name == "cnnjax"]),
                result.start_seconds,
                result.memory / 2**20,
            )
        )
    return Table(columns, tuple(rows))


def _tabulate_grids(grids: Sequence[GridResult]) -> Table:
    columns = (
        Column("contestant"),
        Column("grid: s", ",.0f", True),
        Column("range", right=True),
        Column("to cnnjax", ".2f", True),
        Column("trials/hour", ",.0f", True),
        Column("mean accuracy", ".4f", True),
    )
    rows = []
    for grid in sorted(grids, key=lambda grid: statistics.median(grid.seconds)):
        seconds = statistics.median(grid.seconds)
        rows.append(
            (
                grid.name,
                seconds,
                f"{min(grid.seconds):,.0f}-{max(grid.seconds):,.0f}",
                _compare(seconds, [g.seconds for g in grids if g.name == "cnnjax"]),
                3600 * grid.trials / seconds,
                grid.accuracy,
            )
        )
    return Table(columns, tuple(rows))


def _compare(seconds: float, ours: Sequence[Sequence[float]]) -> float | None:
    """Returns how many times as long as cnnjax's median something took; ``None`` where that was not measured."""
    return seconds / statistics.median(ours[0]) if ours else None


def _find_processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
