"""Findings as tables and sentences for reading."""

from collections.abc import Sequence

from cnnjax.comparison import Contrast
from cnnjax.reports.findings import ArmResult, Findings
from cnnjax.reports.names import name_arms, name_contrasts
from cnnjax.reports.summary import write_interval, write_points, write_summary
from cnnjax.tables import Column, Document, Table

MEANINGS = (
    "±: standard deviation over seeds; 95% intervals of means are of each arm alone, for these training and test "
    "images",
    "differences are paired by seed, and for these test images; their intervals have the confidence at which better "
    "and worse are decided, as one of all comparisons of the table; equivalence goes by two one-sided tests (TOST)",
)


def make_document(findings: Findings) -> Document:
    """Returns the findings for reading: arms, comparisons, effects, shares of variance."""
    tables = (
        make_arm_table(findings.arms, findings.factors),
        make_contrast_table(findings),
        _make_effect_table(findings),
        _make_share_table(findings),
        _make_size_table(findings.at_equal_size),
        _make_rank_table(findings),
        _make_noise_table(findings),
    )
    reasons = [f"{compared}: {reason}" for compared, reason in list_reasons(findings)]
    command = (f"made by: {findings.command}",) if findings.command else ()
    notes = (*MEANINGS, *reasons, *list_losses(findings), *findings.provenance, *findings.remarks, *command)
    filled = tuple(table for table in tables if table.rows)
    return Document(findings.title, findings.facts, filled, notes, write_summary(findings))


def make_arm_table(arms: Sequence[ArmResult], factors: Sequence[str]) -> Table:
    """Returns a row an arm: its labels, size, mean accuracy and what is known of it."""
    columns = (
        *map(Column, factors or ("arm",)),
        Column("parameters", ",", True),
        Column("FLOPs", ",", True),
        Column("seeds", "", True),
        Column("accuracy", right=True),
        Column("95% interval", right=True),
        Column("interquartile mean", ".4f", True),
        Column("Pareto front"),
    )
    return Table(columns, tuple(_write_arm(each, factors) for each in arms))


def make_contrast_table(findings: Findings) -> Table:
    """Returns a row a comparison: the difference in points, its interval and tests, and the verdict."""
    columns = (
        *([Column("arm")] if findings.base else [Column("first"), Column("second")]),
        Column("pairs", "", True),
        Column("difference", right=True),
        Column("interval", right=True),
        Column("verdict"),
        Column("seeds needed", "", True),
        Column("p of all", ".3g", True),
        Column("t test p", ".3g", True),
        Column("sign-flip p", ".3g", True),
        Column("Wilcoxon p", ".3g", True),
        Column("TOST p", ".3g", True),
        Column("effect size", ".2f", True),
        Column("P(improves)", ".2f", True),
    )
    names = name_arms(findings)
    rows = (
        (
            *((names[each.first],) if findings.base else (names[each.first], names[each.second])),
            each.comparison.n,
            write_points(each.comparison.mean),
            write_interval(each.low, each.high),
            each.verdict.word,
            each.verdict.seeds_needed,
            each.adjusted_p,
            each.comparison.t_p,
            each.comparison.sign_flip_p,
            each.comparison.wilcoxon_p,
            each.equivalence_p,
            each.comparison.effect_size,
            each.comparison.probability_of_improvement,
        )
        for each in findings.contrasts
    )
    against = f"against {names[findings.base]}" if findings.base else "all pairs"
    return Table(columns, tuple(rows), f"{against}, in percentage points")


def list_reasons(findings: Findings) -> list[tuple[str, str]]:
    """Returns for every comparison what was compared, and the reason of its verdict."""
    reasons = (each.verdict.reason for each in findings.contrasts)
    return list(zip(name_contrasts(findings, findings.contrasts), reasons, strict=True))


def list_losses(findings: Findings) -> list[str]:
    """Returns a line for every run without an accuracy, and for every arm that cannot exist."""
    names = name_arms(findings)
    return [
        *(
            f"{record.status}: {names[each.arm.name]}, seed={seed}: {record.reason}"
            for each in findings.arms
            for seed, record in each.arm.records.items()
            if record.status in ("failed", "diverged")
        ),
        *(f"invalid: {names[each.arm.name]}: {each.arm.problem}" for each in findings.arms if each.arm.problem),
    ]


