"""Classes and functions of the user, named by their import path: ``nets.py:ResNet``, ``my_package.nets:ResNet``.

A reference is a file or a module, a colon, and a name in it. Code is identified by the SHA-256 of its source: that of
the module, and of the modules in the same folder or package that it imports, directly or through others. The imports
are found by reading the source, without running it.
"""

import ast
import contextlib
import functools
import hashlib
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import linecache
import os
import platform
import re
import sys
import tempfile
import traceback
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnjax.errors import CodeError, InputError
from cnnjax.machine.files import read_text
from cnnjax.settings.checking import near_match, show

REFERENCE = r"[^:\n]+:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"
"""The form of a reference, as a regular expression."""
_FORM = re.compile(REFERENCE)
_MAIN = "__main__"
_PUBLIC = ("flax.linen", "jax.nn", "jax.numpy", "jax.lax", "optax")
"""Modules under whose name a function is known, wherever it is defined."""
_PREFIX = "_imported_by_path_"
"""Start of the name under which a file is imported, so that it never hides an installed module."""


@dataclass(frozen=True)
class Source:
    """The source of a module, and of the modules in its folder or package that it imports.

    Attributes:
        files: text by path, relative to the folder of the file or of the package.

    Example:
        >>> Source((("nets.py", "import jax"),)).sha256[:12]
        '8a5a422c3589'
    """

    files: tuple[tuple[str, str], ...]

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 of the paths and texts, 64 hex digits."""
        parts = [hashlib.sha256(part.encode()).hexdigest() for file in self.files for part in file]
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Returns the hash and the texts as JSON values."""
        return {"sha256": self.sha256, "files": dict(self.files)}


def is_reference(value: Any) -> bool:
    """Returns whether a value has the form of a reference.

    Example:
        >>> is_reference("flax.linen:relu"), is_reference("relu")
        (True, False)
    """
    return isinstance(value, str) and _FORM.fullmatch(value) is not None


def find_notebook_name(text: str) -> str | None:
    """Returns the first name of ``__main__`` in settings as JSON, which only this process can import; or ``None``.

    Example:
        >>> find_notebook_name('{"module": "__main__:ResNet", "act": "flax.linen:relu"}')
        'ResNet'
    """
    match = re.search(rf'"{_MAIN}:(\w+)', text)
    return match and match[1]


def strip_folder(reference: str) -> str:
    """Returns a reference without the folder of its file.

    Example:
        >>> strip_folder("nets/resnet.py:ResNet")
        'resnet.py:ResNet'
    """
    return reference[reference.rfind("/", 0, reference.index(":")) + 1 :]


def read_reference(value: Any, where: str) -> str:
    """Returns the normal form of a reference: the path of a file relative to the current folder, if it is below it.

    Args:
        value: a reference, or a class or function that can be imported by its name.
        where: name to show in errors.

    Raises:
        InputError: the value is not a reference, or the object cannot be imported by its name.

    Example:
        >>> read_reference("./nets/resnet.py:ResNet", "model.module")
        'nets/resnet.py:ResNet'
    """
    if not isinstance(value, str):
        return name_object(value, where)
    if not is_reference(value):
        raise InputError(f"{where}={show(value)}: must be a name in a file or module, such as nets.py:ResNet")
    module, _, name = value.partition(":")
    return f"{_normalize(module) if _is_file(module) else module}:{name}"


def name_object(value: Any, where: str) -> str:
    """Returns the reference of a class or function.

    Raises:
        InputError: it cannot be imported by its name, as it is defined inside a function or has no name.
    """
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", getattr(value, "__name__", None))
    public = (known for known in _PUBLIC if getattr(sys.modules.get(known), str(name), None) is value)
    module = next(public, module)
    if module and name and _FORM.fullmatch(f"{module}:{name}"):
        loaded = sys.modules.get(module)
        with contextlib.suppress(AttributeError):
            if _look_up(loaded, name) is value:
                file = getattr(loaded, "__file__", None)
                files = {function.__code__.co_filename for function in _list_functions(value)}
                files -= {"<string>"} if isinstance(value, type) else set()  # the methods that dataclasses make
                is_its_own = not files or (file and Path(file).resolve() in [Path(each).resolve() for each in files])
                is_script = is_its_own and file and (module == _MAIN or module.startswith(_PREFIX))
                return f"{_normalize(str(file)) if is_script else module}:{name}"
    raise InputError(
        f"{where}={show(value)}: cannot be imported by its name; must be defined at the top level of a module"
    )


