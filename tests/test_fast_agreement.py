"""The fast layers compute what those of JAX and Flax do: values and gradients of any order, wherever they are used."""

import functools
import itertools
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import assume, given, note, settings
from hypothesis import strategies as st
from jax import lax
from jax.flatten_util import ravel_pytree

from cnnjax.errors import UnavailableError
from cnnjax.layers import conv_general_dilated, custom_calls, normalize_batch, onednn, use_fast_layers
from cnnjax.layers.custom_calls import Window
from cnnjax.layers.general import convolve_and_pool_batch
from cnnjax.machine import native
from compiling import compile_quickly
from experiments.networks.lenet import LeNet5
from experiments.networks.resnet import ResNet
from experiments.networks.separable import Separable
from experiments.networks.vgg import VGG

TOLERANCES = {"float32": 1e-5, "bfloat16": 2e-2}
"""Largest difference from JAX's own layers in float32, relative to the largest value; of the dtype of the fast ones."""


def find_missing():
    try:
        native.find_onednn(), native.find_compiler()
    except UnavailableError as error:
        return str(error)
    return ""


needs_native = pytest.mark.skipif(bool(find_missing()), reason=find_missing())
each_dtype = pytest.mark.parametrize("dtype", TOLERANCES)
each_reduction = pytest.mark.parametrize("reduce", [pytest.param("max", marks=needs_native), "avg"])
"""XLA's own gradient of a maximum does not follow the definition where a window has a NaN."""
each_switch = pytest.mark.parametrize("is_fast", [True, False], ids=["fast", "in JAX alone"])


def draw_like(*arrays, seed=0):
    generator = np.random.default_rng(seed)
    return [jnp.asarray(generator.normal(size=array.shape), array.dtype) for array in arrays]


def differentiate_twice(function):
    """Returns a function of arrays to the value of one, its gradients, and their gradients, for random cotangents."""

    def find_gradients(cotangent, *operands):
        value, pull = jax.vjp(function, *operands)
        return value, pull(cotangent)

    @compile_quickly
    def find_all(cotangent, *operands):
        (value, gradients), pull = jax.vjp(find_gradients, cotangent, *operands)
        return value, gradients, pull((cotangent, tuple(draw_like(*operands, seed=1))))

    return lambda *operands: find_all(draw_like(jax.eval_shape(function, *operands))[0], *operands)


def compare(results, expected, tolerance):
    """Raises unless all arrays of two trees agree, each relative to its largest finite value."""
    assert jax.tree.map(jnp.shape, results) == jax.tree.map(jnp.shape, expected)
    for ours, theirs in zip(jax.tree.leaves(results), jax.tree.leaves(expected), strict=True):
        wide = np.asarray(theirs, np.float64)
        largest = np.abs(wide[np.isfinite(wide)]).max(initial=1e-6)
        np.testing.assert_allclose(np.asarray(ours, np.float64), wide, rtol=0, atol=tolerance * largest)


def compare_twice(ours, theirs, dtype, *operands):
    """Compares value, gradients and second gradients with those in float32, of what `differentiate_twice` returned."""
    operands = [operand.astype(dtype) for operand in operands]
    results = differentiate_twice(ours)(*operands)
    assert {leaf.dtype for leaf in jax.tree.leaves(results)} == {jnp.dtype(dtype)}
    expected = theirs(*(operand.astype(jnp.float32) for operand in operands))
    compare(results[:2], expected[:2], TOLERANCES[dtype])
    compare(results[2], expected[2], 4 * TOLERANCES[dtype])  # products of several rounded factors


# Convolution


