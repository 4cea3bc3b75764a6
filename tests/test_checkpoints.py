"""A damaged checkpoint is refused, and a resumed run equals an uninterrupted one bit for bit."""

import contextlib
import dataclasses
import json
import shutil
import signal

import numpy as np
import pytest

from cnnjax import CorruptionError, DataConfig, InputError, Interrupted, ModelConfig, RunConfig, TrainConfig
from cnnjax.data.dataset import Dataset, Split, content_hash
from cnnjax.runs.checkpoints import KEPT, Checkpoints
from cnnjax.runs.history import Silence
from cnnjax.training import loop

ARRAYS = {
    "state/params/Conv_0/kernel": np.arange(12, dtype=np.float32).reshape(3, 4),
    "state/step": np.array(7, np.int32),
}
MODEL = ModelConfig(filters=(4,), kernel_size=3, dense=(8,), dropout=0.2, batch_norm=True)
CONFIG = RunConfig(
    model=MODEL,
    train=TrainConfig(
        epochs=3, batch_size=7, optimizer="adamw", weight_decay=0.01, schedule="onecycle", validation_split=0.25
    ),
    data=DataConfig(name="toy"),
)


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints", "a" * 64)


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)

    def split(count):
        return Split(rng.integers(0, 256, (count, 8, 8, 1), dtype=np.uint8), rng.integers(0, 3, count, dtype=np.int32))

    train, test = split(600), split(50)
    return Dataset("toy", "1.0.0", train, test, 3, content_hash(train, test), "file")


def test_a_restored_checkpoint_equals_the_saved_one(checkpoints):
    checkpoints.save(7, ARRAYS, {"history": [{"loss": 0.1 + 0.2}]})
    restored = checkpoints.restore()
    assert restored.progress["history"] == [{"loss": 0.1 + 0.2}]
    assert restored.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(restored.arrays[name], array)
        assert restored.arrays[name].dtype == array.dtype


def test_an_empty_folder_has_no_checkpoint_to_restore(checkpoints):
    assert checkpoints.restore() is None
    assert not checkpoints.folder.exists()


def test_the_newest_checkpoints_are_kept_and_the_newest_is_used(checkpoints):
    for step in (5, 100, 20, 1000):
        checkpoints.save(step, ARRAYS, {"at": step})
    assert len(list(checkpoints.folder.iterdir())) == KEPT
    assert checkpoints.restore().progress["at"] == 1000