def load_object(reference: str, where: str) -> Any:
    """Returns the class or function that a reference names; imports its module.

    A file that has changed since it was imported is imported anew, with the modules that it imports from its folder.

    Raises:
        CodeError: the import raised an exception.
        InputError: there is no such module, or no such name in it.
    """
    module, _, name = reference.partition(":")
    loaded = _import(module, where)
    try:
        found = _look_up(loaded, name)
        _check_current(found, module, where)
        return found
    except AttributeError:
        names = [word for word, value in vars(loaded).items() if callable(value) and not word.startswith("_")]
        raise InputError(f"{where}: {module} has no {name}{near_match(name, names)}") from None


def _check_current(found: Any, module: str, where: str) -> None:
    """Raises `InputError` if an imported class or function of the user is not as its file has it now."""
    loader = getattr(sys.modules.get(module), "__loader__", None)
    if type(loader) is not importlib.machinery.SourceFileLoader or module == _MAIN or is_installed(module, where):
        return
    refusal = InputError(f"{where}: {module} has been edited since it was imported; start Python again")
    source = read_source(f"{module}:", where).sha256
    if _known.setdefault((module, id(sys.modules[module])), source) != source:
        raise refusal
    path = _locate(module, where).path
    known = set(_list_codes(compile(read_text(path), str(path), "exec", dont_inherit=True)))
    for code in (function.__code__ for function in _list_functions(found)):
        if Path(code.co_filename).resolve() == path and code not in known:
            raise refusal


def _list_functions(value: Any) -> list[types.FunctionType]:
    """Returns a function, or the methods of a class, without their decorators."""
    parts = (value, *getattr(value, "__dict__", {}).values())
    return [part for part in map(inspect.unwrap, filter(callable, parts)) if inspect.isfunction(part)]


_known: dict[tuple[str, int], str] = {}
"""The hash of the source of every imported module of the user, when it was first used."""


def _list_codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            yield from _list_codes(part)


def is_installed(module: str, where: str) -> bool:
    """Returns whether a module belongs to an installed package or to Python, whose versions are recorded instead."""
    if _is_file(module) or module == _MAIN:
        return False
    origin = _find_spec(module, where).origin or ""
    return not origin.endswith(".py") or "site-packages" in origin or origin.startswith(sys.base_prefix)


def describe_package(reference: str) -> dict[str, str | None]:
    """Returns the installed package that a reference is to, and its version, ``None`` if not known; imports nothing.

    Example:
        >>> describe_package("optax:lion")["package"], describe_package("math:isclose")["package"]
        ('optax', 'python')
    """
    module = reference.partition(":")[0]
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return {"package": "python", "version": platform.python_version()}
    found = _find_distribution(module)
    return {"package": found.name if found else top, "version": found.version if found else None}


@functools.cache
def _find_distribution(module: str) -> importlib.metadata.Distribution | None:
    """Returns the installed distribution that a module is of; ``None`` if not known."""
    names = {*importlib.metadata.packages_distributions().get(module.partition(".")[0], ())}
    found = [importlib.metadata.distribution(name) for name in names]
    if len(found) > 1:  # they share a package
        with contextlib.suppress(InputError):
            origin = Path(_find_spec(module, "module").origin or "").resolve()
            found = [each for each in found if _holds(each, origin)]
    return found[0] if len(found) == 1 else None


def _holds(distribution: importlib.metadata.Distribution, path: Path) -> bool:
    files = (file for file in distribution.files or () if file.name == path.name)
    return any(Path(str(distribution.locate_file(file))).resolve() == path for file in files)


def is_bound(reference: str, where: str) -> bool:
    """Returns whether the source of a module imports or defines a name at its top level; the module is not imported.

    Example:
        >>> is_bound("optax:lion", "train.optimizer"), is_bound("optax:lyon", "train.optimizer")
        (True, False)
    """
    module, _, name = reference.partition(":")
    origin = _find_spec(module, where).origin or ""
    return origin.endswith(".py") and name in _list_bound(Path(origin))


@functools.lru_cache(maxsize=16)
def _list_bound(path: Path) -> frozenset[str]:
    names = set()
    for node in ast.parse(read_text(path)).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
    return frozenset(names)


def read_source(reference: str, where: str) -> Source:
    """Returns the source of the module that a reference names; the module's code is not run.

    Raises:
        InputError: the module has no source, or its source is not valid Python.
    """
    module, _, name = reference.partition(":")
    if module == _MAIN:
        return Source(((_MAIN, _read_definitions(name, where)),))
    place = _locate(module, where)
    found: dict[Path, str] = {}
    parents = place.path.parents if place.folder != place.root else ()
    packages = [folder for folder in parents if folder.is_relative_to(place.folder)]
    waiting = [place.path, *filter(Path.is_file, (folder / "__init__.py" for folder in packages))]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found[path] = read_text(path)
            waiting += _find_imports(path, found[path], place, where)
    return Source(tuple(sorted((path.relative_to(place.root).as_posix(), text) for path, text in found.items())))


