"""Convolution and pooling against hand-worked values, plain loops and the reference operations of XLA and Flax."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from cnnjax.errors import InputError
from cnnjax.layers import average_pool, convolve, convolve_and_pool, max_pool
from cnnjax.layers.convolution import ConvolutionPlan, convolve_on_accelerator
from cnnjax.layers.minimal_filtering import count_multiplications, make_transforms
from cnnjax.layers.patches import is_worth_pooling_patches
from cnnjax.layers.pooling import slice_windows
from cnnjax.settings.blocks import pad_pixels
from compiling import compile_quickly

property_test = settings(max_examples=12)
costly_test = settings(max_examples=8)  # as each example compiles several programs
compiled_convolve = compile_quickly(
    convolve, static_argnums=(2, 3)
)  # one compilation a case, rather than one an operation

NUMBERED = np.arange(1, 26, dtype=np.float32).reshape(5, 5, 1, 1)
"""The chapter's image: 5x5 pixels numbered from 1 to 25."""

PLUS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.float32)[:, :, None, None]

# The sum of each pixel and its four neighbours.
VALID = [[35, 40, 45], [60, 65, 70], [85, 90, 95]]
SAME = [
    [9, 13, 17, 21, 19],
    [25, 35, 40, 45, 39],
    [45, 60, 65, 70, 59],
    [65, 85, 90, 95, 79],
    [59, 83, 87, 91, 69],
]
STRIDE_2 = [[35, 45], [85, 95]]
SAME_STRIDE_2 = [[9, 17, 19], [45, 65, 59], [59, 87, 69]]
WORKED = [
    ("valid", (1, 1), VALID),
    ("same", (1, 1), SAME),
    (((1, 1), (1, 1)), (1, 1), SAME),
    ("valid", (2, 2), STRIDE_2),
    ("same", (2, 2), SAME_STRIDE_2),
    ("valid", (1, 2), [[35, 45], [60, 70], [85, 95]]),
    (((1, 0), (0, 0)), (2, 2), [[13, 21], [60, 70]]),
]

TOLERANCES = {"xla": 1e-5, "patches": 1e-5, "tiles": 3e-5}
"""Largest error of each algorithm, as a share of the largest value: tiles lose a digit in their transforms."""

SEVEN = """
............
............
..########..
..########..
........##..
.......###..
......###...
......##....
.....##.....
.....##.....
....##......
............
"""
POOLED_SEVEN = """
......
.####.
...##.
...##.
..##..
..#...
"""


def draw_text(text: str) -> np.ndarray:
    """Reads rows of ``#`` (1) and ``.`` (0) as an image (height, width, 1, 1)."""
    return np.array([[c == "#" for c in row] for row in text.split()], np.float32)[:, :, None, None]


def convolve_by_loops(images: np.ndarray, kernel: np.ndarray, strides, pixels) -> np.ndarray:
    padded = np.pad(images, (*pixels, (0, 0), (0, 0)))
    height, width, _, filters = kernel.shape
    rows = (padded.shape[0] - height) // strides[0] + 1
    columns = (padded.shape[1] - width) // strides[1] + 1
    outputs = np.zeros((rows, columns, images.shape[2], filters))
    for i, j, n, f in np.ndindex(*outputs.shape):
        top, left = i * strides[0], j * strides[1]
        outputs[i, j, n, f] = (padded[top : top + height, left : left + width, n] * kernel[..., f]).sum()
    return outputs


def reference_valid(images, kernel):
    return reference(images, kernel, (1, 1), "valid")


def reference_strided(images, kernel, strides):
    return reference(images, kernel, strides, "valid")


def reference(images, kernel, strides, padding):
    pixels = padding.upper() if isinstance(padding, str) else padding
    return lax.conv_general_dilated(
        images, kernel, strides, pixels, dimension_numbers=("HWNC", "HWIO", "HWNC"), precision="highest"
    )


def batch_first(pool):
    """Returns a pooling of Flax for (height, width, batch, channels)."""
    return lambda x, *sizes: pool(x.transpose(2, 0, 1, 3), *sizes).transpose(1, 2, 0, 3)


def differentiate(function, *operands):
    """Returns the outputs of a function, and the gradients of its operands for uneven cotangents."""

    @compile_quickly
    def run(*operands):
        outputs, pull_back = jax.vjp(function, *operands)
        return outputs, *pull_back(jnp.sin(jnp.arange(1.0, outputs.size + 1)).reshape(outputs.shape))

    return run(*operands)


