"""Optimizers and schedules against formulas worked out here, and against optax's own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnjax.runs.train_config import TrainConfig
from cnnjax.training.optimizers import init_optimizer, make_optimizer, make_schedule
from compiling import compile_quickly

STEPS = 4
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "lion", "lamb")
PARAMS = {
    "Conv_0": {"kernel": np.linspace(-1, 1, 18, dtype=np.float32).reshape(3, 3, 1, 2), "bias": np.float32([0.5, -2])},
    "Dense_0": {"kernel": np.linspace(2, -1, 6, dtype=np.float32).reshape(3, 2), "bias": np.float32([1, -1])},
    "BatchNorm_0": {"scale": np.float32([1, 2]), "bias": np.float32([0, 1])},
}
GRADIENTS = [
    jax.tree.map(
        lambda leaf, i=i: np.cos(i + leaf * np.arange(leaf.size, dtype=np.float32).reshape(leaf.shape)), PARAMS
    )
    for i in range(STEPS)
]


def start(config: TrainConfig, params=PARAMS):
    """Returns the optimizer of a run of `STEPS` steps and its first state."""
    optimizer = make_optimizer(config, STEPS)
    return optimizer, init_optimizer(optimizer, config, params)


def train(optimizer: optax.GradientTransformation, state):
    """Returns the parameters after `STEPS` updates with the gradients above."""
    update = compile_quickly(optimizer.update)
    params = PARAMS
    for gradients in GRADIENTS:
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return params


def train_ours(**settings):
    return train(*start(TrainConfig(**settings)))


def train_theirs(optimizer: optax.GradientTransformation):
    return train(optimizer, optimizer.init(PARAMS))


def assert_close(ours, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), ours, expected)


def is_kernel(params):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def step_sgd_by_hand(config: TrainConfig, factors):
    """``v = g + wd * w + m * v``, then ``w -= lr * factor * v``, or with ``g + wd * w + m * v`` for v by Nesterov."""

    def train_leaf(weights, *gradients):
        velocity = np.zeros_like(weights)
        for factor, gradient in zip(factors, gradients, strict=True):
            decay = config.weight_decay if weights.ndim > 1 else 0.0
            force = gradient + decay * weights
            velocity = force + config.momentum * velocity
            direction = force + config.momentum * velocity if config.nesterov else velocity
            weights = weights - config.learning_rate * factor * direction
        return weights

    return jax.tree.map(train_leaf, PARAMS, *GRADIENTS)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"learning_rate": 0.3, "momentum": 0.9},
        {"learning_rate": 0.3, "momentum": 0.9, "nesterov": True},
        {"weight_decay": 0.1},
        {"learning_rate": 0.2, "momentum": 0.5, "weight_decay": 0.2},
        {"learning_rate": 0.2, "momentum": 0.5, "nesterov": True, "weight_decay": 0.2},
    ],
)
def test_sgd_is_the_formula_worked_out_by_hand(settings):
    config = TrainConfig(**settings)
    assert_close(train_ours(**settings), step_sgd_by_hand(config, [1.0] * STEPS))


def test_one_plain_step_subtracts_learning_rate_times_gradient():
    params = {"kernel": jnp.float32([[1.0, 2.0]])}
    optimizer, state = start(TrainConfig(learning_rate=0.5), params)
    updates, _ = optimizer.update({"kernel": jnp.float32([[4.0, -2.0]])}, state, params)
    np.testing.assert_array_equal(updates["kernel"], [[-2.0, 1.0]])


@pytest.mark.parametrize("schedule", ["constant", "cosine", "onecycle"])
def test_the_schedule_multiplies_the_learning_rate(schedule):
    config = TrainConfig(learning_rate=0.3, momentum=0.9, schedule=schedule, warmup=0.5)
    factor = make_schedule(schedule, 0.5, STEPS)
    expected = step_sgd_by_hand(config, [float(factor(step)) for step in range(STEPS)])
    assert_close(train(*start(config)), expected)


def test_adam_is_that_of_optax_with_the_decay_in_the_gradient():
    ours = train_ours(optimizer="adam", learning_rate=0.1, weight_decay=0.2)
    assert_close(ours, train_theirs(optax.chain(optax.add_decayed_weights(0.2, mask=is_kernel), optax.adam(0.1))))


def test_adamw_is_that_of_optax_with_decoupled_decay_of_kernels():
    ours = train_ours(optimizer="adamw", learning_rate=0.1, weight_decay=0.2)
    assert_close(ours, train_theirs(optax.adamw(0.1, weight_decay=0.2, mask=is_kernel)))


def test_adamw_follows_a_schedule_as_that_of_optax_does():
    ours = train_ours(optimizer="adamw", learning_rate=0.1, weight_decay=0.2, schedule="cosine")
    rate = optax.cosine_decay_schedule(0.1, STEPS)
    assert_close(ours, train_theirs(optax.adamw(rate, weight_decay=0.2, mask=is_kernel)))


def test_without_decay_adam_and_adamw_are_the_same():
    adam, adamw = train_ours(optimizer="adam"), train_ours(optimizer="adamw")
    jax.tree.map(np.testing.assert_array_equal, adam, adamw)
    assert not np.array_equal(adam["Dense_0"]["kernel"], PARAMS["Dense_0"]["kernel"])


@pytest.mark.parametrize(
    ("optimizer", "theirs"),
    [
        ("rmsprop", optax.chain(optax.add_decayed_weights(0.2, mask=is_kernel), optax.rmsprop(0.1))),
        ("lion", optax.lion(0.1, weight_decay=0.2, mask=is_kernel)),
        ("lamb", optax.lamb(0.1, weight_decay=0.2, mask=is_kernel)),
    ],
)
def test_the_other_optimizers_are_those_of_optax(optimizer, theirs):
    assert_close(train_ours(optimizer=optimizer, learning_rate=0.1, weight_decay=0.2), train_theirs(theirs))


def test_a_long_gradient_is_scaled_down_to_the_norm():
    theirs = optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1, momentum=0.9))
    assert optax.tree.norm(GRADIENTS[0]) > 0.5
    assert_close(train_ours(learning_rate=0.1, momentum=0.9, clip_norm=0.5), train_theirs(theirs))
    unclipped = train_ours(learning_rate=0.1, momentum=0.9)
    assert_close(train_ours(learning_rate=0.1, momentum=0.9, clip_norm=1e6), unclipped)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_only_kernels_decay(optimizer):
    def moves(config):
        transformation, state = start(config)
        updates, _ = transformation.update(jax.tree.map(np.zeros_like, PARAMS), state, PARAMS)
        return jax.tree.map(lambda update: bool(np.any(update)), updates)

    assert moves(TrainConfig(optimizer=optimizer, weight_decay=0.1)) == is_kernel(PARAMS)
    assert not any(jax.tree.leaves(moves(TrainConfig(optimizer=optimizer))))


def test_values_that_vary_between_trials_are_float32_data_in_the_state():
    _, state = start(TrainConfig(learning_rate=0.3, momentum=0.9, weight_decay=0.2))
    expected = {"learning_rate": 0.3, "momentum": 0.9, "weight_decay": 0.2}
    assert state.hyperparams == {name: jnp.float32(value) for name, value in expected.items()}
    assert {(value.dtype, value.shape) for value in state.hyperparams.values()} == {(jnp.dtype("float32"), ())}


SAME_FORM = [
    ({}, {"learning_rate": 0.5}),
    ({}, {"label_smoothing": 0.1, "batch_size": 7, "epochs": 9}),
    ({"momentum": 0.9, "weight_decay": 0.1}, {"momentum": 0.5, "weight_decay": 0.2}),
    ({"optimizer": "adamw", "weight_decay": 0.1}, {"optimizer": "adamw", "weight_decay": 0.2, "learning_rate": 1.0}),
]
OTHER_FORM = [
    ({}, {"momentum": 0.9}),
    ({"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}),
    ({}, {"weight_decay": 0.1}),
    ({}, {"optimizer": "adam"}),
    ({}, {"clip_norm": 1.0}),
    ({"optimizer": "adam"}, {"optimizer": "adamw"}),
    ({}, {"schedule": "cosine"}),
    ({"schedule": "onecycle"}, {"schedule": "onecycle", "warmup": 0.5}),
]


@pytest.mark.parametrize(("one", "other"), SAME_FORM)
def test_runs_of_the_same_form_share_the_optimizer(one, other):
    assert make_optimizer(TrainConfig(**one), STEPS) == make_optimizer(TrainConfig(**other), STEPS)


@pytest.mark.parametrize(("one", "other"), OTHER_FORM)
def test_runs_of_different_form_do_not_share_the_optimizer(one, other):
    assert make_optimizer(TrainConfig(**one), STEPS) != make_optimizer(TrainConfig(**other), STEPS)


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}])
def test_sgd_promotes_no_dtype_silently(settings):
    optimizer, state = start(TrainConfig(**settings))
    with jax.numpy_dtype_promotion("strict"):  # optax's Adam and schedules promote the step counter themselves
        updates, _ = jax.eval_shape(optimizer.update, GRADIENTS[0], state, PARAMS)
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule", ["constant", "onecycle", "step"])
def test_an_update_keeps_the_shapes_and_dtypes_of_the_state(optimizer, schedule):
    transformation, state = start(TrainConfig(optimizer=optimizer, schedule=schedule, weight_decay=0.1))
    _, after = jax.eval_shape(transformation.update, GRADIENTS[0], state, PARAMS)
    assert jax.eval_shape(lambda: state) == after


class TestSchedules:
    def test_constant_is_one(self):
        assert [float(make_schedule("constant", 0.0, 10)(step)) for step in (0, 5, 9)] == [1, 1, 1]

    def test_cosine_falls_from_one_through_a_half_to_zero(self):
        factor = make_schedule("cosine", 0.0, 100)
        values = [float(factor(step)) for step in (0, 25, 50, 100)]
        assert values == pytest.approx([1, (1 + 2**-0.5) / 2, 0.5, 0], abs=1e-6)
        assert float(factor(99)) == pytest.approx(0, abs=1e-3)

    def test_linear_falls_from_one_to_zero_after_the_warmup(self):
        factor = make_schedule("linear", 0.2, 10)
        assert [float(factor(step)) for step in (0, 1, 2, 6, 10)] == pytest.approx([0, 0.5, 1, 0.5, 0])

    @pytest.mark.parametrize("warmup", [0.0, 0.1])
    def test_step_is_a_tenth_after_half_and_again_after_three_quarters_of_all_steps(self, warmup):
        factor = make_schedule("step", warmup, 100)
        values = [float(factor(step)) for step in (20, 49, 50, 74, 75, 99)]
        assert values == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])

    def test_onecycle_rises_from_a_25th_to_one_and_falls_to_a_250000th(self):
        factor = make_schedule("onecycle", 0.3, 100)
        values = [float(factor(step)) for step in (0, 15, 30, 65, 100)]
        assert values == pytest.approx([1 / 25, (1 + 1 / 25) / 2, 1, (1 + 1 / 250_000) / 2, 1 / 250_000], rel=1e-4)

    @pytest.mark.parametrize("steps", [1, 2, 3, 5])
    @pytest.mark.parametrize("share", [0.001, 0.3, 0.99])
    def test_onecycle_is_finite_and_positive_however_few_the_steps(self, steps, share):
        values = compile_quickly(jax.vmap(make_schedule("onecycle", share, steps)))(jnp.arange(steps))
        assert np.isfinite(values).all()
        assert (values > 0).all()

    @pytest.mark.parametrize("share", [0.1, 0.3, 0.75])
    def test_onecycle_peaks_where_its_warmup_ends(self, share):
        values = jax.vmap(make_schedule("onecycle", share, 200))(jnp.arange(200))
        peak = int(jnp.argmax(values))
        assert peak == round(share * 200)
        assert (jnp.diff(values[: peak + 1]) > 0).all()
        assert (jnp.diff(values[peak:]) < 0).all()

    @pytest.mark.parametrize("kind", ["constant", "cosine"])
    def test_warmup_rises_linearly_from_zero_and_then_the_schedule_begins(self, kind):
        factor = make_schedule(kind, 0.2, 50)
        assert [float(factor(step)) for step in range(11)] == pytest.approx([step / 10 for step in range(11)])
        rest = make_schedule(kind, 0.0, 40)
        steps = jnp.arange(40)
        np.testing.assert_allclose(jax.vmap(factor)(steps + 10), jax.vmap(rest)(steps), rtol=1e-6)

    @settings(max_examples=40)
    @given(
        st.sampled_from(["constant", "cosine", "onecycle"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(1, 100_000),
        st.floats(0, 1),
    )
    def test_every_factor_is_finite_and_between_zero_and_one(self, kind, share, steps, where):
        factor = float(make_schedule(kind, share, steps)(jnp.int32(where * steps)))
        assert 0 <= factor <= 1
