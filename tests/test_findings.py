"""Findings of a synthetic study: what is compared, said and written, and what is left out."""

import dataclasses
import json
import re

import numpy as np
import pytest

from cnnjax import InputError, ModelConfig
from cnnjax.data.dataset import Split, make_dataset
from cnnjax.reports.arguments import write_findings
from cnnjax.reports.arms import ACCURACIES, Arm
from cnnjax.reports.documents import make_data_table, make_document, to_dict
from cnnjax.reports.findings import compare_arms
from cnnjax.reports.images import compare_on_images
from cnnjax.reports.rules import Rules
from cnnjax.reports.sentences import write_interval, write_summary
from cnnjax.runs.history import EpochMetrics
from cnnjax.runs.record import Record, Run, unpack_run
from cnnjax.runs.store import Store
from cnnjax.statistics.measures import ACCURACY
from grid_helpers import make_packed, tiny

SEEDS = (0, 1, 2, 3, 4)
STEP = 1e-4
random = np.random.default_rng(0)
LABELS = random.integers(0, 3, 40).astype(np.int32)
IMAGES = random.integers(0, 256, (40, 4, 4, 1)).astype(np.uint8)
DATASET = make_dataset("toy", "1.0.0", Split(IMAGES, LABELS), Split(IMAGES, LABELS), 3, "file")


def make_arm(label, accuracies, parameters=1000, problem=None, status="completed"):
    config = tiny(dense=(parameters % 97 + 1,))
    records = {
        seed: make_packed(dataclasses.replace(config, seed=seed), accuracy, status).record
        for seed, accuracy in accuracies.items()
    }
    size = (None, None) if problem else (parameters, 2 * parameters)
    labels = dict(part.split("=") for part in label.split(", "))
    return Arm(label, labels, config, records, SEEDS, *size, problem)


def draw(mean, seed, n=5):
    values = np.random.default_rng(seed).normal(mean, 0.001, n)
    return {index: float(np.rint(value / STEP) * STEP) for index, value in enumerate(values)}


def make_study():
    arms = [
        make_arm("padding=valid, width=8", draw(0.95, 0), 1000),
        make_arm("padding=same, width=8", draw(0.96, 1), 1100),
        make_arm("padding=valid, width=16", draw(0.97, 2), 2000),
        make_arm("padding=same, width=16", draw(0.965, 3), 2600),
    ]
    failed = Record.without_result(tiny(seed=4), "failed", "out of memory", (1000, 2000))
    records = {**arms[1].records, 4: failed}
    arms[1] = dataclasses.replace(arms[1], records=records)
    return arms


def find_study(base="padding=valid, width=8", rules=None, arms=None, **options):
    rules = rules or Rules(measure=dataclasses.replace(ACCURACY, resolution=STEP))
    return compare_arms(arms or make_study(), base, rules, **{"title": "Does it matter?", **options})


def test_a_study_is_compared_in_every_way_that_its_design_allows():
    findings = find_study()
    assert [contrast.first for contrast in findings.contrasts] == [
        "padding=same, width=8",
        "padding=valid, width=16",
        "padding=same, width=16",
    ]
    assert {contrast.verdict.word for contrast in findings.contrasts} == {"better"}
    assert {share.factors for share in findings.shares} == {("padding",), ("width",), ("padding", "width")}
    assert [effect.name for effect in findings.effects] == ["padding: same - valid", "width: 16 - 8"]
    assert [effect.name for effect in findings.interactions] == ["padding: same - valid x width: 16 - 8"]
    assert [each.arm.name for each in findings.arms if each.on_front] == [
        "padding=valid, width=8",
        "padding=same, width=8",
        "padding=valid, width=16",
    ]


