"""Where the results of a table come from, and whether that is one place.

A difference between results of two machines, or of two versions, may be theirs and not the arms'.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from cnnjax.records import Record

UNKNOWN = "unknown"


def count_origins(records: Iterable[Record]) -> dict[str, dict[str, int]]:
    """Counts the runs by every aspect of their provenance: device, execution, commit, dataset and versions.

    Args:
        records: of any status; those without provenance, which never came to train, say nothing.

    Returns:
        Number of runs by value, by aspect: ``{"device": {"cpu (cpu)": 5}, ...}``.
    """
    counts: dict[str, Counter[str]] = {}
    for record in records:
        for aspect, value in _list_aspects(record.provenance).items():
            counts.setdefault(aspect, Counter())[value] += 1
    return {aspect: dict(values) for aspect, values in counts.items()}


def describe_origins(origins: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Returns a line with all that is the same for every run, then a line for each aspect that is not."""
    same = [f"{aspect} {value}" for aspect, values in origins.items() for value in values if len(values) == 1]
    lines = [f"made with {', '.join(text for text in same if not text.endswith(f' {UNKNOWN}'))}"] if same else []
    for aspect, values in origins.items():
        if len(values) > 1:
            lines.append(f"mixed {aspect}: {', '.join(f'{value} ({runs} runs)' for value, runs in values.items())}")
    return lines


def _list_aspects(provenance: Mapping[str, Any]) -> dict[str, str]:
    if not provenance:
        return {}
    device, source, dataset = (provenance.get(name) or {} for name in ("device", "git", "dataset"))
    versions = {"python": provenance.get("python"), **(provenance.get("packages") or {})}
    commit = source.get("commit")
    aspects = {
        "device": device and f"{device.get('kind')} ({device.get('backend')})",
        "cpu_threads": device.get("cpu_threads"),
        "execution": provenance.get("execution"),
        "xla_flags": provenance.get("xla_flags"),
        "jax_settings": ", ".join(f"{name}={value}" for name, value in (provenance.get("jax_settings") or {}).items()),
        "commit": commit and commit[:12] + (" with changes" if source.get("dirty") else ""),
        f"dataset {dataset.get('name')}": dataset and f"{dataset.get('version')} {str(dataset.get('sha256'))[:12]}",
        **versions,
    }
    return {aspect: str(value or UNKNOWN) for aspect, value in aspects.items()}
