"""Times the training of the textbook network against other libraries, in one run, side by side.

All that are installed (``pip install -e '.[bench]'``), in ten minutes; two of them, in one; the README's table::

    python -m experiments.benchmark
    python -m experiments.benchmark --contestant cnnjax --contestant torch --steps 50 --repeats 3
    python -m experiments.benchmark --markdown docs/benchmark.md --chart docs/benchmark.png
"""

import json
import platform
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from cnnjax.config import Count, ModelConfig
from cnnjax.console import find_width, run_command, say
from cnnjax.errors import InputError
from cnnjax.processors import count_cores, list_cores
from cnnjax.provenance import describe_source, find_version
from cnnjax.rules import check, choice
from cnnjax.summary import summarize
from cnnjax.tables import Column, Document, Table, write_markdown, write_terminal
from experiments.arguments import parse_arguments
from experiments.contestants.processes import CONTESTANTS, Contestant, Process, measure_dot, started
from experiments.contestants.serving import BATCH

PROG = "python -m experiments.benchmark"
EPOCH = 60_000
PACKAGES = ("cnnjax", "jax", "jaxlib", "flax", "optax", "keras", "tensorflow", "tensorflow-cpu", "torch", "numpy")


@dataclass(frozen=True)
class BenchmarkArguments:
    """Times the training of the textbook network against other libraries."""

    contestant: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME")] = ()
    """cnnjax, flax, keras-tensorflow, keras-jax, torch or torch-channels-last; left out, all that are installed."""
    steps: int = 100
    """Steps of 100 images in a measurement, a multiple of 50."""
    repeats: int = 5
    """Measurements of each, in turn."""
    markdown: Path | None = None
    """File for the table in Markdown."""
    chart: Path | None = None
    """File for a bar chart, such as benchmark.png; needs matplotlib."""
    json: bool = False
    """Print one JSON object with every measurement, and nothing else on stdout."""
    debug: bool = False
    """Show the traceback of an error."""


@dataclass(frozen=True)
class Result:
    """What was measured of a contestant.

    Attributes:
        name: of the contestant.
        device: it trained on.
        start_seconds: from the start of its process to the end of its first step, with what it keeps of earlier ones.
        seconds: of each measurement, one process with all cores or one device.
        pair_seconds: of each measurement of two processes side by side, each with a core of its own and as many steps
            as the one; empty without two cores, or on an accelerator.
        memory: most bytes resident in the one process.
        loss: of its last batch, which shows that it has learnt.
    """

    name: str
    device: str
    start_seconds: float
    seconds: tuple[float, ...]
    pair_seconds: tuple[float, ...]
    memory: int
    loss: float


def main(argv: list[str]) -> int:
    """Runs the command; returns 0."""
    arguments = parse_arguments(BenchmarkArguments, argv, PROG, BenchmarkArguments())
    check(arguments.steps, Count, "--steps")
    if arguments.steps % 50:
        raise InputError(f"--steps={arguments.steps}: must be a multiple of 50")
    check(arguments.repeats, Count, "--repeats")
    contestants = _choose(arguments.contestant)
    for path in filter(None, (arguments.markdown, arguments.chart)):
        if not path.parent.is_dir():
            raise InputError(f"{path}: {path.parent} is no folder")
    results = measure(contestants, arguments.steps, arguments.repeats)
    peak = measure_dot()
    document = describe(results, peak, arguments.steps)
    if arguments.json:
        values = {"machine": describe_machine(), "dot_flops_a_second": peak, "steps": arguments.steps}
        say(json.dumps({**values, "results": [asdict(result) for result in results]}), sys.stdout)
    else:
        say(write_terminal(document, find_width()), sys.stdout)
    if arguments.markdown:
        arguments.markdown.write_text(write_markdown(document) + "\n", encoding="utf-8")
    if arguments.chart:
        draw(results, arguments.steps, arguments.chart)
    return 0


def measure(contestants: list[Contestant], steps: int, repeats: int) -> list[Result]:
    """Measures contestants in turn, again and again, so that what else the machine does meets all of them.

    Args:
        contestants: which are installed.
        steps: of a measurement.
        repeats: measurements of each.

    Raises:
        UnavailableError: one of them cannot train.
    """
    with started(contestants):
        pass  # what a library compiles or caches at its first start is there at the second
    with started(contestants) as alone:
        answers = _repeat(alone, steps, repeats)
        devices = [process.device for (process,) in alone]
        starts = [process.start_seconds for (process,) in alone]
    pairs: list[tuple[float, ...]] = [()] * len(contestants)
    cores = list_cores()[:2]
    if len(cores) == 2 and None not in cores and all(device == "cpu" for device in devices):
        with started(contestants, cores) as beside:
            pairs = [tuple(answer["seconds"] for answer in each) for each in _repeat(beside, steps, repeats)]
    return [
        Result(
            contestant.name,
            device,
            start,
            tuple(answer["seconds"] for answer in each),
            pair,
            max(answer["memory"] for answer in each),
            each[-1]["loss"],
        )
        for contestant, device, start, each, pair in zip(contestants, devices, starts, answers, pairs, strict=True)
    ]


