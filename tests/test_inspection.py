"""The numbers behind the pictures of a network and of a sliding window, checked by identities."""

import contextlib
import os
import tracemalloc

import jax
import numpy as np
import pytest
from PIL import Image

from cnnjax import DataConfig, InputError, ModelConfig
from cnnjax.data import loading
from cnnjax.data.loading import find_class_names
from cnnjax.inspection.activations import compute_outputs, compute_saliency
from cnnjax.inspection.confusion import count_confusions, find_confident_mistakes, find_hardest, list_confusions
from cnnjax.inspection.photos import needs_inversion, read_photo
from cnnjax.inspection.sliding import SEVEN, name_window, pool, slide
from cnnjax.layers import average_pool, max_pool
from cnnjax.models.module import CNN
from cnnjax.models.prediction import TrainedNetwork, compute_probabilities
from test_model import CLASSES, CONFIGS

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 14, 11, 2), np.uint8)
LIGHT_ON_DARK = np.zeros((20, 28, 28, 1), np.uint8)
PHOTOGRAPHS = np.random.default_rng(1).integers(0, 256, (20, 28, 28, 1), np.uint8)
GREY = (28, 28, 1)


def make_network(config, shape=(14, 11, 2)):
    model = CNN(config, CLASSES)
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, *shape), np.float32))
    noise = np.random.default_rng(2)
    variables = jax.tree.map(lambda leaf: np.float32(leaf + 0.1 * noise.random(leaf.shape)), variables)
    return TrainedNetwork(config, "float32", variables, shape, CLASSES)


# The layers of a network


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_the_outputs_of_the_last_layer_are_the_logits(config):
    network = make_network(config)
    *_, logits = compute_outputs(network, IMAGES).values()
    expected = jax.jit(network.build().apply)(network.variables, IMAGES.astype(np.float32) / 255)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_the_layers_have_the_names_order_and_shapes_of_the_layer_table(config):
    outputs = compute_outputs(make_network(config), IMAGES)
    layers = config.list_layers((14, 11, 2), CLASSES)
    told = [
        (layer.name, (3, *layer.output_shape))
        for layer in layers
        if layer.kind not in ("Flatten", "Dropout", "SpatialDropout")
    ]
    assert [(name, output.shape) for name, output in outputs.items()] == told


def test_a_pooled_map_is_the_maximum_of_the_map_before_it():
    outputs = compute_outputs(make_network(ModelConfig(filters=(4,), kernel_size=3)), IMAGES)
    maps = outputs["Conv_0"][:, :12, :8].reshape(3, 6, 2, 4, 2, 4)
    np.testing.assert_array_equal(outputs["MaxPool_0"], maps.max((2, 4)))
    assert outputs["Conv_0"].min() == 0  # after the activation


def test_the_probabilities_are_the_softmax_of_the_logits_whatever_the_number_of_images():
    network = make_network(CONFIGS["default"])
    images = np.random.default_rng(3).integers(0, 256, (205, 14, 11, 2), np.uint8)
    probabilities = compute_probabilities(network, images)
    logits = compute_outputs(network, images)["Dense_0"]
    np.testing.assert_allclose(probabilities, jax.nn.softmax(logits), rtol=1e-4)
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)
    assert compute_probabilities(network, images[:0]).shape == (0, CLASSES)


def test_the_saliency_of_a_linear_network_is_the_weights_of_the_winner():
    network = make_network(ModelConfig(filters=()))
    winner = compute_probabilities(network, IMAGES[:1])[0].argmax()
    weights = network.variables["params"]["Dense_0"]["kernel"][:, winner].reshape(14, 11, 2)
    np.testing.assert_allclose(compute_saliency(network, IMAGES[0]), weights, rtol=1e-6)


def test_the_saliency_is_how_the_logit_changes_with_a_pixel():
    network = make_network(CONFIGS["strided"])
    image = IMAGES[0].astype(np.float32) / 255
    saliency = compute_saliency(network, IMAGES[0])
    pixel = np.unravel_index(np.abs(saliency).argmax(), saliency.shape)
    step = np.zeros_like(image)
    step[pixel] = 0.01
    low, high = (network.build().apply(network.variables, (image + sign * step)[None])[0] for sign in (-1, 1))
    assert (high - low)[low.argmax()] / 0.02 == pytest.approx(saliency[pixel], rel=0.02)


