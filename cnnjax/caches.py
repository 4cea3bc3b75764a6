"""Where what can be made again is kept: decoded datasets, and the programs that JAX has compiled. No JAX here."""

import contextlib
import os
from pathlib import Path

from cnnjax.errors import UnavailableError


def cache_root() -> Path:
    """Returns the user's folder: `$CNNJAX_CACHE_DIR`, else `$XDG_CACHE_HOME/cnnjax`, else `~/.cache/cnnjax`."""
    own, shared = os.environ.get("CNNJAX_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME")
    root = Path(own) if own else (Path(shared) if shared else Path("~/.cache")) / "cnnjax"
    try:
        return root.expanduser()
    except RuntimeError:
        raise UnavailableError("the home folder is not known; CNNJAX_CACHE_DIR names another one") from None


def keep_programs(wanted: bool = True) -> None:
    """Has JAX keep what it compiles in the user's cache, from where every later process takes it.

    This sets variables of the environment, so it must come before JAX is imported, and holds for the processes that
    this one starts. What the user has set, such as `JAX_COMPILATION_CACHE_DIR`, stays. A network takes about 0.2 MB;
    the folder can be deleted at any time.

    Args:
        wanted: ``False`` has everything compiled anew, and nothing kept.
    """
    if not wanted:
        os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        try:
            programs = cache_root() / "programs"
        except UnavailableError:  # As a container's user may have no home; what is compiled is for this process then.
            os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
            return
        _remove_empty(programs)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(programs)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def _remove_empty(folder: Path) -> None:
    """Removes what a full disk has left of programs, of which JAX would warn whenever it comes upon one."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.stat().st_size == 0:
                path.unlink()