def test_the_summary_says_the_most_important_first():
    summary = write_summary(find_study())
    assert summary[0] == (
        "Against padding=valid, width=8, of 3 arms 2 better, 1 better of the runs that completed "
        "(within ±0.2 points counts as equivalent)."
    )
    assert summary[1].startswith(
        "The largest difference among the better: padding=valid, width=16 less padding=valid, width=8 is +1.9"
    )
    text = "\n".join(summary)
    assert "The variance between runs comes from: width " in text
    assert "padding same instead of valid: " in text
    assert "What one factor does depends on the other for padding and width, of the runs that completed." in text
    assert (
        "In log-odds, where values near 100% have as much room as others, this is shown too for padding and width."
        in text
    )
    assert "over seeds, for one training and one test set" in text
    assert "Not counted, because they have no accuracy: 1 failed of 20 runs." in text
    assert "Compared by test accuracy" in summary[-1]


def test_differences_that_were_found_by_stepping_down_are_counted():
    base = draw(0.95, 0)
    gains = {"b": (0.02, 0.0201, 0.0202, 0.0201, 0.02), "c": (0.003, 0.001, 0.006, 0.005, 0.0105)}
    arms = [make_arm("f=a", base)]
    arms += [make_arm(f"f={name}", {seed: base[seed] + each[seed] for seed in base}) for name, each in gains.items()]
    findings = find_study(arms=arms, base="f=a")
    assert [each.verdict.by_step_down for each in findings.contrasts] == [False, True]
    text = write_findings(findings, "markdown")
    assert "better; found step by step" in text
    assert "1 of these differences is found step by step" in text
    assert "step by step" not in write_findings(find_study(), "markdown")


def test_where_a_comparison_is_undecided_its_probabilities_stand_beside_it():
    arms = [make_arm("f=a", draw(0.95, 0)), make_arm("f=b", draw(0.9508, 1)), make_arm("f=c", draw(0.97, 2))]
    findings = find_study(arms=arms, base="f=a")
    table = make_document(findings).tables[1]
    rows = [dict(zip((column.heading for column in table.columns), row, strict=True)) for row in table.rows]
    assert [row["verdict"] for row in rows] == ["undecided", "better"]
    posterior = findings.contrasts[0].posterior
    parts = [round(100 * each) for each in (posterior.better, posterior.within, posterior.worse)]
    assert [row["better / within / worse"] for row in rows] == ["{} / {} / {}%".format(*parts), None]
    assert any("no verdict" in sentence for sentence in write_summary(findings))
    assert to_dict(findings)["contrasts"][1]["posterior"]["better"] > 0.99
    data = make_data_table(findings)
    assert data.rows[0][[column.heading for column in data.columns].index("p_within")] == posterior.within


def test_of_two_arms_that_never_trained_nothing_is_said_to_be_probable():
    arms = [make_arm("f=a", dict.fromkeys(range(5), 0.1)), make_arm("f=b", draw(0.1, 1))]
    findings = find_study(arms=arms, base="f=a", rules=WITH_CHANCE)
    assert findings.contrasts[0].verdict.label == "undecided; both at chance"
    assert "better / within / worse" not in write_findings(findings, "markdown")


def test_of_two_arms_the_summary_is_their_comparison():
    findings = find_study(arms=make_study()[2:], base="padding=valid, width=16")
    (contrast,) = findings.contrasts
    first = write_summary(findings)[0]
    assert first.lower().startswith(f"{contrast.verdict.label.lower()}: padding=same, width=16 less padding=valid")
    assert f"{100 * contrast.comparison.mean:+.2f} points" in first


def make_lossy():
    """Returns an arm of which half the runs diverged and which is better where it did not, and its whole base."""
    arm = make_arm("f=b", draw(0.97, 1))
    lost = make_arm("f=b", {5: 0.5, 6: 0.5, 7: 0.5, 8: 0.5, 9: 0.5}, status="diverged")
    arm = dataclasses.replace(arm, records={**arm.records, **lost.records}, seeds=tuple(range(10)))
    base = dataclasses.replace(make_arm("f=a", draw(0.95, 0, 10)), seeds=tuple(range(10)))
    return [base, arm]


