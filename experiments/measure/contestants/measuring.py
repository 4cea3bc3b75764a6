"""Measures contestants in turn, many times, so that other load on the machine affects all alike; makes the tables."""

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
        name: name in the tables.
        module: module of this package that is run.
        needs: packages that must be installed.
        options: command-line options of the module.
        environment: additional environment variables.
    """

    name: str
    module: str
    needs: tuple[str, ...]
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def is_installed(self) -> bool:
        """Whether all packages that it needs are installed."""
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
        contestant: the contestant to start.
        core: core to run on, with one thread; ``None`` allows all cores.

    Attributes:
        device: device that it trains on.
        start_seconds: seconds from the start of the process to the end of its first step.

    Raises:
        UnavailableError: the process cannot start; the message ends with the last line of its log.
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
        """Requests a number of steps, without waiting for them."""
        assert self._process.stdin
        print(steps, file=self._process.stdin, flush=True)

    def receive(self) -> dict[str, Any]:
        """Waits for the next answer, and returns it."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise UnavailableError(f"{self.name} has ended: {_find_last_line(self._log.read())}")
        return json.loads(line)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Kills the process."""
        self._process.kill()
        self._process.communicate()
        self._log.close()


@contextlib.contextmanager
def started(contestants: Sequence[Contestant], cores: Sequence[int | None] = (None,)) -> Iterator[list[list[Process]]]:
    """Starts one process per contestant and core, one after the other; kills them all at the end."""
    with contextlib.ExitStack() as stack:
        yield [
            [stack.enter_context(contextlib.closing(Process(contestant, core))) for core in cores]
            for contestant in contestants
        ]


def run_trials(contestant: Contestant, steps: int, seeds: int, cores: Sequence[int | None]) -> list[float]:
    """Trains the grid of `list_trials` with a contestant, in one process per core; returns the test accuracies.

    Raises:
        UnavailableError: a process failed.
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
    """Trains trials of the queue in one process, which is added to `running`; returns the test accuracies."""
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
    """Trains the same grid with cnnjax, by one command as a user would; returns the test accuracies.

    Raises:
        UnavailableError: the command failed.
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
    """Returns the floating-point operations per second of a large matrix product in JAX, in a separate process."""
    words, environment = python_command("-m", "experiments.measure.contestants.dot_peak"), python_environment()
    result = subprocess.run(words, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    return float(json.loads(result.stdout))


EPOCH = 60_000
"""Images of an epoch."""


@dataclass(frozen=True)
class Result:
    """Measurements of a contestant.

    Attributes:
        name: name of the contestant.
        device: device that it trained on.
        start_seconds: seconds from the start of its process to the end of its first step, with its caches filled.
        epochs: seconds per epoch in every measurement, in one process with all cores or one device.
        pair_epochs: seconds per epoch in every measurement of two processes side by side, each on its own core; an
            epoch of both counts as two. Empty without two cores, or on an accelerator.
        memory: peak resident memory of the one process, in bytes.
        loss: loss of its last batch, which shows that it has learnt.
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
    """Measurements of a contestant's grid.

    Attributes:
        name: name of the contestant.
        seconds: seconds from the start to the last result, in every measurement.
        trials: number of trials.
        accuracy: mean test accuracy of all trials.
    """

    name: str
    seconds: tuple[float, ...]
    trials: int
    accuracy: float


def measure(contestants: Sequence[Contestant], steps: int, repeats: int) -> list[Result]:
    """Measures the training of one network.

    Args:
        contestants: installed contestants.
        steps: steps per measurement.
        repeats: measurements of each contestant.

    Raises:
        UnavailableError: one of them cannot train.
    """
    with started(contestants):
        pass  # a first start, so that libraries have filled their caches before the start that is timed
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
    """Times a grid of twelve networks: cnnjax by its own command, the others in a loop, with as many processes.

    Args:
        contestants: installed contestants.
        images: images that each trial trains on, once; a multiple of 100.
        seeds: number of seeds of each network.
        repeats: measurements of each contestant.
        on_cpu: whether to run one process on each of two cores; otherwise one process has the device.

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
    """Returns two cores that processes can be pinned to; empty if there are not two."""
    cores = [core for core in list_cores() if core is not None][:2]
    return cores if len(cores) == 2 else ()


def _repeat(groups: list[list[Process]], steps: int, repeats: int) -> list[list[dict[str, Any]]]:
    """Returns the answers of every group; their seconds are those until all processes of the group have answered."""
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
    """Returns the tables, with the fastest contestant first and a description of the machine below.

    Args:
        results: measurements of one network.
        grids: measurements of the grid; empty if it was not measured.
        notes: how it was measured, one line each.
        peak: floating-point operations per second of one large matrix product.
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
    """Returns the floating-point operations of the textbook network per image, forward and backward."""
    layers = summarize(ModelConfig()).layers
    # The backward pass computes two gradients per layer, for its kernel and for its input; the images need none.
    return 3 * sum(layer.flops for layer in layers) - layers[0].flops


def write_machine(device: str) -> str:
    """Returns one line with the machine, the versions of the installed packages, and the commit."""
    machine = describe_machine()
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, {device}, Python {machine['python']}, {versions}, "
        f"commit {machine['commit']}"
    )


def describe_machine() -> dict[str, Any]:
    """Returns the processor, the number of cores, and the versions of Python and of the packages, as JSON values."""
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
    """Returns a PNG of a bar chart: seconds per epoch, with the range of the measurements."""
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
    """Returns a time divided by the median of cnnjax; ``None`` if cnnjax was not measured."""
    return seconds / statistics.median(ours[0]) if ours else None


def _find_processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