def assert_close(ours, theirs, tolerance):
    """Compares arrays by their largest difference, as a share of the largest value."""
    for our, their in zip(ours, theirs, strict=True):
        assert our.shape == their.shape
        np.testing.assert_allclose(our, their, rtol=0, atol=tolerance * max(float(jnp.abs(their).max()), 1e-3))


@st.composite
def convolutions(draw):
    """Images, a kernel that fits them, strides and padding, with ragged sizes and batches."""
    ints = draw(st.tuples(*[st.sampled_from([1, 2, 3, 5, 8, 64])] * 2))
    window = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    size = tuple(w + draw(st.integers(0, 7)) for w in window)
    strides = draw(st.just((1, 1)) | st.tuples(st.integers(1, 3), st.integers(1, 3)))  # at 1, all algorithms work
    pixels = st.tuples(st.integers(0, 3), st.integers(0, 3))
    padding = draw(st.sampled_from(["valid", "same"]) | st.tuples(pixels, pixels))
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    images = random.normal(size=(*size, draw(st.integers(1, 3)), ints[0])).astype(np.float32)
    kernel = random.normal(size=(*window, *ints)).astype(np.float32)
    return images, kernel, strides, padding


@st.composite
def poolings(draw):
    window = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    strides = draw(st.just(window) | st.tuples(st.integers(1, 4), st.integers(1, 4)))
    size = tuple(w + draw(st.integers(0, 7)) for w in window)
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    return random.normal(size=(*size, 2, 3)).astype(np.float32), window, strides


