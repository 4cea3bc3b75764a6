"""Figures: no text overlaps or leaves the page, and the same numbers give the same bytes."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

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
    shorten,
)
from cnnjax.figures.style import tile, to_rgba
from cnnjax.inspection.confusion import Answer
from cnnjax.inspection.sliding import SEVEN, pool, slide
from figure_checks import check_figure, list_texts

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


@pytest.mark.parametrize("padding", ["valid", "same", 3])
@pytest.mark.parametrize("strides", [1, 2])
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
    assert "the first 59 of 102 layers" in draw_stack((28, 28, 1), layers, "deep").get_suptitle()


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


def test_a_figure_is_saved_by_its_suffix(tmp_path):
    figure = draw_maps("Conv_0", np.zeros((4, 4, 2)))
    for name, beginning in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml")):
        style.save_figure(figure, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(beginning)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg"]
    with pytest.raises(InputError, match=r"a\.gif: must end in \.png or \.svg"):
        style.save_figure(figure, tmp_path / "a.gif")


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
