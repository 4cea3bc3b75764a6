"""The pictures of a comparison: complete, labelled, without texts over each other, and the same every time."""

import re

import numpy as np
import pytest

from cnnjax import UnavailableError
from cnnjax.figures.arms import Point, describe_difference, draw_capacity, draw_forest, draw_ranks
from cnnjax.figures.style import MARKS, encode_figure, wrap
from cnnjax.reports.pictures import draw_all, save_pictures
from cnnjax.statistics import compare_all_pairs, compare_with_base
from comparison_helpers import make_arms, make_example, make_findings
from figure_checks import check_figure, list_texts

LONG = "model.padding=same, model.strides=[2,1], model.filters=[32,64]"


@pytest.fixture(scope="module")
def example():
    return make_example()


@pytest.fixture(scope="module")
def pictures(example):
    return draw_all(example)


def names_of_drawn(findings):
    return [name for name, picture in draw_all(findings).items() if picture.figure is not None]


def test_a_study_of_three_factors_has_every_picture_but_ranks(pictures):
    assert [name for name, picture in pictures.items() if picture.figure is None] == []
    assert "ranks" not in pictures
    assert all(picture.title and picture.caption.endswith(".") for picture in pictures.values())


@pytest.mark.parametrize(
    "name",
    [
        "differences", "seeds", "capacity", "variance", "effects", "interactions", "equal_size", "heat_maps", "curves",
        "confusions", "hardest",
    ],
)  # fmt: skip
def test_no_text_lies_on_another_or_leaves_the_page(pictures, name):
    check_figure(pictures[name].figure)


@pytest.mark.parametrize("name", ["differences", "seeds", "capacity", "variance", "effects", "equal_size", "curves"])
def test_a_caption_says_what_the_bars_are(pictures, name):
    assert any(word in pictures[name].caption for word in ("Bars:", "Bands:", "no bars", "Lines:"))


def test_captions_say_over_how_many_seeds(pictures):
    for name in ("differences", "capacity", "effects", "heat_maps", "curves"):
        assert re.search(r"\d (common |completed )?seeds", pictures[name].caption), name


def test_verdicts_are_words_on_the_forest_plot(example, pictures):
    written = [" ".join(text.split()) for text, _ in list_texts(pictures["differences"].figure)]
    for contrast in example.contrasts:
        assert f"{describe_difference(contrast)} {contrast.verdict.label}" in written


def test_an_interaction_is_drawn_with_its_interval(example, pictures):
    written = [" ".join(text.split()) for text, _ in list_texts(pictures["interactions"].figure)]
    for effect in example.interactions:
        assert f"{describe_difference(effect.contrast)} {effect.contrast.verdict.label}" in written
    assert not {"better", "worse"} & {text.split()[0] for text in written if text}


def test_every_verdict_has_a_marker_and_a_colour_of_its_own():
    assert len({mark.marker for mark in MARKS.values()}) == len({mark.colour for mark in MARKS.values()}) == 4


@pytest.fixture(scope="module")
def small():
    arms, _ = make_arms({"model.padding": ("valid", "same")}, leave_out_last=False)
    return make_findings(arms, arms[0].name)


def test_pictures_are_saved_as_png_and_svg_the_same_every_time(small, tmp_path):
    files, again = (save_pictures(small, tmp_path / name / "figures") for name in ("first", "second"))
    assert [file.stem for file in files[::2]] == ["differences", "seeds", "capacity", "curves"]
    for file, same in zip(files, again, strict=True):
        assert file.read_bytes().startswith(b"\x89PNG" if file.suffix == ".png" else b"<?xml")
        assert file.read_bytes() == same.read_bytes()


def test_a_folder_that_cannot_be_made_is_refused(small, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match=r"--figures .*file/figures: Not a directory"):
        save_pictures(small, tmp_path / "file" / "figures")


def test_without_a_base_all_pairs_are_drawn():
    arms, _ = make_arms({"model.padding": ("valid", "same"), "model.strides": ("1", "2")})
    pictures = draw_all(make_findings(arms))
    assert "between arms, the first less the second" in pictures["differences"].caption
    assert any("less" in text for text, _ in list_texts(pictures["differences"].figure))
    check_figure(pictures["seeds"].figure)


