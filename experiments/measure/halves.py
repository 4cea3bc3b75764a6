"""Compares each cell of a stored study with itself: the runs of the first half of its seeds with those of the second.

No difference is true, so every claim of one is false. First the verdicts, as a report has them; then how many of many
divisions of the runs into random pairs of the two halves lead to a claim::

    python -m ablations.run padding --seeds 20
    python -m experiments.measure.halves padding --seeds 20
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np

from ablations.arguments import StudyArguments, read_study
from ablations.execution.arms import make_arms
from ablations.study.grid import expand
from cnnjax.console.arguments import ADVANCED, parse_arguments
from cnnjax.console.tables import Column, Document, Table, Value, write_markdown, write_terminal
from cnnjax.console.terminal import find_width, run_command, say
from cnnjax.errors import InputError
from cnnjax.machine.files import check_output, replace_file
from cnnjax.reports.arms import Arm
from cnnjax.reports.findings import ArmResult, Findings, compare_stored_arms
from cnnjax.reports.rules import Rules, make_rules
from cnnjax.reports.sentences import write_interval, write_rate
from cnnjax.runs.store import Store
from cnnjax.settings.checking import Count, check
from cnnjax.statistics.verdicts import LEAST_SEEDS, half_widths, judge
from experiments.measure.simulations import summarize_trained

PROG = "python -m experiments.measure.halves"
FIRST, SECOND = "first half", "second half"


@dataclass(frozen=True)
class HalvesArguments(StudyArguments):
    """Compares each cell of a stored study with itself, half of its seeds with the other half::

    python -m experiments.measure.halves padding --seeds 20
    """

    out: Path = Path("runs")
    """Folder of the store."""
    divisions: int = 10_000
    """Number of random divisions of the runs of each cell."""
    markdown: Path | None = None
    """File for the table in Markdown."""
    debug: Annotated[bool, ADVANCED] = False
    """Show the traceback of an error."""


def main(argv: list[str]) -> int:
    """Runs the command; returns 0."""
    arguments = parse_arguments(HalvesArguments, argv, PROG, HalvesArguments())
    check(arguments.divisions, Count, "--divisions")
    markdown = arguments.markdown and check_output(arguments.markdown, "--markdown")
    grid, store = expand(read_study(arguments), arguments.max_trials), Store(arguments.out)
    if len(grid.seeds) < 2 * LEAST_SEEDS:
        raise InputError(f"--seeds: must be at least {2 * LEAST_SEEDS}, {LEAST_SEEDS} for each half")
    stored = store.find_all(trial.key for trial in grid.trials)
    arms = [arm for arm in make_arms(grid, stored) if arm.problem is None]
    incomplete = [arm.name for arm in arms if len(arm.ended) < len(arm.seeds)]
    if incomplete:
        raise InputError(f"{store.path}: {incomplete[0]}: some of its trials have no result; `ablations.run` goes on")
    found = {arm.name: compare_halves(arm, store, make_rules()) for arm in arms}
    document = Document(
        "Claims about arms that do not differ",
        (f"study {grid.name}", f"{len(grid.seeds)} seeds", f"{arguments.divisions:,} random divisions"),
        (tabulate_halves(found, arguments.divisions),),
    )
    if markdown:
        replace_file(markdown, write_markdown(document) + "\n", "--markdown")
    say(write_terminal(document, find_width()), sys.stdout)
    return 0


def compare_halves(arm: Arm, store: Store, rules: Rules) -> Findings:
    """Compares the runs of the first half of an arm's seeds, in their order, with those of the second half.

    Args:
        arm: the arm; of an odd number of seeds the last is left out.
        store: the store of its runs.
        rules: the rules of the comparison.
    """
    half = len(arm.seeds) // 2
    halves = [
        replace(
            arm,
            name=name,
            labels={},
            records={place: arm.records[seed] for place, seed in enumerate(seeds)},
            seeds=tuple(range(half)),
        )
        for name, seeds in ((FIRST, arm.seeds[:half]), (SECOND, arm.seeds[half : 2 * half]))
    ]
    return compare_stored_arms(halves, SECOND, rules, store, title=arm.name, facts=(), command="")


def tabulate_halves(found: dict[str, Findings], divisions: int) -> Table:
    """Returns a row for every arm: its verdicts, the rates of collapses, and the claims of random divisions."""
    columns = (
        Column("configuration"),
        Column("difference", right=True),
        Column("interval", right=True),
        Column("verdict"),
        Column("new images too"),
        Column("collapsed"),
        Column("against"),
        Column("random divisions: better or worse", ".1%", True),
        Column("equivalent", ".1%", True),
    )
    rows: list[tuple[Value, ...]] = []
    for name, each in found.items():
        (contrast,), measure = each.contrasts, each.rules.measure
        rows.append(
            (
                name,
                measure.write_difference(contrast.comparison.mean),
                write_interval(*contrast.decisive_interval, measure),
                contrast.verdict.label,
                each.images.verdicts[FIRST, SECOND].label if each.images else None,
                *(write_rate(half.rate) for half in each.arms),
                *count_claims(each.arms, each.rules, divisions),
            )
        )
    return Table(columns, tuple(rows), "The first half of the seeds against the second, in percentage points")


def count_claims(halves: tuple[ArmResult, ...], rules: Rules, divisions: int) -> tuple[float, float]:
    """Returns the shares of random divisions in which the halves are called better or worse, and equivalent.

    Every division pairs each run with another at random, as the first or the second of the two.
    """
    runs = [
        (half.scores.get(seed, np.nan), seed in half.at_chance or seed not in half.scores)
        for half in halves
        for seed in half.arm.seeds
    ]
    scores, is_lost = (np.array(each) for each in zip(*runs, strict=True))
    order = np.random.default_rng(0).random((divisions, len(runs))).argsort(1).reshape(divisions, 2, -1)
    first, second = np.where(is_lost, 0.0, scores)[order].transpose(1, 0, 2)
    mean, spread, kept = summarize_trained(first - second, np.any(is_lost[order], axis=1))
    found, same = judge(mean, half_widths(spread, kept, rules.alpha, rules.alpha), rules.margin)
    return float(np.mean(found & ~same)), float(np.mean(same))


if __name__ == "__main__":
    run_command(main)
