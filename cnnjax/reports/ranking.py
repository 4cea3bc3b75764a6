"""Arms that were run on several datasets, ranked within each."""

from collections.abc import Mapping, Sequence

import numpy as np

from cnnjax.comparison import Ranks, rank_arms
from cnnjax.reports.arms import Arm

DATASET = "data.name"


def rank_over_datasets(
    arms: Sequence[Arm], values: Mapping[str, Mapping[int, float]], alpha: float
) -> tuple[tuple[str, ...], Ranks] | None:
    """Returns the names of what was ranked, and the ranks of their mean accuracies over the datasets.

    Args:
        arms: with a label of ``data.name`` each.
        values: accuracies by seed of the arms that have any.
        alpha: level of the critical difference.

    Returns:
        ``None`` where fewer than two arms have a mean on each of at least two datasets.
    """
    means: dict[str, dict[str, float]] = {}
    for arm in arms:
        if arm.name in values:
            rest = ", ".join(f"{factor}={label}" for factor, label in arm.labels.items() if factor != DATASET)
            means.setdefault(rest, {})[arm.labels[DATASET]] = float(np.mean([*values[arm.name].values()]))
    datasets = list(dict.fromkeys(arm.labels[DATASET] for arm in arms))
    complete = {name: by_dataset for name, by_dataset in means.items() if len(by_dataset) == len(datasets)}
    if len(complete) < 2 or len(datasets) < 2:
        return None
    table = np.array([[by_dataset[dataset] for by_dataset in complete.values()] for dataset in datasets])
    return tuple(complete), rank_arms(table, alpha)
