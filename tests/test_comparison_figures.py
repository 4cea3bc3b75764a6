"""The figures of a comparison: marks at their numbers, every text readable, the same bytes every time."""

import dataclasses
import re

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.colors import to_rgba as to_rgba_colour

from cnnjax import UnavailableError
from cnnjax.figures.arms import Pair, Point, describe_difference, draw_capacity, draw_forest, draw_pairs, draw_ranks
from cnnjax.figures.factors import FactorEffects, HeatMap, draw_heat_maps, draw_main_effects, draw_shares
from cnnjax.figures.runs import LEAST_ERROR, Curve, draw_confusions, draw_curves, draw_hardest
from cnnjax.figures.style import (
    BLUE,
    GREY,
    INK,
    MARKS,
    MUTED,
    ON_LIGHT,
    ORANGE,
    PAPER,
    VERMILLION,
    encode_figure,
    to_rgba,
    wrap,
)
from cnnjax.reports.pictures import draw_all, save_pictures
from cnnjax.reports.rules import Rules
from cnnjax.statistics import Criteria, Measure, Share, compare_all_pairs, compare_with_baseline
from comparison_helpers import make_arms, make_example, make_findings
from figure_checks import (
    check_figure,
    find_bars,
    find_cell_texts,
    find_place,
    find_points,
    is_upside_down,
    list_texts,
    name_ticks,
    read_pixels,
)

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


def test_the_forest_plot_has_every_verdict_in_words(example, pictures):
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
    bare = [dataclasses.replace(arm, records={}) for arm in arms]
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
    pictures = draw_all(make_findings(arms, rules=Rules()))
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


def test_an_arm_far_from_the_others_does_not_hide_them():
    random = np.random.default_rng(0)
    arms = {f"arm {k}": {s: 0.97 + random.normal(0, 0.002) for s in range(5)} for k in range(6)}
    arms["broken"] = {s: 0.1 + random.normal(0, 0.002) for s in range(5)}
    contrasts = compare_with_baseline(arms, "arm 0")
    figure = draw_forest([contrast.first for contrast in contrasts], contrasts, Criteria(margin=0.002))
    assert figure.axes[0].get_xlim()[1] < 10
    assert any("-87" in text for text, _ in list_texts(figure))


@pytest.mark.parametrize("name", ["$x^2$", "a_b$", r"\$\alpha", "<script>", "\x1b[31mred", LONG, "x" * 200])
def test_names_are_taken_literally(name):
    values = {"base": {0: 0.9, 1: 0.91, 2: 0.9}, name: {0: 0.92, 1: 0.93, 2: 0.92}}
    contrasts = compare_all_pairs(values)
    figure = draw_forest([name], contrasts, Criteria(margin=0.002))
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


# Marks against numbers

GAINS = {"higher": 0.02, "lower": -0.01, "level": 0.0}


@pytest.fixture(scope="module")
def contrasts():
    random = np.random.default_rng(0)
    values = {name: dict(enumerate(0.9 + gain + random.normal(0, 0.001, 6))) for name, gain in GAINS.items()}
    return compare_with_baseline({"base": dict(enumerate(0.9 + random.normal(0, 0.001, 6)))} | values, "base")


def test_a_row_of_a_forest_plot_has_its_mean_interval_and_seeds_at_their_values(contrasts):
    names = [contrast.first for contrast in contrasts]
    axes = draw_forest(names, contrasts, Criteria(margin=0.003)).axes[0]
    assert names == list(GAINS)
    assert is_upside_down(axes)
    assert name_ticks(axes.yaxis) == names
    ticks = find_points(axes, "|")
    for row, (contrast, (low, high)) in enumerate(zip(contrasts, find_bars(axes), strict=True)):
        marks = find_points(axes, MARKS[contrast.verdict.word].marker)
        assert [x for x, y in marks if y == row] == [pytest.approx(100 * contrast.comparison.mean)]
        assert (low, high) == tuple(pytest.approx((100 * end, row)) for end in contrast.decisive_interval)
        differences = [100 * difference for difference in contrast.comparison.differences]
        assert [x for x, y in ticks if row < y < row + 0.5] == pytest.approx(differences)
    assert [MARKS[contrast.verdict.word].marker for contrast in contrasts[:2]] == ["^", "v"]
    assert find_points(axes, "^")[0][0] > 1 > -0.5 > find_points(axes, "v")[0][0]
    assert [(text.get_position(), " ".join(text.get_text().split())) for text in axes.texts] == [
        ((1.02, row), f"{describe_difference(contrast)} {contrast.verdict.label}")
        for row, contrast in enumerate(contrasts)
    ]
    assert [tuple(colour) for each in axes.collections for colour in each.get_color()] == [
        to_rgba_colour(MARKS[contrast.verdict.word].colour) for contrast in contrasts
    ]
    assert [list(line.get_xdata()) for line in axes.lines if line.get_color() == INK] == [[0, 0]]
    left, right = axes.get_xlim()
    assert left == -right
    assert right > max(abs(x) for x, _ in (*ticks, *(end for bar in find_bars(axes) for end in bar)))
    comparison, (low, high) = contrasts[1].comparison, contrasts[1].decisive_interval
    assert low < comparison.mean < high < 0
    numbers = [float(number) for number in re.findall(r"[-+][\d.]+", describe_difference(contrasts[1]))]
    assert numbers == pytest.approx([100 * comparison.mean, 100 * low, 100 * high], abs=0.0051)


