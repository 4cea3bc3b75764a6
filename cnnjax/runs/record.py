"""The record of a run and its arrays, and their packed form: numpy's npz format, which is compact and holds no code."""

import dataclasses
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnjax.errors import CorruptionError
from cnnjax.runs.config import RunConfig
from cnnjax.runs.history import EpochMetrics
from cnnjax.runs.provenance import list_code

if TYPE_CHECKING:
    from cnnjax.models.prediction import TrainedNetwork

_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)
FINAL = ("completed", "diverged")
"""The statuses of a run that has a result."""
LOST = ("diverged", "failed")
"""The statuses of a run that was started and ended without a test accuracy."""
STATUSES = (*FINAL, "failed", "invalid", "pruned")
"""The statuses of a stored run."""
TRIAL_STATUSES = (*STATUSES, "missing")
"""The statuses of a trial; the run of a ``missing`` trial is not in the store."""


@dataclass(frozen=True)
class Record:
    """Everything that is stored about a run, apart from its arrays.

    Attributes:
        config: the configuration of the run.
        status: ``completed``, ``diverged``, ``failed``, ``invalid`` or ``pruned``.
        reason: why the run was not completed; ``None`` for a completed run.
        parameters: number of parameters, trainable or not; ``None`` for an invalid network.
        flops: of the forward pass of one image; ``None`` for an invalid network.
        test_loss, test_accuracy: on the test set; ``None`` unless completed.
        history: metrics of every completed epoch.
        seconds: wall times of ``load``, ``compile``, ``train``, ``evaluate`` and ``total``.
        provenance: versions, device, source and dataset.
        output: the last lines that a failed run printed; ``None`` if there are none.
        scores: the metrics of the user on the test set, by name; ``None`` for one that is not a finite number.

    Example:
        >>> record = Record.without_result(RunConfig(seed=1), "failed", "out of memory")
        >>> record.status, record.config.seed, record.test_accuracy
        ('failed', 1, None)
    """

    config: RunConfig
    status: str
    reason: str | None
    parameters: int | None
    flops: int | None
    test_loss: float | None
    test_accuracy: float | None
    history: tuple[EpochMetrics, ...]
    seconds: dict[str, float]
    provenance: dict[str, Any]
    output: str | None = None
    scores: dict[str, float | None] = dataclasses.field(default_factory=dict)

    @property
    def key(self) -> str:
        """The run key."""
        return self.config.key

    @classmethod
    def without_result(
        cls,
        config: RunConfig,
        status: str,
        reason: str,
        size: tuple[int, int] | None = None,
        output: str | None = None,
    ) -> "Record":
        """Returns the record of a run without metrics, times or provenance, such as a failed or an invalid one.

        Args:
            config: the configuration of the run.
            status: ``failed``, ``invalid`` or ``pruned``.
            reason: why there is no result.
            size: numbers of parameters and of FLOPs; ``None`` if the network cannot be built.
            output: the last lines that the run printed.
        """
        parameters, flops = size or (None, None)
        return cls(config, status, reason, parameters, flops, None, None, (), {}, {}, output)

    def check(self, key: str) -> None:
        """Checks a record that was read from a store.

        Raises:
            ValueError: the record is damaged: it has another key than `key`, an unknown status, values of a wrong type,
                or gaps in its history.
        """
        if self.key != key:
            raise ValueError(f"its configuration has the key {self.key[:12]}")
        if self.status not in STATUSES:
            raise ValueError(f"its status is {self.status!r}")
        self._check_types()
        if self.config.trial:
            return
        completed = self.status == "completed"
        train = self.config.train
        if completed and not (isinstance(self.test_accuracy, float) and isinstance(self.test_loss, float)):
            raise ValueError(f"completed, with test loss {self.test_loss!r} and test accuracy {self.test_accuracy!r}")
        shortest = train.epochs if completed and train.early_stopping_patience is None else 0
        if [epoch.epoch for epoch in self.history] != [*range(1, max(len(self.history), shortest) + 1)]:
            raise ValueError("epochs are missing")
        for epoch in self.history:
            optional = (epoch.val_loss, epoch.val_accuracy) if train.validation_split else ()
            if not all(isinstance(number, float) for number in (epoch.loss, epoch.accuracy, epoch.seconds, *optional)):
                raise ValueError("the history is not made of numbers")

    def _check_types(self) -> None:
        numbers = (self.test_loss, self.test_accuracy, *self.seconds.values(), *self.scores.values())
        if not all(number is None or (isinstance(number, float) and math.isfinite(number)) for number in numbers):
            raise ValueError("its results and times are not all finite numbers")
        if not all(size is None or isinstance(size, int) for size in (self.parameters, self.flops)):
            raise ValueError(f"{self.parameters!r} parameters and {self.flops!r} FLOPs")
        parts = (
            self.provenance,
            *(self.provenance.get(name, {}) for name in ("code", "functions", "device", "git", "dataset", "packages")),
        )
        if not all(isinstance(part, dict) for part in (*parts, *list_code(self.provenance).values())):
            raise ValueError("its provenance is not made of tables")

    def to_dict(self) -> dict[str, Any]:
        """Returns the record as JSON values, the key first."""
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        values["config"] = self.config.to_dict()
        values["history"] = [dataclasses.asdict(epoch) for epoch in self.history]
        return {"key": self.key, **values}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Record":
        """Returns the record from the values that `to_dict` returned, also if they went through JSON."""
        config = RunConfig.from_dict(values["config"])
        history = tuple(EpochMetrics(**epoch) for epoch in values["history"])
        others = {name: value for name, value in values.items() if name != "key"}
        return cls(**{**others, "config": config, "history": history})


