"""Figures: no text overlaps or leaves the page, marks are at their numbers, and equal numbers give equal bytes."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Polygon, Rectangle

from cnnjax import InputError, ModelConfig
from cnnjax.figures import style
from cnnjax.figures.geometry import draw_pooling, draw_stack, draw_window
from cnnjax.figures.network import (
    draw_answers,
    draw_confusion,
    draw_filters,
    draw_layers,
    draw_maps,
    draw_saliency,
    format_probability,
)
from cnnjax.figures.style import (
    BLUE,
    GREEN,
    MUTED,
    ON_LIGHT,
    ORANGE,
    PAPER,
    PURPLE,
    SKY,
    VERMILLION,
    blend,
    shorten,
    tile,
    to_rgba,
)
from cnnjax.inspection.confusion import Answer
from cnnjax.inspection.sliding import SEVEN, pool, slide
from cnnjax.models.network import Layer
from figure_checks import (
    check_figure,
    find_bars,
    find_cell_texts,
    find_place,
    is_upside_down,
    list_texts,
    name_ticks,
    read_bars,
    read_pixels,
    read_tiles,
)

RANDOM = np.random.default_rng(0)
DIGITS = tuple("0123456789")
LONG = tuple(f"a class with a long name {index}" for index in range(10))
MANY = tuple(f"class {index}" for index in range(120))


def make_image(*shape):
    return RANDOM.integers(0, 256, shape, np.uint8)


def make_probabilities(classes):
    return RANDOM.dirichlet(np.ones(classes)).astype(np.float32)


def make_outputs(classes=10, hidden=()):
    maps = {"Conv_0": (24, 24, 32), "MaxPool_0": (12, 12, 32), "Conv_1": (8, 8, 64), "MaxPool_1": (4, 4, 64)}
    units = {f"Dense_{index}": (width,) for index, width in enumerate((*hidden, classes))}
    return {name: RANDOM.standard_normal(shape, np.float32) for name, shape in (maps | units).items()}


def make_answers(count):
    return [Answer(9000 + index, index % 10, (index + 1) % 10, 0.99 / (index + 1)) for index in range(count)]


# Every picture


@pytest.mark.parametrize(
    "shape",
    [(5, 5, 1, 32), (3, 3, 3, 16), (5, 5, 32, 64), (3, 7, 2, 4), (1, 1, 8, 8), (5, 5, 1, 1), (28, 28, 1, 8)],
    ids=str,
)
def test_filters_are_readable(shape):
    check_figure(draw_filters("Conv_0", RANDOM.standard_normal(shape, np.float32)))


@pytest.mark.parametrize("shape", [(24, 24, 32), (4, 4, 64), (1, 1, 10), (6, 20, 3), (30, 5, 200), (2, 2, 1)], ids=str)
def test_maps_are_readable(shape):
    check_figure(draw_maps("MaxPool_12", RANDOM.standard_normal(shape, np.float32)))


@pytest.mark.parametrize(("names", "hidden"), [(DIGITS, ()), (LONG, (200, 16)), (MANY, (8,)), (("no", "yes"), ())])
def test_layers_below_each_other_are_readable(names, hidden):
    outputs, probabilities = make_outputs(len(names), hidden), make_probabilities(len(names))
    check_figure(draw_layers(make_image(28, 28, 1), outputs, probabilities, names, "test image 0 of mnist"))


def test_the_layers_of_a_dense_network_and_of_a_very_deep_one_are_readable():
    dense = {"Dense_0": RANDOM.random(300), "Dense_1": RANDOM.random(10)}
    check_figure(draw_layers(make_image(8, 8, 3), dense, make_probabilities(10), DIGITS, "dense"))
    deep = {f"Conv_{index}": RANDOM.random((6, 6, 4)) for index in range(50)} | {"Dense_0": RANDOM.random(10)}
    figure = draw_layers(make_image(8, 8, 3), deep, make_probabilities(10), DIGITS, "deep")
    check_figure(figure)
    assert "the first 40 of 50 layers before the classifier" in figure.get_suptitle()


@pytest.mark.parametrize("names", [DIGITS, LONG, MANY, ("no", "yes")], ids=len)
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 48, 3), (10, 9, 2), (10, 9, 4)], ids=str)
def test_saliency_is_readable(shape, names):
    image, saliency = make_image(*shape), RANDOM.standard_normal(shape)
    check_figure(draw_saliency(image, saliency, make_probabilities(len(names)), names, "test image 0 of mnist"))


@pytest.mark.parametrize("names", [DIGITS, LONG, MANY, ("no", "yes"), tuple(map(str, range(25)))], ids=len)
def test_a_confusion_matrix_is_readable(names):
    check_figure(draw_confusion(RANDOM.integers(0, 1500, (len(names), len(names))), names, "test images of mnist"))


def test_a_confusion_matrix_without_mistakes_or_with_a_class_nobody_saw_is_drawn():
    check_figure(draw_confusion(np.diag([5, 0, 7]), ("a", "b", "c"), "no mistakes"))


@pytest.mark.parametrize("count", [1, 6, 24])
@pytest.mark.parametrize("names", [DIGITS, LONG], ids=["digits", "long"])
def test_answers_are_readable(names, count):
    check_figure(draw_answers(make_image(count, 28, 28, 1), make_answers(count), names, "the hardest test images"))


@pytest.mark.parametrize(("strides", "padding"), [(1, "valid"), (2, "same"), (1, 3)])
@pytest.mark.parametrize(("size", "kernel_size"), [((5, 5), 3), ((6, 9), (2, 3)), ((14, 14), 5), ((2, 2), 1)])
def test_a_sliding_window_is_readable(size, kernel_size, strides, padding):
    check_figure(draw_window(slide(size, kernel_size, strides, padding)))


def test_a_window_over_a_large_image_is_drawn_without_numbers():
    figure = draw_window(slide((64, 64), 11, 1, "same"))
    check_figure(figure)
    assert "17" not in [text for text, _ in list_texts(figure)]


def test_every_output_of_the_textbook_example_has_its_letter_and_its_window():
    texts = [text for text, _ in list_texts(draw_window(slide((5, 5), 3)))]
    assert all(texts.count(letter) == 2 for letter in "ABCDEFGHI")
    assert texts.count("13") == 10  # of the image, and of what nine windows see
    assert "output: 3 x 3" in texts


@pytest.mark.parametrize(
    ("kind", "window", "strides"), [("max", 2, None), ("avg", 3, None), ("max", 3, 1), ("avg", 5, 2)]
)
def test_pooling_is_readable(kind, window, strides):
    check_figure(draw_pooling(pool(SEVEN, kind, window, strides)))


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(),
        ModelConfig(filters=()),
        ModelConfig(filters=(2048,), kernel_size=3, padding="same", dense=(65536,), dropout=0.5, batch_norm=True),
        ModelConfig(filters=(8,) * 20, padding="same", pool="none", batch_norm=True),
    ],
    ids=["default", "dense", "large", "deep"],
)
def test_the_stack_of_tensors_is_readable(config):
    check_figure(draw_stack((28, 28, 1), config.list_layers((28, 28, 1), 10), "a network"))


def test_a_stack_too_deep_to_draw_says_what_is_left_out():
    layers = ModelConfig(filters=(8,) * 100, padding="same", pool="none").list_layers((28, 28, 1), 10)
    figure = draw_stack((28, 28, 1), layers, "deep")
    assert "the first 59 of 102 layers" in figure.get_suptitle()
    names = [text.get_text() for text in figure.axes[0].texts if text.get_fontweight() == "bold"]
    assert names == ["image", *[layer.name for layer in layers[:59]]]
    assert len(figure.axes[0].patches) == 3 * 60


# Marks against numbers


def number(*shape):
    """Returns distinct values on both sides of zero; the one that is farthest from it is negative."""
    values = RANDOM.permutation(np.arange(np.prod(shape), dtype=np.float32)).reshape(shape)
    return values - values.max() * 0.6


def check_numbered_tiles(axes, count, height, width):
    """Fails unless tiles of pixels (height, width), eight in a row, are numbered from 0 in reading order."""
    columns = [column * (width + 3) + (width - 1) / 2 for column in range(min(count, 8))]
    rows = [row * (height + 3) + (height - 1) / 2 for row in range(-(-count // 8))]
    assert list(axes.get_xticks()) == columns
    assert list(axes.get_yticks()) == rows
    assert name_ticks(axes.xaxis) == [f"+{column}" for column in range(len(columns))]
    assert name_ticks(axes.yaxis) == [f"{8 * row}" for row in range(len(rows))]


def test_grey_filters_are_their_weights_and_zero_is_the_middle_grey():
    kernel = number(3, 2, 1, 10)
    axes, scale = draw_filters("Conv_0", kernel).axes
    tiles = read_tiles(axes, 8, (3, 2))
    np.testing.assert_array_equal(tiles[:10], kernel[:, :, 0].transpose(2, 0, 1))
    assert np.isnan(tiles[10:]).all()
    assert len(tiles) == 16
    check_numbered_tiles(axes, 10, 24, 16)
    limit = -kernel.min()
    colours = axes.images[0].to_rgba([-limit, -limit / 2, 0, limit / 2, limit])
    np.testing.assert_allclose(colours[:, :3], np.outer([0, 0.25, 0.5, 0.75, 1], [1, 1, 1]), atol=0.003)
    assert scale.get_ylim() == (pytest.approx(-limit), pytest.approx(limit))


def test_filters_of_three_colours_raise_their_own_colour():
    kernel = number(3, 2, 3, 10)
    (axes,) = draw_filters("Conv_0", kernel).axes
    tiles = read_tiles(axes, 8, (3, 2))
    for index in range(10):
        weights = (tiles[index][..., :3] - 0.5) * 2 * -kernel.min()
        np.testing.assert_allclose(weights, kernel[..., index], atol=1e-3)
        assert (tiles[index][..., 3] == 1).all()
    assert not np.any(tiles[10:])
    check_numbered_tiles(axes, 10, 24, 16)


def test_a_row_of_the_table_of_deeper_filters_is_a_filter_and_a_column_its_input():
    kernel = number(3, 2, 4, 5)
    figure = draw_filters("Conv_1", kernel)
    axes, scale = figure.axes
    tiles = read_tiles(axes, 4, (3, 2))
    assert len(tiles) == 20
    for index, seen in enumerate(tiles):
        np.testing.assert_array_equal(seen, kernel[:, :, index % 4, index // 4])
    assert axes.images[0].get_clim() == scale.get_ylim() == (pytest.approx(kernel.min()), pytest.approx(-kernel.min()))
    brightness = axes.images[0].to_rgba([kernel.min(), 0, -kernel.min()])[:, 0]
    np.testing.assert_allclose(brightness, [0, 0.5, 1], atol=0.003)
    assert list(axes.get_xticks()) == [7.5, 26.5, 45.5, 64.5]
    assert list(axes.get_yticks()) == [11.5, 38.5, 65.5, 92.5, 119.5]
    assert (name_ticks(axes.xaxis), name_ticks(axes.yaxis)) == ([*"0123"], [*"01234"])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("input", "filter")
    assert figure.get_suptitle() == "Conv_1: 5 filters, 4 inputs"


def test_the_first_of_many_filters_are_shown_and_counted():
    kernel = number(1, 2, 1, 70)
    figure = draw_filters("Conv_0", kernel)
    tiles = read_tiles(figure.axes[0], 8, (1, 2))
    np.testing.assert_array_equal(tiles, kernel[:, :, 0, :64].transpose(2, 0, 1))
    assert figure.get_suptitle() == "Conv_0: the first 64 of 70 filters of 1 x 2"
    kernel = number(1, 2, 13, 15)
    figure = draw_filters("Conv_1", kernel)
    tiles = read_tiles(figure.axes[0], 12, (1, 2))
    np.testing.assert_array_equal(tiles, kernel[:, :, :12, :12].transpose(3, 2, 0, 1).reshape(144, 1, 2))
    assert figure.get_suptitle() == "Conv_1: the first 12 of 15 filters, the first 12 of 13 inputs"


@pytest.mark.parametrize(
    ("shift", "limits"),
    [(0, (-3, 26)), (10, (0, 36)), (-40, (-43, -14))],
    ids=["both signs", "positive", "negative"],
)
def test_maps_are_their_outputs_on_one_scale_from_zero_or_the_least(shift, limits):
    maps = RANDOM.permutation(np.arange(-3.0, 27.0)).reshape(3, 1, 10) + shift
    figure = draw_maps("Conv_0", maps)
    axes, scale = figure.axes
    tiles = read_tiles(axes, 8, (3, 1))
    np.testing.assert_array_equal(tiles[:10], maps.transpose(2, 0, 1))
    assert np.isnan(tiles[10:]).all()
    check_numbered_tiles(axes, 10, 24, 8)
    assert axes.images[0].get_clim() == scale.get_ylim() == limits
    shades = [measure_brightness(colour[:3]) for colour in axes.images[0].to_rgba(np.linspace(*limits, 9))]
    assert all(later > earlier for earlier, later in pairwise(shades))
    assert figure.get_suptitle() == "Conv_0: 10 maps of 3 x 1"


def test_the_first_of_many_maps_are_shown_on_the_scale_of_all():
    maps = number(2, 3, 70)
    maps[..., 69] *= 10
    figure = draw_maps("Conv_0", maps)
    np.testing.assert_array_equal(read_tiles(figure.axes[0], 8, (2, 3)), maps.transpose(2, 0, 1)[:64])
    assert figure.axes[0].images[0].get_clim() == (maps.min(), maps.max())
    assert figure.get_suptitle() == "Conv_0: the first 64 of 70 maps of 2 x 3"
    assert draw_maps("Conv_0", np.zeros((2, 3, 2))).axes[0].images[0].get_clim() == (0, 1)


FEW = np.array([0.05, 0.6, 0.0002, 0.3498])
FEW_NAMES = ("none", "one", "two", "three")
FEW_TEXTS = ["5.0%", "60.0%", "<0.1%", "35.0%"]


def check_probabilities(axes, shown, probabilities, names, texts):
    """Fails unless axes have bars of the classes `shown`, from top to bottom, and only the highest one is blue."""
    bars = read_bars(axes)
    assert [(row, length) for row, length, _ in bars] == [
        (pytest.approx(row), pytest.approx(probabilities[index])) for row, index in enumerate(shown)
    ]
    winner = int(np.argmax(probabilities))
    assert [colour[:3] for *_, colour in bars] == [to_rgb(BLUE if index == winner else MUTED) for index in shown]
    assert [(text.xy[1], text.xy[0], text.get_text()) for text in axes.texts] == [
        (pytest.approx(row), pytest.approx(length), text) for (row, length, _), text in zip(bars, texts, strict=True)
    ]
    assert list(axes.get_yticks()) == list(range(len(shown)))
    assert name_ticks(axes.yaxis) == [names[index] for index in shown]
    assert dict(zip(axes.get_xticks(), name_ticks(axes.xaxis), strict=True)) == {0: "0", 0.5: "50%", 1: "100%"}
    assert is_upside_down(axes)
    left, right = axes.get_xlim()
    assert left == 0
    assert right > 1


def test_every_layer_is_shown_below_the_one_before_it_on_a_scale_of_its_own():
    image = make_image(24, 5, 3)
    outputs = {
        "Conv_0": number(24, 5, 9),
        "MaxPool_0": number(3, 2, 4) * 100 + 1e5,
        "Dense_0": number(130),
        "Dense_1": number(4),
    }
    outputs["Conv_0"][..., 8] *= 10
    outputs["Dense_0"][129] = 1000
    figure = draw_layers(image, outputs, FEW, FEW_NAMES, "an image")
    given, first, second, units, answers = figure.axes
    assert [find_place(axes) for axes in figure.axes] == [(row, 0) for row in range(5)]
    shown = read_tiles(given, 8, (24, 5))
    np.testing.assert_array_equal(shown[0], to_rgba(image[np.newaxis])[0])
    assert not np.any(shown[1:])
    np.testing.assert_array_equal(read_tiles(first, 8, (24, 5)), outputs["Conv_0"].transpose(2, 0, 1)[:8])
    tiles = read_tiles(second, 8, (3, 2))
    np.testing.assert_array_equal(tiles[:4], outputs["MaxPool_0"].transpose(2, 0, 1))
    assert np.isnan(tiles[4:]).all()
    np.testing.assert_array_equal(read_pixels(units), outputs["Dense_0"][np.newaxis, :128])
    conv, pooled, dense, _ = outputs.values()
    assert first.images[0].get_clim() == (conv.min(), conv.max())
    assert second.images[0].get_clim() == (0, pooled.max())
    assert units.images[0].get_clim() == (dense.min(), dense.max())
    for axes in (first, second, units):
        low, high = (measure_brightness(colour[:3]) for colour in axes.images[0].to_rgba(axes.images[0].get_clim()))
        assert low < high
    assert [axes.get_ylabel().split("\n") for axes in figure.axes] == [
        ["image", "24 x 5"],
        ["Conv_0", "24 x 5", "8 of 9 maps"],
        ["MaxPool_0", "3 x 2", "4 of 4 maps"],
        ["Dense_0", "128 of 130 units"],
        ["Dense_1", "probabilities"],
    ]
    check_probabilities(answers, range(4), FEW, FEW_NAMES, FEW_TEXTS)


def test_the_first_of_many_layers_are_shown():
    outputs = {f"Dense_{index}": np.array([index, -1.0]) for index in range(43)}
    rows = draw_layers(make_image(2, 3, 1), outputs, FEW, FEW_NAMES, "deep").axes[1:-1]
    assert [read_pixels(axes).tolist() for axes in rows] == [[[index, -1]] for index in range(40)]


def test_saliency_is_the_largest_change_by_any_channel_of_a_pixel():
    image = make_image(4, 6, 3)
    saliency = np.zeros((4, 6, 3))
    saliency[0, 5], saliency[3, 1], saliency[2, 2] = (1, -8, 3), (5, 2, -4), (0, 0, 2)
    figure = draw_saliency(image, saliency, FEW, FEW_NAMES, "an image")
    left, middle, right, scale = figure.axes
    assert [find_place(axes) for axes in (left, middle, right)] == [(0, 0), (0, 1), (0, 2)]
    np.testing.assert_array_equal(read_pixels(left), to_rgba(image[np.newaxis])[0])
    expected = np.zeros((4, 6))
    expected[0, 5], expected[3, 1], expected[2, 2] = 8, 5, 2
    np.testing.assert_array_equal(read_pixels(middle), expected)
    assert middle.images[0].get_clim() == scale.get_ylim() == (0, 8)
    shades = [measure_brightness(colour[:3]) for colour in middle.images[0].to_rgba([0, 2, 5, 8])]
    assert all(later > earlier for earlier, later in pairwise(shades))
    assert middle.get_title() == "what the answer one hangs on"
    check_probabilities(right, range(4), FEW, FEW_NAMES, FEW_TEXTS)


def test_a_saliency_of_zero_is_dark():
    figure = draw_saliency(make_image(2, 3, 1), np.zeros((2, 3, 1)), FEW, FEW_NAMES, "an image")
    assert figure.axes[1].images[0].get_clim() == (0, 1)


def test_the_ten_most_probable_classes_are_shown_in_the_order_of_the_classes():
    percent = np.array([9, 1, 8, 7, 20, 2, 6, 11, 10, 12, 5, 9])
    names = [f"c{index}" for index in range(12)]
    axes = draw_saliency(make_image(2, 3, 1), np.ones((2, 3, 1)), percent / 100, names, "an image").axes[2]
    shown = [0, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    check_probabilities(axes, shown, percent / 100, names, [f"{percent[index]}.0%" for index in shown])
    assert axes.get_xlabel() == "probability; 2 less probable classes left out"


def test_a_cell_of_the_confusion_matrix_is_the_true_class_down_and_the_predicted_across():
    matrix = np.array([[8, 2, 0], [0, 5, 0], [6, 3, 1]])
    figure = draw_confusion(matrix, ("a", "b", "c"), "three classes")
    axes, scale = figure.axes
    np.testing.assert_allclose(read_pixels(axes), [[np.nan, 20, 0], [0, np.nan, 0], [60, 30, np.nan]])
    np.testing.assert_array_equal(read_pixels(axes, 1), np.where(np.eye(3), 1, np.nan))
    wrong, right = axes.images
    assert wrong.get_clim() == scale.get_ylim() == (0, 60)
    shades = [measure_brightness(colour[:3]) for colour in wrong.to_rgba([0, 20, 30, 60])]
    assert all(later < earlier for earlier, later in pairwise(shades))
    assert to_rgb(right.to_rgba([1.0])[0, :3]) == pytest.approx(to_rgb(MUTED))
    cells = {(0, 0): "8", (1, 0): "2", (1, 1): "5", (0, 2): "6", (1, 2): "3", (2, 2): "1"}
    assert find_cell_texts(axes) == cells
    assert {text.get_position() for text in axes.texts if text.get_fontweight() == "bold"} == {(0, 0), (1, 1), (2, 2)}
    inks = {text.get_position(): text.get_color() for text in axes.texts}
    assert inks == {place: PAPER if place == (0, 2) else ON_LIGHT for place in cells}
    for axis in (axes.xaxis, axes.yaxis):
        assert list(axis.get_ticklocs()) == [0, 1, 2]
        assert name_ticks(axis) == ["a", "b", "c"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")


def test_a_large_confusion_matrix_has_every_class_and_no_numbers():
    matrix = RANDOM.integers(1, 100, (26, 26))
    axes = draw_confusion(matrix, MANY[:26], "many classes").axes[0]
    shares = 100 * matrix / matrix.sum(1, keepdims=True)
    np.fill_diagonal(shares, np.nan)
    np.testing.assert_allclose(read_pixels(axes), shares)
    assert not axes.texts
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class, by number", "true class, by number")


def test_answers_are_shown_in_reading_order_with_their_own_images_and_numbers():
    images = make_image(8, 6, 5, 3)
    answers = [Answer(100 - index, index, (3 * index + 1) % 10, 0.9 - index / 10) for index in range(8)]
    panels = [
        axes for axes in draw_answers(images, answers, [f"c{k}" for k in DIGITS], "answers").axes if axes.get_visible()
    ]
    assert [find_place(axes) for axes in panels] == [(0, column) for column in range(6)] + [(1, 0), (1, 1)]
    for axes, image, answer in zip(panels, to_rgba(images), answers, strict=True):
        np.testing.assert_array_equal(read_pixels(axes), image)
        percent = f"{100 * answer.probability:.1f}%"
        assert axes.get_title() == f"#{answer.index}, {percent}\nis c{answer.label}\nsaid c{answer.predicted}"


def find_frames(axes):
    """Returns the frames of windows: left, upper, width and height in cells, and the colour and line."""
    frames = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    places = [(each.get_x(), each.get_y(), each.get_width(), each.get_height()) for each in frames]
    return [
        (*place, each.get_edgecolor()[:3], each.get_linestyle()) for place, each in zip(places, frames, strict=True)
    ]


def read_words(axes, rows, columns):
    """Returns the texts of a grid of cells, one in every cell, which stand out from its colour."""
    texts, colours = find_cell_texts(axes), read_pixels(axes)
    for text in axes.texts:
        column, row = text.get_position()
        assert abs(measure_brightness(text.get_color()) - measure_brightness(colours[row, column])) > 0.499
    assert len(texts) == len(axes.texts) == rows * columns
    return [[texts[column, row] for column in range(columns)] for row in range(rows)]


def split_panels(figure):
    """Returns the axes of an image, of the windows and of the output, from left to right."""
    left, middle, right = figure.subfigs
    assert left.bbox.x0 < middle.bbox.x0 < right.bbox.x0
    return left.axes[0], middle.axes, right.axes[0]


UNEVEN = np.array([[0, 0, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 0, 0], [6, 7, 8, 9, 10, 0, 0], [11, 12, 13, 14, 15, 0, 0]])
"""An image of 3 x 5 numbers with one row of padding above and two columns on the right."""


@pytest.fixture(scope="module")
def uneven():
    return split_panels(draw_window(slide((3, 5), (2, 3), (1, 2), ((1, 0), (0, 2)))))


def test_the_image_of_a_sliding_window_has_its_numbers_its_padding_and_the_first_two_windows(uneven):
    image, _, _ = uneven
    assert read_words(image, 4, 7) == UNEVEN.astype(str).tolist()
    grey = np.where(UNEVEN[..., np.newaxis] == 0, blend(MUTED, PAPER, 0.2), to_rgb(PAPER))
    np.testing.assert_allclose(read_pixels(image), grey)
    assert find_frames(image) == [
        (-0.5, -0.5, 3, 2, to_rgb(BLUE), "-"),
        (1.5, -0.5, 3, 2, to_rgb(VERMILLION), "--"),
    ]
    assert [text.get_text() for text in image.get_legend().get_texts()] == ["window A", "window B"]
    assert image.get_title() == "image with its padding of zeros"


def test_every_window_marks_the_pixels_that_it_sees(uneven):
    _, windows, _ = uneven
    assert [find_place(axes) for axes in windows] == [(row, column) for row in range(3) for column in range(3)]
    for index, (axes, letter) in enumerate(zip(windows, "ABCDEFGHI", strict=True)):
        top, left = index // 3, index % 3 * 2
        assert axes.get_title() == letter
        assert find_frames(axes) == [(left - 0.5, top - 0.5, 3, 2, to_rgb(BLUE), "-")]
        assert read_words(axes, 4, 7) == UNEVEN.astype(str).tolist()
        expected = np.where(UNEVEN[..., np.newaxis] == 0, blend(MUTED, PAPER, 0.2), to_rgb(PAPER))
        expected[top : top + 2, left : left + 3] = blend(SKY, PAPER, 0.35)
        np.testing.assert_allclose(read_pixels(axes), expected)


def test_the_output_of_a_sliding_window_has_a_letter_for_every_place(uneven):
    output = uneven[2]
    assert read_words(output, 3, 3) == [[*"ABC"], [*"DEF"], [*"GHI"]]
    np.testing.assert_allclose(read_pixels(output), np.full((3, 3, 3), blend(SKY, PAPER, 0.35)))
    assert output.get_title() == "output: 3 x 3"


def test_a_grid_has_a_line_on_every_edge_of_a_cell(uneven):
    across = [((-0.5, row - 0.5), (6.5, row - 0.5)) for row in range(5)]
    down = [((column - 0.5, -0.5), (column - 0.5, 3.5)) for column in range(8)]
    assert find_bars(uneven[0]) == across + down


def test_windows_of_one_column_follow_each_other_down():
    image, windows, output = split_panels(draw_window(slide((6, 2), (2, 2), (3, 1))))
    assert [frame[:2] for frame in find_frames(image)] == [(-0.5, -0.5), (-0.5, 2.5)]
    assert [axes.get_title() for axes in windows] == ["A", "B"]
    assert [find_place(axes) for axes in windows] == [(0, 0), (1, 0)]
    assert read_words(output, 2, 1) == [["A"], ["B"]]
    assert image.get_title() == "image"
    image, windows, _ = split_panels(draw_window(slide((2, 3), (2, 3))))
    assert (len(find_frames(image)), len(windows)) == (1, 1)


def test_the_first_windows_down_and_across_are_shown_of_many():
    _, windows, output = split_panels(draw_window(slide((3, 7), 2)))
    assert [axes.get_title() for axes in windows] == [*"ABCDGHIJ"]
    assert read_words(output, 2, 6) == [[*"ABCDEF"], [*"GHIJKL"]]
    assert output.get_title() == "output: 2 x 6"
    assert windows[0].figure.get_suptitle() == "what each window sees (the first 2 x 4)"


def test_pooled_cells_have_their_values_as_text_and_darkness_and_whole_windows_have_lines():
    picture = RANDOM.permutation(np.arange(35)).reshape(5, 7) / 40
    left, right = draw_pooling(pool(picture, "max", (2, 3))).axes
    pooled = np.array([[picture[r : r + 2, c : c + 3].max() for c in (0, 3)] for r in (0, 2)])
    assert [find_place(axes) for axes in (left, right)] == [(0, 0), (0, 1)]
    for axes, values in ((left, picture), (right, pooled)):
        words = read_words(axes, *values.shape)
        np.testing.assert_allclose(np.array(words, float), values, atol=0.0051)
        share = values[..., np.newaxis]
        np.testing.assert_allclose(read_pixels(axes), (1 - share) * to_rgb(PAPER) + share * to_rgb(BLUE))
    heavy = [
        tuple(map(tuple, segment))
        for lines in left.collections
        if lines.get_linewidth()[0] > 1
        for segment in lines.get_segments()
    ]
    assert heavy == [
        *[((-0.5, y), (5.5, y)) for y in (-0.5, 1.5, 3.5)],
        *[((x, -0.5), (x, 3.5)) for x in (-0.5, 2.5, 5.5)],
    ]
    assert not find_frames(left)
    assert [axes.get_title() for axes in (left, right)] == ["picture: 5 x 7", "pooled: 2 x 2"]


def test_pooling_by_windows_that_overlap_frames_the_first_one():
    picture = RANDOM.permutation(np.arange(35)).reshape(5, 7) / 40
    left, right = draw_pooling(pool(picture, "avg", (2, 3), (1, 2))).axes
    assert find_frames(left) == [(-0.5, -0.5, 3, 2, to_rgb(BLUE), "-")]
    assert not find_frames(right)
    means = np.array([[picture[r : r + 2, c : c + 3].mean() for c in (0, 2, 4)] for r in range(4)])
    np.testing.assert_allclose(np.array(read_words(right, 4, 3), float), means, atol=0.0051)
    assert all(lines.get_linewidth()[0] < 1 for lines in left.collections)


STACK = (
    Layer("Conv_0", "Conv", (16, 6, 36), 900, 100),
    Layer("MaxPool_0", "MaxPool", (8, 3, 9)),
    Layer("BatchNorm_0", "BatchNorm", (8, 3, 9), 18, 18),
    Layer("Dense_0", "Dense", (100,), 77),
    Layer("Dense_1", "Dense", (25,)),
)
"""Layers of an image of 20 x 12 pixels in 4 channels."""


def list_corners(corners):
    return sorted((round(float(x), 6), round(float(y), 6)) for x, y in corners)


def find_blocks(axes):
    """Returns the front, the roof and the side of every block, as polygons."""
    assert all(isinstance(patch, Polygon) for patch in axes.patches)
    return list(zip(axes.patches[::3], axes.patches[1::3], axes.patches[2::3], strict=True))


def test_a_block_of_the_stack_is_as_high_thick_and_deep_as_its_tensor():
    blocks = find_blocks(draw_stack((20, 12, 4), STACK, "a network").axes[0])
    sizes = [(1.2, 0.55 / 3, 0.21), (0.96, 0.55, 0.105), *[(0.48, 0.275, 0.0525)] * 2, (1.2, 0.12, 0), (0.6, 0.12, 0)]
    colours = [BLUE, SKY, ORANGE, PURPLE, GREEN, GREEN]
    for index, ((height, thickness, offset), colour) in enumerate(zip(sizes, colours, strict=True)):
        front, roof, side = blocks[index]
        left, floor = 1.5 * (index + 0.5) - (thickness + offset) / 2, -1.75
        right, top = left + thickness, floor + height
        upper = [(left, top), (right, top)]
        edge = [(right, floor), (right, top)]
        for face, corners in (
            (front, [(left, floor), (right, floor), *upper]),
            (roof, [*upper, *[(x + offset, y + offset) for x, y in upper]]),
            (side, [*edge, *[(x + offset, y + offset) for x, y in edge]]),
        ):
            assert list_corners(face.get_xy()[:4]) == list_corners(corners)
        assert front.get_facecolor()[:3] == pytest.approx(blend(colour, PAPER, 0.1))
        light = [measure_brightness(face.get_facecolor()[:3]) for face in (roof, front, side)]
        assert light == sorted(light, reverse=True)
        assert len(set(light)) == 3
    assert len(blocks) == 6


def test_a_tensor_of_the_stack_has_its_name_and_sizes_below_its_block_and_an_arrow_to_the_next():
    axes = draw_stack((20, 12, 4), [*STACK, *STACK], "a network").axes[0]
    texts = [text for text in axes.texts if text.get_text()]
    places = [
        (1.5 * (column + 0.5), -1.75 - 2.6 * row) for row, columns in ((0, 7), (1, 4)) for column in range(columns)
    ]
    names = ["image", *[layer.name for layer in STACK] * 2]
    numbers = ["16 x 6 x 36\n1,000 parameters", "8 x 3 x 9", "8 x 3 x 9\n36 parameters", "100\n77 parameters", "25"]
    assert [(text.get_text(), *text.get_position()) for text in texts[::2]] == [
        (name, x, pytest.approx(y - 0.12)) for name, (x, y) in zip(names, places, strict=True)
    ]
    assert [(text.get_text(), *text.get_position()) for text in texts[1::2]] == [
        (words, x, pytest.approx(y - 0.31)) for words, (x, y) in zip(["20 x 12 x 4", *numbers * 2], places, strict=True)
    ]
    assert all((text.get_va(), text.get_ha()) == ("top", "center") for text in texts)
    arrows = [text for text in axes.texts if not text.get_text()]
    assert [(*arrow.get_position(), *arrow.xy) for arrow in arrows] == [
        pytest.approx((x + 0.65, y + 0.3, x + 0.85, y + 0.3)) for x, y in places[:-1]
    ]
    assert {arrow.arrowprops["arrowstyle"] for arrow in arrows} == {"->"}
    floors = [front.get_xy()[:, 1].min() for front, _, _ in find_blocks(axes)]
    assert floors == pytest.approx([y for _, y in places])
    assert not is_upside_down(axes)
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, 10.5), (-5.2, 0))


def test_the_smallest_tensors_of_the_stack_are_still_seen():
    layers = [
        Layer("odd", "Odd", (1, 1, 1)),
        Layer("AvgPool_0", "AvgPool", (2, 2, 10000)),
        Layer("Dense_0", "Dense", (1,)),
        Layer("Dense_1", "Dense", (10**6,)),
    ]
    blocks = find_blocks(draw_stack((500, 1000, 3), layers, "uneven").axes[0])
    sizes = [np.ptp(front.get_xy(), axis=0) for front, _, _ in blocks]
    np.testing.assert_allclose(sizes, [(0.07, 0.6), (0.07, 0.06), (0.55, 0.06), (0.12, 0.12), (0.12, 1.2)])
    offsets = [np.ptp(roof.get_xy(), axis=0)[1] for _, roof, _ in blocks]
    np.testing.assert_allclose(offsets, [0.35, 0.0175, 0.0175, 0, 0], atol=1e-12)
    assert blocks[1][0].get_facecolor()[:3] == pytest.approx(blend(MUTED, PAPER, 0.1))
    assert blocks[2][0].get_facecolor()[:3] == pytest.approx(blend(ORANGE, PAPER, 0.1))


# The style


def test_the_same_picture_gives_the_same_bytes_whatever_the_users_settings(tmp_path):
    def draw(suffix):
        return style.encode_figure(draw_pooling(pool(SEVEN)), suffix)

    before = {suffix: draw(suffix) for suffix in style.FORMATS}
    with matplotlib.rc_context({"font.size": 20, "text.color": "red", "savefig.dpi": 10, "axes.grid": True}):
        assert {suffix: draw(suffix) for suffix in style.FORMATS} == before
    assert before[".png"].startswith(b"\x89PNG")


def test_drawing_leaves_the_users_settings_alone():
    assert matplotlib.rcParams["backend"]  # chosen now, where it is not yet
    before = matplotlib.rcParams.copy()
    draw_maps("Conv_0", np.zeros((4, 4, 2)))
    assert matplotlib.rcParams == before


def test_an_svg_is_recoloured_by_replacing_one_colour_and_its_text_is_text():
    svg = style.encode_figure(draw_confusion(np.ones((3, 3), int), ("a", "b", "c"), "a title"), ".svg").decode()
    assert re.search(r"<text[^>]*>a title</text>", svg)
    assert re.search(rf"fill: {style.INK}[^>]*>a title", svg)


def test_a_figure_is_saved_in_every_format(tmp_path):
    figure = draw_maps("Conv_0", np.zeros((4, 4, 2)))
    png, svg = style.save_figures({"a": figure}, tmp_path / "new" / "folder")
    assert (png.name, svg.name) == ("a.png", "a.svg")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert svg.read_bytes().startswith(b"<?xml")
    assert sorted(png.parent.iterdir()) == [png, svg]


def test_no_figure_is_saved_if_one_cannot_be(tmp_path):
    figure = draw_maps("Conv_0", np.zeros((4, 4, 2)))
    (tmp_path / "b.svg").mkdir()
    with pytest.raises(InputError, match=r"--figures .*b\.svg: must be a file"):
        style.save_figures({"a": figure, "b": figure}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["b.svg"]


def measure_brightness(colour):
    return np.dot(to_rgb(colour), (0.299, 0.587, 0.114))


def simulate_deuteranopia(colour):
    """Returns what the colour is to someone without green cones (Vienot, Brettel and Mollon, 1999), in RGB."""
    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    lose_green = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])
    linear = np.asarray(to_rgb(colour)) ** 2.2
    seen = np.linalg.inv(to_lms) @ lose_green @ to_lms @ linear
    return seen.clip(0, 1) ** (1 / 2.2)


def test_amounts_get_brighter_all_along_their_colour_map_also_without_green():
    colours = matplotlib.colormaps[style.SEQUENTIAL](np.linspace(0, 1, 20))[:, :3]
    for see in (to_rgb, simulate_deuteranopia):
        brightness = [measure_brightness(see(colour)) for colour in colours]
        assert all(later > earlier for earlier, later in pairwise(brightness))


def test_the_colours_of_neighbouring_series_differ_also_without_green():
    seen = [simulate_deuteranopia(colour) for colour in style.COLOURS]
    assert all(np.abs(one - other).max() > 0.15 for one, other in pairwise(seen))
    assert len(style.MARKERS) == len(style.COLOURS)


def test_text_is_readable_on_every_colour():
    for colour in (*style.COLOURS, style.MUTED, style.PAPER, "black"):
        contrast = abs(measure_brightness(style.choose_ink(colour)) - measure_brightness(colour))
        assert contrast > 0.35, colour


def test_no_picture_uses_the_state_of_pyplot():
    for path in Path(style.__file__).parent.glob("*.py"):
        names = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
        assert "pyplot" not in path.read_text().split('"""', 2)[2], path
        assert "matplotlib.pyplot" not in names


