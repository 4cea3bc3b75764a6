"""Where a network is wrong: confusion matrix, most confused classes and worst predictions. No JAX here."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Answer:
    """The prediction for one test image.

    Attributes:
        index: position of the image in the test set.
        label: true class.
        predicted: predicted class.
        probability: the probability by which the answers were ranked, of the predicted or of the true class.
    """

    index: int
    label: int
    predicted: int
    probability: float


class Confusion(NamedTuple):
    """How many examples of class `label` were predicted as class `predicted`."""

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
        int64 (classes, classes): number of examples by true class (rows) and predicted class (columns).

    Example:
        >>> count_confusions(np.array([0, 1, 1]), np.array([0, 1, 0]), 2).tolist()
        [[1, 0], [1, 1]]
    """
    pairs = labels.astype(np.int64) * classes + predictions.astype(np.int64)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def share_errors(matrix: np.ndarray) -> np.ndarray:
    """Returns the errors of a confusion matrix as percentages of their true class.

    Args:
        matrix: int (classes, classes), as `count_confusions` returns it.

    Returns:
        float64 (classes, classes), nan on the diagonal.

    Example:
        >>> share_errors(np.array([[8, 2], [0, 10]])).tolist()
        [[nan, 20.0], [0.0, nan]]
    """
    shares = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    return np.where(np.eye(len(matrix), dtype=bool), np.nan, shares)


def list_confusions(matrix: np.ndarray, most: int) -> list[Confusion]:
    """Returns the most frequent confusions, at most `most`, the most frequent first.

    Example:
        >>> list_confusions(np.array([[8, 2], [3, 10]]), most=1)
        [Confusion(label=1, predicted=0, times=3)]
    """
    errors = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-errors, axis=None, kind="stable")[:most]
    pairs = zip(*np.unravel_index(order, errors.shape), strict=True)
    return [Confusion(int(t), int(p), int(errors[t, p])) for t, p in pairs if errors[t, p]]


def find_confident_mistakes(
    probabilities: np.ndarray, labels: np.ndarray, predictions: np.ndarray, most: int
) -> list[Answer]:
    """Returns the wrong predictions that the network was most confident of.

    Args:
        probabilities: float (n, classes).
        labels: true classes, int (n,).
        predictions: predicted classes, int (n,).
        most: largest number of answers to return.

    Returns:
        Answers with the probability of the predicted class, the highest first; ties keep the order of the examples.
    """
    confidence = probabilities[np.arange(len(labels)), predictions]
    order = np.argsort(-confidence, kind="stable")
    return _list_answers(order[labels[order] != predictions[order]][:most], labels, predictions, confidence)


def find_hardest(probabilities: np.ndarray, labels: np.ndarray, predictions: np.ndarray, most: int) -> list[Answer]:
    """Returns the examples whose true class got the lowest probability, the lowest first.

    The arguments are those of `find_confident_mistakes`. Each answer carries the probability of its true class.
    Correct predictions may be among them.
    """
    true_probability = probabilities[np.arange(len(labels)), labels]
    order = np.argsort(true_probability, kind="stable")[:most]
    return _list_answers(order, labels, predictions, true_probability)


def _list_answers(
    order: np.ndarray, labels: np.ndarray, predictions: np.ndarray, probability: np.ndarray
) -> list[Answer]:
    return [Answer(int(i), int(labels[i]), int(predictions[i]), float(probability[i])) for i in order]
