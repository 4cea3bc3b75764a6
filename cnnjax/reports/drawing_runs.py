"""Pictures of single runs and images: learning curves, confusions, and the images that most runs get wrong."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cnnjax.estimates import estimate_accuracy
from cnnjax.figures.confusions import MOST_MATRICES, draw_confusions
from cnnjax.figures.curves import LEAST_ERROR, MOST_CURVES, Curve, draw_curves
from cnnjax.figures.hardest import draw_hardest
from cnnjax.reports.findings import ArmResult, Findings
from cnnjax.reports.names import count, name_arms

if TYPE_CHECKING:
    from cnnjax.reports.drawing_arms import Drawn

NO_PREDICTIONS = "The predictions or the test images of these runs are not at hand."


def draw_learning(findings: Findings) -> "Drawn":
    """Draws learning curves with bands, a panel for every arm."""
    ended = [result for result in findings.arms if any(record.history for record in result.arm.completed.values())]
    epochs = [len(record.history) for result in ended for record in result.arm.completed.values()]
    if max(epochs, default=0) < 2:
        return None, "No completed run has more than one epoch."
    validated = all(_has_validation(result) for result in ended)
    chosen = select(findings, ended, MOST_CURVES)
    names = name_arms(findings)
    curves = [_trace(names[result.arm.name], result, validated) for result in chosen]
    base = next((curve for curve in curves if findings.base and curve.name == names[findings.base]), None)
    measured = "validation" if validated else "training"
    note = "" if validated else " It is measured on every training batch before its step."
    if len(chosen) < len(ended):
        note += f" Shown are {len(chosen)} of {len(ended)} arms: the base, then the most accurate."
    if min(float(np.nanmin(curve.error)) for curve in curves) < LEAST_ERROR:
        note += f" Errors below {LEAST_ERROR}% are drawn there."
    return draw_curves(curves, base, measured), (
        f"Mean {measured} error after every epoch, over {count((curve.runs for curve in curves), 'completed seed')}. "
        f"Bands: 95% intervals of the mean at each epoch by itself, where there are two runs or more.{note}"
    )


def draw_mistaken(findings: Findings) -> "Drawn":
    """Draws confusion matrices, an arm each."""
    if findings.images is None:
        return None, NO_PREDICTIONS
    known = [result for result in findings.arms if result.arm.name in findings.images.confusions]
    chosen, names = select(findings, known, MOST_MATRICES), name_arms(findings)
    matrices = [findings.images.confusions[result.arm.name] for result in chosen]
    figure = draw_confusions([names[result.arm.name] for result in chosen], matrices)
    left_out = len(known) - len(chosen)
    note = f" Shown are {len(chosen)} of {len(known)} arms: the base, then the most accurate." if left_out else ""
    return figure, (
        "How often each class (down) is taken for each other (across), summed over "
        f"{count((len(result.arm.completed) for result in chosen), 'seed')}; the grey diagonal is what is right.{note}"
    )


def draw_hardest_images(findings: Findings) -> "Drawn":
    """Draws the test images that most runs get wrong."""
    images = findings.images
    if images is None:
        return None, NO_PREDICTIONS
    if not len(images.hardest):
        return None, "Every run gets every test image right."
    figure = draw_hardest(
        images.images,
        [int(index) for index in images.hardest],
        [int(label) for label in images.labels],
        [int(guess) for guess in images.guesses],
        [float(share) for share in images.wrong],
    )
    return figure, (
        f"The {len(images.hardest)} of {images.test_size:,} test images that most runs of all arms get wrong: their "
        "number in the test set, their class, the wrong one they are most often taken for, and how many runs miss them."
    )


def select(findings: Findings, results: Sequence[ArmResult], most: int) -> list[ArmResult]:
    """Returns at most so many arms in the study's order: the base, then the most accurate."""
    if len(results) <= most:
        return list(results)

    def rank(result: ArmResult) -> tuple[bool, float]:
        return result.arm.name != findings.base, -(result.estimate.mean if result.estimate is not None else 0.0)

    chosen = {result.arm.name for result in sorted(results, key=rank)[:most]}
    return [result for result in results if result.arm.name in chosen]


def _has_validation(result: ArmResult) -> bool:
    return all(epoch.val_accuracy is not None for record in result.arm.completed.values() for epoch in record.history)


def _trace(name: str, result: ArmResult, validated: bool) -> Curve:
    """Returns the error of an arm after every epoch that a run of it reached, over the runs that did."""
    runs = [
        [epoch.val_accuracy if validated else epoch.accuracy for epoch in record.history]
        for record in result.arm.completed.values()
        if record.history
    ]
    estimates = []
    for epoch in range(max(map(len, runs))):
        values = [run[epoch] for run in runs if len(run) > epoch]
        estimates.append(estimate_accuracy([1 - value for value in values if value is not None]))
    low, high = 100 * np.array([(each.low, each.high) for each in estimates], float).T  # None becomes nan
    return Curve(name, np.array([100 * each.mean for each in estimates]), low, high, len(runs))
