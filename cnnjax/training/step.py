"""Training and evaluation as pure functions: a training step, a scan over the steps of an epoch, and an evaluation.

The examples are uint8, on the device or fed to it in chunks. The data order of an epoch is a permutation made on the
device from the seed and the epoch alone, so runs with the same seed see the same batches, whatever their network. A
run that draws its training examples has a sample, by which the numbers of its examples are rows of the data; so runs
with other samples share the data.
Metrics are sums, divided once at the end. `TrainState` holds everything that a step changes, and its step counter gives
the position within an epoch, so a run can stop and continue after any step.
"""

import functools
from collections.abc import Callable, Mapping, Sized
from typing import TYPE_CHECKING, Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct
from jax import lax
from numpy.typing import NDArray

from cnnjax.machine.compilation import compile_program
from cnnjax.machine.devices import take_share
from cnnjax.models.batches import EVALUATION_BATCH
from cnnjax.models.network import LOSSES, NORMALIZATION, UNSAVED
from cnnjax.models.prediction import predict_logits, prepare_images, scale_images
from cnnjax.runs.config import RunConfig
from cnnjax.settings.functions import is_function
from cnnjax.training.optimizers import init_optimizer, make_optimizer

if TYPE_CHECKING:
    from cnnjax.training.augmentation import Change

_ORDER, _DROPOUT, _AUGMENTATION = 0, 1, 2
"""Folded into the random key of a run, so that data order, dropout and augmentation draw independent numbers."""


class Examples(NamedTuple):
    """Examples: images uint8, or float32 in [0, 1], (n, height, width, channels), and labels int32 (n,)."""

    images: jax.Array
    labels: jax.Array


class Metrics(NamedTuple):
    """Sums over examples: loss float32 (), number classified correctly int32 (), and number of examples int32 ()."""

    loss: jax.Array
    correct: jax.Array
    seen: jax.Array

    @classmethod
    def zero(cls) -> "Metrics":
        """Returns the metrics of no examples."""
        return cls(jnp.float32(0), jnp.int32(0), jnp.int32(0))

    def means(self) -> tuple[float, float]:
        """Returns the mean loss and the accuracy, as Python floats.

        Example:
            >>> Metrics(jnp.float32(3), jnp.int32(1), jnp.int32(4)).means()
            (0.75, 0.25)
        """
        return float(self.loss) / int(self.seen), int(self.correct) / int(self.seen)


class TrainState(struct.PyTreeNode):
    """Everything that a training step reads and changes, apart from the batch.

    Attributes:
        step: int32 (), number of steps taken.
        params: trainable parameters, float32.
        collections: other variables by collection, such as the running statistics of batch normalisation in
            ``batch_stats``.
        averages: moving averages of the parameters; empty unless they are evaluated in place of the parameters.
        opt_state: state of the optimizer, which holds the learning rate, momentum and weight decay.
        key: random key of the run, from which the data order of each epoch and the dropout of each step derive.
        numbers: settings of the network that the program takes as data, such as the dropout rate, each float32 ().
        label_smoothing: float32 ().
        normalization: mean and deviation of the images, each float32 (channels,); empty without normalisation.
        sample: int32 (examples,), which of the training data the run trains on; ``None`` for all.
        model: the linen module, as `Network.build` makes it (static).
        optimizer: the optax optimizer (static).
        average: decay of the moving averages; 0 without them (static).
        augmentations: random changes of training images, as `augment` takes them (static).
        loss: maps logits and labels to the losses of the examples; ``None`` for the cross-entropy (static).
    """

    step: jax.Array
    params: Any
    collections: dict[str, Any]
    averages: Any
    opt_state: Any
    key: jax.Array
    numbers: dict[str, Any]
    label_smoothing: jax.Array
    normalization: dict[str, Any]
    model: nn.Module = struct.field(pytree_node=False)
    optimizer: optax.GradientTransformation = struct.field(pytree_node=False)
    average: float = struct.field(pytree_node=False, default=0.0)
    augmentations: "tuple[str | Change, ...]" = struct.field(pytree_node=False, default=())
    loss: Callable[[jax.Array, jax.Array], jax.Array] | None = struct.field(pytree_node=False, default=None)
    sample: jax.Array | None = None

    @property
    def learned(self) -> "TrainState":
        """The state without what follows from the seed alone: the random key and the sample."""
        return self.replace(key=None, sample=None)

    @property
    def variables(self) -> dict[str, Any]:
        """The variables that predict: parameters or their moving averages, and the other collections."""
        normalization = {NORMALIZATION: self.normalization} if self.normalization else {}
        return {"params": self.averages if self.average else self.params, **self.collections, **normalization}

    @property
    def axis(self) -> str | None:
        """Name of the mesh axis along which batches are divided; ``None`` on one device."""
        axis: str | None = self.model.axis
        return axis


