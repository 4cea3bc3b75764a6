"""Findings as data for other programs, every number unrounded: a table for CSV, values for JSON."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from cnnjax.reports.findings import ArmResult, Findings
from cnnjax.reports.summary import write_scope, write_summary
from cnnjax.tables import Column, Table


def make_data_table(findings: Findings) -> Table:
    """Returns a row a comparison with every number unrounded, and the accuracies of both arms by seed."""
    seeds = sorted({seed for each in findings.arms for seed in each.accuracies})
    columns = (
        *("first", "second", "pairs", "difference", "low", "high", "level", "adjusted_p", "t_p", "sign_flip_p"),
        *(
            "wilcoxon_p",
            "equivalence_p",
            "effect_size",
            "correlation",
            "wins",
            "probability_of_improvement",
            "verdict",
            "label",
            "survives_losses",
            "seeds_needed",
            "equivalence_low",
            "equivalence_high",
            *("first_completed", "first_lost", "second_completed", "second_lost", "scope"),
        ),
        *(f"{side}_seed_{seed}" for side in ("first", "second") for seed in seeds),
    )
    accuracies = {each.arm.name: each.accuracies for each in findings.arms}
    rows = (
        (
            *(each.first, each.second, each.comparison.n, each.comparison.mean, each.low, each.high, each.level),
            *(each.adjusted_p, each.comparison.t_p, each.comparison.sign_flip_p, each.comparison.wilcoxon_p),
            *(each.equivalence_p, each.comparison.effect_size, each.comparison.correlation, each.comparison.wins),
            *(each.comparison.probability_of_improvement, each.verdict.word, each.verdict.label),
            *(each.verdict.survives_losses, each.verdict.seeds_needed, each.equivalence_low, each.equivalence_high),
            *(each.first_runs.completed, each.first_runs.lost, each.second_runs.completed, each.second_runs.lost),
            write_scope(findings),
            *(accuracies[name].get(seed) for name in (each.first, each.second) for seed in seeds),
        )
        for each in findings.contrasts
    )
    return Table(tuple(map(Column, columns)), tuple(rows))


def to_dict(findings: Findings) -> dict[str, Any]:
    """Returns the findings as JSON values, unrounded; without the images."""
    images = findings.images
    return {
        "title": findings.title,
        "facts": list(findings.facts),
        "command": findings.command,
        "rules": dataclasses.asdict(findings.rules),
        "factors": list(findings.factors),
        "base": findings.base,
        "scope": write_scope(findings),
        "uncompared": dict(findings.uncompared),
        "arms": [_arm_to_dict(each) for each in findings.arms],
        "contrasts": [dataclasses.asdict(each) for each in findings.contrasts],
        "shares": [dataclasses.asdict(each) for each in findings.shares],
        "effects": [dataclasses.asdict(each) for each in findings.effects],
        "interactions": [dataclasses.asdict(each) for each in findings.interactions],
        "at_equal_size": [dataclasses.asdict(each) for each in findings.at_equal_size],
        "ranks": findings.ranks and {"arms": list(findings.ranks[0]), **dataclasses.asdict(findings.ranks[1])},
        "noise": images and {name: dataclasses.asdict(noise) for name, noise in images.noise.items()},
        "mcnemar": images and {name: _by_seed(values) for name, values in images.mcnemar.items()},
        "summary": list(write_summary(findings)),
        "provenance": list(findings.provenance),
        "remarks": list(findings.remarks),
    }


def _arm_to_dict(each: ArmResult) -> dict[str, Any]:
    arm = each.arm
    return {
        "name": arm.name,
        "labels": dict(arm.labels),
        "problem": arm.problem,
        "parameters": arm.parameters,
        "flops": arm.flops,
        "estimate": each.estimate and dataclasses.asdict(each.estimate),
        "interquartile_mean": each.interquartile_mean,
        "on_front": each.on_front,
        "accuracies": _by_seed(each.accuracies),
        "keys": {str(seed): record.key for seed, record in arm.records.items()},
        "counts": dict(arm.counts),
    }


def _by_seed(values: Mapping[int, float]) -> dict[str, float]:
    return {str(seed): value for seed, value in values.items()}