def test_the_band_of_a_forest_plot_is_the_margin_on_both_sides_of_zero(contrasts):
    axes = draw_forest(["a", "b", "c"], contrasts, Criteria(margin=0.003)).axes[0]
    (band,) = axes.patches
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((-0.3, 0.3))
    left, right = draw_forest(["a", "b", "c"], contrasts, Criteria(margin=0.1)).axes[0].get_xlim()
    assert left < -10 < 10 < right


def test_a_measure_in_its_own_unit_is_drawn_as_it_is(contrasts):
    criteria = Criteria(margin=0.003, measure=Measure("loss", is_share=False))
    axes = draw_forest(["a", "b", "c"], contrasts, criteria).axes[0]
    assert find_points(axes, "^") == [(pytest.approx(contrasts[0].comparison.mean), 0)]
    assert [x for (x, _), _ in find_bars(axes)] == [pytest.approx(each.decisive_interval[0]) for each in contrasts]
    (band,) = axes.patches
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((-0.003, 0.003))
    assert axes.get_xlabel() == "difference of loss in units of loss"


@pytest.mark.parametrize("sign", [1, -1])
def test_an_arrow_points_to_the_side_of_a_mean_outside_the_figure(sign):
    random = np.random.default_rng(0)
    arms = {f"arm {k}": {s: 0.5 + random.normal(0, 0.002) for s in range(5)} for k in range(6)}
    arms["far"] = {s: 0.5 + sign * 0.4 + random.normal(0, 0.002) for s in range(5)}
    contrasts = compare_with_baseline(arms, "arm 0")
    axes = draw_forest([contrast.first for contrast in contrasts], contrasts, Criteria(margin=0.002)).axes[0]
    (arrow,) = [text for text in axes.texts if getattr(text, "arrow_patch", None)]
    (tip, row), (tail, _) = arrow.xy, arrow.get_position()
    assert sign * tip > sign * tail > 0
    assert row == [contrast.first for contrast in contrasts].index("far")


def test_the_lines_of_pairs_go_from_the_second_arm_to_the_first():
    first = Pair("a", "base", {0: 0.91, 1: 0.92, 2: 0.9, 7: 0.5}, {0: 0.9, 1: 0.93, 2: 0.9, 8: 0.6})
    second = Pair("b", "base", {3: 0.8}, {3: 0.7})
    one, other = draw_pairs([first, second], against_base=True).axes
    assert [list(line.get_ydata()) for line in one.lines] == [pytest.approx(p) for p in ([90, 91], [93, 92], [90, 90])]
    assert [line.get_color() for line in one.lines] == [BLUE, VERMILLION, GREY]
    assert [list(line.get_ydata()) for line in other.lines] == [pytest.approx([70, 80])]
    assert all(list(line.get_xdata()) == [0, 1] for axes in (one, other) for line in axes.lines)
    assert name_ticks(one.xaxis) == ["base", "arm"]
    assert [axes.get_title() for axes in (one, other)] == ["a", "b"]
    assert one.get_xlabel().startswith("1 of 3 ")
    assert other.get_xlabel().startswith("1 of 1 ")
    assert all(axes.get_xlim()[0] < 0 < 1 < axes.get_xlim()[1] for axes in (one, other))
    figure = draw_pairs([first], against_base=False)
    assert name_ticks(figure.axes[0].xaxis) == ["second", "first"]
    assert figure.axes[0].get_title() == "a against base"
    assert name_legend(figure.legends[0]) == {"higher than its pair": BLUE, "lower": VERMILLION, "equal": GREY}
    assert name_legend(draw_pairs([second], against_base=True).legends[0]) == {"higher than its pair": BLUE}


