"""Explains a stored run: its filters, feature maps and saliency for one image, and its mistakes on the test set."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np

from cnnjax.console.arguments import Option
from cnnjax.console.terminal import say
from cnnjax.data.dataset import Dataset
from cnnjax.data.loading import find_class_names, load_data
from cnnjax.errors import InputError, UnavailableError
from cnnjax.inspection.confusion import (
    Answer,
    count_confusions,
    find_confident_mistakes,
    find_hardest,
    list_confusions,
)
from cnnjax.inspection.photos import read_photo
from cnnjax.machine.backend import jax_started
from cnnjax.machine.files import keep_programs
from cnnjax.runs.record import Record, Run, check_predictions
from cnnjax.runs.selection import list_differences, read_where
from cnnjax.runs.store import Store
from cnnjax.settings.checking import Interval, check
from cnnjax.settings.schema import flatten, write_literal
from experiments.explanations import Explanation, PictureArguments

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cnnjax.models.prediction import TrainedNetwork


def find_run(out: Path, key: str | None, settings: Mapping[str, Any] | None = None, seed: int | None = None) -> Run:
    """Returns a completed run with its parameters: the one with this key, or the newest with these settings and seed.

    Args:
        out: folder of the store.
        key: key of the run, or its beginning.
        settings: required settings by their dotted path; ignored if a key is given.
        seed: required seed; ignored if a key is given.

    Raises:
        InputError: no completed run matches; the message lists the settings and seeds that the store has.
        CorruptionError: the store cannot be read.
    """
    store = Store(out)
    run = store.load(_choose_run(store, settings or {}, seed) if key is None else key)
    record = run.record
    if record.status != "completed":
        raise InputError(f"--run {run.key[:12]}: is {record.status} ({record.reason}); must be a completed run")
    return run


def load_images(run: Run) -> Dataset:
    """Returns the dataset that a run was trained and tested on.

    Raises:
        UnavailableError: the dataset of that name has other images now than when the run was made.
    """
    data = run.record.config.data
    dataset = load_data(data)
    recorded = run.record.provenance.get("dataset", {}).get("sha256")
    if recorded != dataset.sha256:
        raise UnavailableError(
            f"data.name={data.name!r}: its images are not those of run {run.key[:12]} (SHA-256 {dataset.sha256[:12]}, "
            f"not {str(recorded)[:12]}), so its answers cannot be explained; run it again"
        )
    return dataset


def _choose_run(store: Store, settings: Mapping[str, Any], seed: int | None) -> str:
    """Returns the key of the newest completed run with these settings and this seed."""
    statuses = store.list_statuses()
    records = store.find_all().items()
    completed = {key: run for key, run in records if run.status == "completed" and not run.config.trial}
    if not completed:
        raise InputError(
            f"--out: no completed run of a network is in {store.path}; make one with: python -m experiments.train"
        )
    wanted = {path: write_literal(value) for path, value in settings.items()}
    matching = [key for key, record in completed.items() if _matches(record, wanted, seed)]
    if not matching:
        raise InputError(
            f"--where, --seed: no completed run in {store.path} has these; there are {_describe_choices(completed)}"
        )
    if len(matching) > 1:
        others = _describe_choices({key: completed[key] for key in matching})
        say(
            f"showing the newest of {len(matching)} completed runs; --where and --seed choose among {others}",
            sys.stderr,
        )
    return max(matching, key=lambda key: statuses[key].stored_at)


def _matches(record: Record, wanted: Mapping[str, str], seed: int | None) -> bool:
    values = flatten(record.config)
    is_wanted = all(path in values and write_literal(values[path]) == text for path, text in wanted.items())
    return is_wanted and seed in (None, record.config.seed)


def _describe_choices(records: Mapping[str, Record]) -> str:
    configs = [record.config for record in records.values()]
    seeds = ", ".join(map(str, sorted({config.seed for config in configs})))
    return "; ".join(filter(None, (list_differences(configs), f"seed ({seeds})")))


MOST_MISTAKES = 24
"""Largest number of mistakes, and of hardest images, in a picture."""
_LISTED = 5
"""Largest number of confusions, mistakes and hardest images that are printed."""


@dataclass(frozen=True)
class StoredRunArguments(PictureArguments):
    """Shows the filters of a stored run, its feature maps for one image, and its mistakes on the test images::

    python -m experiments.explain run --where model.padding=same --seed 0
    """

    where: Annotated[tuple[str, ...], Option(metavar="SETTING=VALUE")] = ()
    """A setting of the run, such as model.padding=same. May be repeated; the newest run that has them all is shown."""
    seed: int | None = None
    """Seed of the run; by default any."""
    run: Annotated[str | None, Option(metavar="KEY")] = None
    """Key of the run, or the beginning of it, instead of --where and --seed."""
    out: Path = Path("runs")
    """Folder of the store."""
    index: int | None = None
    """Index of the test image whose feature maps are shown, from 0; by default the first one."""
    image: Path | None = None
    """A picture of your own (PNG, JPEG, BMP, GIF, WebP or TIFF) to classify and show in place of a test image."""
    invert: bool = False
    """Exchange light and dark in that picture."""
    no_invert: bool = False
    """Leave light and dark as they are. By default they are exchanged if the dataset needs it."""


class _Inspection(NamedTuple):
    """An image, uint8 (height, width, channels), with its layer outputs, saliency and class probabilities."""

    image: np.ndarray
    outputs: dict[str, np.ndarray]
    saliency: np.ndarray
    probabilities: np.ndarray


def explain_run(arguments: StoredRunArguments) -> Explanation:
    """Explains a stored run on one of its test images, or on a picture of the user's own.

    Raises:
        InputError: the options contradict each other, or no completed run, test image or picture matches them.
        UnavailableError: the dataset has other images now than when the run was made.
    """
    _check_options(arguments)
    settings = read_where(arguments.where, "--where", Store(arguments.out))
    keep_programs()

    run = find_run(arguments.out, arguments.run, settings, arguments.seed)
    return _explain(arguments, run, load_images(run))


@jax_started()
def _explain(arguments: StoredRunArguments, run: Run, dataset: Dataset) -> Explanation:
    class_names = find_class_names(run.record.config.data, dataset.classes)
    network = run.rebuild()
    if arguments.image is not None:
        return _explain_picture(arguments, run, network, dataset, class_names)
    index = arguments.index or 0
    last = len(dataset.test) - 1
    if index > last:
        raise InputError(f"--index={index}: must be >= 0 and <= {last}, the last test image of {dataset.name}")
    return _explain_run(run, network, dataset, class_names, index)


def _check_options(arguments: StoredRunArguments) -> None:
    check(arguments.index, Annotated[int, Interval(0)] | None, "--index")
    check(arguments.seed, Annotated[int, Interval(0)] | None, "--seed")
    if arguments.run is not None and (arguments.where or arguments.seed is not None):
        raise InputError("--run: names one run; leave out --where and --seed")
    if arguments.image is not None and arguments.index is not None:
        raise InputError("--index: chooses a test image; give --index or --image, not both")
    if arguments.invert and arguments.no_invert:
        raise InputError("--invert: give --invert or --no-invert, not both")
    if arguments.image is None and (arguments.invert or arguments.no_invert):
        raise InputError(f"--{'invert' if arguments.invert else 'no-invert'}: changes a picture; needs --image")
    if arguments.image is not None and not arguments.image.is_file():
        raise InputError(f"--image {arguments.image}: there is no such file")


def _explain_picture(
    arguments: StoredRunArguments, run: Run, network: "TrainedNetwork", dataset: Dataset, class_names: Sequence[str]
) -> Explanation:
    assert arguments.image is not None
    invert = True if arguments.invert else False if arguments.no_invert else None
    picture = read_photo(arguments.image, dataset.image_shape, dataset.test.images, invert)
    inspected = _inspect(network, picture.pixels)
    answer = _describe_answer(inspected.probabilities, class_names)
    lines = [f"Run {run.key[:12]}: {dataset.name}", f"{arguments.image}: {answer}"]
    lines += [f"  {remark}" for remark in picture.remarks]
    values = {
        "key": run.key,
        "image": str(arguments.image),
        "remarks": list(picture.remarks),
        **_answer_to_dict(inspected.probabilities, class_names),
    }
    title = f"{arguments.image.name}, seen by run {run.key[:12]}"
    figures = {f"image-{name}": figure for name, figure in _draw_inspection(inspected, class_names, title).items()}
    return Explanation("\n".join(lines), values, figures)


def _explain_run(
    run: Run, network: "TrainedNetwork", dataset: Dataset, class_names: Sequence[str], index: int
) -> Explanation:
    from cnnjax.models.prediction import compute_probabilities

    labels, predictions = dataset.test.labels, run.predictions
    assert predictions is not None  # a completed run has them
    check_predictions(run.key, predictions, len(labels), dataset.classes)
    probabilities = compute_probabilities(network, dataset.test.images)
    matrix = count_confusions(labels, predictions, dataset.classes)
    answers = {
        "confident": find_confident_mistakes(probabilities, labels, predictions, MOST_MISTAKES),
        "hardest": find_hardest(probabilities, labels, predictions, MOST_MISTAKES),
    }
    inspected = _inspect(network, dataset.test.images[index])
    true = class_names[labels[index]]
    wrong = int((labels != predictions).sum())
    confusions = list_confusions(matrix, _LISTED)
    named = [f"{class_names[c.label]} taken for {class_names[c.predicted]} ({c.times})" for c in confusions]
    lines = [
        f"Run {run.key[:12]}: {dataset.name}, test accuracy {run.record.test_accuracy:.4f}, "
        f"{wrong:,} of {len(labels):,} test images wrong",
        f"Test image {index}, which is {true}: {_describe_answer(inspected.probabilities, class_names)}",
        *([f"Most frequent confusions: {', '.join(named)}"] if named else []),
        *_write_answers("Most confident mistakes", answers["confident"], class_names),
        *_write_answers("Hardest images", answers["hardest"], class_names),
    ]
    values = {
        "key": run.key,
        "test_accuracy": run.record.test_accuracy,
        "index": index,
        "label": int(labels[index]),
        **_answer_to_dict(inspected.probabilities, class_names),
        "confusion": matrix.tolist(),
        **{name: [asdict(answer) for answer in listed] for name, listed in answers.items()},
    }
    title = f"test image {index} of {dataset.name}, which is {true}, seen by run {run.key[:12]}"
    figures = _draw_filters(network, run)
    figures |= _draw_inspection(inspected, class_names, title)
    figures |= _draw_mistakes(matrix, answers, dataset, class_names, run.key[:12])
    return Explanation("\n".join(lines), values, figures)


def _inspect(network: "TrainedNetwork", image: np.ndarray) -> _Inspection:
    from cnnjax.inspection.activations import compute_outputs, compute_saliency
    from cnnjax.models.prediction import compute_probabilities

    outputs = {name: output[0] for name, output in compute_outputs(network, image[None]).items()}
    return _Inspection(image, outputs, compute_saliency(network, image), compute_probabilities(network, image[None])[0])


def _draw_filters(network: "TrainedNetwork", run: Run) -> dict[str, "Figure"]:
    """Returns pictures of the filters of every convolution, or, if there is none, of a dense layer on the pixels."""
    from cnnjax.figures.network import draw_filters

    layers = [layer for layer in network.config.list_layers(network.image_shape, network.classes) if layer.flops]
    kernels = {layer.name: _find_kernel(run.params, layer.name) for layer in layers}
    filters = {name: kernel for name, kernel in kernels.items() if kernel is not None and kernel.ndim == 4}
    pixels = math.prod(network.image_shape)
    first = kernels[layers[0].name] if layers else None
    if not filters and first is not None and first.ndim == 2 and len(first) == pixels:
        filters = {layers[0].name: first.reshape(*network.image_shape, -1)}
    return {f"filters-{_name_file(name)}": draw_filters(name, kernel) for name, kernel in filters.items()}


def _find_kernel(params: Mapping[str, Any], name: str) -> np.ndarray | None:
    """Returns the kernel of a layer by its path, such as ``Block_0/Conv_1``; ``None`` if it has none."""
    layer: Any = params
    for part in name.split("/"):
        layer = layer.get(part, {})
    kernel = layer.get("kernel")
    return kernel if isinstance(kernel, np.ndarray) else None


def _name_file(layer: str) -> str:
    """Returns the path of a layer as a part of the name of a file."""
    return layer.replace("/", ".")


def _draw_inspection(inspected: _Inspection, class_names: Sequence[str], title: str) -> dict[str, "Figure"]:
    from cnnjax.figures.network import draw_layers, draw_maps, draw_saliency

    image, outputs, saliency, probabilities = inspected
    maps = {f"maps-{_name_file(name)}": draw_maps(name, output) for name, output in outputs.items() if output.ndim == 3}
    layers = draw_layers(image, outputs, probabilities, class_names, title)
    return {"layers": layers, **maps, "saliency": draw_saliency(image, saliency, probabilities, class_names, title)}


def _draw_mistakes(
    matrix: np.ndarray,
    answers: dict[str, list[Answer]],
    dataset: Dataset,
    class_names: Sequence[str],
    key: str,
) -> dict[str, "Figure"]:
    from cnnjax.figures.network import draw_answers, draw_confusion

    figures = {"confusion": draw_confusion(matrix, class_names, f"test images of {dataset.name}, run {key}")}
    titles = {
        "confident": f"run {key}: the most confident mistakes, with the probability of the predicted class",
        "hardest": f"run {key}: the hardest test images, with the probability of the true class",
    }
    for name, listed in answers.items():
        if listed:
            images = dataset.test.images[[answer.index for answer in listed]]
            figures[name] = draw_answers(images, listed, class_names, titles[name])
    return figures


def _describe_answer(probabilities: np.ndarray, class_names: Sequence[str]) -> str:
    from cnnjax.figures.network import format_probability

    best, *others = (-probabilities).argsort(kind="stable")[:3]
    rest = ", ".join(f"{class_names[i]} ({format_probability(probabilities[i])})" for i in others)
    first = f"predicted {class_names[best]} ({format_probability(probabilities[best])})"
    return f"{first}, then {rest}" if rest else first


def _answer_to_dict(probabilities: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    return {
        "predicted": int(probabilities.argmax()),
        "class_names": list(class_names),
        "probabilities": probabilities.astype(float).tolist(),
    }


def _write_answers(heading: str, answers: Sequence[Answer], class_names: Sequence[str]) -> list[str]:
    from cnnjax.figures.network import format_probability

    named = [
        f"#{answer.index} ({class_names[answer.label]}, taken for {class_names[answer.predicted]}, "
        f"{format_probability(answer.probability)})"
        for answer in answers[:_LISTED]
    ]
    return [f"{heading}: {', '.join(named)}"] if named else []
