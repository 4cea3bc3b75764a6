"""cnnjax: does this design choice of a small convolutional network matter, by how much, and how sure are we?"""

import importlib
from typing import TYPE_CHECKING, Any

from cnnjax.data.settings import DataConfig
from cnnjax.errors import CnnjaxError, CorruptionError, InputError, Interrupted, UnavailableError
from cnnjax.models.cnn import ModelConfig
from cnnjax.models.table import Summary
from cnnjax.runs.config import RunConfig
from cnnjax.runs.summary import summarize
from cnnjax.runs.train_config import TrainConfig

if TYPE_CHECKING:
    from cnnjax.data.dataset import Dataset
    from cnnjax.models.module import CNN
    from cnnjax.reports.scores import compare
    from cnnjax.runs.record import Record, Run
    from cnnjax.runs.store import Store, load_run
    from cnnjax.training.fit import fit, fit_many

__all__ = [
    "CNN",
    "CnnjaxError",
    "CorruptionError",
    "DataConfig",
    "Dataset",
    "InputError",
    "Interrupted",
    "ModelConfig",
    "Record",
    "Run",
    "RunConfig",
    "Store",
    "Summary",
    "TrainConfig",
    "UnavailableError",
    "compare",
    "fit",
    "fit_many",
    "load_run",
    "summarize",
]

# Imported when first used: they bring in numpy or JAX, which --help must not wait for.
_LAZY = {
    "CNN": "cnnjax.models.module",
    "Dataset": "cnnjax.data.dataset",
    "Record": "cnnjax.runs.record",
    "Run": "cnnjax.runs.record",
    "Store": "cnnjax.runs.store",
    "compare": "cnnjax.reports.scores",
    "fit": "cnnjax.training.fit",
    "fit_many": "cnnjax.training.fit",
    "load_run": "cnnjax.runs.store",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
