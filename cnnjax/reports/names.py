"""Arms and factors as a reader sees them: by what varies, in the fewest words."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from cnnjax.comparison import Contrast
from cnnjax.reports.findings import Findings


def shorten_factors(factors: Sequence[str]) -> dict[str, str]:
    """Returns the last part of every factor's path, ``padding`` for ``model.padding``, where no other ends alike."""
    ends = Counter(factor.rpartition(".")[2] for factor in factors)
    shorter = {factor: factor.rpartition(".")[2] for factor in factors}
    return {factor: short if ends[short] == 1 else factor for factor, short in shorter.items()}


def name_arms(findings: Findings) -> dict[str, str]:
    """Returns a short label for the name of every arm, such as ``padding=same, strides=2``."""
    factors = shorten_factors(findings.factors)
    return {
        result.arm.name: ", ".join(f"{factors[factor]}={label}" for factor, label in result.arm.labels.items())
        or result.arm.name
        for result in findings.arms
    }


def name_contrasts(findings: Findings, contrasts: Sequence[Contrast]) -> list[str]:
    """Returns what each compares: the arm, or both where they have no base in common."""
    names = name_arms(findings)
    if findings.base is not None:
        return [names[each.first] for each in contrasts]
    return [f"{names[each.first]} less {names[each.second]}" for each in contrasts]


def name_levels(factors: Mapping[str, str], chosen: Sequence[str], labels: Sequence[str]) -> str:
    """Returns levels of some factors in one text; `factors` are from `shorten_factors`."""
    return ", ".join(f"{factors[factor]}={label}" for factor, label in zip(chosen, labels, strict=True))


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
