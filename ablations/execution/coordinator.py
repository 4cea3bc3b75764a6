"""The coordinator of a grid: it skips stored trials, gives the others to an executor, and stores every result.

Only the coordinator writes the store. A trial is shown as ended after its result is committed, so a result that has
been shown is never lost. Trials that had not ended are run again by the next command.
"""

from collections import Counter
from collections.abc import Sequence

from ablations.execution.costs import find_size, training_flops
from ablations.execution.watching import GridObserver
from ablations.execution.work import (
    Advanced,
    Ended,
    Ending,
    Event,
    Executor,
    Failed,
    Policy,
    Returned,
    Schedule,
    Started,
    Work,
    find_work,
)
from ablations.study.grid import Grid, Trial
from cnnjax.errors import Interrupted
from cnnjax.machine.processes import deferred_signals
from cnnjax.runs.record import PackedRun, Record
from cnnjax.runs.store import Store

POLL_SECONDS = 0.5
"""Longest wait for an event of the executor; after it, the coordinator looks for signals."""


def run_grid(
    grid: Grid, store: Store, executor: Executor, observer: GridObserver, policy: Policy | None = None
) -> Ending:
    """Runs the trials of a grid that are not stored; the caller closes the executor.

    Args:
        grid: the trials.
        store: receives every result.
        executor: runs the trials.
        observer: receives every event.
        policy: what to do about failures.

    Returns:
        The numbers of trials that are now ``completed``, ``diverged``, ``failed``, ``invalid``, or still ``waiting``
        because a failure stopped the grid.

    Raises:
        InputError: a module of the user was edited while it was trained; all trials that had ended are stored.
        UnavailableError: the store can no longer be written, or no worker can start.
        Interrupted: a signal arrived; all trials that had ended are stored.
    """
    policy = policy or Policy()
    work = find_work(grid, store, policy.retry_failed)
    store.add_all([_record_invalid(trial) for trial in work.invalid if trial.key not in work.statuses])
    coordinator = _Coordinator(work, store, executor, observer, policy)
    try:
        with deferred_signals() as stop_signal:
            observer.begin(work)
            has_more = True
            while has_more:
                has_more = coordinator.step()
                number = stop_signal()
                if number is not None:
                    raise Interrupted(coordinator.describe_stop(), number)
    finally:
        observer.close()
    return Ending(coordinator.counts, coordinator.stopped)


class _Coordinator:
    """Gives trials to the executor and handles its events; holds the waiting and running trials, and the failures."""

    def __init__(self, work: Work, store: Store, executor: Executor, observer: GridObserver, policy: Policy) -> None:
        self.counts, self.stopped = work.counts, False
        self._schedule = Schedule(work.waiting, lambda trial: training_flops(trial.config))
        self._store, self._executor, self._observer, self._policy = store, executor, observer, policy
        self._running = 0
        self._failures: Counter[str] = Counter()

    def step(self) -> bool:
        """Gives trials to idle slots, waits for events and handles them; returns whether there is more to do."""
        free = self._executor.free_slots()
        for slot, signature in sorted(free.items(), key=lambda item: not self._schedule.has(item[1])):
            group = self._schedule.take(signature, self._executor.group_size, len(free))
            if not group:
                break
            self._executor.submit(slot, group)
            self._running += len(group)
        if self._running or self._schedule:
            self._handle(self._executor.poll(POLL_SECONDS))
        return not self.stopped and bool(self._running or self._schedule)

    def describe_stop(self) -> str:
        stored = sum(self.counts.values()) - self.counts["waiting"]
        return f"interrupted: {stored} trials are stored, {self.counts['waiting']} are left; the same command goes on"

    def _handle(self, events: Sequence[Event]) -> None:
        """Stores the final results, then passes all events to the observer."""
        final = {event.trial.key: run for event in events if (run := self._settle(event))}
        if final:
            self._store.add_all([*final.values()])
        for event in events:
            match event:
                case Started(trial):
                    self._observer.start(trial)
                case Advanced(trial, progress):
                    self._observer.advance(trial, progress)
                case Ended(trial) | Failed(trial) if trial.key in final:
                    self._end(trial, final[trial.key].record)
                case Failed(trial, reason):
                    self._observer.retry(trial, reason)
                case Returned(trial, together, reason) if together:
                    self._observer.retry(trial, f"{reason} (one of {together} in one program)")

    def _settle(self, event: Event) -> PackedRun | None:
        """Returns the run to store if the event is final; reschedules the trial if it is to run again."""
        if isinstance(event, Ended):
            return event.run
        if isinstance(event, Failed):
            event.trial.config.check_code()  # a study whose code is edited ends, without failed trials
            self._failures[event.trial.key] += 1
            attempts = self._failures[event.trial.key]
            if attempts > self._policy.max_retries:
                return _record_failed(event, attempts)
        if isinstance(event, Failed | Returned):
            self._running -= 1
            self._schedule.put_back(event.trial, 0 if isinstance(event, Failed) else event.together)
        return None

    def _end(self, trial: Trial, record: Record) -> None:
        self._running -= 1
        self._schedule.end(trial)
        self.counts[record.status] += 1
        self.counts["waiting"] -= 1
        self.stopped |= self._policy.fail_fast and record.status == "failed"
        self._observer.end(trial, record)


def _record_invalid(trial: Trial) -> PackedRun:
    assert trial.cell.problem is not None
    return PackedRun(Record.without_result(trial.config, "invalid", trial.cell.problem))


def _record_failed(event: Failed, attempts: int) -> PackedRun:
    reason = event.reason if attempts == 1 else f"{event.reason}, at the last of {attempts} attempts"
    size = find_size(event.trial.config)
    return PackedRun(Record.without_result(event.trial.config, "failed", reason, size, output=event.output))