def test_lost_runs_of_both_sides_are_in_every_sentence_row_and_file():
    findings = find_study(arms=make_lossy(), base="f=a")
    assert "of the runs that trained" in findings.contrasts[0].verdict.label
    first = write_summary(findings)[0]
    assert "5 of 10" in first
    assert "10 of 10" in first
    (table,) = [each for each in make_document(findings).tables if "Differences" in each.title]
    row = dict(zip((column.heading for column in table.columns), table.rows[0], strict=True))
    assert row["runs"] == "5 of 10 against 10 of 10"
    assert row["verdict"] == findings.contrasts[0].verdict.label
    data = make_data_table(findings)
    values = dict(zip((column.heading for column in data.columns), data.rows[0], strict=True))
    assert [values[f"{side}_{what}"] for side in ("first", "second") for what in ("completed", "lost")] == [5, 5, 10, 0]
    assert (values["label"], values["survives_losses"]) == (row["verdict"], False)


def make_collapsing():
    """Returns a base that always trained, and a better arm of which one run is at chance, one diverged, one failed."""
    base = dataclasses.replace(make_arm("f=a", draw(0.95, 0, 12)), seeds=tuple(range(12)))
    arm = make_arm("f=b", draw(0.97, 1, 12) | {3: 0.1})
    diverged, failed = (
        make_arm("f=b", {seed: 0.5}, status=status) for seed, status in ((5, "diverged"), (6, "failed"))
    )
    records = {**arm.records, **diverged.records, **failed.records}
    return [base, dataclasses.replace(arm, records=records, seeds=tuple(range(12)))]


WITH_CHANCE = Rules(measure=dataclasses.replace(ACCURACY, resolution=STEP, chance=0.1135))


def test_of_runs_that_collapse_every_format_has_both_parts_and_the_worst_case():
    findings = find_study(arms=make_collapsing(), base="f=a", rules=WITH_CHANCE)
    (contrast,) = findings.contrasts
    label = "better of the runs that trained (9 of 12)"
    assert contrast.verdict.label.startswith(label)
    assert findings.arms[1].estimate.n == contrast.comparison.n == 9
    (table,) = [each for each in make_document(findings).tables if "collapsed" in each.title]
    (row,) = table.rows
    values = dict(zip((column.heading for column in table.columns), row, strict=True))
    assert (values["collapsed"], values["against"]) == ("2 of 11 [2%, 52%]", "0 of 12 [0%, 26%]")
    assert (values["verdict"], values["worst case"]) == ("better of the runs that trained", "undecided")
    assert values["p of equal rates"] == contrast.rates.p
    for form in ("terminal", "markdown", "latex", "html"):
        text = re.sub(r"[{}\\]", "", write_findings(findings, form))
        for part in (
            "2 of 11 [2%, 52%]",
            "0 of 12 [0%, 26%]",
            label,
            "at chance: f=b, seed=3",
            "diverged: f=b, seed=5",
        ):
            assert part in text, (form, part)
    data = make_data_table(findings)
    written = dict(zip((column.heading for column in data.columns), data.rows[0], strict=True))
    first = to_dict(findings)["contrasts"][0]["rates"]["first"]
    assert (
        (written["first_collapsed"], written["first_collapse_low"])
        == (first["collapsed"], first["low"])
        == (2, first["low"])
    )
    assert (written["collapse_p"], written["reliability"], written["worst_case"]) == (contrast.rates.p, "", "undecided")
    assert to_dict(findings)["arms"][1]["collapse"] == first


@pytest.mark.parametrize("has_collapses", [True, False])
def test_where_runs_collapsed_effects_are_said_to_tell_nothing_of_it(has_collapses):
    arms = make_study()
    if has_collapses:
        collapsed = make_arm("padding=valid, width=8", {**draw(0.95, 0), 3: 0.1})
        arms[0] = dataclasses.replace(collapsed, parameters=1000, flops=2000)
    findings = find_study(arms=arms, rules=WITH_CHANCE)
    assert findings.effects
    said = "effects of factors say nothing of how often runs collapse"
    assert (said in "\n".join(write_summary(findings))) == has_collapses


