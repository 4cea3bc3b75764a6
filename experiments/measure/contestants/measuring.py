"""Contestants measured in turn, again and again, so that what else the machine does meets all alike; and the tables."""

import contextlib
import importlib.util
import io
import json
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cnnjax.console.tables import Column, Document, Table
from cnnjax.errors import UnavailableError
from cnnjax.machine.processes import count_cores, list_cores, python_command, python_environment
from cnnjax.models.cnn import ModelConfig
from cnnjax.models.table import summarize
from cnnjax.runs.provenance import describe_source, find_version
from cnnjax.runs.store import Store
from experiments.measure.contestants import FILTERS, PADDINGS, WINDOWS, TrialQueue, list_trials
from experiments.measure.contestants.serving import BATCH


@dataclass(frozen=True)
class Contestant:
    """A library, or a way of using it.

    Attributes:
        name: as the table shows it.
        module: of this package, which is run.
        needs: packages that must be installed.
        options: for the module.
        environment: beyond that of this process.
    """

    name: str
    module: str
    needs: tuple[str, ...]
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def is_installed(self) -> bool:
        """Whether all packages are there."""
        return all(importlib.util.find_spec(package) for package in self.needs)


CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        Contestant("cnnjax", "cnnjax_network", ("cnnjax",)),
        Contestant("flax", "flax_network", ("flax",)),
        Contestant(
            "keras-tensorflow", "keras_network", ("keras", "tensorflow"), environment={"KERAS_BACKEND": "tensorflow"}
        ),
        Contestant("keras-jax", "keras_network", ("keras",), environment={"KERAS_BACKEND": "jax"}),
        Contestant("torch", "torch_network", ("torch",)),
        Contestant("torch-channels-last", "torch_network", ("torch",), ("--channels-last",)),
    )
}


