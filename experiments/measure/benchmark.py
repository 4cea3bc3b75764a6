"""Times the training of networks in cnnjax and in other libraries, side by side in one run.

All installed libraries (``pip install -e '.[bench]'``) take ten minutes for the textbook network, and two of them one
minute. All networks in both precisions take hours; a grid of twelve networks with five seeds each, half an hour::

    python -m experiments.measure.benchmark
    python -m experiments.measure.benchmark --contestant cnnjax --contestant torch --steps 50 --repeats 3
    python -m experiments.measure.benchmark --network vgg --network resnet20 --precision float32 --precision bfloat16
    python -m experiments.measure.benchmark --grid 12000 --contestant cnnjax --contestant torch-channels-last
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from cnnjax.console.arguments import ADVANCED, Option, parse_arguments
from cnnjax.console.tables import write_markdown, write_terminal
from cnnjax.console.terminal import find_width, run_command, say
from cnnjax.errors import InputError, UnavailableError
from cnnjax.machine.files import check_output, replace_file
from cnnjax.settings.checking import Count, Interval, check, choice
from experiments.measure.contestants.grids import GridResult, measure_grids
from experiments.measure.contestants.machine import describe_machine, measure_dot
from experiments.measure.contestants.measuring import CONTESTANTS, Case, Contestant, Failure, Measuring, Plan, Result
from experiments.measure.contestants.networks import GREY, NETWORKS, TEXTBOOK
from experiments.measure.contestants.report import OURS, PRECISIONS, describe, draw
from experiments.measure.contestants.serving import BATCH, MNIST, NOISE

PROG = "python -m experiments.measure.benchmark"
ALL = "all"


@dataclass(frozen=True)
class BenchmarkArguments:
    """Times the training of networks against other libraries::

    python -m experiments.measure.benchmark
    python -m experiments.measure.benchmark --network vgg --precision bfloat16
    """

    network: Annotated[tuple[str, ...], Option(metavar="NAME")] = (TEXTBOOK.name,)
    """textbook, tutorial, vgg, wide, strided, average, separable, resnet20, or all. May be repeated."""
    precision: Annotated[tuple[str, ...], Option(metavar="NAME")] = ("float32",)
    """float32 or bfloat16: arithmetic of the layers. May be repeated."""
    contestant: Annotated[tuple[str, ...], Option(metavar="NAME")] = ()
    """cnnjax, flax, keras-tensorflow, keras-jax, torch, torch-channels-last or torch-compiled; by default all that are
    installed."""
    steps: int = 100
    """Steps of 100 images per measurement, a multiple of 50."""
    seconds: float = 10.0
    """Longest measurement; slower contestants make fewer steps."""
    repeats: int = 5
    """Measurements of each contestant; the contestants take turns."""
    grid: int | None = None
    """Also time a grid of twelve networks, each trained on this number of images, a multiple of 100."""
    grid_contestant: Annotated[tuple[str, ...], Option(metavar="NAME")] = ()
    """A contestant that runs the grid. May be repeated; by default all contestants."""
    grid_seeds: int = 5
    """Seeds of each network of the grid."""
    grid_repeats: int = 1
    """Measurements of the grid of each contestant; the contestants take turns."""
    markdown: Path | None = None
    """File for the tables in Markdown."""
    chart: Path | None = None
    """File for a chart, such as benchmark.png."""
    json: bool = False
    """Print one JSON object with every measurement, and nothing else on stdout."""
    debug: Annotated[bool, ADVANCED] = False
    """Show the traceback of an error."""


def main(argv: list[str]) -> int:
    """Runs the command; returns 0."""
    arguments = parse_arguments(BenchmarkArguments, argv, PROG, BenchmarkArguments())
    cases, contestants = _check(arguments)
    markdown = arguments.markdown and check_output(arguments.markdown, "--markdown")
    chart = arguments.chart and check_output(arguments.chart, "--chart")
    measured = Measured([], [], [], measure_dot())
    try:
        _measure(measured, contestants, cases, Plan(arguments.steps, arguments.seconds, arguments.repeats))
        measured.peak = max(measured.peak, measure_dot())  # other load only slows it, so the faster one is closer
        if arguments.grid:
            chosen = _choose_grid(contestants, arguments)
            sizes = (arguments.grid, arguments.grid_seeds, arguments.grid_repeats)
            measured.grids += measure_grids(chosen, *sizes, measured.are_on_cpu)
    finally:  # after an interruption too, as a benchmark may take hours
        if measured.results:
            _write(arguments, measured, markdown, chart)
    return 0


@dataclass
class Measured:
    """What has been measured so far; peak is in floating-point operations per second."""

    results: list[Result]
    failures: list[Failure]
    grids: list[GridResult]
    peak: float

    @property
    def are_on_cpu(self) -> bool:
        """Whether all results are of a CPU."""
        return all(result.device == "cpu" for result in self.results)


def _measure(measured: Measured, contestants: Sequence[Contestant], cases: Sequence[Case], plan: Plan) -> None:
    """Adds the measurements of all cases, and those that failed.

    Raises:
        UnavailableError: nothing could be measured.
    """
    for number, case in enumerate(cases, 1):
        if len(cases) > 1:
            say(f"{case} ({number} of {len(cases)})", sys.stderr)
        measuring = Measuring(contestants, case, plan)
        measured.results += measuring.run()
        measured.failures += measuring.failures
    if not measured.results:
        raise UnavailableError(measured.failures[0].reason)


def _write(arguments: BenchmarkArguments, measured: Measured, markdown: Path | None, chart: Path | None) -> None:
    method = _describe_method(arguments, measured.are_on_cpu)
    document = describe(measured.results, measured.grids, measured.failures, method, measured.peak)
    if arguments.json:
        values = {"machine": describe_machine(), "dot_flops_a_second": measured.peak}
        lists = {name: [*map(asdict, getattr(measured, name))] for name in ("failures", "grids", "results")}
        say(json.dumps({**values, **lists}), sys.stdout)
    else:
        say(write_terminal(document, find_width()), sys.stdout)
    if markdown:
        replace_file(markdown, write_markdown(document) + "\n", "--markdown")
    if chart:
        replace_file(chart, draw(measured.results), "--chart")


def _check(arguments: BenchmarkArguments) -> tuple[list[Case], list[Contestant]]:
    """Checks the arguments; returns what is trained, and the contestants."""
    for name in arguments.network:
        choice(name, (*NETWORKS, ALL), "--network")
    for name in arguments.precision:
        choice(name, PRECISIONS, "--precision")
    networks = [each for each in NETWORKS.values() if {each.name, ALL} & {*arguments.network}]
    check(arguments.steps, Count, "--steps")
    if arguments.steps % 50:
        raise InputError(f"--steps={arguments.steps}: must be a multiple of 50")
    most = min(MNIST if network.image_shape == GREY else NOISE for network in networks) // BATCH
    if arguments.steps > most:
        raise InputError(f"--steps={arguments.steps}: must be <= {most}, the steps of an epoch")
    check(arguments.seconds, Annotated[float, Interval(0, open_low=True)], "--seconds")
    check(arguments.repeats, Count, "--repeats")
    check(arguments.grid, Count | None, "--grid")
    if arguments.grid and (arguments.grid % BATCH or arguments.grid > MNIST):
        raise InputError(f"--grid={arguments.grid}: must be a multiple of {BATCH} and <= {MNIST}")
    check(arguments.grid_seeds, Count, "--grid-seeds")
    check(arguments.grid_repeats, Count, "--grid-repeats")
    if arguments.grid_contestant and not arguments.grid:
        raise InputError(f"--grid-contestant {arguments.grid_contestant[0]}: needs --grid IMAGES")
    contestants = _choose(arguments.contestant)
    _choose_grid(contestants, arguments)
    precisions = [each for each in PRECISIONS if each in arguments.precision]
    cases = [Case(network, precision) for network in networks for precision in precisions]
    names = {contestant.name for contestant in contestants}
    if arguments.chart and Case() not in cases and (OURS not in names or len(names) < 2):
        raise InputError("--chart: needs cnnjax and another contestant, or the textbook network in float32")
    return cases, contestants


def _choose_grid(contestants: Sequence[Contestant], arguments: BenchmarkArguments) -> list[Contestant]:
    """Returns the contestants that run the grid."""
    for name in arguments.grid_contestant:
        choice(name, [contestant.name for contestant in contestants], "--grid-contestant")
    names = arguments.grid_contestant or [contestant.name for contestant in contestants]
    return [contestant for contestant in contestants if contestant.name in names]


def _describe_method(arguments: BenchmarkArguments, on_cpu: bool) -> Sequence[str]:
    lines = [
        f"medians of {arguments.repeats} measurements of {arguments.steps} steps of {BATCH} images, or of as many as "
        f"fit in {arguments.seconds:g} s, in turn, after compilation; an epoch is {MNIST // BATCH} steps"
    ]
    if arguments.grid:
        where = "two processes, each with one core" if on_cpu else "one process"
        lines.append(
            f"grid: 12 networks x {arguments.grid_seeds} seeds, each trained on {arguments.grid:,} images and tested "
            f"on 10,000, from the start of the command to its last result, everything compiled anew; the others in "
            f"{where}; medians of {arguments.grid_repeats}; libraries begin with other weights, which after so few "
            "steps shows in the accuracy"
        )
    return lines


def _choose(names: tuple[str, ...]) -> list[Contestant]:
    for name in names:
        choice(name, tuple(CONTESTANTS), "--contestant")
        if not CONTESTANTS[name].is_installed():
            needs = " and ".join(CONTESTANTS[name].needs)
            raise InputError(f"--contestant {name}: needs {needs}; pip install -e '.[bench]'")
    if len(set(names)) < len(names):
        raise InputError(f"--contestant {' '.join(names)}: must each be given once")
    return [each for each in CONTESTANTS.values() if each.name in names or (not names and each.is_installed())]


if __name__ == "__main__":
    run_command(main)