def _write_arm(each: ArmResult, factors: Sequence[str]) -> tuple[str | int | float | None, ...]:
    estimate, arm = each.estimate, each.arm
    spread = "" if estimate is None or estimate.standard_deviation is None else f" ± {estimate.standard_deviation:.4f}"
    known = estimate is not None and estimate.low is not None
    return (
        *([arm.labels[factor] for factor in factors] or [arm.name]),
        arm.parameters,
        arm.flops,
        _count_of(len(each.accuracies), len(arm.seeds) - len(each.accuracies)),
        None if estimate is None else f"{estimate.mean:.4f}{spread}",
        f"[{estimate.low:.4f}, {estimate.high:.4f}]" if estimate is not None and known else None,
        each.interquartile_mean,
        "yes" if each.on_front else None,
    )


def _count_of(count: int, missing: int) -> str | int:
    return f"{count} of {count + missing}" if missing > 0 else count


def _make_effect_table(findings: Findings) -> Table:
    columns = (
        Column("effect"),
        Column("combinations", "", True),
        Column("seeds", "", True),
        Column("difference", right=True),
        Column("interval", right=True),
        Column("p of all", ".3g", True),
        Column("verdict"),
    )
    rows = (
        (
            effect.name,
            effect.combinations,
            _count_of(effect.contrast.comparison.n, len(effect.unpaired)),
            write_points(effect.contrast.comparison.mean),
            write_interval(effect.contrast.low, effect.contrast.high),
            effect.contrast.adjusted_p,
            effect.contrast.verdict.word,
        )
        for effect in (*findings.effects, *findings.interactions)
    )
    return Table(columns, tuple(rows), "effects of levels over all other factors, in percentage points")


def _make_share_table(findings: Findings) -> Table:
    columns = (
        Column("factor"),
        Column("df", "", True),
        Column("F", ".1f", True),
        Column("p", ".3g", True),
        Column("omega²", ".3f", True),
        Column("partial omega²", ".3f", True),
        Column("95% interval", right=True),
    )
    rows = (
        (
            " x ".join(share.factors),
            share.freedom,
            share.F,
            share.p,
            share.omega_squared,
            share.partial,
            f"[{share.low:.3f}, {share.high:.3f}]",
        )
        for share in findings.shares
    )
    return Table(
        columns,
        tuple(rows),
        "what explains the variance between runs (type II; shares overlap where cells are missing)",
    )


def _make_size_table(contrasts: Sequence[Contrast]) -> Table:
    columns = (Column("level"), Column("against"), Column("difference", right=True), Column("interval", right=True))
    rows = (
        (each.first, each.second, write_points(each.comparison.mean), write_interval(each.low, each.high))
        for each in contrasts
    )
    return Table(columns, tuple(rows), "effects at equal numbers of parameters, in percentage points")


def _make_rank_table(findings: Findings) -> Table:
    arms, ranks = findings.ranks or ((), None)
    means = ranks.mean if ranks else ()
    columns = (Column("arm"), Column("mean rank over datasets", ".2f", True))
    return Table(columns, tuple(zip(arms, means, strict=True)))


def _make_noise_table(findings: Findings) -> Table:
    columns = (
        Column("arm"),
        Column("difference", right=True),
        Column("for new seeds and images", right=True),
        Column("bootstrap", right=True),
        Column("from seeds", ".0%", True),
        Column("McNemar p by seed"),
    )
    images, names = findings.images, name_arms(findings)
    rows = (
        (
            names[name],
            write_points(noise.mean),
            write_interval(noise.low, noise.high),
            write_interval(*noise.bootstrap),
            noise.share_of_seeds,
            ", ".join(f"{p:.2g}" for p in images.mcnemar[name].values()) if images else "",
        )
        for name, noise in (images.noise.items() if images else ())
    )
    return Table(
        columns,
        tuple(rows),
        "two sources of noise: differences in percentage points, intervals at the level of the verdicts",
    )
