"""Arms and factors as a reader sees them: by what varies, in the fewest words."""

from collections.abc import Iterable, Mapping, Sequence

from cnnjax.comparison import Contrast, Effect
from cnnjax.reports.findings import Findings
from cnnjax.setting_paths import shorten_paths


def name_arms(findings: Findings) -> dict[str, str]:
    """Returns a short label for the name of every arm, such as ``padding=same, strides=2``."""
    factors = shorten_paths(findings.factors)
    return {
        result.arm.name: ", ".join(f"{factors[factor]}={label}" for factor, label in result.arm.labels.items())
        or result.arm.name
        for result in findings.arms
    }


def name_contrasts(findings: Findings, contrasts: Sequence[Contrast]) -> list[str]:
    """Returns what each compares: in what the arm differs from the base, or both arms where they have no base."""
    if findings.base is None:
        names = name_arms(findings)
        return [f"{names[each.first]} less {names[each.second]}" for each in contrasts]
    factors, base = shorten_paths(findings.factors), findings.arm(findings.base).arm.labels
    arms = [findings.arm(each.first).arm for each in contrasts]
    return [
        ", ".join(f"{factors[factor]}={label}" for factor, label in arm.labels.items() if label != base[factor])
        or arm.name
        for arm in arms
    ]


def name_effect(findings: Findings, effect: Effect) -> str:
    """Returns the change of level, or the two that interact: ``padding: same - valid x strides: 2 - 1``."""
    factors = shorten_paths(findings.factors)
    changes = zip(effect.factors, effect.labels, effect.references, strict=True)
    return " x ".join(f"{factors[factor]}: {label} - {reference}" for factor, label, reference in changes)


def name_levels(factors: Mapping[str, str], chosen: Sequence[str], labels: Sequence[str]) -> str:
    """Returns levels of some factors in one text; `factors` are from `shorten_paths`."""
    return ", ".join(f"{factors[factor]}={label}" for factor, label in zip(chosen, labels, strict=True))


def shorten_level(level: str, factors: Mapping[str, str]) -> str:
    """Returns ``padding=same`` for ``model.padding=same``; `factors` are from `shorten_paths`."""
    factor, sign, label = level.partition("=")
    return f"{factors.get(factor, factor)}{sign}{label}"


def count(numbers: Iterable[int], noun: str) -> str:
    """Returns ``5 seeds``, or ``3 to 5 seeds`` where the numbers differ."""
    found = sorted(set(numbers))
    if not found:
        return f"no {noun}s"
    many = f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,} to {found[-1]:,}"
    return f"{many} {noun}" + ("" if found == [1] else "s")


def list_levels(findings: Findings, factor: str) -> list[str]:
    """Returns the labels of a factor's levels in the study's order."""
    return list(dict.fromkeys(result.arm.labels[factor] for result in findings.arms))