def test_arms_are_at_their_parameters_and_accuracy_and_the_front_joins_its_own():
    points = [
        Point("large", 9000, 0.97, 0.96, 0.98, "x", True),
        Point("beaten", 5000, 0.91, None, None, "y", False),
        Point("small", 1000, 0.92, 0.91, 0.925, "y", True),
    ]
    axes = draw_capacity(points, "group").axes[0]
    by_label = {line.get_label(): [tuple(point) for point in line.get_xydata()] for line in axes.lines}
    assert by_label["x"] == [pytest.approx((9000, 97))]
    assert by_label["y"] == [pytest.approx((5000, 91)), pytest.approx((1000, 92))]
    (front,) = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert [tuple(point) for point in front.get_xydata()] == [pytest.approx((1000, 92)), pytest.approx((9000, 97))]
    assert front.get_drawstyle() == "steps-post"
    assert {bar[0][0]: (bar[0][1], bar[1][1]) for bar in find_bars(axes)} == {
        9000: pytest.approx((96, 98)),
        1000: pytest.approx((91, 92.5)),
    }
    assert {text.get_text(): text.xy for text in axes.texts} == {
        "1": pytest.approx((1000, 92)),
        "2": pytest.approx((9000, 97)),
    }
    assert axes.get_xlabel().splitlines()[-2:] == ["1  small", "2  large"]
    assert axes.get_xscale() == "log"
    series = [next(line for line in axes.lines if line.get_label() == label) for label in "xy"]
    assert [(line.get_color(), line.get_marker()) for line in series] == [(BLUE, "o"), (ORANGE, "s")]
    assert [tuple(colour) for each in axes.collections for colour in each.get_color()] == [
        to_rgba_colour(BLUE),
        to_rgba_colour(ORANGE),
    ]
    left, right = axes.get_xlim()
    assert left < 1000 < 9000 < right
    ticks = dict(zip(axes.get_xticks(), name_ticks(axes.xaxis), strict=True))
    assert len(ticks) > 1
    assert all(f"{tick:,.0f}" == word for tick, word in ticks.items())


def test_ranks_are_drawn_best_first_with_half_the_critical_difference_to_both_sides():
    axes = draw_ranks(["a", "b", "c"], [2.6, 1.0, 2.4], 1.2).axes[0]
    assert name_ticks(axes.yaxis) == ["b", "c", "a"]
    assert is_upside_down(axes)
    assert find_points(axes, "o") == [(1.0, 0), (2.4, 1), (2.6, 2)]
    assert find_bars(axes) == [
        (pytest.approx((x - 0.6, y)), pytest.approx((x + 0.6, y))) for x, y in find_points(axes, "o")
    ]
    assert [(text.get_text(), text.xy) for text in axes.texts] == [
        ("1.00", (1, 0)),
        ("2.40", (2.4, 1)),
        ("2.60", (2.6, 2)),
    ]
    assert [list(line.get_xdata()) for line in axes.lines if line.get_color() == INK] == [[1, 1]]
    bottom, top = axes.get_ylim()
    assert top < 0 < 2 < bottom


def test_bars_of_shares_are_as_long_as_the_shares_with_their_intervals():
    shares = [Share(("a",), 1, 1.0, 9.0, 0.1, 0.4, 0.6, 0.5, 0.7), Share(("b",), 1, 1.0, 9.0, 0.1, 0.1, 0.2, 0.0, 0.3)]
    axes = draw_shares(["a", "b"], shares).axes[0]
    assert [(bar.get_x(), bar.get_width()) for bar in axes.patches] == [pytest.approx((0, 60)), pytest.approx((0, 20))]
    assert [bar.get_y() + bar.get_height() / 2 for bar in axes.patches] == pytest.approx([0, 1])
    assert find_bars(axes) == [((50, 0), (70, 0)), ((0, 1), (30, 1))]
    assert find_cell_texts(axes) == {(71.5, 0): "60%", (31.5, 1): "20%"}
    left, right = axes.get_xlim()
    assert left == 0 < 100 < right
    assert name_ticks(axes.yaxis) == ["a", "b"]
    assert is_upside_down(axes)


