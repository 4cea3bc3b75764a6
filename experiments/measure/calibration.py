"""Simulates studies whose true differences are known, and counts how often the statistics are wrong.

The default takes several minutes, 200 studies a tenth of that. The last command writes the tables of the docs::

    python -m experiments.measure.calibration
    python -m experiments.measure.calibration --studies 200
    python -m experiments.measure.calibration --markdown docs/calibration.md
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from cnnjax.console.arguments import ADVANCED, parse_arguments
from cnnjax.console.tables import Document, write_markdown, write_terminal
from cnnjax.console.terminal import find_width, run_command, say
from cnnjax.machine.files import check_output, replace_file
from cnnjax.settings.checking import Count, check
from cnnjax.statistics.any_time import SCALE
from cnnjax.statistics.verdicts import MARGIN
from experiments.measure.dataset_simulations import tabulate_datasets
from experiments.measure.factor_simulations import tabulate_interactions
from experiments.measure.family_simulations import tabulate_steps
from experiments.measure.plan_simulations import tabulate_found, tabulate_spreads
from experiments.measure.posterior_simulations import tabulate_posteriors
from experiments.measure.simulations import (
    ALPHA,
    CHANCE,
    SPREAD,
    STEP,
    tabulate_collapses,
    tabulate_families,
    tabulate_family_collapses,
    tabulate_gaps,
    tabulate_images,
    tabulate_looks,
    tabulate_losses,
    tabulate_pilots,
    tabulate_power,
    tabulate_stopping,
    tabulate_verdicts,
)
from experiments.measure.training_simulations import tabulate_training

PROG = "python -m experiments.measure.calibration"
TABLES = (
    tabulate_verdicts,
    tabulate_families,
    tabulate_steps,
    tabulate_looks,
    tabulate_stopping,
    tabulate_losses,
    tabulate_collapses,
    tabulate_family_collapses,
    tabulate_gaps,
    tabulate_images,
    tabulate_training,
    tabulate_datasets,
    tabulate_interactions,
    tabulate_posteriors,
    tabulate_power,
    tabulate_found,
    tabulate_pilots,
    tabulate_spreads,
)


@dataclass(frozen=True)
class CalibrationArguments:
    """Counts how often verdicts and intervals are wrong in simulated studies::

    python -m experiments.measure.calibration --studies 200
    """

    studies: int = 2000
    """Number of simulated studies of each kind."""
    markdown: Path | None = None
    """File for the tables in Markdown."""
    debug: Annotated[bool, ADVANCED] = False
    """Show the traceback of an error."""


def main(argv: list[str]) -> int:
    """Runs the command; returns 0."""
    arguments = parse_arguments(CalibrationArguments, argv, PROG, CalibrationArguments())
    check(arguments.studies, Count, "--studies")
    markdown = arguments.markdown and check_output(arguments.markdown, "--markdown")
    document = calibrate(arguments.studies)
    if markdown:
        replace_file(markdown, write_markdown(document) + "\n", "--markdown")
    say(write_terminal(document, find_width()), sys.stdout)
    return 0


def calibrate(studies: int) -> Document:
    """Returns the tables of error rates in all simulated situations.

    Args:
        studies: number of simulated studies of each kind.
    """
    error = 1.96 * np.sqrt(0.05 * 0.95 / studies)
    facts = (f"{studies:,} studies each", f"a rate of 5% is known to ±{100 * error:.1f} points")
    notes = (
        f"accuracies are multiples of {STEP:g}; the noise of a run has a standard deviation of {100 * SPREAD:g} points "
        f"where it is not said otherwise; the margin is {100 * MARGIN:g} points, the level {ALPHA:g}",
        "margin above, margin below: the first arm, or every arm of a family, is better or worse than the other by it; "
        "where one arm has a noise of its own, it is the first; intervals are counted over all five differences",
        "correlation: of the two arms over the seeds",
        "families are half as many studies for the claims of a difference, a quarter where some arms differ; "
        "bootstraps are an eighth as many",
        f"at any time: by e-values of effects with a scale of {SCALE:g} spreads of the differences, which is "
        f"{100 * np.sqrt(2) * SPREAD:.2f} points; the true difference is in both directions equally often",
        "for new images, the margin is about four standard errors; a spread is off by the root mean square of the log",
        "training images: those that a run trains on make up this share of the variance of a difference, over studies "
        "of other images; other draws are from the same images, and verdicts are those for new ones",
        "several datasets: noise is normal, as are true differences over all datasets, of which a study has some",
        'unqualified: without "of the runs that completed"',
        "falls far: by ten standard deviations, which is far from guessing, so it counts as a run that trained",
        f"collapses: ends at guessing, {CHANCE:.0%}, whatever it would have been; more and less reliable: said of the "
        "first arm; false of arms that collapse equally often, or the wrong way round",
    )
    return Document("How often the statistics are wrong", facts, tuple(make(studies) for make in TABLES), notes)


if __name__ == "__main__":
    run_command(main)
