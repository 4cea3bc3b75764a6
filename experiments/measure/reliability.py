"""Tests reliability: reads damaged inputs, and kills commands or fills the disk while they write.

The default takes some minutes. The other commands: a million damaged inputs, as in the documentation; an interruption
at every write, which takes hours; damaged inputs only; fifty kills of a grid, which take ten minutes or more::

    python -m experiments.measure.reliability
    python -m experiments.measure.reliability --inputs 1000000 --points 10 --markdown docs/reliability.md
    python -m experiments.measure.reliability --points none
    python -m experiments.measure.reliability --inputs 100000 --points 0
    python -m experiments.measure.reliability --inputs 100 --points 0 --kills 50

The exit code is 1 if a fault was found: something was lost, stored twice or misread, or ended in an unexpected error.
"""

import platform
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from cnnjax.console.arguments import ADVANCED, parse_arguments
from cnnjax.console.tables import Column, Document, Table, write_markdown, write_terminal
from cnnjax.console.terminal import find_width, run_command, say
from cnnjax.errors import UnavailableError
from cnnjax.machine.files import check_output, replace_file
from cnnjax.machine.processes import count_cores
from cnnjax.settings.checking import Count, Interval, check
from experiments.measure.faults.disturbances import (
    HOWS,
    PROCESSES,
    SCENARIOS,
    KillTally,
    built_shim,
    crowd,
    disturb,
    write_protected,
)
from experiments.measure.faults.fuzzing import LONGEST_SECONDS, MOST_MEMORY, Tally, fuzz_all
from experiments.measure.faults.kills import kill_grid

PROG = "python -m experiments.measure.reliability"
_PROMISE = (
    "A fault is: what was told to be stored is lost, there twice, or has another value; a half-written file is taken "
    "for a whole one; the same command, typed again, does not go on; or damage ends in an error that is none of "
    "cnnjax.errors, or in none within the limits."
)
_DAMAGE = (
    "An input is a valid one with one to four pieces of damage: bits, slices, words, or JSON values of another kind; "
    "for checkpoints and cache entries also with hashes that agree with the damage. It is made of its number alone. "
    f"Reading it may take {LONGEST_SECONDS} s and {MOST_MEMORY // 2**30} GiB."
)
_DISTURBANCE = (
    "Places are the writes, syncs, renames, truncations and removals that a command does undisturbed. A library that "
    "is loaded before the C library kills it before, amid (after half of a write) or after one of them, or has the "
    "disk be full from there on; then the same command is typed again. Where fewer were tried, they are spread evenly."
)
_SURROUNDINGS: dict[str, Callable[[], list[str]]] = {
    f"{PROCESSES} processes that store rows in one new store at once, two and two the same ones": crowd,
    "a file system that is mounted read-only": write_protected,
}


@dataclass(frozen=True)
class ReliabilityArguments:
    """Reads damaged inputs, and kills commands or fills the disk while they write; counts the faults::

    python -m experiments.measure.reliability
    python -m experiments.measure.reliability --inputs 100000 --points 0
    python -m experiments.measure.reliability --inputs 100 --points 0 --kills 50
    """

    inputs: int = 10_000
    """Total number of damaged inputs; readers that are slow get fewer of them."""
    first_seed: int = 0
    """Seed of the first damaged input of each reader."""
    points: int | None = 5
    """Writes at which each command is interrupted, spread evenly; none means every write, 0 means no interruptions."""
    kills: int = 0
    """Times that a grid is killed at a random moment, and the same command is typed again."""
    markdown: Path | None = None
    """File for the tables, as Markdown."""
    debug: Annotated[bool, ADVANCED] = False
    """Show the traceback of an error."""