def test_where_no_run_collapsed_nothing_is_said_of_it_but_in_the_data():
    findings = find_study()  # one of its runs failed
    for form in ("terminal", "markdown", "latex", "html"):
        assert "collapse" not in write_findings(findings, form).split("</style>")[-1]
    data = make_data_table(findings)
    columns = [column.heading for column in data.columns]
    assert data.rows[0][columns.index("first_collapse_high")] == pytest.approx(1 - 0.025 ** (1 / 4))


def test_arms_that_never_trained_at_a_common_seed_are_named_with_the_reason():
    arms = [
        make_arm("f=a", draw(0.95, 0) | {0: 0.1, 1: 0.1}),
        make_arm("f=b", draw(0.95, 1) | dict.fromkeys((2, 3, 4), 0.1)),
    ]
    findings = find_study(arms=arms, base="f=a", rules=WITH_CHANCE)
    assert findings.uncompared == {"f=b": "no seed trained both here and in the baseline"}
    assert findings.arms[1].rate.collapsed == 3


def test_the_interval_shown_is_the_one_that_the_verdict_rests_on():
    arms = [make_arm("f=a", draw(0.95, 0)), make_arm("f=b", draw(0.95, 0)), make_arm("f=c", draw(0.97, 3))]
    wobbly = {seed: value + 1e-4 * (seed - 2) for seed, value in draw(0.95, 0).items()}
    arms[1] = make_arm("f=b", wobbly)
    findings = find_study(arms=arms, base="f=a")
    equivalent, better = findings.contrasts
    assert (equivalent.verdict.word, better.verdict.word) == ("equivalent", "better")
    (table,) = [each for each in make_document(findings).tables if "Differences" in each.title]
    place = [column.heading for column in table.columns].index("interval")
    assert table.rows[0][place] == write_interval(equivalent.equivalence_low, equivalent.equivalence_high)
    assert table.rows[1][place] == write_interval(better.low, better.high)


def test_an_interaction_depends_and_says_whether_it_does_in_log_odds():
    (table,) = [each for each in make_document(find_study()).tables if "Effects of levels" in each.title]
    rows = {row[0]: dict(zip((c.heading for c in table.columns), row, strict=True)) for row in table.rows}
    interaction = rows["padding: same - valid x width: 16 - 8"]
    assert interaction["verdict"].startswith("depends of the runs that completed")
    assert interaction["in log-odds"] == "depends"
    assert rows["width: 16 - 8"]["in log-odds"] is None


def test_an_interaction_that_the_ceiling_may_explain_says_so():
    odds = {("valid", "8"): 2.0, ("same", "8"): 3.0, ("valid", "16"): 4.0, ("same", "16"): 5.0}
    arms = [
        make_arm(f"padding={padding}, width={width}", draw(1 / (1 + np.exp(-value)), number))
        for number, ((padding, width), value) in enumerate(odds.items())
    ]
    findings = find_study(arms=arms, base="padding=valid, width=8")
    assert [each.contrast.verdict.label_word for each in findings.interactions] == ["depends"]
    said = [sentence for sentence in write_summary(findings) if "log-odds" in sentence]
    assert said == [
        "In log-odds, where values near 100% have as much room as others, this is not shown for padding and width, "
        "where it may be only that values near 100% leave little room."
    ]


def test_where_the_variance_comes_from_adds_up_in_every_format():
    findings = find_study()
    (table,) = [each for each in make_document(findings).tables if "comes from" in each.title]
    assert [name for name, _ in table.rows] == ["width", "padding", "the seed", "the rest"]
    assert sum(share for _, share in table.rows) == pytest.approx(1)
    split = to_dict(findings)["split"]
    assert sum(split["factors"].values()) + split["seeds"] + split["rest"] == pytest.approx(1)