def make_state(
    config: RunConfig,
    image_shape: tuple[int, ...],
    classes: int,
    steps: int,
    axis: str | None = None,
    normalization: Mapping[str, Any] | None = None,
    sample: NDArray[np.int32] | None = None,
) -> TrainState:
    """Returns the state before the first step.

    Args:
        config: the run.
        image_shape: (height, width, channels).
        classes: number of classes.
        steps: number of steps of the whole run, for the learning-rate schedule.
        axis: name of the mesh axis along which batches are divided; ``None`` for one device.
        normalization: ``mean`` and ``deviation`` of the training images by channel, if the run normalises images.
        sample: which of the training data the run trains on, (examples,); ``None`` for all.

    Example:
        >>> state = make_state(RunConfig(), image_shape=(28, 28, 1), classes=10, steps=10)
        >>> state.params["Conv_0"]["kernel"].shape
        (5, 5, 1, 32)
    """
    train, (network, numbers) = config.train, config.model.split()
    model = network.build(classes, jnp.dtype(train.precision), axis)
    init_key, run_key = jax.random.split(jax.random.key(config.seed, impl="threefry2x32"))
    variables = compile_program(init_variables, init_key, model=model, image_shape=image_shape)(init_key)
    optimizer = make_optimizer(train, steps)
    return TrainState(
        step=jnp.int32(0),
        params=variables["params"],
        collections={name: tree for name, tree in variables.items() if name not in ("params", *UNSAVED)},
        averages=jax.tree.map(jnp.copy, variables["params"]) if train.average else {},
        opt_state=init_optimizer(optimizer, train, variables["params"]),
        key=run_key,
        numbers={name: jnp.float32(number) for name, number in numbers.items()},
        label_smoothing=jnp.float32(train.label_smoothing),
        model=model,
        optimizer=optimizer,
        average=train.average,
        normalization={name: jnp.float32(values) for name, values in (normalization or {}).items()},
        augmentations=tuple(train.load("augment", each) if is_function(each) else each for each in train.augment),
        loss=train.load("loss", train.loss) if is_function(train.loss) else None,
        sample=None if sample is None else jnp.asarray(sample),
    )


def init_variables(key: jax.Array, *, model: nn.Module, image_shape: tuple[int, ...]) -> Any:
    """Returns the initial variables of a network by collection, such as ``params`` and ``batch_stats``."""
    return model.init(key, jnp.zeros((1, *image_shape), jnp.float32))