def test_one_factor_has_no_pictures_of_several():
    arms, _ = make_arms({"model.padding": ("valid", "same", "none")}, leave_out_last=False)
    found = draw_all(make_findings(arms, arms[0].name))
    assert found["effects"].figure is None
    assert "one factor" in found["effects"].caption
    assert {"differences", "seeds", "capacity", "curves"} <= set(names_of_drawn(make_findings(arms, arms[0].name)))


def test_one_seed_has_no_bars_and_says_so():
    arms, _ = make_arms(seeds=(0,))
    pictures = draw_all(make_findings(arms, arms[0].name))
    assert "no bars" in pictures["differences"].caption
    for name in names_of_drawn(make_findings(arms, arms[0].name)):
        check_figure(pictures[name].figure)


def test_arms_without_any_result_leave_nothing_to_draw():
    arms, _ = make_arms()
    bare = [type(arm)(arm.name, arm.labels, {}, arm.seeds, arm.parameters, arm.flops, arm.problem) for arm in arms]
    assert not names_of_drawn(make_findings(bare))


def test_one_epoch_has_no_learning_curve():
    arms, _ = make_arms(epochs=1)
    assert draw_all(make_findings(arms, arms[0].name))["curves"].caption == "No completed run has more than one epoch."


def test_learning_curves_are_of_validation_where_there_is_any():
    arms, _ = make_arms(validated=True)
    assert "Mean validation error" in draw_all(make_findings(arms, arms[0].name))["curves"].caption


def test_several_datasets_are_ranked():
    levels = {"data.name": ("mnist", "fashion_mnist", "kmnist"), "model.padding": ("valid", "same", "none")}
    arms, _ = make_arms(levels, leave_out_last=False)
    pictures = draw_all(make_findings(arms, resolution=None))
    assert pictures["ranks"].figure is not None
    assert "no scale in common" in pictures["capacity"].caption
    assert "ranked within each dataset" in pictures["differences"].caption
    check_figure(pictures["ranks"].figure)


@pytest.mark.slow
def test_a_large_study_says_what_is_left_out():
    levels = {"model.dense": tuple(str(width) for width in range(10)), "model.padding": tuple("abcdef")}
    arms, _ = make_arms(levels, seeds=range(3), leave_out_last=False)
    pictures = draw_all(make_findings(arms, arms[0].name))
    assert "the 24 largest of 59" in pictures["seeds"].caption
    assert "24 of 60 arms" in pictures["curves"].caption
    check_figure(pictures["differences"].figure)


def test_an_arm_far_off_does_not_hide_the_others():
    random = np.random.default_rng(0)
    arms = {f"arm {k}": {s: 0.97 + random.normal(0, 0.002) for s in range(5)} for k in range(6)}
    arms["broken"] = {s: 0.1 + random.normal(0, 0.002) for s in range(5)}
    contrasts = compare_with_base(arms, "arm 0")
    figure = draw_forest([contrast.first for contrast in contrasts], contrasts, 0.002)
    assert figure.axes[0].get_xlim()[1] < 10
    assert any("-87" in text for text, _ in list_texts(figure))


@pytest.mark.parametrize("name", ["$x^2$", "a_b$", r"\$\alpha", "<script>", "\x1b[31mred", LONG, "x" * 200])
def test_names_are_taken_literally(name):
    values = {"base": {0: 0.9, 1: 0.91, 2: 0.9}, name: {0: 0.92, 1: 0.93, 2: 0.92}}
    contrasts = compare_all_pairs(values)
    figure = draw_forest([name], contrasts, 0.002)
    assert encode_figure(figure, ".png")
    check_figure(figure)
    assert max(map(len, wrap(name, 34).splitlines())) <= 36


def test_sizes_of_any_range_are_labelled():
    for sizes in ([100, 101], [5000, 9000], [1000, 10_000_000]):
        points = [Point(f"a{size}", size, 0.9 + size / 1e9, None, None, "", True) for size in sizes]
        figure = draw_capacity(points, "")
        labels = [text for text, _ in list_texts(figure) if text.replace(",", "").isdigit()]
        assert len(labels) > 2
        check_figure(figure)


def test_ranks_are_drawn_best_first():
    figure = draw_ranks(["a", "b", "c"], [2.5, 1.0, 2.5], 1.2)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["b", "a", "c"]
