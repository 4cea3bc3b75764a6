"""Compares arms: is one better, by how much, and how sure is that?

Two values of a setting; the same after training the missing runs; one page with pictures; scores of any framework::

    python -m experiments.compare --a model.padding=same --b model.padding=valid
    python -m experiments.compare --a model.padding=same --b model.padding=valid --run --seeds 10
    python -m experiments.compare --a model.padding=same --b model.padding=valid --format html --output padding.html
    python -m experiments.compare scores.csv --arm norm --score f1

Of stored runs, an arm has those with its settings; all other settings must be the same in both arms. If the store has
several such pairs, ``--set`` says which to compare.
"""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from cnnjax.console.arguments import ADVANCED, Option, parse_arguments
from cnnjax.console.terminal import make_observer, run_command, say
from cnnjax.errors import InputError, Interrupted
from cnnjax.machine.files import keep_programs
from cnnjax.machine.native import allow_fast_layers, prepare_layers
from cnnjax.machine.processes import offer_cpu_devices
from cnnjax.reports.arguments import JudgingArguments, WritingArguments, read_rules, refuse_options
from cnnjax.reports.arms import Arm
from cnnjax.reports.findings import Findings, compare_stored_arms
from cnnjax.reports.plans import SequentialPlan, describe_plan, find_plans, refuse_other_rules, remark_on_stopping
from cnnjax.reports.rules import Rules
from cnnjax.reports.scores import Columns, compare_scores, read_scores
from cnnjax.runs.config import RunConfig
from cnnjax.runs.history import Observer
from cnnjax.runs.record import Record
from cnnjax.runs.selection import Selectors, choose_context, configure, find_contexts, read_selectors
from cnnjax.runs.store import Store
from cnnjax.runs.summary import summarize
from cnnjax.settings.checking import Count, check, write_count
from cnnjax.settings.schema import flatten, write_literal

PROG = "python -m experiments.compare"


@dataclass(frozen=True)
class CompareArguments(JudgingArguments, WritingArguments):
    """Compares two arms by their stored runs, or arms by the scores in a CSV file, paired by seed::

    python -m experiments.compare --a model.padding=same --b model.padding=valid
    python -m experiments.compare scores.csv --arm norm --score f1
    """

    scores: Annotated[Path | None, Option(metavar="SCORES.csv", positional=True)] = None
    """Scores of runs that are not stored: a line for each run, with columns of its arm, its seed and its score."""
    arm: Annotated[tuple[str, ...], Option(metavar="COLUMN")] = ()
    """Of SCORES.csv: column that tells arms apart, by default arm; given again, the columns are factors of a study."""
    seed: Annotated[str, Option(metavar="COLUMN")] = "seed"
    """Of SCORES.csv: column of the seed."""
    score: Annotated[str, Option(metavar="COLUMN")] = "score"
    """Of SCORES.csv: column of the score; empty for a lost run."""
    status: Annotated[str | None, Option(metavar="COLUMN")] = None
    """Of SCORES.csv: column that says completed, diverged or failed; left out, the column status, if there is one."""
    baseline: Annotated[str | None, Option(metavar="ARM")] = None
    """Of SCORES.csv: arm that the others are compared with; left out, all pairs are compared."""

    a: Annotated[tuple[str, ...], Option(metavar="SETTING=VALUE")] = ()
    """A setting of the first arm, such as model.padding=same; may be given again."""
    b: Annotated[tuple[str, ...], Option(metavar="SETTING=VALUE")] = ()
    """A setting of the second arm, with which the first is compared."""
    set: Annotated[tuple[str, ...], Option(metavar="SETTING=VALUE")] = ()
    """A setting of both arms, such as train.epochs=1."""
    out: Path = Path("runs")
    """Folder of the store."""
    run: bool = False
    """Train what is missing, and store it; after a signal the same command goes on, bit for bit."""
    seeds: int | None = None
    """Seeds 0 to N - 1 of both arms; left out, those that are stored, or 5 where --run has nothing to go by."""
    no_fast_layers: Annotated[bool, ADVANCED] = False
    """With --run: do not use oneDNN's layers on CPU."""
    debug: Annotated[bool, ADVANCED] = False
    """Show the traceback of an error."""


def main(argv: list[str]) -> int:
    """Runs the command; returns 0."""
    arguments = parse_arguments(CompareArguments, argv, PROG, CompareArguments())
    arguments.check_writable()
    command = f"{PROG} {shlex.join(argv)}"
    if arguments.scores is None:
        arguments.write(_compare_runs(arguments, command))
    else:
        arguments.write(_compare_scores(arguments.scores, arguments, command))
    return 0


def _compare_scores(path: Path, arguments: CompareArguments, command: str) -> Findings:
    refuse_options(
        arguments, ("a", "b", "set", "out", "run", "seeds", "by"), "is for stored runs; leave out SCORES.csv"
    )
    rules = read_rules(arguments, score=arguments.score)
    columns = Columns(arguments.arm or ("arm",), arguments.seed, arguments.score, arguments.status)
    arms, origin = read_scores(path, columns)
    if arguments.output and arguments.output.exists() and arguments.output.samefile(path):
        raise InputError(f"--output {arguments.output}: is the file of the scores itself")
    return compare_scores(arms, arguments.baseline, rules, origin=origin, command=command)