@pytest.mark.parametrize("base", ["padding=valid, width=8", None])
def test_every_format_says_what_the_verdicts_are_about(base):
    findings = find_study(base=base)
    for form in ("terminal", "markdown", "latex", "csv", "json"):
        assert "over seeds, for one training and one test set" in write_findings(findings, form)


def test_accuracies_and_their_intervals_lie_between_0_and_1():
    arms = [make_arm("f=a", {0: 0.999, 1: 0.9, 2: 0.99}), make_arm("f=b", {0: 0.97, 1: 0.9})]
    high, few = find_study(arms=arms, base="f=a").arms
    assert 0 <= high.estimate.low < high.estimate.high == 1
    assert (few.estimate.low, few.estimate.high) == (None, None)


def test_tests_of_significance_are_shown_where_they_are_asked_for():
    brief, full = (make_document(find_study(), all_tests).tables[1].columns for all_tests in (False, True))
    assert [column.heading for column in brief] == ["arm", "difference", "interval", "verdict", "seeds needed", "runs"]
    assert {"t test p", "sign-flip p", "Wilcoxon p", "TOST p"} < {column.heading for column in full}


def test_all_pairs_are_compared_without_a_base():
    findings = find_study(base=None)
    assert len(findings.contrasts) == 6
    assert write_summary(findings)[0].startswith("Of 6 pairs of arms, the first is ")


def test_a_base_without_a_result_is_refused():
    arms = [make_arm("f=a", {}), make_arm("f=b", draw(0.9, 0))]
    with pytest.raises(InputError, match=r"baseline f=a: has no completed run with a test accuracy"):
        find_study(arms=arms, base="f=a")
    with pytest.raises(InputError, match=r"baseline f=b: has no completed run with a validation accuracy"):
        find_study(arms=arms, base="f=b", rules=Rules(measure=ACCURACIES["validation"]))


def test_arms_without_an_accuracy_are_listed_and_not_compared():
    arms = [
        make_arm("f=a", draw(0.9, 0)),
        make_arm("f=b", draw(0.9, 1)),
        make_arm("f=c", {}, problem="Conv_1: window larger than its input"),
        make_arm("f=d", dict.fromkeys(SEEDS, 0.5), status="diverged"),
    ]
    findings = find_study(arms=arms, base="f=a")
    assert [contrast.first for contrast in findings.contrasts] == ["f=b"]
    notes = "\n".join(make_document(findings).notes)
    assert "invalid: f=c: Conv_1: window larger than its input" in notes
    assert "diverged: f=d, seed=3: loss not finite at step 3" in notes


@pytest.mark.parametrize("form", ["terminal", "markdown", "latex", "csv", "json"])
def test_every_format_has_every_comparison(form):
    findings = find_study(command="python -m x")
    text = write_findings(findings, form, 100)
    assert text.count("better") >= 3
    if form == "json":
        values = json.loads(text)
        assert values == json.loads(json.dumps(to_dict(findings)))
        assert values["contrasts"][0]["comparison"]["mean"] == findings.contrasts[0].comparison.mean
        assert values["command"] == "python -m x"


def test_the_data_table_has_every_number_in_full():
    findings = find_study()
    table = make_data_table(findings)
    row = dict(zip((column.heading for column in table.columns), table.rows[0], strict=True))
    contrast = findings.contrasts[0]
    assert (row["difference"], row["low"], row["t_p"]) == (
        contrast.comparison.mean,
        contrast.low,
        contrast.comparison.t_p,
    )
    assert row["first_seed_0"] - row["second_seed_0"] == pytest.approx(contrast.comparison.differences[0])
    assert row["first_seed_4"] is None