@dataclass(frozen=True)
class Run:
    """A run with its arrays, ready to predict.

    Attributes:
        record: settings, status, metrics, times and provenance of the run.
        params: trainable parameters, nested dicts of float32 arrays named as in the linen module.
        collections: other variables by collection, in the same form, such as the running statistics of batch
            normalisation in ``batch_stats``.
        predictions: predicted class of every test example (n,), uint8 or uint16; ``None`` unless completed.

    Example:
        >>> from cnnjax.models.module import CNN
        >>> from cnnjax.training.step import make_state
        >>> config = RunConfig()
        >>> params = make_state(config, image_shape=(28, 28, 1), classes=10, steps=1).params  # not trained
        >>> record = Record.without_result(config, "pruned", "an example")
        >>> record.provenance["dataset"] = {"image_shape": [28, 28, 1], "classes": 10}
        >>> Run(record, params, {}, None).predict(np.zeros((3, 28, 28, 1), np.uint8)).shape
        (3,)
    """

    record: Record
    params: dict[str, Any]
    collections: dict[str, Any]
    predictions: np.ndarray | None

    @property
    def key(self) -> str:
        """The run key."""
        return self.record.key

    @property
    def batch_stats(self) -> dict[str, Any]:
        """Running statistics of batch normalisation; empty without batch normalisation."""
        return self.collections.get("batch_stats", {})  # type: ignore[no-any-return]

    @property
    def history(self) -> tuple[EpochMetrics, ...]:
        """Metrics of every completed epoch."""
        return self.record.history

    def rebuild(self) -> "TrainedNetwork":
        """Returns the trained network, as `inspection` takes it."""
        from cnnjax.models.prediction import TrainedNetwork

        config, dataset = self.record.config, self.record.provenance["dataset"]
        variables = {"params": self.params, **self.collections}
        shape = tuple(dataset["image_shape"])
        return TrainedNetwork(config.model, config.train.precision, variables, shape, dataset["classes"])

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Returns the predicted classes of images.

        Args:
            images: uint8 (n, height, width, channels), with the height, width and channels of the dataset's images.

        Returns:
            The classes, int32 (n,).

        Raises:
            InputError: the images are not uint8 of that shape.
            UnavailableError: JAX cannot start.
        """
        from cnnjax.models.prediction import compute_logits

        classes: np.ndarray = np.argmax(compute_logits(self.rebuild(), np.asarray(images)), -1)
        return classes.astype(np.int32)

    def predict_proba(self, images: np.ndarray) -> np.ndarray:
        """Returns the class probabilities of images, float32 (n, classes); otherwise does as `predict`."""
        from cnnjax.models.prediction import compute_probabilities

        return compute_probabilities(self.rebuild(), np.asarray(images))


@dataclass(frozen=True)
class PackedRun:
    """A run as it is stored, and sent between processes: its record, and its arrays as bytes in numpy's npz format.

    Attributes:
        record: settings, status, metrics, times and provenance of the run.
        variables: parameters and statistics of batch normalisation; ``None`` for a run without a network.
        predictions: predicted classes of the test examples, compressed; ``None`` unless completed.
    """

    record: Record
    variables: bytes | None = None
    predictions: bytes | None = None


def pack_run(run: Run) -> PackedRun:
    """Returns the run with its arrays as bytes."""
    variables = _pack(_flatten({"params": run.params, **run.collections}))
    predictions = None if run.predictions is None else _pack({"predictions": run.predictions}, compress=True)
    return PackedRun(run.record, variables, predictions)


def unpack_run(record: Record, variables: bytes, predictions: bytes | None) -> Run:
    """Returns a run from its record and the bytes that `pack_run` made.

    Raises:
        CorruptionError: the bytes are damaged, or the predictions of a completed run are missing.
    """
    if record.status == "completed" and predictions is None:
        raise CorruptionError(f"the predictions of run {record.key[:12]} are missing")
    classes = None if predictions is None else unpack_predictions(record.key, predictions)
    try:
        tree = _nest(_unpack(variables))
    except _UNREADABLE as error:
        raise CorruptionError(f"the arrays of run {record.key[:12]} cannot be read: {error}") from None
    return Run(record, tree.pop("params", {}), tree, classes)


def unpack_predictions(key: str, predictions: bytes) -> np.ndarray:
    """Returns the predicted classes of a run, uint8 or uint16 (n,), from the bytes that `pack_run` made.

    Raises:
        CorruptionError: the bytes are damaged.
    """
    try:
        classes = _unpack(predictions)["predictions"]
        if classes.ndim != 1 or classes.dtype.kind != "u":
            raise ValueError(f"must be unsigned integers (n,), not {classes.dtype} {classes.shape}")
    except _UNREADABLE as error:
        raise CorruptionError(f"the predictions of run {key[:12]} cannot be read: {error}") from None
    return classes


def check_predictions(key: str, predictions: np.ndarray, images: int, classes: int) -> None:
    """Raises `CorruptionError` unless there are `images` predictions, all of them below `classes`."""
    if len(predictions) != images or predictions.max(initial=0) >= classes:
        raise CorruptionError(
            f"run {key[:12]} has {len(predictions)} predictions up to class {predictions.max(initial=0)}; "
            f"the dataset has {images} test images in {classes} classes"
        )


def _pack(arrays: dict[str, np.ndarray], compress: bool = False) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _unpack(blob: bytes) -> dict[str, np.ndarray]:
    """Returns the arrays in the bytes of an npz file; raises `ValueError` if they are not one."""
    try:
        with np.load(io.BytesIO(blob), allow_pickle=False) as archive:
            return dict(archive)
    except Exception as error:  # numpy reads headers as Python literals, so damage can raise nearly any exception
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    flat: dict[str, np.ndarray] = {}
    for name, value in tree.items():
        flat |= _flatten(value, f"{prefix}{name}/") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _nest(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, array in arrays.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = array
    return tree
