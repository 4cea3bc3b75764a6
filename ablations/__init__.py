"""Ablation grids over the library: studies, plans, runs and reports."""

from typing import TYPE_CHECKING, Any

from ablations.study.grid import expand
from ablations.study.reading import load_study, read_dict, read_toml
from ablations.study.study import Study

if TYPE_CHECKING:
    from ablations.execution.launching import run_study

__all__ = ["Study", "expand", "load_study", "read_dict", "read_toml", "run_study"]


def __getattr__(name: str) -> Any:
    if name != "run_study":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Imported when first used: reading and planning do without what running needs.
    from ablations.execution.launching import run_study

    return run_study