class Process:
    """A contestant's process, ready to train.

    Args:
        contestant: whose.
        core: the only one to run on, with one thread; ``None`` leaves it all of them.

    Attributes:
        device: what it trains on.
        start_seconds: from the start of the process to the end of its first step.

    Raises:
        UnavailableError: it cannot start; its last words are told.
    """

    def __init__(self, contestant: Contestant, core: int | None = None) -> None:
        self.name = contestant.name
        words = _make_command(contestant, core)
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        start = time.perf_counter()
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**python_environment(), **contestant.environment},
        )
        try:
            self.device: str = self.receive()["device"]
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.perf_counter() - start

    def ask(self, steps: int) -> None:
        """Has it begin that many steps."""
        assert self._process.stdin
        print(steps, file=self._process.stdin, flush=True)

    def receive(self) -> dict[str, Any]:
        """Waits for its answer."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise UnavailableError(f"{self.name} has ended: {_find_last_line(self._log.read())}")
        return json.loads(line)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.communicate()
        self._log.close()


@contextlib.contextmanager
def started(contestants: Sequence[Contestant], cores: Sequence[int | None] = (None,)) -> Iterator[list[list[Process]]]:
    """Starts a process on each of the cores for every contestant, one after the other, and ends them all."""
    with contextlib.ExitStack() as stack:
        yield [
            [stack.enter_context(contextlib.closing(Process(contestant, core))) for core in cores]
            for contestant in contestants
        ]


def run_trials(contestant: Contestant, steps: int, seeds: int, cores: Sequence[int | None]) -> list[float]:
    """Has a contestant train the grid of `networks.list_trials`, a process on each core; returns the accuracies.

    Raises:
        UnavailableError: a process has ended badly.
    """
    queue = TrialQueue(seeds)
    running: list[subprocess.Popen[str]] = []
    with tempfile.TemporaryDirectory() as cache, ThreadPoolExecutor(len(cores)) as pool:
        environment = {**python_environment(), **contestant.environment, "JAX_COMPILATION_CACHE_DIR": cache}
        taking = [pool.submit(_run_queue, contestant, core, steps, queue, environment, running) for core in cores]
        try:
            return [accuracy for future in taking for accuracy in future.result()]
        except BaseException:
            for process in running:
                process.kill()
            raise


def _run_queue(
    contestant: Contestant,
    core: int | None,
    steps: int,
    queue: TrialQueue,
    environment: dict[str, str],
    running: list[subprocess.Popen[str]],
) -> list[float]:
    """Has one process, added to those `running`, train what it takes from the queue; returns the accuracies."""
    words = [*_make_command(contestant, core), "--grid", str(steps)]
    accuracies: list[float] = []
    with tempfile.TemporaryFile("w+") as log:
        with subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        ) as process:
            running.append(process)
            assert process.stdin
            assert process.stdout
            trial = queue.take(None)
            with contextlib.suppress(BrokenPipeError):  # of one that has ended, whose exit code tells
                while trial:
                    network, seed = trial
                    print(json.dumps({**asdict(network), "seed": seed}), file=process.stdin, flush=True)
                    line = process.stdout.readline()
                    if not line:
                        break
                    accuracies.append(json.loads(line)["accuracy"])
                    trial = queue.take(network)
                process.stdin.close()
        if process.returncode:
            log.seek(0)
            raise UnavailableError(f"{contestant.name} has ended: {_find_last_line(log.read())}")
    return accuracies


def run_grid(images: int, seeds: int, workers: int) -> list[float]:
    """Has cnnjax train the same grid as a user would, by one command; returns the accuracies.

    Raises:
        UnavailableError: the command has ended badly.
    """
    axes = {"model.filters": FILTERS, "model.kernel_size": WINDOWS, "model.padding": PADDINGS}
    with tempfile.TemporaryDirectory() as folder:
        words = python_command("-m", "ablations.run", "--quiet", "--out", folder, "--seeds", str(seeds))
        words += ["--workers", str(workers)]
        for name, levels in axes.items():
            words += ["--axis", f"{name}={','.join(map(_write, levels))}"]
        words += ["--set", "train.epochs=1", "--set", f"data.train_size={images}"]
        environment = {**python_environment(), "JAX_COMPILATION_CACHE_DIR": f"{folder}/programs"}
        result = subprocess.run(words, capture_output=True, text=True, env=environment)
        if result.returncode:
            raise UnavailableError(f"cnnjax has ended: {_find_last_line(result.stderr)}")
        accuracies = [record.test_accuracy for record in Store(folder).find_all().values()]
    return [accuracy for accuracy in accuracies if accuracy is not None]


def _find_last_line(log: str) -> str:
    return (log.strip().splitlines() or ["without a word"])[-1]


def _write(level: object) -> str:
    return f"[{','.join(map(str, level))}]" if isinstance(level, tuple) else str(level)


def _make_command(contestant: Contestant, core: int | None) -> list[str]:
    words = python_command("-m", f"experiments.measure.contestants.{contestant.module}", *contestant.options)
    return words if core is None else [*words, "--core", str(core)]


def measure_dot() -> float:
    """Returns the floating-point operations a second of a large matrix product in JAX, in a process of its own."""
    words, environment = python_command("-m", "experiments.measure.contestants.dot_peak"), python_environment()
    result = subprocess.run(words, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    return float(json.loads(result.stdout))


EPOCH = 60_000
"""Images."""


@dataclass(frozen=True)
class Result:
    """What was measured of a contestant.

    Attributes:
        name: of the contestant.
        device: it trained on.
        start_seconds: from the start of its process to the end of its first step, with what it keeps of earlier ones.
        epochs: seconds an epoch, of each measurement, in one process with all cores or one device.
        pair_epochs: seconds an epoch of each measurement of two processes side by side, each with a core of its own;
            an epoch of both counts as two. Empty without two cores, or on an accelerator.
        memory: most bytes resident in the one process.
        loss: of its last batch, which shows that it has learnt.
    """

    name: str
    device: str
    start_seconds: float
    epochs: tuple[float, ...]
    pair_epochs: tuple[float, ...]
    memory: int
    loss: float


@dataclass(frozen=True)
class GridResult:
    """What was measured of a contestant's grid.

    Attributes:
        name: of the contestant.
        seconds: from its start to its last result, of each measurement.
        trials: how many there were.
        accuracy: mean over all trials on the test set.
    """

    name: str
    seconds: tuple[float, ...]
    trials: int
    accuracy: float


def measure(contestants: Sequence[Contestant], steps: int, repeats: int) -> list[Result]:
    """Measures the training of one network.

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
    pairs: list[list[dict[str, Any]]] = [[] for _ in contestants]
    cores = _find_pair()
    if cores and all(device == "cpu" for device in devices):
        with started(contestants, cores) as beside:
            pairs = _repeat(beside, steps, repeats)
    to_epoch = EPOCH / (steps * BATCH)
    return [
        Result(
            contestant.name,
            device,
            start,
            tuple(answer["seconds"] * to_epoch for answer in each),
            tuple(answer["seconds"] * to_epoch / 2 for answer in pair),
            max(answer["memory"] for answer in each),
            each[-1]["loss"],
        )
        for contestant, device, start, each, pair in zip(contestants, devices, starts, answers, pairs, strict=True)
    ]


def measure_grids(
    contestants: Sequence[Contestant], images: int, seeds: int, repeats: int, on_cpu: bool
) -> list[GridResult]:
    """Measures a grid of twelve networks: cnnjax's by its own command, the others' in a loop in as many processes.

    Args:
        contestants: which are installed.
        images: that each trial trains on, once; a multiple of 100.
        seeds: of each network.
        repeats: measurements of each.
        on_cpu: a process on each of two cores; otherwise one process has the device.

    Raises:
        UnavailableError: one of them cannot train.
    """
    cores: Sequence[int | None] = (on_cpu and _find_pair()) or (None,)
    seconds: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
    accuracies: dict[str, float] = {}
    trials = len(list_trials(seeds))
    for _ in range(repeats):
        for contestant in contestants:
            start = time.perf_counter()
            if contestant.name == "cnnjax":
                found = run_grid(images, seeds, len(cores))
            else:
                found = run_trials(contestant, images // BATCH, seeds, cores)
            seconds[contestant.name].append(time.perf_counter() - start)
            if len(found) != trials:
                raise UnavailableError(f"{contestant.name} has results of {len(found)} of {trials} trials")
            accuracies[contestant.name] = sum(found) / trials
    return [GridResult(name, tuple(own), trials, accuracies[name]) for name, own in seconds.items()]


def _find_pair() -> Sequence[int]:
    """Returns two cores, where there are two that a process can be pinned to."""
    cores = [core for core in list_cores() if core is not None][:2]
    return cores if len(cores) == 2 else ()


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