def main(argv: list[str]) -> int:
    """Runs the command; returns 0, or 1 where there was a fault."""
    arguments = parse_arguments(ReliabilityArguments, argv, PROG, ReliabilityArguments())
    check(arguments.inputs, Count, "--inputs")
    check(arguments.first_seed, Annotated[int, Interval(0)], "--first-seed")
    check(arguments.points, Annotated[int, Interval(0)] | None, "--points")
    check(arguments.kills, Annotated[int, Interval(0)], "--kills")
    target = arguments.markdown and check_output(arguments.markdown, "--markdown")
    tallies = []
    for tally in fuzz_all(arguments.inputs, count_cores(), arguments.first_seed):
        say(f"{tally.reader}: {tally.inputs:,} inputs, {tally.escapes.total()} faults", sys.stderr)
        tallies.append(tally)
    kills = _disturb_all(arguments.points) if arguments.points != 0 else []
    met = _meet_surroundings() if arguments.points != 0 else {}
    if arguments.kills:
        met[f"kills of a grid at random moments ({arguments.kills})"] = kill_grid(arguments.kills)
    faults = [
        f"{tally.reader}: {escape} ({count} times; of input {tally.examples[escape]})"
        for tally in tallies
        for escape, count in tally.escapes.items()
    ]
    faults += [f"{kill.scenario}: {fault}" for kill in kills for fault in kill.faults]
    faults += [f"{name}: {fault}" for name, found in met.items() for fault in found]
    document = _describe(arguments, tallies, kills, [*met], faults)
    say(write_terminal(document, find_width()), sys.stdout)
    if target:
        replace_file(target, write_markdown(document), "--markdown")
    return 1 if faults else 0


def _disturb_all(points: int | None) -> list[KillTally]:
    kills: list[KillTally] = []
    try:
        with built_shim() as shim:
            for scenario in SCENARIOS:
                kills.append(disturb(scenario, shim, points))
                say(f"{scenario.name}: {kills[-1].tried.total()} times, {len(kills[-1].faults)} faults", sys.stderr)
    except UnavailableError as error:
        say(f"left out: {error}", sys.stderr)
    return kills


def _meet_surroundings() -> dict[str, list[str]]:
    """Returns the faults found in each environment that could be set up on this machine."""
    met: dict[str, list[str]] = {}
    for name, meet in _SURROUNDINGS.items():
        try:
            met[name] = meet()
        except PermissionError as error:
            say(f"left out: {name}: {error}", sys.stderr)
    return met


def _describe(
    arguments: ReliabilityArguments, tallies: list[Tally], kills: list[KillTally], met: list[str], faults: list[str]
) -> Document:
    tables = [
        Table(
            (
                *(Column("reader"), Column("inputs", ",d", True), Column("taken", ",d", True)),
                *(Column("refused", ",d", True), Column("faults", ",d", True), Column("slowest s", ".2f", True)),
            ),
            tuple((t.reader, t.inputs, t.accepted, t.refused, t.escapes.total(), t.slowest) for t in tallies),
            f"{sum(t.inputs for t in tallies):,} damaged inputs",
        )
    ]
    notes = [_DAMAGE]
    if kills:
        hows = (Column(how, ",d", True) for how in HOWS)
        tables.append(
            Table(
                (Column("command"), Column("places", ",d", True), *hows, Column("faults", ",d", True)),
                tuple((k.scenario, k.operations, *(k.tried[how] for how in HOWS), len(k.faults)) for k in kills),
                f"{sum(k.tried.total() for k in kills):,} commands disturbed",
            )
        )
        notes.append(_DISTURBANCE)
    if met:
        notes.append(f"Tried too: {'; '.join(met)}.")
    places = "none" if arguments.points is None else arguments.points
    random_kills = f" --kills {arguments.kills}" if arguments.kills else ""
    made = f"made by {PROG} --inputs {arguments.inputs} --points {places}{random_kills} --markdown docs/reliability.md"
    summary = (f"{len(faults)} faults were found.", *faults, _PROMISE)
    return Document("Reliability", (made, _describe_machine()), tuple(tables), tuple(notes), summary)


def _describe_machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "a CPU")
    packages = ", ".join(f"{name} {version(name)}" for name in ("jax", "numpy", "orbax-checkpoint", "pillow"))
    return (
        f"{count_cores()} cores of {model}, {platform.system()}, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}, {packages}"
    )


if __name__ == "__main__":
    run_command(main)
