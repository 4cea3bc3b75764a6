"""The linen module against one made of Flax's own layers."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnnjax
from cnnjax.models.cnn import ModelConfig
from cnnjax.models.module import ACTIVATIONS, CNN
from compiling import compile_quickly

CLASSES = 4
IMAGES = np.random.default_rng(0).random((3, 14, 11, 2), np.float32)
CONFIGS = {
    "default": ModelConfig(filters=(4, 5), kernel_size=3),
    "same, average": ModelConfig(filters=(4, 5), kernel_size=(3, (2, 4)), padding="same", pool="avg"),
    "strided": ModelConfig(filters=(4,), strides=((2, 1),), pool="none", activation="gelu"),
    "pixels": ModelConfig(filters=(4,), kernel_size=3, padding=(((1, 0), (2, 1)),), pool_size=3, pool_strides=2),
    "no bias": ModelConfig(filters=(4,), use_bias=False, dense=(6,), activation="tanh"),
    "normalised": ModelConfig(filters=(4, 5), kernel_size=3, batch_norm=True, dense=(6,), activation=("relu", "silu")),
    "dense": ModelConfig(filters=(), dense=(7, 6), dropout=0.5, batch_norm=True, activation="leaky_relu"),
    "dilated": ModelConfig(filters=(4, 5), kernel_size=3, dilation=((2, 1), 2), padding="same"),
    "grouped": ModelConfig(filters=(4, 6), kernel_size=3, groups=("depthwise", 2), strides=(1, 2), padding="same"),
    "layer": ModelConfig(filters=(4, 5), kernel_size=3, norm="layer", dense=(6,), pool="avg"),
    "group": ModelConfig(filters=(4, 6), kernel_size=3, norm="group", dense=(6,), activation="gelu"),
    "instance": ModelConfig(filters=(4, 5), kernel_size=3, norm="instance", dense=(6,)),
    "residual": ModelConfig(filters=(2, 4), padding="same", residual=True, strides=(1, 2), pool=("none", "max")),
    "residual, normalised": ModelConfig(filters=(2, 4), padding="same", residual=True, norm="batch", groups=2),
    "average of maps": ModelConfig(filters=(4, 5), kernel_size=3, global_pool="avg", initializer="he_normal"),
    "maximum of maps": ModelConfig(
        filters=(4, 5), kernel_size=3, spatial_dropout=0.5, global_pool="max", dropout=0.5, initializer="orthogonal"
    ),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


class Plain(nn.Module):
    """The same network made of ``nn.Conv``, ``nn.Dense``, and Flax's normalisations and pooling."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.dtype(jnp.float32)

    @nn.compact
    def __call__(self, x, *, train: bool = False):
        config, initial = self.config, getattr(nn.initializers, self.config.initializer)()

        def activate(x, name, shortcut=0):
            settings = {"epsilon": 1e-3, "dtype": self.dtype}
            if config.norm == "batch":
                x = nn.BatchNorm(use_running_average=not train, momentum=0.99, **settings)(x)
            elif config.norm == "layer":
                x = nn.LayerNorm(reduction_axes=range(1, x.ndim), feature_axes=-1, **settings)(x)
            elif config.norm == "group":
                x = nn.GroupNorm(
                    max(n for n in (1, 2, 4, 8, 16, 32) if n == 1 or x.shape[-1] % (2 * n) == 0), **settings
                )(x)
            elif config.norm == "instance" and x.ndim == 4:
                x = nn.InstanceNorm(**settings)(x)
            x = x + shortcut
            return x if name == "linear" else getattr(nn, name)(x)

        def dense(x, width):
            x = nn.Dropout(config.dropout, deterministic=not train)(x)
            return nn.Dense(width, use_bias=config.use_bias, kernel_init=initial, dtype=self.dtype)(x)

        for index, block in enumerate(config.blocks):
            padding = block.padding.upper() if isinstance(block.padding, str) else block.padding
            conv = functools.partial(nn.Conv, kernel_init=initial, dtype=self.dtype)
            y = conv(
                block.filters,
                block.kernel_size,
                block.strides,
                padding,
                kernel_dilation=block.dilation,
                feature_group_count=x.shape[-1] if block.groups == "depthwise" else block.groups,
                use_bias=config.use_bias,
            )(x)
            shortcut = 0
            if config.residual:
                project = conv(block.filters, (1, 1), block.strides, use_bias=False, name=f"Shortcut_{index}")
                shortcut = x if x.shape == y.shape else project(x)
            x = activate(y, block.activation, shortcut)
            if block.pool != "none":
                x = {"max": nn.max_pool, "avg": nn.avg_pool}[block.pool](x, block.pool_size, block.pool_strides)
            maps = nn.Dropout(config.spatial_dropout, broadcast_dims=(1, 2), name=f"SpatialDropout_{index}")
            x = maps(x, deterministic=not train)
        flattened = x.reshape(len(x), -1)
        x = {"none": flattened, "avg": x.mean((1, 2)), "max": x.max((1, 2))}[config.global_pool]
        for width in config.dense:
            x = activate(dense(x, width), config.dense_activation)
        return dense(x, CLASSES).astype(jnp.float32)