def _repeat(groups: list[list[Process]], steps: int, repeats: int) -> list[list[dict[str, Any]]]:
    """Returns the answers of every group, the seconds being those until all of its processes have answered."""
    answers: list[list[dict[str, Any]]] = [[] for _ in groups]
    for repeat in range(repeats + 1):
        for group, own in zip(groups, answers, strict=True):
            start = time.perf_counter()
            for process in group:
                process.ask(steps)
            last = [process.receive() for process in group][-1]
            if repeat:  # the first compiles
                own.append({**last, "seconds": time.perf_counter() - start})
    return answers


def describe(results: list[Result], peak: float, steps: int) -> Document:
    """Returns the table, the fastest first, with the machine above it."""
    to_epoch = EPOCH / (steps * BATCH)
    ours = next((r for r in results if r.name == "cnnjax"), None)
    layers = summarize(ModelConfig()).layers
    # Backward, every layer has a gradient for its kernel and one for its input, but the images need none.
    flops = 3 * sum(layer.flops for layer in layers) - layers[0].flops
    rows = []
    for result in sorted(results, key=lambda result: statistics.median(result.seconds)):
        epoch = statistics.median(result.seconds) * to_epoch
        pair = statistics.median(result.pair_seconds) * to_epoch / 2 if result.pair_seconds else None
        rows.append(
            (
                result.name,
                epoch,
                f"{min(result.seconds) * to_epoch:.1f}-{max(result.seconds) * to_epoch:.1f}",
                epoch / (statistics.median(ours.seconds) * to_epoch) if ours else None,
                EPOCH / epoch,
                EPOCH * flops / epoch / 1e9,
                100 * EPOCH * flops / epoch / peak,
                pair,
                pair / (statistics.median(ours.pair_seconds) * to_epoch / 2) if pair and ours else None,
                result.start_seconds,
                result.memory / 2**20,
            )
        )
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
    machine = describe_machine()
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    notes = (
        f"medians of {len(results[0].seconds)} measurements of {steps} steps of {BATCH} images, in turn, after "
        "compilation; an epoch is 600 steps",
        f"GFLOP/s: of the direct convolution's {flops / 1e6:.1f} MFLOP an image, forward and backward; dot: "
        f"{peak / 1e9:.0f} GFLOP/s, one lax.dot of 2048x2048 in float32",
        "two processes: side by side, each with one core and one thread, an epoch of both divided by two",
        "start: from the start of the process to the end of its first step, at its second start",
        f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, {versions}, "
        f"commit {machine['commit']}",
    )
    return Document("Training the textbook network", (), (Table(columns, tuple(rows)),), notes)


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


def draw(results: list[Result], steps: int, path: Path) -> None:
    """Draws the seconds an epoch as bars, with the range of the measurements, into a file."""
    from matplotlib.figure import Figure

    to_epoch = EPOCH / (steps * BATCH)
    ordered = sorted(results, key=lambda result: -statistics.median(result.seconds))
    figure = Figure(figsize=(7, 0.5 + 0.55 * len(ordered)), layout="constrained")
    axes = figure.subplots()
    series = [("one process, all cores", 0.2, "#1f4e79", [r.seconds for r in ordered], to_epoch)]
    if all(r.pair_seconds for r in ordered):
        series.append(("two processes, a core each", -0.2, "#e0a030", [r.pair_seconds for r in ordered], to_epoch / 2))
    for label, offset, colour, measured, scale in series:
        medians = [statistics.median(each) * scale for each in measured]
        spread = [
            [m - min(each) * scale for m, each in zip(medians, measured, strict=True)],
            [max(each) * scale - m for m, each in zip(medians, measured, strict=True)],
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
    figure.savefig(path, dpi=150)


def _choose(names: tuple[str, ...]) -> list[Contestant]:
    for name in names:
        choice(name, tuple(CONTESTANTS), "--contestant")
        if not CONTESTANTS[name].is_installed():
            needs = " and ".join(CONTESTANTS[name].needs)
            raise InputError(f"--contestant {name}: needs {needs}; pip install -e '.[bench]'")
    if len(set(names)) < len(names):
        raise InputError(f"--contestant {' '.join(names)}: must each be given once")
    return [each for each in CONTESTANTS.values() if each.name in names or (not names and each.is_installed())]


def _find_processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


if __name__ == "__main__":
    run_command(main)