def test_effects_are_at_their_levels_and_values_and_the_reference_is_at_zero(contrasts):
    higher, lower, _ = contrasts
    factors = [
        FactorEffects("f", {"up": higher, "ref": None, "down": lower}),
        FactorEffects("g", {"r": None, "d": lower}),
    ]
    one, other = draw_main_effects(factors, Criteria(margin=0.003)).axes
    assert find_points(one, "^") == [(0, pytest.approx(100 * higher.comparison.mean))]
    assert find_points(one, "D") == [(1, 0)]
    assert find_points(one, "v") == [(2, pytest.approx(100 * lower.comparison.mean))]
    assert find_bars(one) == [
        tuple(pytest.approx((place, 100 * end)) for end in contrast.decisive_interval)
        for place, contrast in ((0, higher), (2, lower))
    ]
    assert name_ticks(one.xaxis) == ["up", "ref", "down"]
    assert (find_points(other, "D"), find_points(other, "v")[0][0]) == ([(0, 0)], 1)
    (band,) = one.patches
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((-0.3, 0.3))
    bottom, top = one.get_ylim()
    assert bottom < top
    assert other.get_ylim() == (bottom, top)
    zero, dotted = [line for line in one.lines if line.get_color() == INK and line.get_marker() == "None"]
    assert list(zero.get_ydata()) == [0, 0]
    means = [100 * higher.comparison.mean, 0, 100 * lower.comparison.mean]
    assert [tuple(point) for point in dotted.get_xydata()] == [pytest.approx(point) for point in enumerate(means)]
    assert [tuple(colour) for each in one.collections for colour in each.get_color()] == [
        to_rgba_colour(MARKS[contrast.verdict.word].colour) for contrast in (higher, lower)
    ]
    assert (one.get_title(), other.get_title()) == ("f", "g")
    left, right = one.get_xlim()
    assert left < 0 < 2 < right


def name_legend(legend):
    """Returns the colours of a legend's lines by their texts."""
    words = [text.get_text() for text in legend.get_texts()]
    return dict(zip(words, (line.get_color() for line in legend.get_lines()), strict=True))


def measure_brightness(colours):
    return np.asarray(colours)[..., :3] @ (0.299, 0.587, 0.114)


def test_a_cell_of_a_heat_map_has_its_own_text_and_colour():
    values = np.array([[90.0, 95.0, np.nan], [91.0, 97.0, 92.0]])
    texts = [[f"{row}{column}" for column in range(3)] for row in range(2)]
    maps = [
        HeatMap(title, ["r0", "r1"], ["c0", "c1", "c2"], each, texts)
        for title, each in (("t", values), ("u", values - 10))
    ]
    figure = draw_heat_maps(maps, "row", "column")
    one, other = figure.axes[:2]
    for axes, each in ((one, values), (other, values - 10)):
        mesh = axes.collections[0]
        np.testing.assert_array_equal(np.ma.filled(mesh.get_array(), np.nan), each)
        assert mesh.get_clim() == (80, 97)
        known = np.sort(each[np.isfinite(each)])
        assert (np.diff(measure_brightness(mesh.to_rgba(known))) > 0).all()
        assert find_cell_texts(axes) == {(c + 0.5, r + 0.5): texts[r][c] for r in range(2) for c in range(3)}
        (hatched,) = axes.patches
        assert hatched.get_xy()[:4].tolist() == [[2, 0], [3, 0], [3, 1], [2, 1]]
        left, right = axes.get_xlim()
        bottom, top = axes.get_ylim()
        assert (left, right, bottom, top) == (0, 3, 2, 0)
        inks = {text.get_text(): text.get_color() for text in axes.texts}
        shades = measure_brightness(mesh.to_rgba(each))
        for row, column in np.argwhere(np.isfinite(each)):
            assert abs(measure_brightness(to_rgba_colour(inks[f"{row}{column}"])) - shades[row, column]) > 0.35
    assert is_upside_down(one)
    assert [axes.get_title() for axes in (one, other)] == ["t", "u"]
    assert (list(one.get_xticks()), list(one.get_yticks())) == ([0.5, 1.5, 2.5], [0.5, 1.5])
    assert (name_ticks(one.yaxis), name_ticks(one.xaxis)) == (["r0", "r1"], ["c0", "c1", "c2"])
    assert (one.get_ylabel(), one.get_xlabel()) == ("row", "column")