@st.composite
def convolutions(draw):
    """Shapes and named arguments of a convolution, of any kind."""
    rank = draw(st.sampled_from([2, 2, 1, 3]))
    axes = "HWD"[:rank]
    groups, batch = draw(st.sampled_from([1, 1, 2, 3])), draw(st.sampled_from([1, 2, 3, 5]))
    channels = groups * draw(st.integers(1, 3))
    filters = groups * draw(st.integers(1, 3))

    def draw_each(strategy):
        return [draw(strategy) for _ in axes]

    taps, sizes = draw_each(st.integers(1, 4)), draw_each(st.integers(1, 8))
    strides, gaps = draw_each(st.integers(1, 3)), draw_each(st.sampled_from([1, 1, 2]))
    scale = draw(st.sampled_from([None, None, "drawn"])) and draw_each(st.integers(1, 3))
    pads = st.sampled_from([0, 1, 2, -1, 5])
    padding = draw(st.sampled_from(["SAME", "VALID", "SAME_LOWER", "drawn"]))
    if padding == "drawn" or scale:
        padding = [(draw(pads), draw(pads)) for _ in axes]
        assume(all(size + min(low, 0) + min(high, 0) > 0 for size, (low, high) in zip(sizes, padding, strict=True)))
    images = dict(zip("NC" + axes, [batch, channels, *sizes], strict=True))
    kernel = dict(zip("OI" + axes, [filters, channels // groups, *taps], strict=True))
    layouts = [
        "".join(
            draw(
                st.sampled_from([letters[0] + axes + letters[1], letters + axes, draw(st.permutations(letters + axes))])
            )
        )
        for letters in ("NC", "OI", "NC")
    ]
    named = {
        "window_strides": strides,
        "padding": padding,
        "lhs_dilation": scale,
        "rhs_dilation": gaps if max(gaps) > 1 else None,
        "dimension_numbers": tuple(layouts),
        "feature_group_count": groups,
    }
    shapes = [[images[axis] for axis in layouts[0]], [kernel[axis] for axis in layouts[1]]]
    return shapes, named


def check_convolution(convolution):
    """Compares a convolution in each dtype, by oneDNN where it is there and in JAX alone, with that of lax."""
    (images, kernel), named = convolution
    operands = draw_like(jax.ShapeDtypeStruct(images, jnp.float32), jax.ShapeDtypeStruct(kernel, jnp.float32), seed=2)
    theirs = differentiate_twice(functools.partial(convolve_by_lax, **named))
    for is_fast, dtype in itertools.product((False,) if find_missing() else (True, False), TOLERANCES):
        note(f"{dtype}, {'fast' if is_fast else 'in JAX alone'}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CNNJAX_FAST_LAYERS", str(int(is_fast)))
            compare_twice(functools.partial(conv_general_dilated, **named), theirs, dtype, *operands)


def convolve_by_lax(images, kernel, *, padding, lhs_dilation, dimension_numbers, **named):
    """Convolves with explicit padding done by `lax.pad`, as XLA's convolution gets negative padding wrong on CPU."""
    if not isinstance(padding, str):
        margins = dict.fromkeys(dimension_numbers[0], (0, 0, 0))
        spatial = [axis for axis in dimension_numbers[1] if axis not in "OI"]
        for axis, pads, scale in zip(spatial, padding, lhs_dilation or [1] * len(spatial), strict=True):
            margins[axis] = (*pads, scale - 1)
        images, padding, lhs_dilation = lax.pad(images, 0.0, list(margins.values())), "VALID", None
    return lax.conv_general_dilated(
        images, kernel, padding=padding, lhs_dilation=lhs_dilation, dimension_numbers=dimension_numbers, **named
    )


@settings(max_examples=3)
@given(convolutions())
def test_any_convolution_equals_that_of_lax_with_its_gradients(convolution):
    check_convolution(convolution)


@pytest.mark.slow
@settings(max_examples=30)
@given(convolutions())
def test_very_many_convolutions_equal_those_of_lax_with_their_gradients(convolution):
    check_convolution(convolution)


@needs_native
@settings(max_examples=16)
@given(
    st.tuples(st.integers(1, 3), st.integers(3, 19), st.integers(3, 19), st.sampled_from([16, 32, 48])),
    st.sampled_from([16, 32]),
    st.sampled_from([1, 2]),
    st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 4))] * 2),
)
def test_tiles_in_cpp_equal_the_convolution_of_lax_with_its_gradients(shape, filters, step, padding):
    images, kernel = draw_like(jnp.ones(shape), jnp.ones((3, 3, shape[3], filters)), seed=3)
    window = Window((step, step), padding, (1, 1), tiled=True)
    (top, _), (left, _) = padding
    assert custom_calls.can_tile(images, kernel, window) == (step == 1 or top % 2 == left % 2)
    assume(custom_calls.can_tile(images, kernel, window))

    def by_lax(images, kernel):
        return lax.conv_general_dilated(images, kernel, (step, step), padding, dimension_numbers=NUMBERS)

    theirs = differentiate_twice(by_lax)
    compare_twice(lambda *operands: onednn.convolve(*operands, window), theirs, "float32", images, kernel)


@needs_native
@pytest.mark.parametrize(
    ("images", "kernel", "named", "is_tiled"),
    [
        ((2, 32, 32, 64), (3, 3, 64, 64), {}, True),
        ((2, 16, 16, 64), (3, 3, 64, 128), {"padding": "VALID"}, True),
        ((2, 32, 32, 16), (3, 3, 16, 16), {}, True),
        ((2, 5, 5, 32), (3, 3, 32, 32), {}, False),  # most of the tiles would lie outside
        ((2, 32, 32, 60), (3, 3, 60, 64), {}, False),
        ((2, 32, 32, 64), (3, 3, 64, 64), {"window_strides": (2, 2)}, True),
        ((2, 32, 32, 64), (3, 3, 64, 64), {"window_strides": (2, 1)}, False),
        ((2, 32, 32, 64), (3, 3, 64, 64), {"window_strides": (3, 3)}, False),
        ((2, 8, 8, 64), (3, 3, 64, 64), {"window_strides": (2, 2), "padding": "VALID"}, False),  # 3x3 outputs
        ((2, 32, 32, 64), (3, 3, 64, 64), {"rhs_dilation": (2, 2)}, False),
        ((2, 32, 32, 64), (3, 3, 32, 64), {"feature_group_count": 2}, False),
    ],
    ids=str,
)
def test_tiles_are_taken_where_they_save_most(images, kernel, named, is_tiled):
    operands = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (images, kernel)]
    program = jax.jit(lambda *operands: conv_general_dilated(*operands, **{**USUAL, **named})).lower(*operands)
    assert ("tiled = 1" in program.as_text()) == is_tiled


@given(
    st.sampled_from([3, 16]),
    st.tuples(st.integers(6, 12), st.integers(6, 12)),
    st.sampled_from([(1, 1), (2, 2), (1, 3)]),
    st.sampled_from(["valid", "same", ((1, 0), (0, 2))]),
    st.sampled_from([(2, 2), (3, 1), (2, 3)]),
)
@settings(max_examples=15)
def test_outputs_that_no_pooling_window_reaches_are_left_out(channels, size, strides, padding, window):
    images, kernel = draw_like(jnp.ones((2, *size, channels)), jnp.ones((3, 3, channels, 16)), seed=4)
    pads = padding.upper() if isinstance(padding, str) else padding

    def by_lax(images, kernel):
        outputs = lax.conv_general_dilated(images, kernel, strides, pads, dimension_numbers=NUMBERS)
        return lax.reduce_window(outputs, -jnp.inf, lax.max, (1, *window, 1), (1, *window, 1), "VALID")

    assume(jax.eval_shape(by_lax, images, kernel).size)
    found, expected = (
        compile_quickly(jax.value_and_grad(lambda *operands, pool=pool: (pool(*operands) ** 2).sum(), (0, 1)))(
            images, kernel
        )
        for pool in (
            functools.partial(convolve_and_pool_batch, strides=strides, padding=padding, window=window),
            by_lax,
        )
    )
    compare(found, expected, 1e-4)


NUMBERS = ("NHWC", "HWIO", "NHWC")
IMAGES, KERNEL = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 6))