@pytest.mark.parametrize("images", [IMAGES[:, :10], IMAGES.astype(np.float32)])
def test_images_of_another_shape_or_type_are_refused(images):
    network = make_network(CONFIGS["dense"])
    for compute in (compute_outputs, compute_probabilities):
        with pytest.raises(InputError, match=r"images: must be uint8 \(n, 14, 11, 2\), not"):
            compute(network, images)
    with pytest.raises(InputError, match=r"images: must be uint8 \(n, 14, 11, 2\), not"):
        compute_saliency(network, images[0])


# Mistakes

LABELS = np.array([0, 1, 2, 2, 1, 0], np.int32)
PREDICTIONS = np.array([0, 2, 2, 1, 2, 0], np.uint8)
PROBABILITIES = np.array(
    [
        [0.6, 0.3, 0.1],
        [0.1, 0.2, 0.7],
        [0.1, 0.1, 0.8],
        [0.0, 0.9, 0.1],
        [0.2, 0.1, 0.7],
        [0.9, 0.1, 0.0],
    ],
    np.float32,
)


def test_the_confusion_matrix_counts_every_example_once():
    matrix = count_confusions(LABELS, PREDICTIONS, 4)
    assert matrix.tolist() == [[2, 0, 0, 0], [0, 0, 2, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(matrix.sum(1), np.bincount(LABELS, minlength=4))
    np.testing.assert_array_equal(matrix.sum(0), np.bincount(PREDICTIONS, minlength=4))
    assert np.trace(matrix) == (LABELS == PREDICTIONS).sum()


def test_the_confusion_matrix_of_many_classes_does_not_overflow_the_predictions_type():
    labels = np.array([199], np.int32)
    assert count_confusions(labels, np.array([198], np.uint8), 200)[199, 198] == 1


def test_confusions_are_listed_most_frequent_first_and_only_those_there_are():
    assert list_confusions(count_confusions(LABELS, PREDICTIONS, 3), 5) == [(1, 2, 2), (2, 1, 1)]
    assert list_confusions(np.diag([3, 4]), 5) == []


def test_the_most_confident_mistakes_are_wrong_and_surest_first():
    answers = find_confident_mistakes(PROBABILITIES, LABELS, PREDICTIONS, 5)
    assert [(a.index, a.label, a.predicted) for a in answers] == [(3, 2, 1), (1, 1, 2), (4, 1, 2)]
    assert [a.probability for a in answers] == pytest.approx([0.9, 0.7, 0.7])
    assert find_confident_mistakes(PROBABILITIES, LABELS, PREDICTIONS, 1) == answers[:1]
    assert find_confident_mistakes(PROBABILITIES, LABELS, LABELS, 5) == []


def test_the_hardest_images_give_their_true_class_the_lowest_probability():
    answers = find_hardest(PROBABILITIES, LABELS, PREDICTIONS, 4)
    assert [a.index for a in answers] == [3, 4, 1, 0]
    assert [a.probability for a in answers] == pytest.approx([0.1, 0.1, 0.2, 0.6])


# Windows


@pytest.mark.parametrize(
    ("strides", "padding", "letters"),
    [
        (1, "valid", ["ABC", "DEF", "GHI"]),
        (2, "valid", ["AB", "CD"]),
        (1, "same", ["ABCDE", "FGHIJ", "KLMNO", "PQRST", "UVWXY"]),
        (2, "same", ["ABC", "DEF", "GHI"]),
    ],
)
def test_the_letters_of_the_textbook_example(strides, padding, letters):
    assert slide((5, 5), 3, strides, padding).letters == [list(line) for line in letters]


def test_what_the_windows_of_the_textbook_example_see():
    plain, strided, padded = slide((5, 5), 3), slide((5, 5), 3, 2), slide((5, 5), 3, 1, "same")
    assert plain.image[0].tolist() == [1, 2, 3, 4, 5]
    assert plain.see((0, 0)).tolist() == [[1, 2, 3], [6, 7, 8], [11, 12, 13]]
    assert plain.see((2, 2)).tolist() == [[13, 14, 15], [18, 19, 20], [23, 24, 25]]
    assert strided.see((1, 0)).tolist() == [[11, 12, 13], [16, 17, 18], [21, 22, 23]]
    assert padded.see((0, 0)).tolist() == [[0, 0, 0], [0, 1, 2], [0, 6, 7]]
    assert padded.padded.shape == (7, 7)


@pytest.mark.parametrize("strides", [1, 2, (2, 3)])
@pytest.mark.parametrize("padding", ["valid", "same", 2, ((0, 1), (2, 0))])
def test_a_sliding_window_sees_what_a_convolution_sums(strides, padding):
    from cnnjax.layers import convolve

    sliding = slide((7, 9), (3, 2), strides, padding)
    image = sliding.image.astype(np.float32)[:, :, None, None]
    pair = strides if isinstance(strides, tuple) else (strides, strides)
    pixels = ((padding, padding), (padding, padding)) if isinstance(padding, int) else padding
    sums = convolve(image, np.ones((3, 2, 1, 1), np.float32), pair, pixels)[..., 0, 0]
    rows, columns = sliding.output
    seen = [[sliding.see((row, column)).sum() for column in range(columns)] for row in range(rows)]
    np.testing.assert_allclose(sums, seen, rtol=1e-5)


def test_a_window_larger_than_its_image_is_refused():
    with pytest.raises(InputError, match="its 7x7 window is larger than its 5x5 input"):
        slide((5, 5), 7)
    with pytest.raises(InputError, match="its 13x13 window is larger than its 12x12 input"):
        pool(SEVEN, "max", 13)


def test_windows_are_named_as_columns_of_a_spreadsheet():
    assert [name_window(index) for index in (0, 25, 26, 27, 701, 702)] == ["A", "Z", "AA", "AB", "ZZ", "AAA"]
    names = [name_window(index) for index in range(4096)]
    assert len(set(names)) == 4096


def test_the_max_pooled_seven_still_looks_like_a_seven():
    lines = ["".join(".#"[int(value)] for value in row) for row in pool(SEVEN).pooled]
    assert lines == [".####.", "....#.", "...##.", "...#..", "...#..", "...#.."]


@pytest.mark.parametrize(("window", "strides"), [((2, 2), None), ((3, 2), None), ((3, 3), (2, 1))])
@pytest.mark.parametrize(("kind", "layer"), [("max", max_pool), ("avg", average_pool)])
def test_explained_pooling_equals_the_pooling_layers(kind, layer, window, strides):
    picture = np.random.default_rng(4).random((12, 12)).astype(np.float32)
    expected = layer(picture[:, :, None, None], window, strides or window)[..., 0, 0]
    np.testing.assert_allclose(pool(picture, kind, window, strides).pooled, expected, rtol=1e-6)


# Pictures of one's own


def draw_seven(size=280, ink=255, ground=0, mode="L"):
    """Returns a 7 as a person might draw it."""
    picture = np.full((size, size), ground, np.uint8)
    unit = size // 14
    picture[3 * unit : 4 * unit, 4 * unit : 10 * unit] = ink
    for row in range(4 * unit, 11 * unit):
        column = 9 * unit - (row - 4 * unit) // 2
        picture[row, column : column + unit] = ink
    return Image.fromarray(picture).convert(mode)


def save(picture, path):
    picture.save(path)
    return path


def test_dark_on_light_is_inverted_for_images_that_are_light_on_dark(tmp_path):
    light = read_photo(save(draw_seven(), tmp_path / "light.png"), GREY, LIGHT_ON_DARK)
    dark = read_photo(save(draw_seven(ink=0, ground=255), tmp_path / "dark.png"), GREY, LIGHT_ON_DARK)
    np.testing.assert_allclose(light.pixels.astype(int), dark.pixels.astype(int), atol=1)
    assert light.pixels.max() == 255
    assert light.remarks[-1] == "light and dark were left as they are"
    assert dark.remarks[-1].startswith("light and dark were exchanged: its border is on the other side of grey")


def test_the_user_can_decide_whether_to_invert(tmp_path):
    path = save(draw_seven(ink=0, ground=255), tmp_path / "dark.png")
    kept = read_photo(path, GREY, LIGHT_ON_DARK, invert=False)
    assert kept.pixels[0, 0, 0] == 255
    assert kept.remarks[-1] == "light and dark were left as they are"
    assert read_photo(path, GREY, PHOTOGRAPHS, invert=True).pixels[0, 0, 0] == 0


def test_nothing_is_inverted_where_borders_vary_or_there_are_colours():
    white = np.full(GREY, 255, np.uint8)
    assert needs_inversion(white, LIGHT_ON_DARK)
    assert not needs_inversion(white, PHOTOGRAPHS)
    assert needs_inversion(255 - white, 255 - LIGHT_ON_DARK)
    assert not needs_inversion(white.repeat(3, -1), LIGHT_ON_DARK.repeat(3, -1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (10, 14, 4), (9, 9, 2)])
def test_every_kind_of_picture_becomes_an_image_of_the_dataset(tmp_path, mode, shape):
    path = save(draw_seven(mode=mode), tmp_path / "seven.png")
    picture = read_photo(path, shape, np.zeros((5, *shape), np.uint8))
    assert picture.pixels.shape == shape
    assert picture.pixels.dtype == np.uint8
    assert picture.remarks[0] == f"280 x 280 pixels, made {shape[1]} x {shape[0]}"


def test_sixteen_bits_a_pixel_are_brought_to_eight(tmp_path):
    deep = np.asarray(draw_seven()).astype(np.uint16) * 257
    path = save(Image.fromarray(deep), tmp_path / "deep.png")
    plain = save(draw_seven(), tmp_path / "plain.png")
    np.testing.assert_array_equal(*(read_photo(each, GREY, LIGHT_ON_DARK).pixels for each in (path, plain)))


@pytest.mark.parametrize(("ink", "ground"), [(0, "white"), (255, "black")])
def test_a_drawing_on_a_transparent_ground_gets_a_contrasting_background(tmp_path, ink, ground):
    opacity = draw_seven()
    drawing = Image.merge("LA", (Image.new("L", opacity.size, ink), opacity))
    picture = read_photo(save(drawing, tmp_path / "drawing.png"), GREY, LIGHT_ON_DARK)
    expected = read_photo(save(opacity, tmp_path / "opaque.png"), GREY, LIGHT_ON_DARK)
    np.testing.assert_allclose(picture.pixels.astype(int), expected.pixels.astype(int), atol=1)
    assert f"its transparent pixels were taken as {ground}" in picture.remarks


def test_a_picture_keeps_its_proportions(tmp_path):
    wide = np.zeros((50, 200), np.uint8)
    wide[10:40, 85:115] = 255
    picture = read_photo(save(Image.fromarray(wide), tmp_path / "wide.png"), GREY, LIGHT_ON_DARK)
    rows, columns = (np.flatnonzero(picture.pixels[..., 0].max(axis) > 127) for axis in (1, 0))
    assert len(rows) == len(columns)
    assert "bands were added at its sides to keep its proportions" in picture.remarks


def test_a_file_that_is_no_picture_is_refused_in_one_line(tmp_path):
    whole = save(draw_seven(), tmp_path / "whole.png").read_bytes()
    contents = {"text.png": b"a text", "empty.png": b"", "cut.png": whole[: len(whole) // 2], "x.svg": b"<svg/>"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=r"--image .*: cannot be read: it must be PNG, .*, WEBP or TIFF"):
            read_photo(tmp_path / name, GREY, LIGHT_ON_DARK)
    with pytest.raises(InputError, match="No such file"):
        read_photo(tmp_path / "absent.png", GREY, LIGHT_ON_DARK)


def test_a_very_large_picture_is_refused_before_it_is_decoded(tmp_path):
    path = save(Image.new("1", (8000, 7000)), tmp_path / "large.png")
    with pytest.raises(InputError, match="is 8000 x 7000 pixels; must be at most 50,000,000 in all"):
        read_photo(path, GREY, LIGHT_ON_DARK)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match=r"--image .*pipe.png: must be a regular file, not a pipe"):
        read_photo(tmp_path / "pipe.png", GREY, LIGHT_ON_DARK)


def test_a_damaged_length_takes_no_memory(tmp_path):
    whole = bytearray(save(draw_seven(), tmp_path / "damaged.png").read_bytes())
    at = whole.index(b"IDAT") - 4
    whole[at : at + 4] = (2**31 - 1).to_bytes(4, "big")
    (tmp_path / "damaged.png").write_bytes(whole)
    tracemalloc.start()
    try:
        with contextlib.suppress(InputError):
            read_photo(tmp_path / "damaged.png", GREY, LIGHT_ON_DARK)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


# Names of classes


def test_the_classes_of_mnist_are_digits():
    assert find_class_names(DataConfig("mnist"), 10) == tuple("0123456789")


def test_the_classes_have_the_names_that_tfds_has_for_them():
    assert find_class_names(DataConfig("rock_paper_scissors"), 3) == ("rock", "paper", "scissors")


@pytest.mark.parametrize(("dataset", "classes"), [("rock_paper_scissors", 4), ("no_such_dataset", 3)])
def test_classes_without_names_are_numbered(dataset, classes):
    assert find_class_names(DataConfig(dataset), classes) == tuple(map(str, range(classes)))


def test_mnist_is_named_without_tfds(monkeypatch):
    monkeypatch.setattr("cnnjax.data.tfds.find_source", lambda reference: pytest.fail("not needed"))
    assert loading.find_class_names(DataConfig("mnist"), 10)[9] == "9"