def _damage(path, kind):
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.stat().st_size > 0)
    target = max(files, key=lambda file: file.stat().st_size)
    if kind == "truncated":
        target.write_bytes(target.read_bytes()[:-1])
    elif kind == "altered":
        content = bytearray(target.read_bytes())
        content[len(content) // 2] ^= 1
        target.write_bytes(content)
    elif kind == "missing":
        target.unlink()
    else:
        (path / "manifest.json").write_text("[1")


@pytest.mark.parametrize("kind", ["truncated", "altered", "missing", "manifest"])
def test_a_damaged_checkpoint_is_refused_and_an_older_one_used(checkpoints, kind):
    checkpoints.save(1, ARRAYS, {"at": 1})
    newest = checkpoints.save(2, ARRAYS, {"at": 2})
    _damage(newest, kind)
    restored = checkpoints.restore()
    assert restored.progress["at"] == 1
    assert len(restored.skipped) == 1
    assert "is corrupt" in restored.skipped[0]
    _damage(restored.path, kind)
    with pytest.raises(
        CorruptionError, match=r"checkpoint .*000000002 is corrupt .*; checkpoint .*000000001 is corrupt"
    ):
        checkpoints.restore()


def test_a_half_written_checkpoint_is_not_seen(checkpoints):
    path = checkpoints.save(1, ARRAYS, {"at": 1})
    shutil.copytree(path, checkpoints.folder / "000000002.partial-1")
    assert checkpoints.restore().progress["at"] == 1


def test_a_checkpoint_of_another_configuration_is_refused(checkpoints, tmp_path):
    checkpoints.save(1, ARRAYS, {})
    other = Checkpoints(tmp_path / "checkpoints", "b" * 64)
    shutil.copytree(checkpoints.folder, other.folder)
    with pytest.raises(InputError, match=r"is of another configuration, run aaaaaaaaaaaa"):
        other.restore()
    shutil.rmtree(other.folder)
    other.save(1, ARRAYS, {"at": 1})
    shutil.copytree(checkpoints.folder / "000000001", other.folder / "000000002")
    restored = other.restore()
    assert restored.progress["at"] == 1
    assert "is of another configuration" in restored.skipped[0]


def test_a_checkpoint_with_an_empty_manifest_is_refused(checkpoints):
    path = checkpoints.save(1, ARRAYS, {})
    for file in [file for file in path.rglob("*") if file.is_file()]:
        file.unlink()
    (path / "manifest.json").write_text("{}")
    with pytest.raises(CorruptionError, match=r"manifest.json does not list progress.json"):
        checkpoints.restore()


class _StopAfter(Silence):
    """Asks the run to stop after some pieces of epochs."""

    def __init__(self, pieces):
        self.left = pieces

    def advance(self, progress):
        self.left -= 1

    def signal(self):
        return signal.SIGTERM if self.left <= 0 else None


def _equal(first, second):
    import jax

    first_state, second_state = first.position.state, second.position.state
    assert jax.tree.structure(first_state.params) == jax.tree.structure(second_state.params)
    for a, b in zip(
        jax.tree.leaves((first_state.params, first_state.opt_state, first_state.collections)),
        jax.tree.leaves((second_state.params, second_state.opt_state, second_state.collections)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(first.predictions, second.predictions)
    strip = lambda history: [dataclasses.replace(epoch, seconds=0) for epoch in history]  # noqa: E731
    assert strip(first.position.history) == strip(second.position.history)
    assert first.test_loss == second.test_loss


def test_a_run_resumed_after_every_piece_equals_one_never_interrupted(dataset, tmp_path):
    whole = loop.train(loop.prepare(CONFIG, dataset))
    checkpoints = Checkpoints(tmp_path, CONFIG.key)
    interruptions = 0
    while True:
        stop = _StopAfter(1)
        try:
            resumed = loop.train(
                loop.prepare(CONFIG, dataset),
                observer=stop,
                checkpoints=checkpoints,
                resume=True,
                stop_signal=stop.signal,
            )
            break
        except Interrupted:
            interruptions += 1
    assert interruptions >= 6
    _equal(whole, resumed)


@pytest.mark.parametrize(("switches", "parts"), [("00", 1), ("01", 2), ("010", 3)])
def test_a_run_resumed_with_other_convolutions_says_so_and_records_both(
    dataset, tmp_path, monkeypatch, switches, parts
):
    names = {"0": "cnnjax", "1": "oneDNN 9"}
    notes = []

    class Observer(_StopAfter):
        def note(self, message):
            notes.append(message)

    for place, switch in enumerate(switches, 1):
        monkeypatch.setattr(loop, "describe_convolutions", lambda backend, name=names[switch]: name)
        stop = Observer(1 if place < len(switches) else 99)
        checkpoints = Checkpoints(tmp_path, CONFIG.key)
        with contextlib.suppress(Interrupted):
            result = loop.train(
                loop.prepare(CONFIG, dataset),
                observer=stop,
                checkpoints=checkpoints,
                resume=place > 1,
                stop_signal=stop.signal,
            )
    assert result.position.convolutions == tuple(names[switch] for switch in switches)[:parts]
    told = [note for note in notes if note.startswith("convolutions were")]
    assert len(told) == parts - 1
    assert all("cnnjax" in note and "oneDNN 9" in note for note in told)


def test_a_run_whose_newest_checkpoint_is_corrupt_goes_on_from_the_one_before(dataset, tmp_path):
    whole = loop.train(loop.prepare(CONFIG, dataset))
    checkpoints = Checkpoints(tmp_path, CONFIG.key)
    loop.train(loop.prepare(CONFIG, dataset), checkpoints=checkpoints, checkpoint_every=1)
    newest = max(checkpoints.folder.iterdir())
    (newest / "progress.json").write_text("{}")
    notes = []

    class Notes(Silence):
        def note(self, message):
            notes.append(message)

    _equal(whole, loop.train(loop.prepare(CONFIG, dataset), checkpoints=checkpoints, resume=True, observer=Notes()))
    assert "progress.json is altered or truncated" in notes[0]
    assert "an older one" in notes[0]
    assert "resuming after step 130" in notes[1]


def test_a_checkpoint_that_does_not_fit_the_network_is_refused(dataset, tmp_path):
    checkpoints = Checkpoints(tmp_path, CONFIG.key)
    checkpoints.save(3, ARRAYS, {"history": [], "epoch_seconds": 0.0, "train_seconds": 0.0})
    with pytest.raises(InputError, match=r"does not fit this network and optimizer"):
        loop.train(loop.prepare(CONFIG, dataset), checkpoints=checkpoints, resume=True)


def test_resuming_with_no_checkpoint_says_so_and_starts_from_the_beginning(dataset, tmp_path):
    notes = []

    class Notes(Silence):
        def note(self, message):
            notes.append(message)

    config = dataclasses.replace(CONFIG, train=TrainConfig(epochs=1, batch_size=50))
    result = loop.train(
        loop.prepare(config, dataset), checkpoints=Checkpoints(tmp_path, config.key), resume=True, observer=Notes()
    )
    assert result.diverged_at is None
    assert notes == ["no checkpoint of this configuration yet: starting from the beginning"]


def test_the_progress_record_is_plain_json(checkpoints):
    path = checkpoints.save(1, ARRAYS, {"history": []})
    assert json.loads((path / "progress.json").read_text()) == {"key": "a" * 64, "step": 1, "history": []}
