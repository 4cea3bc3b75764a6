"""What the predictions for single test images show: which are hard, what is confused, and where the noise is from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cnnjax.data.dataset import Dataset, name_classes
from cnnjax.data.loading import load_data
from cnnjax.errors import CorruptionError, InputError, UnavailableError
from cnnjax.inspection.confusion import count_confusions
from cnnjax.reports.arms import Arm, Result
from cnnjax.runs.record import Record, check_predictions
from cnnjax.runs.store import Store
from cnnjax.statistics import (
    Contrast,
    Criteria,
    Measure,
    Noise,
    WiderVerdict,
    decide_for_new_images,
    mcnemar_p,
    split_noise,
)

HARDEST = 24


@dataclass(frozen=True, eq=False)
class ImageFindings:
    """What the predictions for single test images show.

    Attributes:
        correct: by arm and by seed, whether each image is classified correctly, bool (images,).
        noise: by the two arms of a comparison, how much of the variance of their difference comes from seeds and how
            much from images; empty until `add_noise` fills it, as are the verdicts.
        verdicts: by the two arms of a comparison, the verdict for new images.
        mcnemar: by arm and seed, the p value of McNemar's test against the base.
        confusions: by arm, the confusion matrix summed over seeds, int64 (true class, predicted class).
        hardest: the indices of the test images that most runs get wrong, the hardest first.
        wrong: the share of all runs that get each of these wrong.
        images: these images, uint8 (n, height, width, channels); ``None`` if only their labels are known.
        labels: their true classes, int32 (n,).
        guesses: the wrong class that each is most often taken for, int64 (n,).
        test_size: the number of test images.
        class_names: the names of the classes, in the order of their labels.
    """

    correct: Mapping[str, Mapping[int, np.ndarray]]
    mcnemar: Mapping[str, Mapping[int, float]]
    confusions: Mapping[str, np.ndarray]
    hardest: np.ndarray
    wrong: np.ndarray
    images: np.ndarray | None
    labels: np.ndarray
    guesses: np.ndarray
    test_size: int
    class_names: tuple[str, ...]
    noise: Mapping[tuple[str, str], Noise] = field(default_factory=dict)
    verdicts: Mapping[tuple[str, str], WiderVerdict] = field(default_factory=dict)


def load_image_findings(
    arms: Sequence[Arm], base: str | None, store: Store, measure: Measure
) -> tuple[ImageFindings | None, tuple[str, ...]]:
    """Returns what the predictions for single test images show; or ``None``, and a remark that says why not.

    Args:
        arms: the arms to compare.
        base: the arm that the others are compared with.
        store: the store of their runs.
        measure: what is compared; if it is not the test accuracy, test images are not looked at.

    Raises:
        CorruptionError: the store cannot be read.
    """
    datasets = [arm.config.data for arm in arms if arm.config is not None and not arm.config.trial]
    if not datasets:
        return None, ()
    if len({data.source for data in datasets}) > 1:
        return None, ("several datasets: single images are not looked at",)
    if not (measure.is_accuracy and measure.split == "test"):
        return None, (f"single test images are not looked at: the arms are compared by {measure.title}",)
    try:
        dataset = load_data(datasets[0])
    except (InputError, UnavailableError, CorruptionError) as error:
        return None, (f"single images are not looked at: {error}",)
    images = compare_on_images(arms, base, store, dataset)
    return images, () if images else ("single images are not looked at: no run was tested on these images",)


def compare_on_images(arms: Sequence[Arm], base: str | None, store: Store, dataset: Dataset) -> ImageFindings | None:
    """Compares arms image by image, by the stored predictions of their completed runs.

    Args:
        arms: of one dataset.
        base: the name of the arm that the others are compared with; without one there is no McNemar.
        store: the store of their runs.
        dataset: the images that they were tested on.

    Returns:
        ``None`` if no run has predictions, or one was tested on other images.

    Raises:
        CorruptionError: the store cannot be read.
    """
    records = [record for arm in arms for record in arm.completed.values()]
    if not records or any(_read_sha256(record) != dataset.sha256 for record in records):
        return None
    predictions = _load_predictions(arms, store, dataset)
    names = name_classes(dataset.class_names, dataset.classes)
    return compare_predictions(predictions, dataset.test.labels, base, names, dataset.test.images)


def compare_predictions(
    predictions: Mapping[str, Mapping[int, np.ndarray]],
    labels: np.ndarray,
    base: str | None,
    class_names: tuple[str, ...],
    images: np.ndarray | None = None,
) -> ImageFindings:
    """Compares arms image by image, by the predictions of their completed runs.

    Args:
        predictions: the predicted classes (n,), by arm and seed; at least one.
        labels: the true classes, int (n,).
        base: the name of the arm that the others are compared with; without one there is no McNemar.
        class_names: the names of the classes, in the order of their labels.
        images: the images, uint8 (n, height, width, channels); left out, none are shown.
    """
    correct = {name: {seed: each == labels for seed, each in by_seed.items()} for name, by_seed in predictions.items()}
    everything = np.array([each for by_seed in predictions.values() for each in by_seed.values()])
    wrong = np.mean(everything != labels, axis=0)
    hardest = np.argsort(-wrong, kind="stable")[:HARDEST]
    hardest = hardest[wrong[hardest] > 0]
    others = {} if base is None else {name: each for name, each in correct.items() if name != base}
    bases = {} if base is None else correct.get(base, {})
    return ImageFindings(
        correct=correct,
        mcnemar={
            name: {seed: mcnemar_p(by_seed[seed], bases[seed]) for seed in by_seed if seed in bases}
            for name, by_seed in others.items()
        },
        confusions={
            name: np.sum([count_confusions(labels, each, len(class_names)) for each in by_seed.values()], axis=0)
            for name, by_seed in predictions.items()
        },
        hardest=hardest,
        wrong=wrong[hardest],
        images=None if images is None else images[hardest],
        labels=labels[hardest],
        guesses=np.array([_guess(everything[:, index], int(labels[index])) for index in hardest], np.int64),
        test_size=len(labels),
        class_names=class_names,
    )


def _read_sha256(record: Record | Result) -> str | None:
    """Returns the hash of the images that a run was made with."""
    sha256: str | None = (record.provenance.get("dataset") or {}).get("sha256")
    return sha256


def _load_predictions(arms: Sequence[Arm], store: Store, dataset: Dataset) -> dict[str, dict[int, np.ndarray]]:
    """Returns the predictions of the completed runs by arm and seed; arms without such a run are absent."""
    by_key = store.load_predictions(record.key for arm in arms for record in arm.completed.values())
    for key, predictions in by_key.items():
        check_predictions(key, predictions, len(dataset.test.labels), dataset.classes)
    return {
        arm.name: {seed: by_key[record.key] for seed, record in sorted(arm.completed.items())}
        for arm in arms
        if arm.completed
    }


def add_noise(
    images: ImageFindings, contrasts: Sequence[Contrast], k: int, criteria: Criteria, *, all_pairs: bool
) -> ImageFindings:
    """Returns the findings with the noise of every contrast, for its seeds and at its level, and its verdict.

    Contrasts with equal seeds and levels share the bootstrap draws of seeds and images; there is none of all
    pairs, nor of those without an interval.

    Args:
        images: the findings.
        contrasts: the comparisons that were made.
        k: the number of comparisons of their family.
        criteria: the level and the margin of the family.
        all_pairs: whether the family is that of all pairs.
    """
    groups: dict[tuple[tuple[int, ...], float, bool], list[Contrast]] = {}
    for contrast in contrasts:
        seeds = contrast.comparison.seeds
        arms = (images.correct.get(name, {}) for name in (contrast.first, contrast.second))
        if len(seeds) > 1 and all(set(seeds) <= by_seed.keys() for by_seed in arms):
            resample = not all_pairs and contrast.low is not None
            groups.setdefault((seeds, contrast.level, resample), []).append(contrast)
    noise: dict[tuple[str, str], Noise] = {}
    for (seeds, level, resample), group in groups.items():
        tables = [_subtract(images.correct[each.first], images.correct[each.second], seeds) for each in group]
        found = split_noise(tables, 1 - level, resample=resample)
        noise |= {(each.first, each.second): one for each, one in zip(group, found, strict=True)}
    verdicts = {
        pair: decide_for_new_images(each, noise[pair], k, criteria, all_pairs=all_pairs)
        for each in contrasts
        if (pair := (each.first, each.second)) in noise
    }
    return replace(images, noise=noise, verdicts=verdicts)


def _subtract(first: Mapping[int, np.ndarray], second: Mapping[int, np.ndarray], seeds: Sequence[int]) -> np.ndarray:
    """Returns whether the first arm is right on each image less whether the second is, int8 (seeds, images)."""
    return np.array([first[seed].astype(np.int8) - second[seed].astype(np.int8) for seed in seeds])


def _guess(predictions: np.ndarray, label: int) -> int:
    """Returns the wrong class that an image is most often taken for."""
    return int(np.bincount(predictions[predictions != label]).argmax())