@functools.cache
def init(model: nn.Module):
    return compile_quickly(model.init)(jax.random.key(0), IMAGES)


def disturb(variables):
    """Moves biases and statistics away from their zeros and ones, so that each has an effect."""
    return jax.tree.map(lambda leaf: leaf + np.float32(0.1) * np.cos(np.float32(leaf)), variables)


@every_config
def test_the_parameter_tree_is_that_of_flax_in_names_shapes_and_layout(config):
    ours, plain = (jax.eval_shape(m.init, jax.random.key(0), IMAGES) for m in (CNN(config, CLASSES), Plain(config)))
    assert ours == plain
    assert {leaf.dtype for leaf in jax.tree.leaves(ours)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("name", ["default", "normalised", "grouped", "residual", "average of maps", "maximum of maps"])
def test_the_initial_values_are_those_of_flax_with_the_same_key(name):
    ours, plain = init(CNN(CONFIGS[name], CLASSES)), init(Plain(CONFIGS[name]))
    assert jax.tree.structure(ours) == jax.tree.structure(plain)
    for leaf, other in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(leaf, other)


@every_config
def test_weights_moved_to_flax_give_equal_logits(config):
    variables = disturb(init(CNN(config, CLASSES)))
    ours = compile_quickly(CNN(config, CLASSES).apply)(variables, IMAGES)
    plain = compile_quickly(Plain(config).apply)(variables, IMAGES)
    assert ours.shape == (len(IMAGES), CLASSES)
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["default", "normalised", "dense", "residual, normalised", "maximum of maps"])
def test_in_training_mode_logits_and_statistics_equal_those_of_flax(name):
    config = CONFIGS[name]
    variables = disturb(init(CNN(config, CLASSES)))

    @compile_quickly
    def run(variables):
        rngs = {"dropout": jax.random.key(1)}
        return [
            model.apply(variables, IMAGES, train=True, rngs=rngs, mutable=["batch_stats"])
            for model in (CNN(config, CLASSES), Plain(config))
        ]

    ours, plain = run(variables)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-4), ours, plain)
    assert ours[0].shape == (len(IMAGES), CLASSES)


@pytest.mark.parametrize("name", ["default", "normalised"])
def test_in_bfloat16_logits_are_within_two_percent_of_float32_and_of_flax(name):
    config, half = CONFIGS[name], jnp.dtype(jnp.bfloat16)
    variables = disturb(init(CNN(config, CLASSES)))
    assert jax.eval_shape(CNN(config, CLASSES, half).init, jax.random.key(0), IMAGES) == jax.eval_shape(
        lambda: variables
    )
    exact = compile_quickly(CNN(config, CLASSES).apply)(variables, IMAGES)
    ours = compile_quickly(CNN(config, CLASSES, half).apply)(variables, IMAGES)
    plain = compile_quickly(Plain(config, half).apply)(variables, IMAGES)
    assert ours.dtype == jnp.float32
    tolerance = 0.02 * float(jnp.abs(exact).max())
    np.testing.assert_allclose(ours, exact, atol=tolerance)
    np.testing.assert_allclose(ours, plain, atol=tolerance)
    assert not np.array_equal(ours, exact)