def test_learning_curves_are_at_their_epochs_and_errors_within_their_band():
    base = Curve("base", np.array([9.0, 8.0, 7.0]), np.array([8.0, 7.0, 6.0]), np.array([10.0, 9.0, 8.0]), 5)
    arm = Curve("arm", np.array([6.0, 3.0, 0.0]), np.array([5.0, 2.0, 0.0]), np.array([7.0, 4.0, 1.0]), 5)
    figure = draw_curves([base, arm], base, "validation")
    first, second = figure.axes
    floored = [6, 3, LEAST_ERROR]
    assert [(line.get_color(), list(line.get_ydata())) for line in first.lines] == [(BLUE, [9, 8, 7])]
    assert [(line.get_color(), list(line.get_ydata())) for line in second.lines] == [(GREY, [9, 8, 7]), (BLUE, floored)]
    assert all(list(line.get_xdata()) == [1, 2, 3] for line in second.lines)
    corners = {tuple(corner) for corner in second.collections[-1].get_paths()[0].vertices}
    expected = zip([1, 2, 3] * 2, [5, 2, LEAST_ERROR, 7, 4, 1], strict=True)
    assert corners == set(expected)
    assert second.get_yscale() == "log"
    assert [line.get_linestyle() for line in second.lines] == ["--", "-"]
    assert [tuple(each.get_facecolor()[0]) for each in second.collections] == [
        to_rgba_colour(GREY, 0.25),
        to_rgba_colour(BLUE, 0.25),
    ]
    assert [axes.get_title() for axes in figure.axes] == ["base", "arm"]
    assert name_legend(figure.legends[0]) == {"this arm": BLUE, "base": GREY}
    for axes in figure.axes:
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        assert left < 1 < 3 < right
        assert bottom < LEAST_ERROR < 10 < top


def test_a_cell_of_a_confusion_matrix_is_the_true_class_down_and_the_predicted_across():
    matrix = np.array([[8, 2, 0], [0, 5, 0], [6, 3, 1]])
    figure = draw_confusions(["a", "b"], [matrix, matrix.T], ["cat", "dog", "a very long class name"])
    axes = figure.axes
    assert find_cell_texts(axes[0]) == {(1.5, 0.5): "2", (0.5, 2.5): "6", (1.5, 2.5): "3"}
    np.testing.assert_allclose(axes[0].collections[0].get_array().filled(-1), [[-1, 20, 0], [0, -1, 0], [60, 30, -1]])
    assert find_cell_texts(axes[1])[0.5, 1.5] == "2"
    assert all(is_upside_down(each) for each in axes[:2])
    shades = measure_brightness(axes[0].collections[0].to_rgba([0, 20, 30, 60]))
    assert (np.diff(shades) < 0).all()
    highest = 100 * 6 / 10
    assert axes[2].get_ylim() == (0, highest)
    for each, title in zip(axes[:2], "ab", strict=True):
        assert each.collections[0].get_clim() == (0, highest)
        assert to_hex(each.get_facecolor()) == MUTED
        assert (*each.get_xlim(), *each.get_ylim()) == (0, 3, 3, 0)
        assert each.get_title() == title
        for axis in (each.xaxis, each.yaxis):
            assert (list(axis.get_ticklocs()), name_ticks(axis)) == ([0.5, 1.5, 2.5], ["cat", "dog", "a very long c…"])
    assert {text.get_text(): text.get_color() for text in axes[0].texts} == {"2": ON_LIGHT, "6": PAPER, "3": ON_LIGHT}
    assert (figure.get_supxlabel(), figure.get_supylabel()) == ("predicted class", "true class")


def test_the_hardest_images_are_shown_with_their_own_numbers():
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 3), np.uint8)
    axes = draw_hardest(images, [30, 10, 20], ["1", "2", "3"], ["4", "5", "6"], [1.0, 0.5, 0.25]).axes
    for each, image, numbers in zip(axes, to_rgba(images), ("30 1 4 100", "10 2 5 50", "20 3 6 25"), strict=True):
        np.testing.assert_array_equal(read_pixels(each), image)
        assert re.findall(r"\d+", each.get_title()) == numbers.split()
    assert [find_place(each) for each in axes] == [(0, 0), (0, 1), (0, 2)]
