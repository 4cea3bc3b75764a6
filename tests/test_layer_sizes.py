"""Layers by arithmetic: sizes and costs agree with the linen module, for many networks."""

import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnjax.errors import InputError
from cnnjax.models.cnn import ModelConfig
from cnnjax.models.module import CNN, pools_first
from cnnjax.models.network import OUTPUTS, Layer
from cnnjax.settings.blocks import pad_pixels

CLASSES = 3


OTHERS = {
    "groups": st.sampled_from([1, 2, "depthwise"]),
    "norm": st.sampled_from(["batch", "layer", "group", "instance"]),
    "residual": st.just(True),
    "global_pool": st.sampled_from(["avg", "max"]),
    "spatial_dropout": st.just(0.5),
}


@st.composite
def networks(draw):
    """A network and the shape of an image; about half of them cannot be built."""
    count = draw(st.integers(0, 3))

    def each(entry):
        return draw(st.tuples(*[entry] * count))

    size, few = st.integers(1, 5), st.integers(1, 3)
    pixels = st.tuples(st.integers(0, 2), st.integers(0, 2))
    config = ModelConfig(
        filters=each(few),
        kernel_size=each(size | st.tuples(size, size)),
        strides=each(few | st.tuples(few, few)),
        padding=each(st.sampled_from(["valid", "same", 1]) | st.tuples(pixels, pixels)),
        pool=each(st.sampled_from(["max", "avg", "none"])),
        pool_size=each(few | st.tuples(few, few)),
        pool_strides=draw(st.none() | st.tuples(*[few | st.tuples(few, few)] * count)),
        dense=draw(st.lists(st.integers(1, 4), max_size=2)),
        dropout=draw(st.sampled_from([0.0, 0.5])),
        use_bias=draw(st.booleans()),
        **draw(st.fixed_dictionaries({}, optional=OTHERS | {"dilation": st.just(each(few | st.tuples(few, few)))})),
    )
    return config, draw(st.tuples(st.integers(1, 14), st.integers(1, 14), few))


def build_module(config: ModelConfig, input_shape: tuple[int, ...]):
    """Returns the shapes of the module's variables and of its layers' outputs, by name; nothing is computed."""
    model = CNN(config, CLASSES)

    def run():
        images = jnp.zeros((1, *input_shape))
        variables = model.init(jax.random.key(0), images)
        _, extra = model.apply(variables, images, capture_intermediates=True, mutable=["intermediates"])
        return variables, extra["intermediates"]

    variables, intermediates = jax.eval_shape(run)
    layers = {name: calls for name, calls in intermediates.items() if name not in ("__call__", OUTPUTS)}
    outputs = {name: _drop_batch(calls["__call__"][0]) for name, calls in layers.items()}
    return variables, outputs


def _drop_batch(output):
    """Returns the shape of a layer's output for one image; convolution blocks are (height, width, batch, channels)."""
    return output.shape[1:] if output.ndim == 2 else (*output.shape[:2], output.shape[3])


def can_be_built(config: ModelConfig, input_shape: tuple[int, ...]) -> bool:
    try:
        variables, outputs = build_module(config, input_shape)
    except (TypeError, ValueError, ZeroDivisionError):
        return False
    return all(leaf.size for leaf in jax.tree.leaves(variables)) and all(map(math.prod, outputs.values()))


