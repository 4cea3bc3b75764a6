"""Where a network is wrong: who is taken for whom, how often, and which answers were the worst. No JAX here."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Answer:
    """What a network said of one test image: a class, and a probability that the ranking is about."""

    index: int
    label: int
    predicted: int
    probability: float


class Confusion(NamedTuple):
    """Examples of class `label` that were taken for class `predicted`: how often."""

    label: int
    predicted: int
    times: int


def count_confusions(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Returns the confusion matrix.

    Args:
        labels: true classes, int (n,).
        predictions: predicted classes, int (n,).
        classes: number of classes.

    Returns:
        int64 (classes, classes): examples by true class (down) and predicted class (across), n in all.
    """
    pairs = labels.astype(np.int64) * classes + predictions.astype(np.int64)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def share_errors(matrix: np.ndarray) -> np.ndarray:
    """Returns a confusion matrix in per cent of the true class, nan on the diagonal."""
    shares = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    return np.where(np.eye(len(matrix), dtype=bool), np.nan, shares)


def list_confusions(matrix: np.ndarray, most: int) -> list[Confusion]:
    """Returns the most frequent pairs of classes that were confused, at most `most`, the most frequent first."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [Confusion(int(t), int(p), int(wrong[t, p])) for t, p in pairs if wrong[t, p]]


def find_confident_mistakes(
    probabilities: np.ndarray, labels: np.ndarray, predictions: np.ndarray, most: int
) -> list[Answer]:
    """Returns the wrong answers that the network was surest of, with the probability of the class it said.

    Args:
        probabilities: float (n, classes).
        labels: true classes, int (n,).
        predictions: predicted classes, int (n,).
        most: answers to return; fewer where fewer are wrong.

    Returns:
        The highest probability first, equal ones in the order of the examples.
    """
    said = probabilities[np.arange(len(labels)), predictions]
    order = np.argsort(-said, kind="stable")
    return _list_answers(order[labels[order] != predictions[order]][:most], labels, predictions, said)


def find_hardest(probabilities: np.ndarray, labels: np.ndarray, predictions: np.ndarray, most: int) -> list[Answer]:
    """Returns the examples whose true class got the lowest probability, with that probability, the lowest first.

    Arguments are those of `find_confident_mistakes`; right answers may be among them.
    """
    of_truth = probabilities[np.arange(len(labels)), labels]
    order = np.argsort(of_truth, kind="stable")[:most]
    return _list_answers(order, labels, predictions, of_truth)


def _list_answers(
    order: np.ndarray, labels: np.ndarray, predictions: np.ndarray, probability: np.ndarray
) -> list[Answer]:
    return [Answer(int(i), int(labels[i]), int(predictions[i]), float(probability[i])) for i in order]