def train_step(state: TrainState, batch: Examples, *, parts: int = 1) -> tuple[TrainState, Metrics]:
    """Takes one optimizer step on the mean loss of a batch, and on the losses that the network itself sows.

    Args:
        state: before the step.
        batch: at least one example; on several devices, the share of this device.
        parts: number of equal parts into which the batch is cut; they are computed one after the other. Must be 1 for a
            network that couples examples (static).

    Returns:
        The state after the step, and the metrics of the batch under the parameters before the step.

    Example:
        >>> state = make_state(RunConfig(), image_shape=(28, 28, 1), classes=10, steps=10)
        >>> batch = Examples(jnp.zeros((4, 28, 28, 1), jnp.uint8), jnp.zeros(4, jnp.int32))
        >>> state, metrics = jax.jit(train_step)(state, batch)
        >>> int(state.step), int(metrics.seen)
        (1, 4)
    """
    chex.assert_rank([batch.images, batch.labels], [4, 1])
    chex.assert_type([batch.images, batch.labels], [jnp.float32 if state.augmentations else jnp.uint8, jnp.int32])
    dropout_key = jax.random.fold_in(jax.random.fold_in(state.key, _DROPOUT), state.step)

    def mean_loss(params: Any, batch: Examples) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        logits, updates = state.model.apply(
            {"params": params, **state.collections},
            prepare_images(batch.images, state.variables),
            train=True,
            **state.numbers,
            rngs={"dropout": dropout_key, "params": dropout_key},  # Flax takes "params" where it has no other stream
            mutable=[*state.collections, LOSSES],
        )
        if state.loss is None:
            one_hot = jax.nn.one_hot(batch.labels, logits.shape[-1], dtype=logits.dtype)
            losses = optax.softmax_cross_entropy(logits, optax.smooth_labels(one_hot, state.label_smoothing))
        else:
            losses = state.loss(logits, batch.labels)
        loss = losses.mean()
        loss = sum((jnp.sum(leaf) for leaf in jax.tree.leaves(updates.get(LOSSES, {}))), loss)
        return loss, (_count_correct(logits, batch.labels), {name: updates[name] for name in state.collections})

    differentiate = jax.value_and_grad(mean_loss, has_aux=True)
    if parts == 1:
        (loss, (correct, collections)), gradients = differentiate(state.params, batch)
    else:
        assert not state.collections
        collections = state.collections

        def add_part(sums: Any, part: Examples) -> tuple[Any, None]:
            (loss, (correct, _)), gradients = differentiate(state.params, part)
            return jax.tree.map(jnp.add, sums, (loss, correct, gradients)), None

        # The parts are computed one after the other, so that the outputs of a layer are still in the caches when they
        # are read again: 12.4 ms per step on one core, against 13.9 for the whole batch.
        nothing = (jnp.float32(0), jnp.int32(0), jax.tree.map(jnp.zeros_like, state.params))
        cut = Examples(*(array.reshape(parts, -1, *array.shape[1:]) for array in batch))
        (loss, correct, gradients), _ = lax.scan(add_part, nothing, cut)
        loss, gradients = jax.tree.map(lambda total: total / parts, (loss, gradients))
    axis = state.axis
    if axis is not None:
        loss, gradients = lax.pmean((loss, gradients), axis)
        correct = lax.psum(correct, axis)
    updates, opt_state = state.optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    averages = optax.incremental_update(params, state.averages, 1 - state.average) if state.average else {}
    new_state = state.replace(
        step=state.step + 1,
        params=params,
        averages=averages,
        collections=collections,
        opt_state=opt_state,
    )
    examples = len(batch.labels) * (1 if axis is None else lax.axis_size(axis))
    return new_state, Metrics(loss * examples, correct, jnp.int32(examples))


def count_examples(state: TrainState, data: Sized) -> int:
    """Returns how many examples an epoch has, given the labels of the training data."""
    return len(data) if state.sample is None else state.sample.shape[-1]


def shuffle(state: TrainState, examples: int, batch_size: int) -> jax.Array:
    """Returns the data order of the current epoch, a permutation of the examples, int32 (examples,).

    Of a run that has a sample, it is an order of the places in this.

    Example:
        >>> state = make_state(RunConfig(), image_shape=(28, 28, 1), classes=10, steps=10)
        >>> sorted(shuffle(state, examples=4, batch_size=2).tolist())
        [0, 1, 2, 3]
    """
    epoch = state.step // -(-examples // batch_size)
    return jax.random.permutation(jax.random.fold_in(jax.random.fold_in(state.key, _ORDER), epoch), examples)


def train_epoch(
    state: TrainState,
    metrics: Metrics,
    data: Examples,
    order: jax.Array,
    *,
    batch_size: int,
    steps: int,
    parts: int = 1,
    fed: bool = False,
) -> tuple[TrainState, Metrics, jax.Array]:
    """Trains on the next `steps` full batches of the epoch in one scan.

    If `batch_size` does not divide the number of examples, `train_last_batch` trains on the last, smaller batch.

    Args:
        state: before the first of these steps.
        metrics: sums over the epoch so far.
        data: all training examples; if they are fed, those of these steps alone, in the order of the epoch.
        order: int32 (examples,), from `shuffle`.
        batch_size: examples per step (static).
        steps: number of steps, at most as many as full batches remain in the epoch (static).
        parts: number of parts into which a batch is cut, as for `train_step` (static).
        fed: whether the examples are fed to this function, as `cnnjax.training.feeding` does (static).

    Returns:
        The state after these steps, the sums over the epoch so far, and the loss sum of each batch, float32 (steps,).
    """
    examples = len(order)
    epoch, position = state.step // -(-examples // batch_size), state.step % -(-examples // batch_size)
    numbers = lax.dynamic_slice(order, (position * batch_size,), (steps * batch_size,)).reshape(steps, batch_size)
    rows = _find_rows(state, numbers, fed)

    def body(carry: tuple[TrainState, Metrics], step: tuple[jax.Array, jax.Array]) -> Any:
        state, total = carry
        state, batch_metrics = train_step(state, _take_changed(state, data, *step, epoch), parts=parts)
        return (state, _add(total, batch_metrics)), batch_metrics.loss

    shares = take_share(rows, state.axis), take_share(numbers, state.axis)
    (state, metrics), losses = lax.scan(body, (state, metrics), shares)
    return state, metrics, losses