class TestConvolve:
    @pytest.mark.parametrize(("padding", "strides", "expected"), WORKED)
    def test_of_the_numbered_image_is_what_one_works_out_by_hand(self, padding, strides, expected):
        np.testing.assert_array_equal(convolve(NUMBERED, PLUS, strides, padding)[:, :, 0, 0], expected)

    @pytest.mark.parametrize(("padding", "strides", "expected"), WORKED)
    def test_by_hand_and_by_loops_agree(self, padding, strides, expected):
        pixels = pad_pixels(padding, (5, 5), (3, 3), strides)
        np.testing.assert_array_equal(convolve_by_loops(NUMBERED, PLUS, strides, pixels)[:, :, 0, 0], expected)

    @pytest.mark.parametrize(
        ("padding", "strides", "shape"),
        [("valid", (1, 1), (3, 3)), ("same", (1, 1), (5, 5)), ("valid", (2, 2), (2, 2))],
    )
    def test_gives_the_chapters_sizes(self, padding, strides, shape):
        assert convolve(NUMBERED, PLUS, strides, padding).shape == (*shape, 1, 1)

    def test_does_not_flip_the_kernel(self):
        kernel = np.zeros((3, 3, 1, 1), np.float32)
        kernel[0, 2] = 1
        np.testing.assert_array_equal(convolve(NUMBERED, kernel)[:, :, 0, 0], NUMBERED[:3, 2:, 0, 0])

    @property_test
    @given(convolutions())
    def test_equals_plain_loops(self, case):
        images, kernel, strides, padding = case
        pixels = pad_pixels(padding, images.shape[:2], kernel.shape[:2], strides)
        expected = convolve_by_loops(images, kernel, strides, pixels)
        tolerance = 1e-5 * max(np.abs(expected).max(), 10)  # float32 sums of many products
        np.testing.assert_allclose(compiled_convolve(images, kernel, strides, padding), expected, atol=tolerance)

    @costly_test
    @given(convolutions())
    def test_by_each_algorithm_equals_that_of_xla_in_values_and_both_gradients(self, case):
        images, kernel, strides, padding = case
        theirs = differentiate(functools.partial(reference, strides=strides, padding=padding), images, kernel)
        algorithms = [None, *(name for name in TOLERANCES if name != "tiles" or strides == (1, 1))]
        for algorithm in algorithms:
            ours = differentiate(
                functools.partial(convolve, strides=strides, padding=padding, algorithm=algorithm), images, kernel
            )
            assert_close(ours, theirs, TOLERANCES[algorithm or "tiles"])

    def test_each_mode_may_have_an_algorithm_of_its_own(self):
        random = np.random.default_rng(0)
        images, kernel = np.float32(random.normal(size=(9, 9, 2, 3))), np.float32(random.normal(size=(3, 3, 3, 4)))
        expected = differentiate(reference_valid, images, kernel)
        for plan in itertools.permutations(TOLERANCES):
            assert_close(
                differentiate(functools.partial(convolve, algorithm=ConvolutionPlan(*plan)), images, kernel),
                expected,
                TOLERANCES["tiles"],
            )

    def test_an_unknown_algorithm_and_one_that_needs_stride_1_are_refused(self):
        images, kernel = jnp.ones((5, 5, 1, 1)), jnp.ones((3, 3, 1, 1))
        with pytest.raises(InputError, match=r"algorithm='fft': must be one of xla, patches, tiles"):
            convolve(images, kernel, algorithm="fft")
        with pytest.raises(InputError, match=r"algorithm='tiles': needs strides \(1, 1\), not \(2, 1\)"):
            convolve(images, kernel, (2, 1), algorithm="tiles")
        with pytest.raises(InputError, match=r"algorithm='tiles': needs a window of at most 8x8, not 9x3"):
            convolve(jnp.ones((9, 9, 1, 1)), jnp.ones((9, 3, 1, 1)), algorithm="tiles")

    def test_infinite_images_do_not_become_finite(self):
        outputs = convolve(jnp.full((12, 12, 2, 32), jnp.inf), jnp.ones((5, 5, 32, 64)))
        assert not jnp.isfinite(outputs).any()

    @settings(max_examples=5)
    @given(convolutions())
    def test_same_padding_is_explicit_zero_padding_then_valid(self, case):
        images, kernel, strides, _ = case
        pixels = pad_pixels("same", images.shape[:2], kernel.shape[:2], strides)
        padded = np.pad(images, (*pixels, (0, 0), (0, 0)))
        same = compiled_convolve(images, kernel, strides, "same")
        np.testing.assert_array_equal(same, compiled_convolve(padded, kernel, strides, "valid"))
        assert same.shape[:2] == tuple(-(-size // s) for size, s in zip(images.shape[:2], strides, strict=True))

    def test_same_padding_puts_the_odd_pixel_at_the_bottom_and_right(self):
        assert pad_pixels("same", (5, 5), (2, 4), (1, 1)) == ((0, 1), (1, 2))

    def test_is_linear_in_the_images(self):
        random = np.random.default_rng(0)
        images, kernel = random.normal(size=(6, 5, 2, 2)), random.normal(size=(3, 2, 2, 4))
        outputs = convolve(jnp.float32(images), jnp.float32(kernel))
        combined = convolve(jnp.float32(images[:, :, :1] + 2 * images[:, :, 1:]), jnp.float32(kernel))
        np.testing.assert_allclose(combined, outputs[:, :, :1] + 2 * outputs[:, :, 1:], atol=1e-5)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_keeps_the_dtype(self, dtype):
        assert convolve(jnp.ones((5, 5, 1, 1), dtype), jnp.ones((3, 3, 1, 2), dtype)).dtype == dtype

    @pytest.mark.parametrize("algorithm", [None, "xla", "patches", "tiles"])
    def test_in_bfloat16_is_within_two_roundings_of_float32_in_values_and_gradients(self, algorithm):
        images = jax.random.uniform(jax.random.key(0), (8, 8, 2, 3), jnp.bfloat16)
        kernel = jax.random.uniform(jax.random.key(1), (3, 3, 3, 4), jnp.bfloat16)

        @compile_quickly
        def run(images, kernel):
            outputs, pull_back = jax.vjp(lambda x, w: convolve(x, w, algorithm=algorithm), images, kernel)
            return outputs, *pull_back(jnp.ones_like(outputs))

        exact = run(images.astype(jnp.float32), kernel.astype(jnp.float32))
        for ours, theirs in zip(run(images, kernel), exact, strict=True):
            assert ours.dtype == jnp.bfloat16
            np.testing.assert_allclose(ours.astype(jnp.float32), theirs, rtol=2 * 2**-8)

    def test_many_at_once_under_vmap_equal_one_by_one(self):
        images = jax.random.normal(jax.random.key(0), (3, 6, 6, 2, 2))
        kernels = jax.random.normal(jax.random.key(1), (3, 3, 3, 2, 4))
        one_by_one = jnp.stack([compiled_convolve(x, w, (2, 1), "same") for x, w in zip(images, kernels, strict=True)])
        many = compile_quickly(jax.vmap(lambda x, w: convolve(x, w, (2, 1), "same")))(images, kernels)
        np.testing.assert_allclose(many, one_by_one, atol=1e-5)


class TestConvolutionOnAccelerators:
    """Their arithmetic, which runs on CPU as well."""

    @staticmethod
    def make(images_each=True, kernels_each=True, size=(6, 6)):
        images = jax.random.normal(jax.random.key(0), ((3,) if images_each else ()) + (*size, 2, 2))
        kernels = jax.random.normal(jax.random.key(1), ((3,) if kernels_each else ()) + (3, 2, 2, 4))
        axes = (0 if images_each else None, 0 if kernels_each else None)
        return images, kernels, axes

    @pytest.mark.parametrize("each", [(True, True), (False, True), (True, False)])
    def test_under_vmap_equals_one_by_one_in_values_and_both_gradients(self, each):
        images, kernels, axes = self.make(*each)

        def values_and_gradients(convolve):
            def run(x, w):
                outputs, pull_back = jax.vjp(lambda x, w: convolve(x, w, (2, 1)), x, w)
                return outputs, *pull_back(jnp.sin(outputs))

            return run

        many = compile_quickly(jax.vmap(values_and_gradients(convolve_on_accelerator), axes))(images, kernels)
        alone = compile_quickly(values_and_gradients(reference_strided))
        for i in range(3):
            x, w = (a[i] if axis == 0 else a for a, axis in zip((images, kernels), axes, strict=True))
            assert_close([array[i] for array in many], alone(x, w), 1e-5)

    @pytest.mark.parametrize(
        ("each", "is_of_xla"), [((True, True), False), ((False, True), False), ((True, False), True)]
    )
    def test_many_kernels_are_no_grouped_convolution(self, each, is_of_xla):
        images, kernels, axes = self.make(*each)

        def loss(x, w):
            return convolve_on_accelerator(x, w, (1, 1)).sum()

        gradients = jax.vmap(jax.value_and_grad(loss, (0, 1)), axes)
        assert ("conv_general_dilated" in str(jax.make_jaxpr(gradients)(images, kernels))) is is_of_xla

    def test_alone_it_is_that_of_xla(self):
        images, kernel, _ = self.make(False, False)
        jaxpr = str(jax.make_jaxpr(lambda x, w: convolve_on_accelerator(x, w, (1, 1)))(images, kernel))
        assert "conv_general_dilated" in jaxpr
        assert "dot_general" not in jaxpr

    def test_with_too_many_patches_it_stays_that_of_xla(self, monkeypatch):
        monkeypatch.setattr("cnnjax.layers.patches.PATCH_BYTES", 100)
        images, kernels, axes = self.make()
        jaxpr = jax.make_jaxpr(jax.vmap(lambda x, w: convolve_on_accelerator(x, w, (1, 1)), axes))(images, kernels)
        assert "conv_general_dilated" in str(jaxpr)


class TestConvolveAndPool:
    @costly_test
    @given(convolutions(), st.tuples(st.integers(1, 3), st.integers(1, 3)))
    def test_equals_a_convolution_and_then_a_pooling(self, case, window):
        images, kernel, strides, padding = case
        size = reference(images, kernel, strides, padding).shape
        window = (min(window[0], size[0]), min(window[1], size[1]))

        def one_by_one(images, kernel):
            return max_pool(reference(images, kernel, strides, padding), window, window)

        ours = differentiate(lambda x, w: convolve_and_pool(x, w, strides, padding, window), images, kernel)
        theirs = differentiate(one_by_one, images, kernel)
        assert_close(ours, theirs, TOLERANCES["tiles"])

    def test_over_windows_that_cover_nearly_all_is_no_giant_product(self):
        images = jax.random.normal(jax.random.key(0), (28, 28, 2, 1))
        kernel = jax.random.normal(jax.random.key(1), (5, 5, 1, 3))
        pooled = convolve_and_pool(images, kernel, (1, 1), "valid", (24, 24))
        assert_close([pooled], [reference(images, kernel, (1, 1), "valid").max((0, 1), keepdims=True)], 1e-5)
        assert not is_worth_pooling_patches(images, kernel, (1, 1), (24, 24))
        assert is_worth_pooling_patches(images, kernel, (1, 1), (2, 2))

    @pytest.mark.parametrize("channels", [1, 3, 32])
    def test_of_few_and_of_many_channels_equals_one_by_one(self, channels):
        random = np.random.default_rng(0)
        images, kernel = random.normal(size=(13, 12, 2, channels)), random.normal(size=(5, 5, channels, 64))
        images, kernel = jnp.float32(images), jnp.float32(kernel)
        ours = differentiate(lambda x, w: convolve_and_pool(x, w, (1, 1), "valid", (2, 2)), images, kernel)
        theirs = differentiate(lambda x, w: max_pool(reference(x, w, (1, 1), "valid"), (2, 2), (2, 2)), images, kernel)
        assert_close(ours, theirs, TOLERANCES["tiles"])


class TestMinimalFiltering:
    @pytest.mark.parametrize("taps", range(1, 9))
    def test_is_exact_in_double_precision(self, taps):
        random = np.random.default_rng(taps)
        for outputs in range(1, 10 - taps):
            transforms = make_transforms(outputs, taps)
            signal, window = random.normal(size=outputs + taps - 1), random.normal(size=taps)
            filtered = transforms.outputs @ ((transforms.taps @ window) * (transforms.inputs @ signal))
            np.testing.assert_allclose(filtered, np.correlate(signal, window, "valid"), atol=1e-12)

    def test_takes_fewer_multiplications_where_channels_are_many(self):
        of_a_tile = 2 * 8 * 64 * 32 + 64 * 32 * 64 + (4 * 64 + 16 * 8) * 64
        assert count_multiplications((8, 8), (5, 5), 32, 64) == 4 * of_a_tile
        assert count_multiplications((8, 8), (5, 5), 32, 64) < 64 * 25 * 32 * 64 / 2
        assert count_multiplications((24, 24), (5, 5), 1, 32) > 576 * 25 * 32
        assert count_multiplications((8, 8), (9, 9), 32, 64) == np.inf


class TestPooling:
    def test_the_gradient_of_equal_maxima_goes_to_the_first(self):
        for strides, expected in [((2, 2), [[1, 0, 1, 0], [0, 0, 0, 0]]), ((1, 1), [[1, 1, 1, 0], [0, 0, 0, 0]])]:
            _, gradient = differentiate(lambda x, s=strides: max_pool(x, (2, 2), s), jnp.ones((2, 4, 1, 1)))
            np.testing.assert_array_equal(gradient[:, :, 0, 0] != 0, expected)

    def test_a_pixel_that_is_no_number_is_seen(self):
        images = jnp.ones((2, 2, 1, 1)).at[1, 0].set(jnp.nan)
        assert jnp.isnan(max_pool(images, (2, 2), (2, 2))).all()
        kernel = jnp.ones((1, 1, 1, 1))
        assert jnp.isnan(convolve_and_pool(images, kernel, (1, 1), "valid", (2, 2))).all()

    def test_the_12x12_seven_max_pools_to_a_6x6_seven(self):
        pooled = max_pool(draw_text(SEVEN), (2, 2), (2, 2))
        np.testing.assert_array_equal(pooled, draw_text(POOLED_SEVEN))

    @pytest.mark.parametrize(
        ("pool", "strides", "expected"),
        [
            (max_pool, (2, 2), [[7, 9], [17, 19]]),
            (average_pool, (2, 2), [[4, 6], [14, 16]]),
            (max_pool, (3, 1), [[7, 8, 9, 10], [22, 23, 24, 25]]),
            (average_pool, (3, 1), [[4, 5, 6, 7], [19, 20, 21, 22]]),
        ],
    )
    def test_of_the_numbered_image_is_what_one_works_out_by_hand(self, pool, strides, expected):
        np.testing.assert_array_equal(pool(NUMBERED, (2, 2), strides)[:, :, 0, 0], expected)

    @property_test
    @given(poolings())
    def test_equals_the_pooling_of_flax_in_values_and_gradient(self, case):
        images, window, strides = case

        @compile_quickly
        def differentiate(images):
            results = []
            for pool in (max_pool, batch_first(nn.max_pool), average_pool, batch_first(nn.avg_pool)):
                outputs, pull_back = jax.vjp(lambda x, pool=pool: pool(x, window, strides), images)
                results.append((outputs, *pull_back(jnp.sin(outputs))))
            return results

        our_max, their_max, our_average, their_average = differentiate(images)
        np.testing.assert_array_equal(our_max[0], their_max[0])
        np.testing.assert_allclose(our_max[1], their_max[1], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(our_average[0], their_average[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(our_average[1], their_average[1], rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("pool", [max_pool, average_pool])
    @pytest.mark.parametrize("strides", [(2, 2), (1, 2)])
    def test_keeps_the_dtype(self, pool, strides):
        assert pool(jnp.ones((5, 5, 1, 1), jnp.bfloat16), (2, 2), strides).dtype == jnp.bfloat16


def test_slices_hold_the_pixels_of_every_window_position():
    slices = slice_windows(NUMBERED, (2, 3), (3, 1))
    assert len(slices) == 6
    np.testing.assert_array_equal(slices[0][:, :, 0, 0], [[1, 2, 3], [16, 17, 18]])
    np.testing.assert_array_equal(slices[5][:, :, 0, 0], [[8, 9, 10], [23, 24, 25]])


@pytest.mark.parametrize("padding", ["valid", "same", ((1, 0), (0, 2))])
def test_the_arithmetic_promotes_no_dtype_silently(padding):
    images, kernel = jnp.ones((5, 5, 1, 1), jnp.bfloat16), jnp.ones((3, 3, 1, 2), jnp.bfloat16)
    with jax.numpy_dtype_promotion("strict"):
        outputs = convolve(images, kernel, (1, 2), padding)
        pooled = [pool(outputs, (2, 1), s) for pool in (max_pool, average_pool) for s in ((2, 1), (1, 1))]
    assert {array.dtype for array in (outputs, *pooled)} == {jnp.dtype("bfloat16")}


def test_windows_of_very_many_positions_are_left_to_xla():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(30, 30, 2, 1)), jnp.float32)
    kernel = jnp.full((25, 25, 1, 1), 1 / 625, jnp.float32)
    mean = jnp.mean(images[:25, :25], axis=(0, 1))
    np.testing.assert_allclose(convolve(images, kernel)[0, 0], mean, atol=1e-6)
    np.testing.assert_allclose(average_pool(images, (25, 25), (1, 1))[0, 0], mean, atol=1e-6)
    np.testing.assert_array_equal(max_pool(images, (25, 25), (1, 1))[0, 0], images[:25, :25].max((0, 1)))


def test_the_gradient_of_a_gradient_on_an_accelerator():
    def loss(kernel):
        return jnp.sum(convolve_on_accelerator(jnp.ones((5, 5, 2, 1)), kernel, (1, 1)) ** 3)

    kernel = jnp.linspace(0.1, 1, 9).reshape(3, 3, 1, 1)
    twice = jax.jit(jax.grad(lambda kernel: jnp.sum(jax.grad(loss)(kernel) ** 2)))(kernel)
    # All pixels are one, so the loss is 18 s^3 of the sum s; its gradient 54 s^2 in all nine taps.
    total = float(kernel.sum())
    np.testing.assert_allclose(twice, 9 * 2 * 54 * total**2 * 108 * total, rtol=1e-4)


def test_the_mean_of_bfloat16_is_summed_in_float32():
    images = jnp.full((16, 16, 1, 1), 1.0, jnp.bfloat16).at[0, 0].set(256)
    assert average_pool(images, (16, 16), (1, 1)).item() == float(jnp.bfloat16((255 + 256) / 256))


@pytest.mark.parametrize("pool", [max_pool, average_pool])
def test_windows_larger_than_the_images_are_refused(pool):
    with pytest.raises(InputError, match="window 3x3: must be no larger than the images, 2x5"):
        pool(jnp.zeros((2, 5, 1, 1)), (3, 3), (1, 1))
    with pytest.raises(InputError, match="window 3x3"):
        convolve(jnp.zeros((2, 5, 1, 1)), jnp.zeros((3, 3, 1, 1)))
    with pytest.raises(InputError, match="padding"):
        convolve(jnp.zeros((2, 5, 1, 1)), jnp.zeros((3, 3, 1, 1)), padding="SAME")
