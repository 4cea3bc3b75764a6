"""Ablation grids over the library: studies, plans, runs and reports."""

import importlib
from typing import TYPE_CHECKING, Any

from ablations.study.grid import expand
from ablations.study.reading import load_study, read_dict, read_toml
from ablations.study.study import StudyConfig

if TYPE_CHECKING:
    from ablations.execution.launching import run_study
    from ablations.python import Study

__all__ = ["Study", "StudyConfig", "expand", "load_study", "read_dict", "read_toml", "run_study"]

# Imported when first used: reading and planning do without what running needs.
_LAZY = {"Study": "ablations.python", "run_study": "ablations.execution.launching"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
