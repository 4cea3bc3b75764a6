"""cnnjax: does this design choice of a small convolutional network matter, by how much, and how sure are we?"""

from typing import TYPE_CHECKING, Any

from cnnjax.config import DataConfig, ModelConfig, RunConfig, TrainConfig
from cnnjax.errors import CnnjaxError, CorruptionError, InputError, Interrupted, UnavailableError
from cnnjax.summary import Summary, summarize

if TYPE_CHECKING:
    from cnnjax.experiment import fit
    from cnnjax.many import fit_many
    from cnnjax.model import CNN
    from cnnjax.records import Record, Run
    from cnnjax.runs import Store, load_run

__all__ = [
    "CNN",
    "CnnjaxError",
    "CorruptionError",
    "DataConfig",
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
    "fit",
    "fit_many",
    "load_run",
    "summarize",
]

# Imported when first used: they bring in numpy or JAX, which --help must not wait for.
_LAZY = {
    "CNN": "cnnjax.model",
    "Record": "cnnjax.records",
    "Run": "cnnjax.records",
    "Store": "cnnjax.runs",
    "fit": "cnnjax.experiment",
    "fit_many": "cnnjax.many",
    "load_run": "cnnjax.runs",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
