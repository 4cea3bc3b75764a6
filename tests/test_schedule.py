"""Trials are handed out longest first, and to workers that have compiled their programs."""

from ablations.execution.work import Schedule
from cnnjax.runs.config import static_signature
from grid_helpers import make_grid


def drain(schedule, *workers):
    """Gives trials in turn to workers that keep what they last compiled; returns what each was given."""
    held, given = dict.fromkeys(workers, ""), {worker: [] for worker in workers}
    while schedule:
        for worker in workers:
            for trial in schedule.take(held[worker], 1):
                held[worker] = static_signature(trial.config)
                given[worker].append(trial)
                schedule.end(trial)
    return given


def cost(trial):
    return trial.config.model.dense[0]


def test_the_longest_trials_come_first():
    schedule = Schedule(make_grid(widths=(16, 64, 8, 32), seeds=(0,)).trials, cost)
    (given,) = drain(schedule, "a").values()
    assert [cost(trial) for trial in given] == [64, 32, 16, 8]


def test_a_worker_keeps_its_programs_and_another_takes_other_programs():
    schedule = Schedule(make_grid(widths=(8, 16), seeds=range(3)).trials, cost)
    first, second = schedule.take("", 1)[0], schedule.take("", 1)[0]
    assert (cost(first), cost(second)) == (16, 8)
    assert cost(schedule.take(static_signature(first.config), 1)[0]) == 16
    assert cost(schedule.take(static_signature(second.config), 1)[0]) == 8


def test_the_last_group_is_shared_by_all():
    given = drain(Schedule(make_grid(widths=(8,), seeds=range(6)).trials, cost), "a", "b")
    assert [len(trials) for trials in given.values()] == [3, 3]


def test_every_trial_is_taken_once():
    grid = make_grid(widths=(8, 16, 32), seeds=range(4))
    given = drain(Schedule(grid.trials, cost), "a", "b", "c")
    assert sorted(t.key for trials in given.values() for t in trials) == sorted(t.key for t in grid.trials)


def test_after_a_group_crashed_groups_of_its_signature_are_half_as_large():
    schedule = Schedule(make_grid(widths=(8, 16), seeds=range(5)).trials, cost)
    for trial in schedule.take("", 4):
        schedule.put_back(trial, together=4)
    assert [len(schedule.take("", 4)) for _ in range(6)] == [2, 4, 2, 1, 1, 0]  # of 16, 8, 16, 8, 16
    for trial in (group := make_grid(widths=(8,), seeds=range(3)).trials):
        schedule.put_back(trial, together=len(group))
    assert [len(schedule.take("", 4)) for _ in range(4)] == [1, 1, 1, 0]


def test_workers_share_the_waiting_trials():
    schedule = Schedule(make_grid(widths=(8,), seeds=range(6)).trials, cost)
    assert [len(schedule.take("", 64, takers)) for takers in (2, 1)] == [3, 3]


def test_a_trial_that_is_put_back_comes_after_the_others_of_its_programs():
    schedule = Schedule(make_grid(widths=(8,), seeds=range(3)).trials, cost)
    (first,) = schedule.take("", 1)
    schedule.put_back(first)
    rest = schedule.take("", 3)
    assert len(rest) == 3
    assert rest[-1] is first
    assert not schedule
    assert schedule.take("", 3) == ()