@pytest.mark.parametrize(
    ("images", "kernel", "named"),
    [
        *((IMAGES.astype(dtype), KERNEL.astype(dtype), {}) for dtype in ("float16", "int8", "complex64")),
        (IMAGES.astype(jnp.bfloat16), KERNEL.astype(jnp.bfloat16), {"preferred_element_type": jnp.float32}),
        (IMAGES[:0], KERNEL, {}),
        (IMAGES, KERNEL[..., :0], {}),
        (IMAGES[:, :1], KERNEL, {"padding": "VALID"}),
        (IMAGES, KERNEL, {"batch_group_count": 2}),
    ],
)
def test_what_the_fast_layers_cannot_do_is_left_to_xla(images, kernel, named):
    programs = [
        str(jax.make_jaxpr(lambda *operands: convolve(*operands, **{**USUAL, **named}))(images, kernel))  # noqa: B023
        for convolve in (conv_general_dilated, lax.conv_general_dilated)
    ]
    assert programs[0] == programs[1]


USUAL = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": NUMBERS}


@pytest.mark.parametrize(
    "wrong",
    [
        {"window_strides": (1,)},
        {"padding": "HALF"},
        {"padding": [(1, 1)]},
        {"padding": [(-9, -9)] * 2},
        {"rhs_dilation": (1, 0)},
        {"lhs_dilation": (0, 1)},
        {"feature_group_count": 3},
        {"dimension_numbers": ("NHWC", "HWIO", "NCHH")},
        {"preferred_element_type": "int8"},
    ],
    ids=str,
)
def test_wrong_arguments_raise_the_error_of_lax(wrong):
    errors = []
    for convolve in (lax.conv_general_dilated, conv_general_dilated):
        with pytest.raises((TypeError, ValueError, RuntimeError)) as raised:
            convolve(IMAGES, KERNEL, **{**USUAL, **wrong})
        errors.append((raised.type, str(raised.value)))
    assert errors[0] == errors[1]


def test_windows_may_be_arrays_of_numpy():
    named = {"padding": np.array([[1, 1], [0, 2]]), "rhs_dilation": np.array([1, 2]), "lhs_dilation": np.array([2, 1])}
    named |= {"window_strides": np.array([1, 1]), "dimension_numbers": NUMBERS, "precision": "highest"}
    results = [convolve(IMAGES, KERNEL, **named) for convolve in (conv_general_dilated, lax.conv_general_dilated)]
    compare(*results, 1e-6)


def run(program, **variables):
    """Runs a program in a process of its own, with environment variables, and returns what it prints."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **variables}
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


AGREE = """
import jax, jax.numpy as jnp, numpy as np
from jax import lax
from cnnjax.layers import conv_general_dilated, custom_calls

def differentiate(convolve, dtype):
    images, kernel = (jax.random.normal(jax.random.key(0), shape) for shape in ((2, 7, 7, 20), (3, 3, 20, 24)))
    images, kernel = (array.astype(jnp.bfloat16).astype(dtype) for array in (images, kernel))
    layouts = ("NHWC", "HWIO", "NHWC")
    run = lambda *operands: convolve(*operands, (2, 2), "SAME", dimension_numbers=layouts)
    outputs, pull = jax.vjp(run, images, kernel)
    return outputs, *pull(outputs)

expected = differentiate(lax.conv_general_dilated, jnp.float32)
for dtype, tolerance in ((jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)):
    for ours, theirs in zip(differentiate(conv_general_dilated, dtype), expected, strict=True):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours.astype(jnp.float32), theirs, rtol=0, atol=tolerance * np.abs(theirs).max())
"""


@needs_native
def test_where_the_compiler_fails_xla_convolves(tmp_path):
    program = f"{AGREE}\nassert 'false fails' in custom_calls.explain_missing(), custom_calls.explain_missing()"
    run(program, CXX="false", CNNJAX_CACHE_DIR=str(tmp_path))


@needs_native
def test_on_a_cpu_without_bfloat16_it_is_convolved_in_float32():
    run(AGREE, ONEDNN_MAX_CPU_ISA="AVX2")


KERNELS = """
import jax, jax.numpy as jnp, numpy as np
from jax import lax
from cnnjax.layers import conv_general_dilated

def differentiate(convolve, size, kernel, groups, scale=None):
    rank = len(kernel) - 2
    layouts = ("N" + "DHW"[:rank] + "C", "DHW"[:rank] + "IO", "N" + "DHW"[:rank] + "C")
    images = jax.random.normal(jax.random.key(0), (2, *[size] * rank, kernel[-2] * groups))
    named = dict(lhs_dilation=scale and [scale] * rank, dimension_numbers=layouts, feature_group_count=groups)
    run = lambda *operands: convolve(*operands, [1] * rank, [(2, 2)] * rank, **named)
    outputs, pull = jax.vjp(run, images, jax.random.normal(jax.random.key(1), kernel))
    return outputs, *pull(outputs)