def test_arms_of_several_datasets_are_ranked_within_each():
    arms = [
        make_arm(f"data.name={dataset}, model.f={label}", draw(mean + bonus, seed))
        for seed, (dataset, mean) in enumerate((("mnist", 0.97), ("fashion_mnist", 0.89)))
        for label, bonus in (("a", 0.0), ("b", 0.01 + 0.01 * seed), ("c", 0.03 + 0.02 * seed))
    ]
    findings = find_study(arms=arms, base=None)
    assert findings.contrasts == ()
    names, ranks = findings.ranks
    assert (names, ranks.mean) == (("model.f=a", "model.f=b", "model.f=c"), (3.0, 2.0, 1.0))
    summary = write_summary(findings)
    assert summary[0].startswith("Averaged over the 2 datasets, of 3 pairs of arms the first is 3 worse (")
    assert summary[1].startswith("The largest difference among the worse: f=a less f=c is -")
    assert summary[2] == (
        "This holds over seeds, for one training and one test set, of each of these datasets; for other datasets like "
        "these, no comparison is decided."
    )
    assert summary[3].startswith("Mean ranks over the datasets: f=c 1.00, f=b 2.00, f=a 3.00")
    table = next(each for each in make_document(findings).tables if each.title.startswith("Differences over the"))
    headings = [column.heading for column in table.columns]
    assert headings[2:5] == ["on mnist", "on fashion_mnist", "average"]
    assert [row[:2] for row in table.rows] == [("f=a", "f=b"), ("f=a", "f=c"), ("f=b", "f=c")]
    assert all(row[2].endswith(" worse") and row[-2] == "undecided" for row in table.rows)
    wide = findings.over_datasets[0].other_datasets
    assert table.rows[0][-1] == write_interval(wide.low, wide.high)
    against = find_study(arms=arms, base="data.name=mnist, model.f=a")
    pairs = [(each.average.first, each.average.second) for each in against.over_datasets]
    assert pairs == [("model.f=b", "model.f=a"), ("model.f=c", "model.f=a")]
    assert write_summary(against)[0].startswith("Averaged over the 2 datasets, against f=a, of 2 arms 2 better (")
    data = make_data_table(against)
    rows = [dict(zip((column.heading for column in data.columns), row, strict=True)) for row in data.rows]
    assert [row["dataset"] for row in rows] == ["average", "mnist", "fashion_mnist"] * 2
    over = against.over_datasets[1]
    for row, contrast in zip(rows[3:], (over.average, *over.on_each.values()), strict=True):
        assert (row["first"], row["second"], row["difference"]) == ("model.f=c", "model.f=a", contrast.comparison.mean)
        assert row["verdict"] == contrast.verdict.word
    assert [row["other_datasets"] for row in rows[3:]] == [over.other_datasets.word, None, None]
    assert (rows[5]["first_seed_0"], rows[5]["second_seed_0"]) == (arms[5].accuracies[0], arms[3].accuracies[0])


def test_an_arm_that_a_dataset_lacks_is_in_no_comparison_over_datasets():
    arms = [
        make_arm(f"data.name={dataset}, f={label}", draw(0.9, seed))
        for seed, dataset in enumerate(("mnist", "fashion_mnist"))
        for label in "abc"
    ]
    arms[5] = make_arm("data.name=fashion_mnist, f=c", {}, problem="cannot exist")
    (found,) = find_study(arms=arms, base=None).over_datasets
    assert (found.average.first, found.average.second) == ("f=a", "f=b")


def store_predictions(folder, rights):
    """Stores runs of arms that get the given test images right, by arm and seed."""
    store, arms = Store(folder), []
    for index, (name, by_seed) in enumerate(rights.items()):
        records, base = {}, dataclasses.replace(tiny(), model=ModelConfig(filters=(), dense=(index + 1,)))
        for seed, right in by_seed.items():
            config = dataclasses.replace(base, seed=seed)
            predictions = np.where(np.isin(np.arange(40), right), LABELS, (LABELS + 1) % 3).astype(np.uint8)
            packed = make_packed(config, len(right) / 40)
            record = dataclasses.replace(packed.record, provenance={"dataset": {"sha256": DATASET.sha256}})
            run = unpack_run(record, packed.variables, packed.predictions)
            store.add(Run(record, run.params, run.batch_stats, predictions))
            records[seed] = record
        arms.append(Arm(name, {"f": name}, base, records, tuple(by_seed), 10 + index, 20))
    return store, arms


