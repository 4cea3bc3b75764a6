"""Ablation grids over the library: studies, plans, runs and reports."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.language.expanding import expand
from ablations.language.reading import read_dict, read_toml
from ablations.language.sources import load_study
from ablations.language.study import Study

if TYPE_CHECKING:
    from ablations.running.launching import run_study

__all__ = ["Study", "expand", "load_study", "read_dict", "read_toml", "run_study"]


def _check_neighbour() -> None:
    """Raises `ImportError` where another package ``experiments``, such as a folder of the user's, hides ours."""
    needed, own = importlib.util.find_spec("experiments.arguments"), Path(__file__).parent.parent / "experiments"
    if needed is None or needed.origin is None or not Path(needed.origin).parent.samefile(own):
        import experiments

        # With this name `python -m` says it in one line.
        raise ImportError(
            f"the package experiments of cnnjax, in {own}, is hidden by {experiments.__path__[0]}; rename that folder, "
            "work in another one, or start Python with -P",
            name=__name__,
        )


_check_neighbour()


def __getattr__(name: str) -> Any:
    if name != "run_study":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Imported when first used: reading and planning do without what running needs.
    from ablations.running.launching import run_study

    return run_study