def train_last_batch(
    state: TrainState,
    metrics: Metrics,
    data: Examples,
    order: jax.Array,
    *,
    batch_size: int,
    parts: int = 1,
    fed: bool = False,
) -> tuple[TrainState, Metrics, jax.Array]:
    """Trains on the last batch of an epoch, which is smaller than the others; otherwise like `train_epoch`."""
    # The batch keeps its own shape instead of being padded and masked: so the gradient and the statistics of batch
    # normalisation are exactly those of its examples.
    numbers = order[-(len(order) % batch_size) :]
    model, axis = state.model, state.axis
    if axis is not None and len(numbers) % lax.axis_size(axis):
        # The devices cannot take equal shares, so each computes the whole batch.
        state, axis = state.replace(model=model.clone(axis=None)), None
    epoch = state.step // -(-len(order) // batch_size)
    rows = _find_rows(state, numbers, fed)
    batch = _take_changed(state, data, take_share(rows, axis), take_share(numbers, axis), epoch)
    state, batch_metrics = train_step(state, batch, parts=parts)
    return state.replace(model=model), _add(metrics, batch_metrics), batch_metrics.loss[None]


def evaluate(
    state: TrainState, data: Examples, metrics: Metrics | None = None, batch_size: int = EVALUATION_BATCH
) -> tuple[Metrics, jax.Array]:
    """Returns the metrics of a network over `data`, and the predicted classes.

    The loss is that of the run, without label smoothing. Every example counts exactly once, whatever the batch size.

    Args:
        state: the network and its parameters.
        data: n examples, at least one.
        metrics: sums over the examples before these, if the examples of a split are fed in chunks.
        batch_size: examples evaluated at once, over all devices (static).

    Returns:
        The sums over these examples and those before them, and the predicted classes int32 (n,).
    """
    full = len(data.labels) // batch_size * batch_size
    variables = state.variables
    measure_loss = state.loss or optax.softmax_cross_entropy_with_integer_labels
    axis = state.axis
    if axis is not None and batch_size % lax.axis_size(axis):
        axis = None  # the devices cannot take equal shares, so each evaluates all examples

    def body(total: Metrics, batch: Examples) -> tuple[Metrics, jax.Array]:
        logits = predict_logits(variables, batch.images, model=state.model)
        losses = measure_loss(logits, batch.labels)
        batch_metrics = Metrics(losses.sum(), _count_correct(logits, batch.labels), jnp.int32(len(batch.labels)))
        return _add(total, batch_metrics), jnp.argmax(logits, -1).astype(jnp.int32)

    rows = take_share(jnp.arange(full).reshape(-1, batch_size), axis)
    metrics = metrics or Metrics.zero()
    start = metrics if axis is None else Metrics.zero()
    sums, predictions = lax.scan(lambda total, own: body(total, _take(data, own)), start, rows)
    if axis is not None:
        sums, predictions = lax.psum(sums, axis), lax.all_gather(predictions, axis, axis=1, tiled=True)
        sums = _add(metrics, sums)
    predictions = predictions.reshape(-1)
    if full < len(data.labels):
        sums, rest = body(sums, jax.tree.map(lambda array: array[full:], data))
        predictions = jnp.concatenate([predictions, rest])
    return sums, predictions


def _find_rows(state: TrainState, numbers: jax.Array, fed: bool) -> jax.Array:
    """Returns where in the data the examples with these numbers are; those that are fed are there in this order."""
    if fed:
        return jnp.arange(numbers.size).reshape(numbers.shape)
    return numbers if state.sample is None else state.sample[numbers]


def _take_changed(state: TrainState, data: Examples, rows: jax.Array, numbers: jax.Array, epoch: jax.Array) -> Examples:
    """Returns the examples of some rows, with their images changed at random, by their numbers, if the run does so."""
    batch = _take(data, rows)
    if not state.augmentations:
        return batch
    from cnnjax.training.augmentation import augment  # imported here because most runs do without it

    key = jax.random.fold_in(jax.random.fold_in(state.key, _AUGMENTATION), epoch)
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(numbers)
    return batch._replace(images=augment(scale_images(batch.images), keys, state.augmentations))


def _take(data: Examples, rows: jax.Array) -> Examples:
    return Examples(data.images[rows], data.labels[rows])


def _add(total: Metrics, more: Metrics) -> Metrics:
    return Metrics(*jax.tree.map(jnp.add, total, more))


def _count_correct(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.sum(jnp.argmax(logits, -1) == labels, dtype=jnp.int32)