# Its parts


def test_a_mosaic_holds_every_image_in_reading_order_with_gaps_between():
    images = np.arange(5)[:, None, None] * np.ones((1, 30, 40))
    mosaic = tile(images, 3)
    assert mosaic.sheet.shape == (63, 126)
    centres = [mosaic.sheet[round(row), round(column)] for row in mosaic.rows for column in mosaic.columns]
    np.testing.assert_array_equal(centres, [0, 1, 2, 3, 4, np.nan])
    assert np.isnan(mosaic.sheet[31]).all()
    assert np.nansum(mosaic.sheet) == images.sum()


def test_small_images_are_enlarged_without_a_change_of_values():
    mosaic = tile(np.array([[[1.0, 2.0], [3.0, 4.0]]]), 2)
    assert mosaic.sheet.shape == (24, 51)
    assert set(mosaic.sheet[:, :24].ravel()) == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("pixel", "expected"),
    [
        ([51], [0.2, 0.2, 0.2, 1]),
        ([51, 102], [0.2, 0.2, 0.2, 0.4]),
        ([51, 102, 153], [0.2, 0.4, 0.6, 1]),
        ([51, 102, 153, 0], [0.2, 0.4, 0.6, 0]),
    ],
)
def test_images_of_one_to_four_channels_are_shown_as_they_are(pixel, expected):
    np.testing.assert_allclose(to_rgba(np.array(pixel, np.uint8).reshape(1, 1, 1, -1)).ravel(), expected)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.0%"),
        (1e-9, "<0.1%"),
        (0.0012, "0.1%"),
        (0.5, "50.0%"),
        (0.99949, "99.9%"),
        (0.9999, ">99.9%"),
        (1, "100.0%"),
    ],
)
def test_a_probability_is_not_rounded_to_certainty(value, text):
    assert format_probability(value) == text


def test_long_names_are_shortened():
    assert shorten("airplane") == "airplane"
    assert shorten("a very long class name") == "a very long c…"
