"""What the predictions of single test images tell: the two sources of noise, confusions, and the hardest images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cnnjax.comparison import Contrast, Noise, mcnemar_p, split_noise
from cnnjax.config import DataConfig
from cnnjax.datasets import load_data
from cnnjax.datasets.arrays import Dataset
from cnnjax.errors import CorruptionError, InputError, UnavailableError
from cnnjax.inspection.mistakes import count_confusions
from cnnjax.records import Record, check_predictions
from cnnjax.reports.arms import Arm, Measure
from cnnjax.runs import Store

HARDEST = 24


@dataclass(frozen=True, eq=False)
class ImageFindings:
    """What single images tell.

    Attributes:
        differences: for each arm and seed that the base has, too, by how much it is right on each image more often than
            the base: -1, 0 or 1, int8 (images,).
        noise: of each arm's difference to the base, by name: how much comes from seeds and how much from images; from
            `split_by_contrast`, empty before.
        mcnemar: p value by seed of each arm against the base, by name.
        confusions: by arm, int64 (true class, predicted class), summed over seeds.
        hardest: indices of the test images that most runs get wrong, the worst first.
        wrong: for each of these, the share of all runs that get it wrong.
        images: of these, uint8 (n, height, width, channels).
        labels: of these, int32 (n,).
        guesses: the wrong class that these are most often taken for, int64 (n,).
        test_size: number of test images.
    """

    differences: Mapping[str, Mapping[int, np.ndarray]]
    mcnemar: Mapping[str, Mapping[int, float]]
    confusions: Mapping[str, np.ndarray]
    hardest: np.ndarray
    wrong: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    guesses: np.ndarray
    test_size: int
    noise: Mapping[str, Noise] = field(default_factory=dict)


def look_at_images(
    arms: Sequence[Arm], base: str | None, store: Store, data: DataConfig, measure: Measure
) -> tuple[ImageFindings | None, tuple[str, ...]]:
    """Returns what single test images tell, or ``None`` and why they tell nothing.

    Args:
        arms: of one dataset.
        base: the arm that the others are compared with.
        store: that has the runs.
        data: names the dataset.
        measure: by which the arms are compared; where it is not the test accuracy, test images are left alone.

    Raises:
        CorruptionError: the store cannot be read.
    """
    if measure != "test":
        return None, ("single test images are not looked at: the arms are compared by validation accuracy",)
    try:
        dataset = load_data(data)
    except (InputError, UnavailableError, CorruptionError) as error:
        return None, (f"single images are not looked at: {error}",)
    images = find_in_images(arms, base, store, dataset)
    return images, () if images else ("single images are not looked at: no run was tested on these images",)


def find_in_images(arms: Sequence[Arm], base: str | None, store: Store, dataset: Dataset) -> ImageFindings | None:
    """Returns what the stored predictions of the completed runs tell.

    Args:
        arms: of one dataset.
        base: the arm that the others are compared with; without one there is no noise and no McNemar.
        store: that has the runs.
        dataset: that they were tested on.

    Returns:
        ``None`` where no run has predictions, or some were tested on other images.

    Raises:
        CorruptionError: the store cannot be read.
    """
    records = [record for arm in arms for record in arm.completed.values()]
    if not records or any(_find_dataset(record) != dataset.sha256 for record in records):
        return None
    labels = dataset.test.labels
    by_key = store.load_predictions(record.key for record in records)
    for key, each in by_key.items():
        check_predictions(key, each, len(labels), dataset.classes)
    predictions = {
        arm.name: {seed: by_key[record.key] for seed, record in sorted(arm.completed.items())}
        for arm in arms
        if arm.completed
    }
    correct = {name: {seed: each == labels for seed, each in by_seed.items()} for name, by_seed in predictions.items()}
    everything = np.array([each for by_seed in predictions.values() for each in by_seed.values()])
    wrong = np.mean(everything != labels, axis=0)
    hardest = np.argsort(-wrong, kind="stable")[:HARDEST]
    hardest = hardest[wrong[hardest] > 0]
    others = {} if base is None else {name: each for name, each in correct.items() if name != base}
    bases = {} if base is None else correct.get(base, {})
    return ImageFindings(
        differences={
            name: {
                seed: each.astype(np.int8) - bases[seed].astype(np.int8)
                for seed, each in by_seed.items()
                if seed in bases
            }
            for name, by_seed in others.items()
        },
        mcnemar={
            name: {seed: mcnemar_p(by_seed[seed], bases[seed]) for seed in by_seed if seed in bases}
            for name, by_seed in others.items()
        },
        confusions={
            name: np.sum([count_confusions(labels, each, dataset.classes) for each in by_seed.values()], axis=0)
            for name, by_seed in predictions.items()
        },
        hardest=hardest,
        wrong=wrong[hardest],
        images=dataset.test.images[hardest],
        labels=labels[hardest],
        guesses=np.array([_guess(everything[:, index], int(labels[index])) for index in hardest], np.int64),
        test_size=len(labels),
    )


def _find_dataset(record: Record) -> str | None:
    sha256: str | None = (record.provenance.get("dataset") or {}).get("sha256")
    return sha256


def split_by_contrast(images: ImageFindings, contrasts: Sequence[Contrast]) -> ImageFindings:
    """Returns the findings with the noise of every contrast, over its seeds and at its level.

    Contrasts of equal seeds and levels share their draws of seeds and images.
    """
    groups: dict[tuple[tuple[int, ...], float], list[str]] = {}
    for contrast in contrasts:
        seeds = contrast.comparison.seeds
        if len(seeds) > 1 and set(seeds) <= images.differences.get(contrast.first, {}).keys():
            groups.setdefault((seeds, contrast.level), []).append(contrast.first)
    noise: dict[str, Noise] = {}
    for (seeds, level), names in groups.items():
        tables = [np.array([images.differences[name][seed] for seed in seeds]) for name in names]
        noise |= dict(zip(names, split_noise(tables, 1 - level), strict=True))
    return replace(images, noise=noise)


def _guess(predictions: np.ndarray, label: int) -> int:
    return int(np.bincount(predictions[predictions != label]).argmax())
