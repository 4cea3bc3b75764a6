"""Ablation grids over the library: studies, plans, runs and reports."""

from typing import TYPE_CHECKING, Any

from ablations.language.expanding import expand
from ablations.language.reading import read_dict, read_toml
from ablations.language.sources import load_study
from ablations.language.study import Study

if TYPE_CHECKING:
    from ablations.running.launching import run_study

__all__ = ["Study", "expand", "load_study", "read_dict", "read_toml", "run_study"]


def __getattr__(name: str) -> Any:
    if name != "run_study":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Imported when first used: reading and planning do without what running needs.
    from ablations.running.launching import run_study

    return run_study