def _compare_runs(arguments: CompareArguments, command: str) -> Findings:
    refuse_options(arguments, ("arm", "seed", "score", "status", "baseline"), "is for scores; give SCORES.csv")
    rules = read_rules(arguments)
    check(arguments.seeds, Count | None, "--seeds")
    selectors = read_selectors(arguments.a, arguments.b, arguments.set)
    store = Store(arguments.out)
    contexts = find_contexts(selectors, store.find_all())
    context = choose_context(contexts) or configure(selectors, "a", RunConfig())
    found = contexts.get(context, {"a": {}, "b": {}})
    configs = {side: configure(selectors, side, context) for side in ("a", "b")}
    keys = [replace(config, seed=0).key for config in configs.values()]
    plan = next(iter(find_plans(keys, store)), None)
    remarks = [] if plan else remark_on_stopping(keys, store)
    if plan:
        _check_plan(arguments, rules, plan)
        remarks = [f"judged as one of {write_count(len(plan.arms) - 1, 'comparison')}: {describe_plan(plan)}"]
        # As one of its comparisons, that of these two arms has its level by itself.
        rules = replace(plan.rules, alpha=plan.level, power=arguments.power)
    seeds = plan.seeds if plan else _choose_seeds(arguments, found)
    if arguments.by == "validation" and not context.train.validation_split:
        raise InputError("--by validation: needs --set train.validation_split=0.1, or another share")
    if arguments.run:
        if arguments.no_fast_layers:
            allow_fast_layers(False)
        found = _run_missing(selectors, configs, seeds, arguments.out)
    arms = tuple(_make_arm(selectors.name(side), configs[side], found[side], seeds) for side in ("a", "b"))
    for side, arm in zip(("a", "b"), arms, strict=True):
        if not arm.completed:
            which = f"with a seed in 0..{seeds[-1]} " if arguments.seeds else ""
            raise InputError(
                f"--{side} {arm.name}: no completed run of it {which}is in {store.path}; --run trains them"
            )
    return compare_stored_arms(
        arms,
        arms[1].name,
        rules,
        store,
        title=f"Is {arms[0].name} better than {arms[1].name}?",
        facts=_describe_context(selectors, context, seeds),
        command=command,
        seeds=seeds,
        remarks=remarks,
    )


def _check_plan(arguments: CompareArguments, rules: Rules, plan: SequentialPlan) -> None:
    """Raises `InputError` if the arguments ask for another judgement, or other runs, than those of a stored plan."""
    holds = f"{describe_plan(plan)}, which holds"
    if arguments.seeds is not None:
        raise InputError(f"--seeds {arguments.seeds}: {holds}; leave the option out")
    if arguments.run:
        raise InputError(f"--run: {holds}; `ablations.run` with --until-decided {len(plan.seeds)} goes on")
    refuse_other_rules(arguments, rules, plan)


def _describe_context(selectors: Selectors, context: RunConfig, seeds: tuple[int, ...]) -> tuple[str, ...]:
    """Returns the number of seeds, and the common settings of both arms: dataset, epochs, and all but the defaults."""
    shown, defaults = ("data.name", "train.epochs"), RunConfig.schema().list_defaults()
    common = {path: value for path, value in flatten(context).items() if path not in selectors.a}
    others = (path for path, value in common.items() if path not in shown and value != defaults.get(path))
    return (
        f"{len(seeds)} seeds",
        *(f"{path} {write_literal(common[path])}" for path in (*shown, *others) if path in common),
    )


def _choose_seeds(arguments: CompareArguments, found: Mapping[str, Mapping[int, Record]]) -> tuple[int, ...]:
    if arguments.seeds is not None:
        return tuple(range(arguments.seeds))
    return tuple(sorted({*found["a"], *found["b"]})) or tuple(range(5))


def _run_missing(
    selectors: Selectors, configs: Mapping[str, RunConfig], seeds: tuple[int, ...], out: Path
) -> dict[str, dict[int, Record]]:
    """Trains the missing runs, once both networks are known to be valid; returns the records of both arms by seed."""
    for config in configs.values():
        summarize(config)
    keep_programs(True)
    layers = prepare_layers()
    if layers:
        say(layers, sys.stderr)
    offer_cpu_devices(None)
    from cnnjax.training.fit import fit_many

    found: dict[str, dict[int, Record]] = {}
    for side, config in configs.items():

        def start(trial: RunConfig, name: str = selectors.name(side)) -> Observer:
            say(f"training {name}, seed={trial.seed}", sys.stderr)
            return make_observer(True)

        try:
            runs = fit_many([replace(config, seed=seed) for seed in seeds], out, make_observer=start)
        except Interrupted as stop:
            stop.args = (f"{stop}; the same command goes on",)
            raise
        found[side] = {run.record.config.seed: run.record for run in runs}
    return found


def _make_arm(name: str, config: RunConfig, records: Mapping[int, Record], seeds: tuple[int, ...]) -> Arm:
    chosen = {seed: records[seed] for seed in seeds if seed in records}
    sizes = [(record.parameters, record.flops) for record in chosen.values()]
    return Arm(name, {}, config, chosen, seeds, *(sizes[0] if sizes else (None, None)))


if __name__ == "__main__":
    run_command(main)
