"""The coordinator and the store handle many trials per second, in constant memory."""

import re

import pytest

from cnnjax import InputError, RunConfig
from cnnjax.runs.store import Store
from experiments.measure.throughput import main, make_result, measure_throughput


def test_every_instant_trial_is_stored_and_measured(tmp_path):
    measured = measure_throughput(50, 8, tmp_path)
    assert len(Store(tmp_path).list_keys()) == measured.trials == 50
    assert measured.seconds > 0
    assert all(memory > 2**20 for memory in measured.memory)


def test_a_result_made_by_hand_has_the_size_of_a_real_one():
    result = make_result(RunConfig())
    assert result.record.parameters == 62_346
    assert len(result.variables) > 4 * 62_346
    assert len(result.predictions) > 10_000 * 3.3 / 8  # the entropy of ten classes is 3.3 bits


def test_the_command_tells_rate_and_memory(capsys, tmp_path):
    assert main(["--trials", "20", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert re.match(
        r"20 trials stored in \d+\.\d s: [\d,]+ a second\nresident memory [\d,]+ MiB before, [\d,]+ MiB", out
    )
    assert list(tmp_path.iterdir()) == []  # what nobody trained does not stay
    with pytest.raises(InputError, match="must be a folder"):
        main(["--trials", "20", "--out", str(tmp_path / "nowhere")])
    with pytest.raises(InputError, match="--slots=0: must be >= 1"):
        main(["--slots", "0"])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_trials(tmp_path):
    measured = measure_throughput(3000, 64, tmp_path)
    _, halfway, after = measured.memory
    assert after - halfway < 16 * 2**20