def test_predictions_give_the_noise_the_confusions_and_the_hardest_images(tmp_path):
    easy = [index for index in range(40) if index != 7]
    store, arms = store_predictions(
        tmp_path,
        {"a": {0: easy, 1: easy[5:], 2: easy}, "b": {0: easy[3:], 1: easy[3:], 2: easy[4:]}, "c": {}},
    )
    images = compare_on_images(arms, "a", store, DATASET)
    assert images.test_size == 40
    assert images.hardest[0] == 7
    assert (images.wrong[0], images.guesses[0], images.labels[0]) == (1.0, (LABELS[7] + 1) % 3, LABELS[7])
    assert (images.images[0] == IMAGES[7]).all()
    assert images.confusions["a"].sum() == 3 * 40
    assert np.trace(images.confusions["a"]) == 2 * len(easy) + len(easy[5:])
    assert images.confusions["a"].sum(1) == pytest.approx(3 * np.bincount(LABELS, minlength=3))
    assert images.mcnemar["b"] == {0: 0.25, 1: 0.5, 2: 0.125}
    assert images.noise == {}
    findings = compare_arms(
        arms, "a", Rules(0.01, measure=dataclasses.replace(ACCURACY, resolution=1 / 40)), title="?", images=images
    )
    (contrast,), noise = findings.contrasts, findings.images.noise
    assert set(noise) == {("b", "a")}
    assert noise["b", "a"].mean == pytest.approx(np.mean([-3, 2, -4]) / 40)
    assert noise["b", "a"].low <= contrast.low < contrast.high <= noise["b", "a"].high
    table = make_document(findings).tables[-1]
    assert (
        dict(zip((column.heading for column in table.columns), table.rows[0], strict=True))["McNemar p of a seed"]
        == "0.12 to 0.5"
    )
    assert to_dict(findings)["mcnemar"] == {"b": {"0": 0.25, "1": 0.5, "2": 0.125}}
    assert sum("for new images too: undecided" in sentence for sentence in write_summary(findings)) == 1


def test_a_bootstrap_is_shown_only_where_there_is_an_interval_at_any_time(tmp_path):
    rights = {"a": {seed: range(38 - seed % 3) for seed in range(8)}, "b": {seed: range(2, 40) for seed in range(4)}}
    store, arms = store_predictions(tmp_path, rights | {"c": {seed: range(seed % 2, 30) for seed in range(8)}})
    measure = dataclasses.replace(ACCURACY, resolution=1 / 40)
    rules = Rules(0.05, measure=measure, looks=tuple(range(4, 9)), at_any_time=True)
    images = compare_on_images(arms, "a", store, DATASET)
    findings = compare_arms(arms, "a", rules, title="?", images=images, seeds=range(8))
    has_interval = {each.first: each.low is not None for each in findings.contrasts}
    assert has_interval == {"b": False, "c": True}
    assert {first: noise.bootstrap is not None for (first, _), noise in findings.images.noise.items()} == has_interval


def test_predictions_for_other_images_are_not_compared(tmp_path):
    store, arms = store_predictions(tmp_path, {"a": {0: [1], 1: [2]}})
    other = make_dataset("toy", "1.0.0", Split(IMAGES, LABELS), Split(IMAGES[::-1], LABELS), 3, "file")
    assert compare_on_images(arms, None, store, other) is None


def test_validation_accuracy_is_that_after_the_last_epoch():
    record = make_packed(tiny(validation_split=0.1), 0.9).record
    history = (EpochMetrics(1, 0.5, 0.8, 0.4, 0.87, 0.1),)
    arm = Arm("a", {}, record.config, {0: dataclasses.replace(record, history=history)}, (0, 1), 1, 1)
    assert [arm.scores(ACCURACIES[by]) for by in ("validation", "test")] == [{0: 0.87}, {0: 0.9}]
    assert (arm.ended, +arm.counts) == ((0,), {"completed": 1, "missing": 1})
