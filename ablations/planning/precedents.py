"""Earlier runs that tell of those to come: the study's own, then the newest others of the store.

What takes how long is a matter of the device and of the mode: a worker of a grid has one core, or one device, to
itself, and runs of other modes are asked only where there are none of this one.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ablations.language.grids import Grid
from ablations.planning.timing import Timing, is_timed, learn_timing
from ablations.running.costs import find_size
from cnnjax.records import Record
from cnnjax.runs import Store

MOST = 500
"""Runs that are read; more would tell little more, and take a second for every thousand."""

FARTHEST = 4.0
"""Times more or fewer FLOPs to which measured times are carried over.

On one core an operation of a network of 36,000 FLOPs took 75 times as long as one of a network of 21 million; of
networks a factor of 4 apart, up to four times.
"""


def read_precedents(grid: Grid, store: Store, statuses: Mapping[str, str]) -> dict[str, Record]:
    """Returns completed runs of a store by run key, those of a grid first, `MOST` at most.

    Args:
        grid: of the study.
        store: which need not exist.
        statuses: of all that is stored, by run key, the newest last.
    """
    own = dict.fromkeys(trial.key for trial in grid.trials)
    others = (key for key in reversed([*statuses]) if key not in own)
    completed = (key for key in itertools.chain(own, others) if statuses.get(key) == "completed")
    return store.find_all([*itertools.islice(completed, MOST)])


def find_timing(grid: Grid, records: Iterable[Record], has_accelerators: bool, source: str) -> Timing | None:
    """Returns what runs on the datasets of a grid took on the device here.

    It is ``None`` where there are none, and where a network of the grid is far from all that were timed.

    Args:
        grid: of the study.
        records: the newest last.
        has_accelerators: takes the device of the newest run for the one here, instead of the CPU.
        source: where the records are from, in words.
    """
    sources = {cell.config.data.source for cell in grid.cells}
    timed = [record for record in records if is_timed(record) and record.config.data.source in sources]
    device = _find_device(timed[-1]) if timed and has_accelerators else ("cpu", "cpu")
    here = [record for record in timed if _find_device(record) == device]
    alike = [record for record in here if device[0] != "cpu" or _read_device(record).get("cpu_threads") == 1]
    chosen = alike or here
    if not chosen or not _are_near(grid, chosen):
        return None
    remark = "" if alike else ", which had more cores than the one of a worker"
    return learn_timing(chosen, f"{len(chosen)} run{'s' * (len(chosen) != 1)} in {source}{remark}")


def _are_near(grid: Grid, timed: Sequence[Record]) -> bool:
    """Whether no network of a grid has `FARTHEST` times more or fewer FLOPs than all that were timed."""
    known = [find_size(record.config)[1] for record in timed]
    own = [find_size(cell.config)[1] for cell in grid.cells if not cell.problem]
    return all(min(known) / FARTHEST <= flops <= max(known) * FARTHEST for flops in own)


def _find_device(record: Record) -> tuple[str | None, str | None]:
    device = _read_device(record)
    return device.get("backend"), device.get("kind")


def _read_device(record: Record) -> Mapping[str, Any]:
    return record.provenance.get("device") or {}