def count(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@settings(max_examples=50)
@given(networks())
def test_layers_are_those_of_the_module_or_refused_exactly_when_it_cannot_be_built(network):
    config, input_shape = network
    try:
        layers = config.list_layers(input_shape, CLASSES)
    except InputError:
        assert not can_be_built(config, input_shape)
        return
    variables, outputs = build_module(config, input_shape)
    assert sum(layer.trainable for layer in layers) == count(variables["params"])
    assert sum(layer.non_trainable for layer in layers) == count(variables.get("batch_stats", {}))
    by_name = {layer.name: layer for layer in layers}
    assert len(by_name) == len(layers)
    assert {layer.name for layer in layers if layer.trainable} == variables["params"].keys()
    for name, parameters in variables["params"].items():
        assert by_name[name].trainable == count(parameters)
        assert by_name[name].kind == name.split("_")[0]
    computed = {
        layer.name: layer.output_shape
        for layer in layers
        if not layer.kind.endswith("Pool") and layer.kind not in ("Flatten", "Add")
    }
    for index, block in enumerate(config.blocks):
        if pools_first(config, block):
            computed[f"Conv_{index}"] = by_name[f"MaxPool_{index}"].output_shape
    assert computed == outputs


@settings(max_examples=100)
@given(networks())
def test_pooling_and_flattening_have_the_shapes_of_flax(network):
    config, input_shape = network
    try:
        layers = config.list_layers(input_shape, CLASSES)
    except InputError:
        return
    for before, after in itertools.pairwise(layers):
        if after.kind in ("MaxPool", "AvgPool"):
            block = config.blocks[int(after.name.split("_")[1])]
            images = jax.ShapeDtypeStruct((1, *before.output_shape), jnp.float32)
            pooled = jax.eval_shape(lambda x, b=block: nn.max_pool(x, b.pool_size, b.pool_strides), images)
            assert after.output_shape == pooled.shape[1:]
        if after.kind == "Flatten":
            assert after.output_shape == (math.prod(before.output_shape),)
        if after.kind.startswith("Global"):
            assert after.output_shape == before.output_shape[-1:]


@settings(max_examples=100)
@given(networks())
def test_parameters_and_flops_are_the_closed_forms(network):
    config, input_shape = network
    try:
        layers = config.list_layers(input_shape, CLASSES)
    except InputError:
        return
    inputs = block_inputs = input_shape
    for layer in layers:
        if layer.kind == "Conv":
            block, block_inputs = config.blocks[int(layer.name.split("_")[1])], inputs
            groups = inputs[-1] if block.groups == "depthwise" else block.groups
            seen = math.prod(block.kernel_size) * inputs[-1] / groups
            assert layer.trainable == (seen + config.use_bias) * layer.output_shape[-1]
            assert layer.flops == 2 * seen * math.prod(layer.output_shape)
        elif layer.kind == "Shortcut":
            assert layer.trainable == block_inputs[-1] * layer.output_shape[-1]
            assert layer.flops == 2 * block_inputs[-1] * math.prod(layer.output_shape)
        elif layer.kind == "Dense":
            assert layer.trainable == (inputs[-1] + config.use_bias) * layer.output_shape[-1]
            assert layer.flops == 2 * inputs[-1] * layer.output_shape[-1]
        elif layer.kind == "BatchNorm":
            assert layer.trainable == layer.non_trainable == 2 * inputs[-1]
        elif layer.kind.endswith("Norm"):
            assert (layer.trainable, layer.non_trainable) == (2 * inputs[-1], 0)
        else:
            assert (layer.parameters, layer.flops) == (0, 0)
        assert layer.activation_bytes == 4 * math.prod(layer.output_shape)
        inputs = layer.output_shape


def test_without_classes_the_layers_end_after_the_last_block():
    layers = ModelConfig().list_layers((28, 28, 1), None)
    assert [layer.name for layer in layers] == ["Conv_0", "MaxPool_0", "Conv_1", "MaxPool_1"]


def test_layers_stand_in_the_order_of_the_computation():
    config = ModelConfig(filters=(8, 8), pool=("avg", "none"), dense=(16,), dropout=0.5, batch_norm=True)
    assert [layer.name for layer in config.list_layers((28, 28, 1), 10)] == [
        *("Conv_0", "BatchNorm_0", "AvgPool_0", "Conv_1", "BatchNorm_1"),
        *("Flatten", "Dropout_0", "Dense_0", "BatchNorm_2", "Dropout_1", "Dense_1"),
    ]
    config = ModelConfig((8, 8), padding="same", norm="instance", residual=True, global_pool="avg", spatial_dropout=0.5)
    assert [layer.name for layer in config.list_layers((28, 28, 1), 10)] == [
        *("Conv_0", "InstanceNorm_0", "Shortcut_0", "Add_0", "MaxPool_0", "SpatialDropout_0"),
        *("Conv_1", "InstanceNorm_1", "Add_1", "MaxPool_1", "SpatialDropout_1", "GlobalAvgPool", "Dense_0"),
    ]


def test_a_network_without_blocks_is_dense_on_the_pixels():
    assert ModelConfig(filters=()).list_layers((28, 28, 1), 10) == (
        Layer("Flatten", "Flatten", (784,)),
        Layer("Dense_0", "Dense", (10,), trainable=7850, flops=15_680),
    )


@pytest.mark.parametrize(
    ("settings", "input_shape", "message"),
    [
        ({}, (4, 28, 1), r"model: Conv_0: its 5x5 window is larger than its 4x28 input \(shape \(4, 28, 1\)\)"),
        ({}, (28, 4, 3), r"model: Conv_0: its 5x5 window is larger than its 28x4 input \(shape \(28, 4, 3\)\)"),
        ({}, (12, 12, 1), r"model: Conv_1: its 5x5 window is larger than its 4x4 input \(shape \(4, 4, 32\)\)"),
        ({}, (5, 5, 1), r"model: MaxPool_0: its 2x2 window is larger than its 1x1 input \(shape \(1, 1, 32\)\)"),
        ({"pool": "avg", "pool_size": [2, 9]}, (28, 28, 1), r"model: AvgPool_1: its 9x9 window is larger than its 8x8"),
        (
            {"filters": [8], "kernel_size": [[9, 1]], "padding": 1},
            (6, 6, 1),
            r"Conv_0: its 9x1 window is larger than its 6x6 input \(shape \(6, 6, 1\), 8x8 with its padding\)",
        ),
        ({"kernel_size": 3, "dilation": 3}, (6, 6, 1), r"model: Conv_0: its 7x7 window is larger than its 6x6 input"),
    ],
)
def test_a_window_larger_than_its_input_is_refused_by_layer_and_shapes(settings, input_shape, message):
    with pytest.raises(InputError, match=message):
        ModelConfig.from_dict(settings).list_layers(input_shape, 10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups": 2}, "Conv_0: groups=2: its 3 input channels and its 32 filters must be multiples of 2"),
        ({"groups": [1, 64]}, "Conv_1: groups=64: its 32 input channels and its 64 filters must be multiples of 64"),
        ({"groups": "depthwise"}, "Conv_0: groups=depthwise: its 3 input channels and .* must be multiples of 3"),
        ({"residual": True}, "Conv_0: residual: its output is 24x24, but that of its shortcut is 28x28; must be equal"),
    ],
)
def test_groups_and_shortcuts_that_do_not_fit_are_refused_by_layer(settings, message):
    with pytest.raises(InputError, match=f"model: {message}"):
        ModelConfig.from_dict(settings).list_layers((28, 28, 3), 10)


@pytest.mark.parametrize("padding", ["valid", "same", ((1, 2), (0, 3))])
def test_a_window_as_large_as_its_padded_input_fits(padding):
    rows, columns = pad_pixels(padding, (4, 3), (4 + 3 * (padding != "valid"), 3 + 3 * (padding != "valid")), (1, 1))
    window = (4 + sum(rows), 3 + sum(columns))
    config = ModelConfig(filters=(2,), kernel_size=(window,), padding=(padding,), pool="none")
    smallest = config.list_layers((4, 3, 1), 10)[0].output_shape
    assert smallest == ((4, 3, 2) if padding == "same" else (1, 1, 2))


def test_a_network_that_no_store_could_hold_is_refused():
    with pytest.raises(InputError, match=r"model: the network has 9.22e\+18 parameters; must be < 2\*\*63"):
        ModelConfig(filters=(), dense=(2**31 - 1, 2**31 - 1, 2**31 - 1)).list_layers((28, 28, 1), 10)