def find_root(reference: str, where: str) -> Path:
    """Returns the folder that the paths of the source of a reference are relative to.

    Raises:
        InputError: the module has no source.
    """
    return _locate(reference.partition(":")[0], where).root


@contextlib.contextmanager
def running_code(reference: str, where: str) -> Iterator[None]:
    """Turns an exception of the code that a reference names into a `CodeError` while the context lasts.

    Its `lines` are the entries of the traceback that are in the folder or package of that code.
    """
    module = reference.partition(":")[0]
    place = _locate(module, where) if _is_file(module) else None
    imports = _own_imports(place, read_source(reference, where)) if place else contextlib.nullcontext()
    try:
        with imports, contextlib.chdir("."):  # which is the current folder again afterwards
            yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        message = next(iter(str(error).strip().splitlines()), "no message")
        lines = _list_own_frames(error, module, where)
        raise CodeError(f"{where}: {type(error).__name__}: {message}", lines) from error


def _list_own_frames(error: BaseException, module: str, where: str) -> tuple[str, ...]:
    frames = traceback.extract_tb(error.__traceback__)
    if module == _MAIN:
        own = [frame for frame in frames if frame.filename.startswith(("<", tempfile.gettempdir()))]
    else:
        folder = _locate(module, where).folder
        own = [frame for frame in frames if Path(frame.filename).resolve().is_relative_to(folder)]
    return tuple(f"  {frame.filename}:{frame.lineno}, in {frame.name}: {frame.line}" for frame in own)


@dataclass(frozen=True)
class _Place:
    """The file of a module; the folder that the paths of its source are relative to; the folder of code like it."""

    path: Path
    root: Path
    folder: Path


def _locate(module: str, where: str) -> _Place:
    if _is_file(module):
        path = Path(module).resolve()
        if not path.is_file():
            raise InputError(f"{where}: there is no file {module}")
        return _Place(path, path.parent, path.parent)
    spec = _find_spec(module, where)
    if not spec.origin or not spec.origin.endswith(".py"):
        raise InputError(f"{where}: {module} has no source in Python")
    path = Path(spec.origin).resolve()
    depth = module.count(".") + (path.name == "__init__.py")  # folders between the file and that of the top package
    root = path.parents[depth]
    return _Place(path, root, path.parents[depth - 1] if depth else root)


def _find_spec(module: str, where: str) -> importlib.machinery.ModuleSpec:
    if os.getcwd() not in map(os.path.abspath, sys.path):
        sys.path.append(os.getcwd())
    try:
        spec = _find_without_import(module) or importlib.util.find_spec(module)
    except (ImportError, ValueError) as error:
        raise InputError(f"{where}: there is no module {module}: {error}") from None
    if spec is None:
        raise InputError(f"{where}: there is no module {module}; a file is named with its .py, such as nets.py")
    return spec


def _find_without_import(module: str) -> importlib.machinery.ModuleSpec | None:
    """Returns the spec of a module without importing the packages that it is in; ``None`` if it is not known."""
    name, *words = module.split(".")
    spec = None if module in sys.modules else importlib.util.find_spec(name)
    for word in words:
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = f"{name}.{word}"
        try:
            spec = importlib.machinery.PathFinder.find_spec(name, spec.submodule_search_locations)
        except KeyError:  # a namespace package in another one, which has to be imported
            return None
    return spec