for case in [(12, (5, 5, 5, 1, 3), 1), (6, (5, 5, 5, 3, 2), 1, 2), (12, (3, 3, 2, 6), 3), (12, (3, 3, 8, 8), 2)]:
    pairs = zip(differentiate(conv_general_dilated, *case), differentiate(lax.conv_general_dilated, *case))
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())
"""


@needs_native
def test_what_onednn_has_no_kernel_for_it_is_not_asked_to_do():
    # Without AVX it lacks some for three axes. Its log names the kernel of each call; those of references have "ref".
    printed = run(KERNELS, ONEDNN_MAX_CPU_ISA="SSE41", ONEDNN_VERBOSE="1")
    names = [line.split(",")[4] for line in printed.splitlines() if ",exec,cpu,convolution," in line]
    assert names
    assert not [name for name in names if "ref" in name]


@needs_native
@each_dtype
def test_a_convolution_repeats_bit_for_bit_and_is_the_same_on_one_thread_up_to_rounding(dtype, monkeypatch):
    images, kernel = draw_like(jnp.ones((8, 12, 12, 32), dtype), jnp.ones((3, 3, 32, 32), dtype))
    results = []
    for cores in (2, 2, 1):
        monkeypatch.setattr(custom_calls, "count_cores", lambda cores=cores: cores)
        results.append(differentiate_twice(lambda *operands: conv_general_dilated(*operands, **USUAL))(images, kernel))
    jax.tree.map(np.testing.assert_array_equal, results[0], results[1])
    compare(results[2], results[0], TOLERANCES[dtype])


def test_many_threads_may_compute_at_once():
    @functools.partial(jax.jit, static_argnums=2)
    def convolve(images, kernel, filters):
        return jax.grad(lambda images, kernel: (conv_general_dilated(images, kernel, **USUAL) ** 2).sum(), (0, 1))(
            images, kernel[..., :filters]
        )

    operands = [draw_like(IMAGES, KERNEL, seed=seed) for seed in range(16)]
    expected = [convolve(*both, 3 + seed % 4) for seed, both in enumerate(operands)]

    def repeat(seed):
        for _ in range(20):
            result = convolve(*operands[seed], 3 + seed % 4)
        return result

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(repeat, range(16)))
    jax.tree.map(np.testing.assert_array_equal, results, expected)


# Pooling


@st.composite
def poolings(draw):
    """Images with many equal values, the window, strides and padding of a pooling, and whether values are finite."""
    values = st.sampled_from(draw(st.sampled_from([[-1, 0, 1, 2], [0, 1, math.nan, math.inf]])))
    sizes = [draw(st.integers(1, 9)) for _ in range(2)]
    window, strides = ([draw(st.integers(1, 4)) for _ in range(2)] for _ in range(2))
    padding = draw(st.sampled_from(["SAME", "VALID", "drawn"]))
    if padding == "drawn":
        padding = [(draw(st.integers(0, length - 1)), draw(st.integers(0, length - 1))) for length in window]
    if padding != "SAME":
        sizes = [max(size, length) for size, length in zip(sizes, window, strict=True)]
    shape = (draw(st.sampled_from([1, 2, 3])), *sizes, draw(st.sampled_from([1, 3, 17])))
    drawn = draw(st.lists(values, min_size=29, max_size=29))
    images = np.resize(np.array(drawn, np.float32), shape)
    return images, tuple(window), tuple(strides), padding


def pool_by_definition(images, window, strides, padding, reduce):
    """Pools by slices of the padded images; the gradient of a maximum is that of the first of its window."""
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(images.shape[1:3], window, strides, padding)
    fill = -jnp.inf if reduce == "max" else 0.0
    padded = jnp.pad(images, ((0, 0), *padding, (0, 0)), constant_values=fill)
    rows, columns = (
        (size - length) // step + 1 for size, length, step in zip(padded.shape[1:3], window, strides, strict=True)
    )
    seen = jnp.stack(
        [
            padded[:, top : top + rows * strides[0] : strides[0], left : left + columns * strides[1] : strides[1]][
                :, :rows, :columns
            ]
            for top in range(window[0])
            for left in range(window[1])
        ]
    )
    if reduce == "avg":
        return seen.mean(0)
    return jnp.take_along_axis(seen, seen.argmax(0)[None], 0)[0]


@each_reduction
@settings(max_examples=3)
@given(poolings())
def test_pooling_equals_its_definition_with_its_gradients(reduce, pooling):
    check_pooling(reduce, *pooling)


@pytest.mark.slow
@each_reduction
@settings(max_examples=30)
@given(poolings())
def test_very_many_poolings_equal_their_definition_with_their_gradients(reduce, pooling):
    check_pooling(reduce, *pooling)


def check_pooling(reduce, images, window, strides, padding):
    """Compares a pooling in each dtype with its definition."""
    pool = {"max": nn.max_pool, "avg": nn.avg_pool}[reduce]
    ours = use_fast_layers(lambda images: pool(images, window, strides, padding))
    named = {"window": window, "strides": strides, "padding": padding, "reduce": reduce}
    theirs = differentiate_twice(functools.partial(pool_by_definition, **named))
    for dtype in TOLERANCES:
        note(dtype)
        compare_twice(ours, theirs, dtype, jnp.asarray(images))


@needs_native
def test_where_all_values_of_a_window_are_minus_infinity_so_is_the_maximum_and_the_first_has_the_gradient():
    images = jnp.full((1, 2, 2, 1), -jnp.inf)
    pool = use_fast_layers(lambda images: nn.max_pool(images, (3, 3), padding="SAME")[0, 1, 1, 0])
    value, gradient = jax.value_and_grad(pool)(images)
    assert value == -jnp.inf
    assert gradient.ravel().tolist() == [1, 0, 0, 0]


# Batch normalisation


def apply_norm(layer, variables):
    """Returns a function of (images, scale and bias) to the outputs and the running statistics of a layer."""

    def apply(images, parameters):
        outputs, changed = layer.apply({**variables, "params": parameters}, images, mutable=["batch_stats"])
        return outputs, changed["batch_stats"]

    return apply


@each_dtype
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((5, 4, 3, 6), {}),
        ((7, 3), {"momentum": 0.5, "epsilon": 0.1, "use_scale": False}),
        ((2, 3, 20), {"use_bias": False}),
        ((2, 3, 2, 2, 17), {"use_bias": False, "use_scale": False}),
    ],
    ids=str,
)
def test_batch_normalisation_equals_that_of_flax_with_its_gradients(shape, options, dtype):
    layer, images = nn.BatchNorm(use_running_average=False, dtype=dtype, **options), jnp.asarray(jnp.ones(shape), dtype)
    images = 3 + 2 * draw_like(images)[0]
    variables = layer.init(jax.random.key(0), images)
    parameters = jax.tree.map(lambda leaf: draw_like(leaf, seed=3)[0], variables.get("params", {}))
    weights = draw_like(jnp.ones(shape), seed=4)[0]
    reference = layer.copy(dtype=jnp.float32)
    results = []
    for apply, x in (
        (use_fast_layers(apply_norm(layer, variables)), images),
        (apply_norm(reference, variables), images.astype(jnp.float32)),
    ):

        def find_loss(images, parameters, apply=apply):
            outputs, statistics = apply(images, parameters)
            return (outputs.astype(jnp.float32) * weights).sum(), (outputs, statistics)

        def find_all(images, parameters, find_loss=find_loss):
            gradients, found = jax.grad(find_loss, (0, 1), has_aux=True)(images, parameters)
            return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(gradients)), (gradients, found)

        results.append(compile_quickly(jax.grad(find_all, (0, 1), has_aux=True))(x, parameters))
    compare(*results, {"float32": 3e-5, "bfloat16": 6e-2}[dtype])


@needs_native
@pytest.mark.parametrize("deviation", [1.0, 0.1])
def test_a_small_deviation_from_a_large_mean_is_normalised_exactly(deviation):
    images = (1000 + deviation * np.random.default_rng(0).normal(size=(64, 16, 8))).astype(np.float32)
    weights = draw_like(images, seed=1)[0]
    outputs, pull = jax.vjp(lambda images: normalize_batch(images, jnp.ones(8), jnp.zeros(8)).outputs, images)
    with jax.enable_x64(True):
        wide = images.astype(np.float64)
        expected, pull_wide = jax.vjp(lambda x: (x - x.mean((0, 1))) / jnp.sqrt(x.var((0, 1)) + 1e-5), wide)
        gradient = np.asarray(pull_wide(np.asarray(weights, np.float64))[0])
    np.testing.assert_allclose(outputs, expected, atol=1e-4 / deviation)
    compare(pull(weights)[0], gradient, 1e-5)


@each_switch
def test_a_relu_after_batch_normalisation_and_its_statistics_have_the_gradients_of_their_definitions(
    is_fast, monkeypatch
):
    monkeypatch.setenv("CNNJAX_FAST_LAYERS", str(int(is_fast)))
    images, scale, bias = draw_like(jnp.ones((3, 4, 4, 5)), jnp.ones(5), jnp.ones(5))

    def by_definition(images, scale, bias):
        normal = (images - images.mean((0, 1, 2))) / jnp.sqrt(images.var((0, 1, 2)) + 1e-5)
        return jax.nn.relu(normal * scale + bias)

    ours = functools.partial(normalize_batch, relu=True)
    theirs = differentiate_twice(by_definition)
    compare_twice(lambda *operands: ours(*operands).outputs, theirs, "float32", images, scale, bias)
    gradient = jax.grad(lambda images: ours(images, scale, bias).mean.sum())(images)
    assert not gradient.any()


# Whole functions

EXAMPLES = {
    "LeNet-5": (LeNet5(10), 1),
    "VGG": (VGG(10, blocks=(1, 1), width=4, dense=8), 3),
    "ResNet": (ResNet(10, depth=8, width=4), 3),
    "separable": (Separable(10, width=4, blocks=2), 3),
}


@pytest.mark.parametrize(("network", "channels"), EXAMPLES.values(), ids=EXAMPLES.keys())
def test_networks_agree_with_and_without_fast_layers(network, channels):
    images = draw_like(jnp.ones((4, 16, 16, channels)))[0]
    flags = {} if isinstance(network, LeNet5) else {"train": True}
    variables = compile_quickly(network.init)(jax.random.key(0), images)

    def find_loss(parameters, images, key):
        logits, changed = network.apply(
            {**variables, "params": parameters}, images, **flags, mutable=["batch_stats"], rngs={"dropout": key}
        )
        return jax.nn.log_softmax(logits)[:, 0].sum(), (logits, changed)

    def find_gradients(use):
        run = compile_quickly(jax.value_and_grad(use(find_loss), has_aux=True))
        return run(variables["params"], images, jax.random.key(1))

    (ours, theirs) = find_gradients(use_fast_layers), find_gradients(lambda function: function)
    compare(ours[0], theirs[0], 1e-4)
    (of_ours, _), (of_theirs, _) = ravel_pytree(ours[1]), ravel_pytree(theirs[1])
    assert jnp.linalg.norm(of_ours - of_theirs) < 1e-4 * jnp.linalg.norm(of_theirs)


def convolve(images, kernel):
    return lax.conv_general_dilated(images, kernel, **USUAL)


def repeat_in_scan(images, kernel):
    return lax.scan(lambda x, _: (jnp.tanh(convolve(x, kernel)[..., :4]), x.sum()), images, None, length=2)


def choose(images, kernel):
    return lax.cond(images.sum() > 0, convolve, lambda *operands: -convolve(*operands), images, kernel)


def forget(images, kernel):
    return jax.checkpoint(lambda *operands: jnp.sin(nn.max_pool(convolve(*operands), (2, 2), (2, 2))))(images, kernel)


@jax.custom_vjp
def triple(images, kernel):
    return convolve(images, kernel)


triple.defvjp(
    lambda *operands: (convolve(*operands), operands),
    lambda operands, cotangent: jax.vjp(convolve, *operands)[1](3 * cotangent),
)


@jax.custom_jvp
def double(images, kernel):
    return convolve(images, kernel)


double.defjvp(lambda operands, tangents: (convolve(*operands), 2 * jax.jvp(convolve, operands, tangents)[1]))


def penalise(images, kernel):
    return jax.grad(lambda images: jnp.sin(convolve(images, kernel)).sum())(images)


def map_images(images, kernel):
    return jax.vmap(lambda image: convolve(image[None], kernel)[0])(images)


def map_kernels(images, kernel):
    return jax.vmap(convolve, (None, 0))(images, jnp.stack([kernel, 2 * kernel]))


def map_both(images, kernel):
    return jax.vmap(convolve)(jnp.stack([images, 3 * images]), jnp.stack([kernel, 2 * kernel]))


def use_nnx(images, kernel):
    layer = nnx.Conv(4, 6, (3, 3), rngs=nnx.Rngs(0))
    return layer(images) + convolve(images, kernel)


FUNCTIONS = [repeat_in_scan, choose, forget, triple, double, penalise, map_images, map_kernels, map_both, use_nnx]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_functions_with_convolutions_inside_agree_with_their_gradients(function):
    def find_loss(function):
        def run(images, kernel):
            results = function(images, kernel)
            return sum((leaf**2).sum() for leaf in jax.tree.leaves(results)), results

        return jax.value_and_grad(run, (0, 1), has_aux=True)

    operands = draw_like(IMAGES, KERNEL)
    expected = compile_quickly(find_loss(function))(*operands)
    compare(compile_quickly(find_loss(use_fast_layers(function)))(*operands), expected, 1e-5)
    compare(compile_quickly(use_fast_layers(find_loss(function)))(*operands), expected, 1e-5)


def test_a_function_may_map_convolutions_of_batches_of_runs_with_gradients():
    images, kernels = draw_like(jnp.ones((3, *IMAGES.shape)), jnp.ones((3, *KERNEL.shape)))

    def find_gradients(use):
        return jax.vmap(jax.grad(lambda *operands: (use(convolve)(*operands) ** 2).sum(), (0, 1)))(images, kernels)

    compare(find_gradients(use_fast_layers), find_gradients(lambda function: function), 1e-5)


def test_loops_keys_integers_constants_and_trees_pass_through():
    images, kernel = draw_like(IMAGES, KERNEL)
    constant = np.arange(6.0, dtype=np.float32)

    def run(images, *, key, steps):
        outputs = lax.fori_loop(0, steps, lambda _, x: x + convolve(images, kernel) + constant, jnp.zeros((2, 8, 8, 6)))
        return {
            "outputs": outputs,
            "classes": outputs.argmax(-1),
            "none": None,
            "key": jax.random.split(key)[0],
            "n": 7,
        }

    named = {"key": jax.random.key(3), "steps": 2}
    ours, theirs = use_fast_layers(run)(images, **named), run(images, **named)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    assert jax.random.key_data(ours.pop("key")).tolist() == jax.random.key_data(theirs.pop("key")).tolist()
    np.testing.assert_array_equal(ours["classes"], theirs["classes"])
    compare(ours, theirs, 1e-5)


def test_arguments_that_are_no_arrays_are_passed_as_they_are():
    network = VGG(classes=4, blocks=(1,), width=8)
    images = jnp.ones((4, 8, 8, 3))
    variables = network.init(jax.random.key(0), images)
    named = {"train": True, "mutable": ["batch_stats"], "rngs": {"dropout": jax.random.key(1)}}
    results = use_fast_layers(network.apply)(variables, images, **named)
    jax.tree.map(
        lambda fast, slow: np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=1e-5),
        results,
        network.apply(variables, images, **named),
    )


def test_a_function_is_the_same_before_and_after_it_had_fast_layers():
    layer = nn.BatchNorm(use_running_average=False)
    images = jnp.ones((4, 3))
    variables = layer.init(jax.random.key(0), images)

    def normalize(images):
        return layer.apply(variables, images, mutable=["batch_stats"])

    before = str(jax.make_jaxpr(normalize)(images))
    fast = str(jax.make_jaxpr(use_fast_layers(normalize))(images))
    assert str(jax.make_jaxpr(normalize)(images)) == before
    assert ("cnnjax_channel" in fast) == custom_calls.are_available()


@pytest.mark.parametrize("transform", [jax.jit, jax.checkpoint], ids=["jit", "checkpoint"])
def test_a_function_inside_that_jax_keeps_a_trace_of_is_the_same_before_and_after_it_had_fast_layers(transform):
    layer = nn.BatchNorm(use_running_average=False)
    images = jnp.ones((4, 3))
    variables = layer.init(jax.random.key(0), images)
    normalize = transform(lambda images: layer.apply(variables, images, mutable=["batch_stats"])[0])
    fast = str(jax.make_jaxpr(use_fast_layers(normalize))(images))
    assert ("cnnjax_channel" in fast) == custom_calls.are_available()
    assert "cnnjax_channel" not in str(jax.make_jaxpr(normalize)(images))
    jax.jvp(normalize, (images,), (images,))  # of the fast layers, it would raise an error
    assert str(jax.make_jaxpr(use_fast_layers(normalize))(images)) == fast


def test_batch_normalisation_with_names_of_mesh_axes_is_normalised():
    layer = nn.BatchNorm(use_running_average=False, scale_init=nn.with_partitioning(nn.initializers.ones, (None,)))
    images = jnp.arange(8.0).reshape(2, 4)
    variables = layer.init(jax.random.key(0), images)
    outputs, _ = use_fast_layers(layer.apply)(variables, images, mutable=["batch_stats"])
    np.testing.assert_allclose(outputs[1], np.ones(4), rtol=1e-4)


class Activated(nn.Module):
    """A batch normalisation and a ReLU, whose input is read elsewhere too if `keeps` is true."""

    keeps: bool = False

    @nn.compact
    def __call__(self, images):
        normal = nn.BatchNorm(use_running_average=False)(images)
        return nn.relu(normal) + (normal if self.keeps else 0)


@needs_native
@pytest.mark.parametrize(
    "wrap", [lambda run: run, jax.jit, jax.checkpoint, jax.vmap], ids=["plain", "jit", "checkpoint", "vmap"]
)
@pytest.mark.parametrize("keeps", [False, True], ids=["alone", "kept"])
def test_a_relu_that_alone_reads_a_batch_normalisation_becomes_part_of_it(keeps, wrap):
    layer = Activated(keeps)
    images = draw_like(jnp.ones((2, 3, 4, 4, 5)))[0]
    variables = layer.init(jax.random.key(0), images)
    run = wrap(lambda images: layer.apply(variables, images, mutable=["batch_stats"]))
    program = jax.jit(use_fast_layers(run)).lower(images).as_text()
    assert ("relu = true" in program) == (wrap is not jax.vmap and not keeps)
    results = []
    for function in (use_fast_layers(run), run):
        find_loss = lambda images, function=function: jnp.sin(function(images)[0]).sum()  # noqa: E731
        results.append((function(images), jax.grad(find_loss)(images)))
    compare(*results, 1e-5)


def test_a_function_without_convolutions_stays_as_it_is():
    def run(images):
        return lax.scan(lambda x, _: (jax.nn.relu(x) @ jnp.ones((4, 4)), x.mean()), images, None, length=2)

    assert str(jax.make_jaxpr(use_fast_layers(run))(IMAGES)) == str(jax.make_jaxpr(run)(IMAGES))


@needs_native
def test_forward_mode_raises_the_error_of_jax():
    with pytest.raises(TypeError, match=r"forward-mode autodiff \(jvp\)"):
        jax.jvp(use_fast_layers(convolve), (IMAGES, KERNEL), (IMAGES, KERNEL))


DEVICES = """
import flax.linen as nn, jax, jax.numpy as jnp, numpy as np
from jax import lax
from jax.sharding import PartitionSpec as P
from cnnjax.layers import use_fast_layers

mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
images = jax.random.normal(jax.random.key(0), (6, 8, 8, 3))

class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.max_pool(nn.relu(nn.Conv(5, (3, 3))(x)), (2, 2), (2, 2))
        return nn.BatchNorm(use_running_average=False, axis_name="batch")(nn.Conv(4, (3, 3), 2)(x))

network = Network()
variables = Network().init(jax.random.key(1), images)

def find_loss(variables, images, use):
    outputs, changed = use(lambda *operands: network.apply(*operands, mutable=["batch_stats"]))(variables, images)
    return lax.pmean(jnp.exp(outputs).sum(), "batch"), changed["batch_stats"]

def differentiate(inside, outside, is_checked):
    def run(variables, images):
        local = lambda *operands: find_loss(*operands, inside)
        return jax.shard_map(
            local, mesh=mesh, in_specs=(P(), P("batch")), out_specs=P(), check_vma=is_checked
        )(variables, images)
    return jax.jit(jax.value_and_grad(outside(run), (0, 1), has_aux=True, allow_int=True))(variables, images)

keep = lambda function: function
expected = differentiate(keep, keep, True)
for is_checked in (True, False):
    for inside, outside in ((use_fast_layers, keep), (keep, use_fast_layers)):
        results = differentiate(inside, outside, is_checked)
        for ours, theirs in zip(jax.tree.leaves(results), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * max(np.abs(theirs).max(), 1))
