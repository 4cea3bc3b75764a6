"""Steps, epochs and evaluation as identities: compiled = eager, in pieces = whole, any batching = all at once."""

import dataclasses
import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnjax import DataConfig, fit, load_run
from cnnjax.data.loading import load
from cnnjax.models.cnn import ModelConfig
from cnnjax.models.prediction import predict_logits, scale_images
from cnnjax.runs.config import RunConfig
from cnnjax.runs.train_config import TrainConfig
from cnnjax.training.step import (
    Examples,
    Metrics,
    TrainState,
    evaluate,
    make_state,
    shuffle,
    train_epoch,
    train_last_batch,
    train_step,
)
from compiling import compile_quickly

SHAPE, CLASSES, EXAMPLES, BATCH = (8, 7, 2), 3, 23, 5
STEPS = 10  # two epochs of four full batches and a rest of three examples

SMALL = ModelConfig(filters=(3,), kernel_size=3)
FULL = ModelConfig(filters=(3,), kernel_size=3, padding="same", pool="avg", dense=(4,), dropout=0.5, batch_norm=True)
CONFIGS = {
    "plain": RunConfig(SMALL, TrainConfig(learning_rate=0.1, batch_size=BATCH)),
    "everything": RunConfig(
        FULL,
        TrainConfig(
            learning_rate=0.1,
            batch_size=BATCH,
            momentum=0.9,
            nesterov=True,
            weight_decay=0.01,
            label_smoothing=0.1,
            schedule="onecycle",
        ),
    ),
    "adamw, bfloat16": RunConfig(
        dataclasses.replace(FULL, dropout=0.0, use_bias=False),
        TrainConfig(batch_size=BATCH, optimizer="adamw", weight_decay=0.1, schedule="cosine", precision="bfloat16"),
    ),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def make_data(examples: int = EXAMPLES, seed: int = 0) -> Examples:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (examples, *SHAPE), np.uint8)
    return Examples(jnp.asarray(images), jnp.asarray(random.integers(0, CLASSES, examples), jnp.int32))


DATA = make_data()
step_once = compile_quickly(train_step)
run_logits = compile_quickly(lambda state, images: predict_logits(_variables(state), images, model=state.model))


def _variables(state):
    return {"params": state.params, **state.collections}


run_epoch = jax.jit(train_epoch, static_argnames=("batch_size", "steps"))
run_rest = compile_quickly(train_last_batch, static_argnames="batch_size")
run_evaluation = compile_quickly(evaluate, static_argnames="batch_size")


def begin(config: RunConfig, **changes) -> TrainState:
    """Returns the first state of a run, with `changes` to its training, seed or model."""
    train = {name: changes.pop(name) for name in list(changes) if hasattr(TrainConfig, name)}
    return begin_once(dataclasses.replace(config, train=dataclasses.replace(config.train, **train), **changes))


@functools.cache
def begin_once(config: RunConfig) -> TrainState:
    return make_state(config, SHAPE, CLASSES, STEPS)


def take(order, step: int) -> Examples:
    rows = order[step * BATCH : (step + 1) * BATCH]
    return Examples(DATA.images[rows], DATA.labels[rows])