def test_kernels_start_glorot_uniform_and_biases_at_zero():
    params = compile_quickly(CNN(ModelConfig(), 10).init)(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))["params"]
    fans = {"Conv_0": (25, 25 * 32), "Conv_1": (25 * 32, 25 * 64), "Dense_0": (1024, 10)}
    for name, (fan_in, fan_out) in fans.items():
        bound = np.sqrt(6 / (fan_in + fan_out))
        kernel = np.asarray(params[name]["kernel"])
        assert 0.99 * bound < np.abs(kernel).max() <= bound
        tolerance = 5 / np.sqrt(kernel.size)  # of a mean of `size` draws, in standard deviations
        assert abs(kernel.mean()) < tolerance * bound / np.sqrt(3)
        assert kernel.var() == pytest.approx(bound**2 / 3, rel=tolerance)
        assert not params[name]["bias"].any()


def test_batch_normalisation_starts_as_the_identity_of_its_statistics():
    variables = init(CNN(CONFIGS["normalised"], CLASSES))
    assert variables["params"]["BatchNorm_0"].keys() == {"scale", "bias"}
    assert (variables["params"]["BatchNorm_0"]["scale"] == 1).all()
    assert not variables["params"]["BatchNorm_0"]["bias"].any()
    assert not variables["batch_stats"]["BatchNorm_0"]["mean"].any()
    assert (variables["batch_stats"]["BatchNorm_0"]["var"] == 1).all()


def test_compiled_equals_eager():
    model = CNN(CONFIGS["normalised"], CLASSES)
    variables = disturb(init(model))
    np.testing.assert_allclose(jax.jit(model.apply)(variables, IMAGES), model.apply(variables, IMAGES), atol=1e-5)


def test_each_image_is_judged_alone():
    model = CNN(CONFIGS["normalised"], CLASSES)
    variables = disturb(init(model))
    logits = compile_quickly(model.apply)
    together = logits(variables, IMAGES)
    alone = np.concatenate([logits(variables, IMAGES[i : i + 1]) for i in range(len(IMAGES))])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@every_config
def test_the_arithmetic_promotes_no_dtype_silently(config, dtype):
    if dtype == "bfloat16":  # Flax's own batch normalisation promotes bfloat16
        config = dataclasses.replace(config, norm="none")
    model = CNN(config, CLASSES, jnp.dtype(dtype))

    def run(key):
        images = jnp.asarray(IMAGES)
        variables = model.init(key, images)
        return model.apply(variables, images, train=True, rngs={"dropout": key}, mutable=["batch_stats"])[0]

    with jax.numpy_dtype_promotion("strict"):
        logits = jax.eval_shape(run, jax.random.key(0))
    assert (logits.shape, logits.dtype) == ((len(IMAGES), CLASSES), jnp.float32)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_the_one_of_its_name(name):
    x = jnp.linspace(-3, 3, 13)
    expected = x if name == "linear" else getattr(nn, name)(x)
    np.testing.assert_array_equal(ACTIVATIONS[name](x), expected)


def test_images_without_a_batch_axis_are_refused():
    with pytest.raises(AssertionError, match="rank"):
        CNN(CONFIGS["default"], CLASSES).init(jax.random.key(0), IMAGES[0])


def test_the_package_gives_the_network_by_name_and_refuses_unknown_names():
    assert cnnjax.CNN is CNN
    with pytest.raises(AttributeError, match="module 'cnnjax' has no attribute 'RNN'"):
        cnnjax.RNN  # noqa: B018


def test_a_rate_of_dropout_that_is_data_must_come_with_the_call():
    config, images, rngs = ModelConfig(filters=(), dropout=0.5), jnp.ones((2, 3, 3, 1)), {"dropout": jax.random.key(1)}
    variables = CNN(config, 3).init(jax.random.key(0), images)
    model = CNN(config, 3, dropout_is_data=True)
    with pytest.raises(TypeError, match="must be given in training"):
        model.apply(variables, images, train=True, rngs=rngs)
    given = model.apply(variables, images, train=True, rngs=rngs, dropout=jnp.float32(0.5))
    np.testing.assert_array_equal(given, CNN(config, 3).apply(variables, images, train=True, rngs=rngs))