"""


def test_two_devices_agree_with_and_without_fast_layers():
    run(DEVICES, JAX_NUM_CPU_DEVICES="2")


INSIDE = """
import functools, jax, jax.numpy as jnp, numpy as np
from jax import lax
from jax.sharding import PartitionSpec as P
from cnnjax.layers import average_pool, convolve, convolve_and_pool, max_pool

mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
images, kernel = (jax.random.normal(jax.random.key(n), shape) for n, shape in ((0, (8, 8, 6, 4)), (1, (3, 3, 4, 5))))
grouped = functools.partial(convolve, dilation=(2, 1), groups=2)
by_name = {name: functools.partial(convolve, algorithm=name) for name in ("xla", "patches", "tiles")}
strided = functools.partial(convolve, strides=(2, 2), padding="same")
pooled = lambda x, k: average_pool(max_pool(convolve(x, k), (2, 2), (1, 1)), (2, 2), (2, 2))
joined = lambda x, k: convolve_and_pool(x, k, (1, 1), "valid", (2, 2))
few = lambda x, k: convolve_and_pool(x[..., :1], k[:, :, :1], (1, 1), "valid", (2, 2))
for run in (convolve, strided, pooled, joined, few, *by_name.values(), lambda x, k: grouped(x, k[:, :, :2, :4])):
    total = lambda x, k: (run(x, k) ** 2).sum()
    def divided(x, k):
        local = lambda x, k: lax.psum(total(x, k), "batch")
        return jax.shard_map(local, mesh=mesh, in_specs=(P(None, None, "batch"), P()), out_specs=P())(x, k)
    programs = [jax.jit(jax.value_and_grad(f, (0, 1))) for f in (divided, total)]
    assert "conditional(" not in programs[0].lower(images, kernel).compile().as_text(), "XLA confuses sums in branches"
    results, expected = (program(images, kernel) for program in programs)
    for ours, theirs in zip(jax.tree.leaves(results), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * max(np.abs(theirs).max(), 1))