def numbers(state: TrainState) -> list[np.ndarray]:
    """Returns every array of a state, the random key as its bits."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state.replace(key=jax.random.key_data(state.key)))]


def assert_identical(one, other):
    for a, b in zip(numbers(one), numbers(other), strict=True):
        np.testing.assert_array_equal(a, b)


def assert_close(one, other, **tolerance):
    for a, b in zip(numbers(one), numbers(other), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def moved(before, after) -> bool:
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return any(not np.array_equal(a, b) for a, b in pairs)


class TestStep:
    @pytest.mark.slow
    @every_config
    def test_compiled_equals_eager(self, config):
        state, batch = begin(config), take(jnp.arange(EXAMPLES), 0)
        tolerance = (
            {"rtol": 0.05, "atol": 0.02} if "bfloat16" in config.train.precision else {"rtol": 1e-4, "atol": 1e-5}
        )
        eager, eager_metrics = train_step(state, batch)
        compiled, metrics = step_once(state, batch)
        assert_close(compiled, eager, **tolerance)
        np.testing.assert_allclose(np.asarray(metrics), np.asarray(eager_metrics), **tolerance)

    @every_config
    def test_keeps_the_structure_shapes_and_dtypes_of_the_state(self, config):
        state = begin(config)
        after, metrics = jax.eval_shape(train_step, state, DATA)
        assert after == jax.eval_shape(lambda: state)
        assert [(m.shape, m.dtype) for m in metrics] == [((), "float32"), ((), "int32"), ((), "int32")]

    def test_plain_sgd_moves_along_the_numerical_gradient(self):
        model = ModelConfig(filters=(2,), kernel_size=3, activation="tanh", pool="avg")
        state = begin(RunConfig(model, TrainConfig(learning_rate=1.0)))
        gradient = jax.tree.map(jnp.subtract, state.params, step_once(state, DATA)[0].params)

        @jax.jit
        def mean_loss(params):
            logits = predict_logits({**_variables(state), "params": params}, DATA.images, model=state.model)
            return optax.softmax_cross_entropy_with_integer_labels(logits, DATA.labels).mean()

        random = np.random.default_rng(0)
        for _ in range(3):
            direction = jax.tree.map(lambda leaf: np.float32(random.normal(size=leaf.shape)), gradient)
            ahead, behind = (
                mean_loss(jax.tree.map(lambda p, d, e=e: p + e * d, state.params, direction)) for e in (0.01, -0.01)
            )
            slope = sum(np.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True))
            assert float(ahead - behind) / 0.02 == pytest.approx(float(slope), rel=0.01, abs=1e-3)

    def test_metrics_are_the_sums_before_the_step(self):
        state = begin(CONFIGS["plain"])
        _, metrics = step_once(state, DATA)
        before, _ = run_evaluation(state, DATA)
        np.testing.assert_allclose(np.asarray(metrics), np.asarray(before), rtol=1e-6)
        assert metrics.means() == pytest.approx(before.means(), rel=1e-6)

    def test_without_label_smoothing_the_loss_is_the_plain_cross_entropy(self):
        state = begin(CONFIGS["plain"], label_smoothing=0.0)
        log_probabilities = jax.nn.log_softmax(run_logits(state, DATA.images))
        expected = -sum(float(row[label]) for row, label in zip(log_probabilities, DATA.labels, strict=True))
        assert float(step_once(state, DATA)[1].loss) == pytest.approx(expected, rel=1e-5)

    def test_label_smoothing_mixes_in_the_mean_over_all_classes(self):
        state = begin(CONFIGS["plain"], label_smoothing=0.3)
        log_probabilities = np.asarray(jax.nn.log_softmax(run_logits(state, DATA.images)))
        right = log_probabilities[np.arange(EXAMPLES), DATA.labels]
        expected = -(0.7 * right + 0.3 * log_probabilities.mean(-1)).sum()
        assert float(step_once(state, DATA)[1].loss) == pytest.approx(float(expected), rel=1e-5)

    def test_images_and_labels_of_another_type_or_rank_are_refused(self):
        state = begin(CONFIGS["plain"])
        with pytest.raises(AssertionError, match="type"):
            train_step(state, Examples(scale_images(DATA.images), DATA.labels))
        with pytest.raises(AssertionError, match="rank"):
            train_step(state, Examples(DATA.images[0], DATA.labels))

    def test_lowers_for_cpu_gpu_and_tpu(self):
        state = begin(CONFIGS["everything"])

        def step(key_data, state, batch):  # typed keys are not serialisable arguments
            after, metrics = train_step(state.replace(key=jax.random.wrap_key_data(key_data)), batch)
            return jax.tree.leaves(after.replace(key=key_data)), metrics

        arguments = jax.eval_shape(lambda: (jax.random.key_data(state.key), state.replace(key=None), DATA))
        platforms = ("cpu", "cuda", "tpu")
        exported = jax.export.export(jax.jit(step), platforms=platforms)(*arguments)
        assert exported.platforms == platforms
        assert "stablehlo.convolution" in exported.mlir_module()
        for platform, convolutions in (("cpu", 0), ("cuda", 2), ("tpu", 2)):
            text = jax.export.export(jax.jit(step), platforms=(platform,))(*arguments).mlir_module()
            assert text.count("stablehlo.convolution") == convolutions  # forward, and the gradient of the kernel

    def test_promotes_no_dtype_silently(self):
        state = begin(CONFIGS["plain"], momentum=0.9, weight_decay=0.1, label_smoothing=0.1)
        with jax.numpy_dtype_promotion("strict"):
            after, _ = jax.eval_shape(train_step, state, DATA)
        assert after == jax.eval_shape(lambda: state)


class TestCompilations:
    def test_changing_numbers_does_not_compile_a_step_again(self):
        traces = 0

        @jax.jit
        def step(state, batch):
            nonlocal traces
            traces += 1
            return train_step(state, batch)

        changes = [{}, {"learning_rate": 0.5}, {"momentum": 0.5}, {"weight_decay": 0.2}, {"label_smoothing": 0.2}]
        changes += [{"seed": 1}, {"batch_size": 9}, {"validation_split": 0.5}]
        losses = []
        for change in changes:
            state = begin(CONFIGS["everything"], **change)
            for _ in range(3):
                state, metrics = step(state, take(jnp.arange(EXAMPLES), 0))
            losses.append(float(metrics.loss))
        assert traces == 1
        assert len(set(losses[:6])) == 6  # and yet every number has its effect

    def test_another_form_compiles_another_step(self):
        states = [begin(CONFIGS["plain"]), begin(CONFIGS["plain"], optimizer="adam")]
        assert jax.tree.structure(states[0]) != jax.tree.structure(states[1])


class TestEpoch:
    @every_config
    def test_in_one_scan_equals_its_steps_one_by_one(self, config):
        state = begin(config)
        order = shuffle(state, EXAMPLES, BATCH)
        scanned, sums, losses = run_epoch(state, Metrics.zero(), DATA, order, batch_size=BATCH, steps=4)
        metrics = []
        for index in range(4):
            state, batch_metrics = step_once(state, take(order, index))
            metrics.append(batch_metrics)
        tolerance = (
            {"rtol": 0.05, "atol": 0.02} if "bfloat16" in config.train.precision else {"rtol": 1e-4, "atol": 1e-5}
        )
        assert_close(scanned, state, **tolerance)
        np.testing.assert_allclose(losses, [m.loss for m in metrics], **tolerance)
        np.testing.assert_allclose(np.asarray(sums), np.sum(metrics, axis=0), **tolerance)
        assert int(scanned.step) == 4
        assert int(sums.seen) == 20

    @pytest.mark.parametrize("pieces", [(2, 2), (1, 2, 1)], ids=str)
    @pytest.mark.parametrize("name", ["plain", "everything"])
    def test_cut_into_pieces_equals_the_whole_bit_for_bit(self, name, pieces):
        state = begin(CONFIGS[name])
        order = shuffle(state, EXAMPLES, BATCH)
        whole, sums, losses = run_epoch(state, Metrics.zero(), DATA, order, batch_size=BATCH, steps=4)
        metrics, parts = Metrics.zero(), []
        for steps in pieces:
            state, metrics, part = run_epoch(state, metrics, DATA, order, batch_size=BATCH, steps=steps)
            parts.append(part)
        assert_identical(state, whole)
        np.testing.assert_array_equal(np.concatenate(parts), losses)
        np.testing.assert_array_equal(np.asarray(metrics), np.asarray(sums))

    def test_the_last_smaller_batch_holds_the_examples_that_are_left(self):
        state = begin(CONFIGS["plain"])
        order = shuffle(state, EXAMPLES, BATCH)
        state, sums, _ = run_epoch(state, Metrics.zero(), DATA, order, batch_size=BATCH, steps=4)
        expected, rest = step_once(state, take(order, 4))
        after, total, losses = run_rest(state, sums, DATA, order, batch_size=BATCH)
        assert_close(after, expected, rtol=1e-5, atol=1e-6)
        assert (int(rest.seen), int(total.seen), int(after.step)) == (3, EXAMPLES, 5)
        np.testing.assert_allclose(losses, [rest.loss], rtol=1e-5)
        np.testing.assert_allclose(total.loss, sums.loss + rest.loss, rtol=1e-5)
        assert int(total.correct) == int(sums.correct + rest.correct)

    def test_training_lowers_the_loss_of_what_can_be_learnt(self):
        state = begin(CONFIGS["plain"])
        data = Examples(DATA.images.at[:].set(DATA.labels[:, None, None, None].astype(jnp.uint8) * 100), DATA.labels)
        before, _ = run_evaluation(state, data)
        for _ in range(30):
            state, _ = step_once(state, data)
        after, _ = run_evaluation(state, data)
        assert after.loss < 0.7 * before.loss


class TestOrder:
    state = functools.cached_property(lambda self: begin(CONFIGS["plain"]))

    @settings(max_examples=8)
    @given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 10**6))
    def test_every_epoch_visits_every_example_exactly_once(self, examples, batch_size, step):
        order = shuffle(self.state.replace(step=jnp.int32(step)), examples, batch_size)
        assert order.dtype == jnp.int32
        np.testing.assert_array_equal(np.sort(order), np.arange(examples))

    def test_stays_within_an_epoch_and_changes_with_the_next(self):
        orders = [np.asarray(shuffle(self.state.replace(step=jnp.int32(step)), EXAMPLES, BATCH)) for step in range(15)]
        epochs = [orders[0:5], orders[5:10], orders[10:15]]  # five steps each
        assert all(np.array_equal(order, epoch[0]) for epoch in epochs for order in epoch)
        assert len({epoch[0].tobytes() for epoch in epochs}) == 3

    def test_depends_on_the_seed_and_not_on_the_network_or_optimizer(self):
        def order(config, seed):
            state = begin(config, seed=seed).replace(step=jnp.int32(7))
            return np.asarray(shuffle(state, EXAMPLES, BATCH)).tolist()

        assert order(CONFIGS["plain"], 3) == order(CONFIGS["everything"], 3) == order(CONFIGS["adamw, bfloat16"], 3)
        assert order(CONFIGS["plain"], 3) != order(CONFIGS["plain"], 4)


class TestStart:
    def test_equal_shaped_layers_of_different_networks_start_equal(self):
        def start(**settings):
            return begin(RunConfig(ModelConfig(filters=(3,), kernel_size=3, **settings), seed=5)).params

        plain, other = start(), start(dense=(4,), batch_norm=True, dropout=0.5, activation="tanh")
        np.testing.assert_array_equal(plain["Conv_0"]["kernel"], other["Conv_0"]["kernel"])
        average = start(pool="avg", use_bias=False)
        np.testing.assert_array_equal(plain["Conv_0"]["kernel"], average["Conv_0"]["kernel"])
        np.testing.assert_array_equal(plain["Dense_0"]["kernel"], average["Dense_0"]["kernel"])

    def test_depends_on_the_seed_alone(self):
        config = CONFIGS["everything"]
        first, again, other = (
            make_state(dataclasses.replace(config, seed=seed), SHAPE, CLASSES, STEPS) for seed in (1, 1, 2)
        )
        assert_identical(first, again)
        for name in ("Conv_0", "Dense_0", "Dense_1"):
            assert moved(first.params[name]["kernel"], other.params[name]["kernel"])

    def test_does_not_depend_on_the_precision_or_the_training(self):
        one = begin(CONFIGS["everything"])
        other = begin(CONFIGS["everything"], precision="bfloat16", learning_rate=3.0, schedule="constant")
        assert not moved(one.params, other.params)

    def test_takes_no_step(self):
        state = begin(CONFIGS["everything"])
        assert (int(state.step), state.step.dtype) == (0, jnp.int32)
        assert state.collections["batch_stats"].keys() == {"BatchNorm_0", "BatchNorm_1"}
        assert begin(CONFIGS["plain"]).collections == {}


class TestEvaluation:
    @pytest.mark.parametrize("batch_size", [1, 4, 22, 23, 24, 200])
    def test_does_not_depend_on_the_batch_size(self, batch_size):
        state = begin(CONFIGS["everything"])
        metrics, predictions = run_evaluation(state, DATA, batch_size=batch_size)
        logits = run_logits(state, DATA.images)
        expected = optax.softmax_cross_entropy_with_integer_labels(logits, DATA.labels).sum()
        np.testing.assert_array_equal(predictions, jnp.argmax(logits, -1))
        assert predictions.dtype == jnp.int32
        assert int(metrics.seen) == EXAMPLES
        assert int(metrics.correct) == int((jnp.argmax(logits, -1) == DATA.labels).sum())
        np.testing.assert_allclose(metrics.loss, expected, rtol=1e-5)

    def test_ignores_label_smoothing(self):
        state = begin(CONFIGS["plain"])
        smooth = state.replace(label_smoothing=jnp.float32(0.5))
        np.testing.assert_array_equal(
            np.asarray(run_evaluation(state, DATA)[0]), np.asarray(run_evaluation(smooth, DATA)[0])
        )

    def test_means_are_sums_divided_by_the_examples_seen(self):
        assert Metrics(jnp.float32(6), jnp.int32(3), jnp.int32(4)).means() == (1.5, 0.75)

    def test_scaled_images_lie_in_zero_to_one(self):
        scaled = scale_images(jnp.uint8([0, 51, 255]))
        assert scaled.dtype == jnp.float32
        assert (scaled[0], scaled[2]) == (0, 1)
        assert float(scaled[1]) == pytest.approx(0.2, rel=2e-7)


class TestDropout:
    state = functools.cached_property(
        lambda self: begin(RunConfig(dataclasses.replace(SMALL, dropout=0.5), CONFIGS["plain"].train))
    )

    def test_is_active_in_training_and_not_in_evaluation(self):
        without = begin(CONFIGS["plain"])
        assert not moved(self.state.params, without.params)
        np.testing.assert_array_equal(run_evaluation(self.state, DATA)[0].loss, run_evaluation(without, DATA)[0].loss)
        assert step_once(self.state, DATA)[1].loss != step_once(without, DATA)[1].loss

    def test_differs_between_steps_and_seeds_and_repeats_for_the_same(self):
        states = [
            self.state,
            self.state,
            self.state.replace(step=jnp.int32(1)),
            self.state.replace(key=jax.random.key(9)),
        ]
        first, again, later, other = (float(step_once(state, DATA)[1].loss) for state in states)
        assert first == again
        assert len({first, later, other}) == 3


class TestBatchNormalisation:
    def test_statistics_move_by_a_hundredth_towards_those_of_the_batch(self):
        model = ModelConfig(filters=(), dense=(4,), batch_norm=True)
        state = begin(RunConfig(model))
        after, _ = step_once(state, DATA)
        hidden = scale_images(DATA.images).reshape(EXAMPLES, -1) @ state.params["Dense_0"]["kernel"]
        np.testing.assert_allclose(
            after.collections["batch_stats"]["BatchNorm_0"]["mean"], 0.01 * hidden.mean(0), rtol=1e-3, atol=1e-6
        )
        np.testing.assert_allclose(
            after.collections["batch_stats"]["BatchNorm_0"]["var"], 0.99 + 0.01 * hidden.var(0), rtol=1e-4
        )

    def test_statistics_are_used_and_left_alone_in_evaluation(self):
        state = begin(CONFIGS["everything"])
        trained, _ = step_once(state, DATA)
        assert moved(state.collections, trained.collections)
        before, _ = run_evaluation(trained, DATA)
        swapped, _ = run_evaluation(trained.replace(collections=state.collections), DATA)
        again, _ = run_evaluation(trained, DATA)
        assert before.loss == again.loss != swapped.loss


def test_the_moving_average_of_the_parameters_is_evaluated_and_stored(tmp_path):
    train, data = TrainConfig(epochs=2, batch_size=50, learning_rate=0.1), DataConfig(train_size=100)
    plain = fit(RunConfig(ModelConfig(filters=(), dense=(4,)), train, data), None)
    network = ModelConfig(filters=(), dense=(4,))
    config = RunConfig(network, dataclasses.replace(train, average=0.5), data)
    run = fit(config, tmp_path)
    assert [epoch.loss for epoch in run.history] == [epoch.loss for epoch in plain.history]
    state = make_state(config, (28, 28, 1), 10, steps=4)
    images, labels = load("mnist").train.images[:100], load("mnist").train.labels[:100]
    averages = state.params
    for _ in range(2):
        order = shuffle(state, examples=100, batch_size=50)
        for start in (0, 50):
            rows = order[start : start + 50]
            state, _ = step_once(state, Examples(jnp.asarray(images)[rows], jnp.asarray(labels)[rows]))
            averages = jax.tree.map(lambda old, new: 0.5 * old + 0.5 * new, averages, state.params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), run.params, averages)
    test = load("mnist").test
    assert run.record.test_accuracy == np.mean(load_run(run.key, tmp_path).predict(test.images) == test.labels)


def test_later_settings_at_their_defaults_leave_the_run_key_as_it_was():
    assert RunConfig().key == "8b63c3f3dac5bb0b439590a62fd9d6bb1b265505181d8d6e6c59d5974cfb7f2d"
    keys = {RunConfig(train=TrainConfig(**settings)).key for settings in ({}, {"average": 0.9}, {"clip_norm": 1.0})}
    assert len(keys) == 3
