"""When a grid will be done: its trials dealt to workers as a run deals them, with a clock instead of training."""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ablations.language.grids import Trial
from ablations.running.schedule import Schedule
from cnnjax.signatures import static_signature


@dataclass(frozen=True)
class Forecast:
    """How long trials take: in seconds from beginning to end, and in seconds of all workers together."""

    wall: float
    work: float


def forecast(
    trials: Sequence[Trial],
    workers: int,
    run_seconds: Callable[[Trial], float],
    compile_seconds: Callable[[Trial], float],
) -> Forecast:
    """Plays the run of trials through, the longest first on every worker that is free.

    Args:
        trials: to be run.
        workers: how many run side by side.
        run_seconds: how long a trial takes on a worker that has its programs.
        compile_seconds: how much longer on one that has not.
    """
    schedule = Schedule(trials, run_seconds)
    places = [(0.0, number, _Place()) for number in range(workers)]
    work = 0.0
    for _ in trials:
        now, number, place = places[0]
        if place.trial:
            schedule.end(place.trial)
        (place.trial,) = schedule.take(place.signature, 1)
        place.signature = static_signature(place.trial.config)
        spent = run_seconds(place.trial)
        if place.signature not in place.compiled:
            place.compiled.add(place.signature)
            spent += compile_seconds(place.trial)
        work += spent
        heapq.heapreplace(places, (now + spent, number, place))
    return Forecast(max(now for now, _, _ in places), work)


class _Place:
    """A worker: what it runs, and the signatures it has compiled, that of its last trial being at hand."""

    def __init__(self) -> None:
        self.trial: Trial | None = None
        self.signature = ""
        self.compiled: set[str] = set()