"""


@pytest.mark.slow
def test_layers_inside_shard_map_agree_with_those_of_the_whole_batch():
    run(INSIDE, JAX_NUM_CPU_DEVICES="2")


HANDLERS = """
import jax, jax.numpy as jnp, numpy as np
from cnnjax.layers import custom_calls
from jax.errors import JaxRuntimeError

assert custom_calls.are_available()
x, vector, none = jnp.ones((2, 6, 6, 4)), jnp.ones(4), jnp.ones(())
form = lambda *shape, dtype=jnp.float32: jax.ShapeDtypeStruct(shape, dtype)
window = {name: np.array(value, np.int64) for name, value in
    dict(strides=[1, 1], low=[0, 0], high=[0, 0], dilation=[1, 1]).items()}
window |= {"groups": np.int64(1), "tiled": np.int64(0)}
tiled = window | {"tiled": np.int64(1)}
wide, wide_kernel = jnp.ones((2, 6, 6, 16)), jnp.ones((3, 3, 16, 32))
pool = lambda *numbers: {"window": np.array(numbers, np.int64)}
relu = {"relu": False}
whole, half, bytes = form(2, 6, 6, 4), form(2, 3, 3, 4), form(2, 3, 3, 4, dtype=jnp.uint8)
k = jnp.ones((3, 3, 4, 5))
good = [
    ("convolution_outputs", form(2, 4, 4, 5), (x, k), window),
    ("convolution_outputs", form(2, 4, 4, 32), (wide, wide_kernel), tiled),
    ("convolution_outputs", form(2, 2, 2, 32), (wide, wide_kernel), tiled | {"strides": np.array([2, 2])}),
    ("channel_moments", form(2, 4), (x,), {}),
    ("channel_affine", whole, (x, vector, vector, vector), relu),
    ("max_pool", (half, bytes), (x,), pool(2, 2, 2, 2, 0, 0)),
    ("sum_pool_gradient", whole, (jnp.ones((2, 3, 3, 4)),), pool(2, 2, 2, 2, 0, 0)),
]
bad = [
    ("convolution_outputs", form(2, 5, 4, 5), (x, k), window),
    ("convolution_outputs", form(2, 4, 4, 5), (x, k[:, :, :3]), window),
    ("convolution_outputs", form(2, 4, 4, 5), (x, k.astype(jnp.bfloat16)), window),
    ("convolution_outputs", form(2, 4, 4, 5), (x, k), window | {"strides": np.array([0, 1])}),
    ("convolution_outputs", form(2, 4, 4, 5), (x, k), window | {"strides": np.array([1])}),
    ("convolution_outputs", form(2, 4, 4, 5), (x, k), window | {"groups": np.int64(0)}),
    ("convolution_outputs", form(2, 4, 4, 5), (x, k), window | {"dilation": np.array([0, 1])}),
    ("convolution_outputs", form(2, 4, 4, 5), (x, k), window | {"low": np.array([-1, 1])}),
    ("convolution_outputs", form(), (none, none), window),
    ("convolution_image_gradient", form(2, 9, 9, 4), (x, k), window),
    ("convolution_kernel_gradient", form(9, 9, 4, 4), (x, x), window),
    ("convolution_outputs", form(2, 4, 4, 5), (x, k), tiled),
    ("convolution_outputs", form(2, 5, 4, 32), (wide, wide_kernel), tiled),
    ("convolution_outputs", form(2, 4, 4, 32), (wide, wide_kernel[:, :, :8]), tiled),
    ("convolution_outputs", form(2, 5, 5, 32), (wide, wide_kernel[:2, :2]), tiled),
    ("convolution_outputs", form(2, 2, 2, 32), (wide, wide_kernel), tiled | {"dilation": np.array([2, 2])}),
    ("convolution_outputs", form(2, 2, 2, 32), (wide, wide_kernel), tiled | {"strides": np.array([3, 3])}),
    ("convolution_outputs", form(2, 2, 4, 32), (wide, wide_kernel), tiled | {"strides": np.array([2, 1])}),
    ("convolution_outputs", form(2, 2, 2, 32), (wide, wide_kernel), tiled | {"strides": np.array([0, 0])}),
    ("convolution_outputs", form(2, 3, 2, 32), (wide, wide_kernel),
        tiled | {"strides": np.array([2, 2]), "low": np.array([1, 0])}),
    ("convolution_outputs", form(2, 7, 7, 32), (wide, wide_kernel), tiled | {"low": np.array([3, 3])}),
    ("convolution_outputs", form(2, 4, 4, 32, dtype=jnp.bfloat16),
        (wide.astype(jnp.bfloat16), wide_kernel.astype(jnp.bfloat16)), tiled),
    ("convolution_outputs", form(2, 4, 32), (wide[:, 0], wide_kernel[0]), tiled),
    ("channel_moments", form(3, 4), (x,), {}),
    ("channel_moments", form(2, 4), (none,), {}),
    ("channel_affine", whole, (x, vector[:3], vector, vector), relu),
    ("channel_affine", form(2, 6, 6, 3), (x, vector, vector, vector), relu),
    ("channel_affine_sums", form(2, 4), (x, x[:1], vector, vector, vector), relu),
    ("channel_affine_gradient", whole, (x, x, *[vector] * 4, vector[:1]), relu),
    ("max_pool", (half, bytes), (x,), pool(2, 2, 2, 2)),
    ("max_pool", (half, bytes), (x,), pool(2**33, 2**33, 2, 2, 0, 0)),
    ("max_pool", (half, bytes), (x,), pool(2, 2, 0, 2, 0, 0)),
    ("max_pool", (half, bytes), (x,), pool(2, 2, 9, 2, 0, 0)),
    ("max_pool", (half, bytes), (x[:1],), pool(2, 2, 2, 2, 0, 0)),
    ("max_pool", (half, form(2, 3, 3, 3, dtype=jnp.uint8)), (x,), pool(2, 2, 2, 2, 0, 0)),
    ("sum_pool", half, (x[..., :1],), pool(2, 2, 2, 2, 0, 0)),
    ("sum_pool_gradient", whole, (x[:, :3, :3, :1],), pool(2, 2, 2, 2, 0, 0)),
    ("max_pool_gradient", whole, (x[:, :3, :3], jnp.ones((2, 3, 3, 3), jnp.uint8)), pool(2, 2, 2, 2, 0, 0)),
]
def call(name, result, operands, attributes, threads=1, scratch=2**20):
    if name.startswith("convolution"):
        result = (result, form(scratch, dtype=jnp.uint8))
    run = jax.ffi.ffi_call(f"cnnjax_{name}", result)
    attributes = {"threads": np.int64(threads), **attributes}
    return jax.block_until_ready(jax.jit(lambda *given: run(*given, **attributes))(*operands))

for case in good:
    call(*case)
bad_scratch = [(case, 1, bytes) for case in good[:2] for bytes in (0, 63)]
for case, *numbers in [*((case, 1) for case in bad), *((case, -k) for case in good for k in (0, 1)), *bad_scratch]:
    try:
        call(*case, *numbers)
    except JaxRuntimeError as error:
        assert "INVALID_ARGUMENT" in str(error), error
    else:
        raise AssertionError(case)
"""


@needs_native
def test_what_does_not_fit_a_custom_call_is_an_error_and_no_crash():
    run(HANDLERS)