@functools.lru_cache(maxsize=256)
def _find_imports(path: Path, text: str, place: _Place, where: str) -> list[Path]:
    """Returns the files in the folder or package of a module that its source imports."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise InputError(f"{where}: {path.name} is not valid Python: {error}") from None
    files: list[Path] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [(place.root, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = path.parents[node.level - 1] if node.level else place.root
            before = f"{node.module}." if node.module else ""
            names = [(start, f"{before}{alias.name}") for alias in node.names]
        else:
            continue
        for start, name in names:
            files += _find_files(start, name.split("."), place)
    return files


def _find_files(start: Path, words: list[str], place: _Place) -> Iterator[Path]:
    """Yields the files of a dotted name: those of its packages, and of the module."""
    for word in words:
        start = start / word
        for file in (start.with_name(f"{word}.py"), start / "__init__.py"):
            is_own = file.is_relative_to(place.folder) and "site-packages" not in file.relative_to(place.folder).parts
            if is_own and file.is_file():
                yield file


def _read_definitions(name: str, where: str) -> str:
    """Returns the source of a name in ``__main__``, such as a notebook, and of the definitions there that it uses."""
    main = sys.modules[_MAIN]
    found: dict[str, str] = {}
    waiting = [name.partition(".")[0]]
    while waiting:
        word = waiting.pop()
        value: Any = getattr(main, word, None)
        if word in found or not hasattr(main, word):
            continue
        if getattr(value, "__module__", None) != _MAIN:
            found[word] = f"{word} = {_describe_global(value, where)}"
            continue
        found[word] = _read_definition(word, value, where)
        waiting += sorted({node.id for node in ast.walk(ast.parse(found[word])) if isinstance(node, ast.Name)})
    return "\n\n".join(found[word] for word in sorted(found))


def _describe_global(value: Any, where: str) -> str:
    """Returns a text that changes with the value of a global of ``__main__``."""
    if isinstance(value, types.ModuleType):
        module = value.__name__
        return module if is_installed(module, where) else f"{module} {read_source(f'{module}:', where).sha256}"
    if hasattr(value, "tobytes"):  # an array, whose `repr` leaves out values and digits
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    try:
        reference = name_object(value, where)
    except InputError:
        return repr(value)
    module = reference.partition(":")[0]
    return reference if is_installed(module, where) else f"{reference} {read_source(reference, where).sha256}"


def _read_definition(word: str, value: Any, where: str) -> str:
    """Returns the source of a class or function of ``__main__``; that of a cell of a notebook is in `linecache`."""
    files = [function.__code__.co_filename for function in _list_functions(value)]
    defaults = [(function.__defaults__, function.__kwdefaults__) for function in _list_functions(value)]
    for file in (*files, *reversed(linecache.cache)):  # cells of a notebook are in the cache, the latest last
        lines = linecache.getlines(file)
        with contextlib.suppress(SyntaxError, ValueError):
            for node in ast.parse("".join(lines)).body:
                if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == word:
                    start = min(each.lineno for each in (node, *node.decorator_list))
                    return f"{''.join(lines[start - 1 : node.end_lineno])}# defaults: {defaults}\n"
    raise InputError(f"{where}: the source of {word} is not known; define it in a file or in a cell of a notebook")


def _is_file(module: str) -> bool:
    return module.endswith(".py")


def _normalize(path: str) -> str:
    """Returns the path of a file relative to the current folder; the absolute path if it is not below it."""
    absolute = os.path.abspath(os.path.expanduser(path))
    relative = os.path.relpath(absolute)
    return Path(absolute if relative.startswith("..") else relative).as_posix()


def _look_up(module: Any, name: str) -> Any:
    return functools.reduce(getattr, name.split("."), module)


def _import(module: str, where: str) -> types.ModuleType:
    main = sys.modules[_MAIN]
    if module == _MAIN:
        return main
    if not _is_file(module):
        _find_spec(module, where)
        with running_code(module, where), contextlib.redirect_stdout(sys.stderr):
            return importlib.import_module(module)
    place = _locate(module, where)
    if Path(getattr(main, "__file__", None) or "").resolve() == place.path:
        return main  # a script that names its own classes
    source = read_source(f"{module}:", where)
    name = f"{_PREFIX}{hashlib.sha256(f'{place.path} {source.sha256}'.encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, place.path)
    assert spec is not None
    assert spec.loader is not None
    loaded = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        with running_code(f"{module}:", where), contextlib.redirect_stdout(sys.stderr):
            spec.loader.exec_module(loaded)
    except CodeError:
        del sys.modules[name]
        raise
    return loaded


_imported: dict[tuple[Path, str], dict[str, types.ModuleType]] = {}
"""The modules that a file has imported from its folder, by its path and the hash of their source."""


@contextlib.contextmanager
def _own_imports(place: _Place, source: Source) -> Iterator[None]:
    """Lets a file import the modules of its folder, in the version of `source`, while the context lasts.

    Afterwards, `sys.modules` has what it had under their names, as another folder may have modules of the same names.
    """
    names = {file.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for file, _ in source.files}
    own = _imported.setdefault((place.path, source.sha256), {})
    others = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.modules.update(own)
    sys.path.insert(0, str(place.root))
    writes_bytecode = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # Python takes bytecode for that of a file edited within the same second
    importlib.invalidate_caches()
    try:
        yield
    finally:
        own |= {name: sys.modules.pop(name) for name in names if name in sys.modules}
        sys.modules.update(others)
        sys.path.remove(str(place.root))
        sys.dont_write_bytecode = writes_bytecode
