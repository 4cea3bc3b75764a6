"""One trial, wherever it runs: the same call as a single run's, without a store."""

from cnnjax.config import RunConfig
from cnnjax.datasets import Dataset
from cnnjax.errors import CnnjaxError
from cnnjax.experiment import fit
from cnnjax.history import Observer
from cnnjax.records import PackedRun, pack_run


def run_trial(config: RunConfig, dataset: Dataset | None = None, observer: Observer | None = None) -> PackedRun:
    """Trains the network of a run; arguments and errors are those of `cnnjax.fit`."""
    return pack_run(fit(config, out=None, dataset=dataset, observer=observer))


def describe_error(error: BaseException) -> str:
    """Returns one line that says why a trial failed."""
    if isinstance(error, CnnjaxError):
        return str(error)
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
