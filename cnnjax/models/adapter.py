"""A linen module of the user, called as the library calls a network, and its layers, found by tracing it.

Its convolutions are computed by `cnnjax.layers` on CPU, where the gradients of XLA's own are slow inside a scan.
"""

import functools
import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.errors import InputError
from cnnjax.layers.rewriting import use_fast_layers
from cnnjax.machine.devices import take_share
from cnnjax.models.network import OUTPUTS, UNSAVED, Layer, Shape
from cnnjax.models.own_module import CLASSES, WHERE, ModuleConfig
from cnnjax.settings.references import running_code

Path = tuple[str, ...]
"""Names of the modules that lead to a layer."""
FLAGS = {"train": True, "training": True, "is_training": True, "deterministic": False, "use_running_average": False}
"""Arguments that tell a module whether it is being trained, each with its value in training."""


class Adapter(nn.Module):
    """A module of the user, with the same variables under the same names, as `Network.build` describes it.

    Attributes:
        config: the settings of the module.
        classes: number of classes.
        dtype: dtype of the arithmetic of the layers, if the module has a field for it.
        axis: name of the mesh axis along which the batch is divided in training; ``None`` for one device.
    """

    config: ModuleConfig
    classes: int
    dtype: jnp.dtype
    axis: str | None = None

    def setup(self) -> None:
        """Makes the user's module, without a level of its own in the paths of the variables."""
        self.module = self.config.make(self.classes, self.dtype)
        nn.share_scope(self, self.module)

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns the logits, float32 (batch, classes), of images (batch, height, width, channels), floats in [0, 1].

        Args:
            images: the images.
            train: passed to the module in the form that its signature has.

        Raises:
            InputError: the module returns something else than logits (batch, classes).
            CodeError: the module raised an exception.
        """
        with nn.intercept_methods(_keep_output):
            logits = call_module(self.module, images, train, self.config.module)
        if self.is_mutable_collection("intermediates"):
            outputs = dict(_list_outputs(self.variables.get("intermediates", {}), ()))
            self.sow("intermediates", OUTPUTS, outputs, init_fn=dict, reduce_fn=lambda _, new: new)
        return logits

    @nn.nowrap
    def apply(self, variables: Any, *arguments: Any, rngs: Any = None, **named: Any) -> Any:
        """Applies the module as ``nn.Module.apply`` does, with the library's convolutions, poolings and norms."""
        apply = super().apply

        def run(variables: Any, rngs: Any, *arguments: Any) -> Any:
            return apply(variables, *arguments, rngs=rngs, **named)

        with nn.intercept_methods(functools.partial(divide_layer, self.axis)):  # before a fast layer takes its place
            return use_fast_layers(run)(variables, rngs, *arguments)


_OUTPUT = "__call__"


def _keep_output(method: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
    """Calls a method of a module; if the collection ``intermediates`` is mutable, its output is kept there."""
    layer = context.module
    output = method(*args, **kwargs)
    if context.method_name == _OUTPUT and isinstance(output, jax.Array) and layer.path:
        layer.sow("intermediates", _OUTPUT, output, init_fn=lambda: None, reduce_fn=lambda _, new: new)
    return output


def divide_layer(axis: str | None, method: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
    """Calls a method of a module, so that the number of devices that share a batch does not change the result.

    Batch normalisation takes its statistics of the whole batch, and the mask of dropout is drawn for the whole batch.
    Otherwise, modules are as they are.

    Args:
        axis: name of the mesh axis along which the batch is divided; ``None`` for one device.
        method, args, kwargs, context: as Flax gives them, see `flax.linen.intercept_methods`.
    """
    layer = context.module
    if isinstance(layer, nn.BatchNorm):
        object.__setattr__(layer, "axis_name", axis)
        object.__setattr__(layer, "axis_index_groups", None)
    is_dropout = isinstance(layer, nn.Dropout) and context.method_name == _OUTPUT
    if axis is None or not is_dropout or layer.is_initializing():
        return method(*args, **kwargs)

    def drop(inputs: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
        whole = jnp.ones((len(inputs) * lax.axis_size(axis), *inputs.shape[1:]), inputs.dtype)
        factors: jax.Array = method(whole, *args, **kwargs)
        return inputs * take_share(factors.T, axis).T

    return drop(*args, **kwargs)


def _list_outputs(sown: Any, path: Path) -> Iterator[tuple[str, jax.Array]]:
    for name, value in sown.items():
        if isinstance(value, dict):
            yield from _list_outputs(value, (*path, name))
        elif name == _OUTPUT:
            yield "/".join(path), value


def call_module(module: nn.Module, images: jax.Array, train: bool, reference: str) -> jax.Array:
    """Returns the logits, float32 (batch, classes), of a user's module.

    Args:
        module: the module.
        images: float (batch, height, width, channels).
        train: whether it is being trained; passed in the form that the signature of the module has.
        reference: import path of the module, for errors.

    Raises:
        InputError: the module needs other arguments, or returns something else than logits.
        CodeError: the module raised an exception.
    """
    where = f"{WHERE}={reference!r}"
    flags = read_flags(type(module), train)
    with running_code(reference, where):
        logits = module(images, **flags)
    if not isinstance(logits, jax.Array) or not jnp.issubdtype(logits.dtype, jnp.floating):
        found = logits.dtype if isinstance(logits, jax.Array) else type(logits).__name__
        raise InputError(f"{where}: returns {found}; must return logits, floats (batch, classes)")
    if logits.ndim != 2 or len(logits) != len(images):
        raise InputError(
            f"{where}: returns {logits.shape} for {len(images)} images {images.shape[1:]}; "
            "must return logits (batch, classes)"
        )
    return logits.astype(jnp.float32)


def read_flags(kind: type[nn.Module], train: bool) -> dict[str, bool]:
    """Returns the arguments by which a module is told whether it is being trained.

    Args:
        kind: the class of the module.
        train: whether it is.

    Raises:
        InputError: the module takes no images, or needs other arguments.

    Example:
        >>> read_flags(nn.Dropout, train=True)
        {'deterministic': False}
    """
    images, *others = [*inspect.signature(kind.__call__).parameters.values(), None][1:]
    if images is None or images.kind is inspect.Parameter.KEYWORD_ONLY:
        raise InputError(f"{WHERE}: {kind.__name__}.__call__ takes no images; must be such as __call__(images, train)")
    flags = {each.name: FLAGS[each.name] == train for each in others if each and each.name in FLAGS}
    needed = [each for each in others if each and each.default is each.empty and each.kind not in _VARIABLE]
    wrong = next((each.name for each in needed if each.name not in flags), None)
    if wrong:
        raise InputError(
            f"{WHERE}: {kind.__name__}.__call__ needs {wrong}; beside the images, it can have {', '.join(FLAGS)}"
        )
    return flags


_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass
class _Call:
    """A layer as it was called: its kind, output shape and FLOPs."""

    kind: str
    shape: Shape = ()
    flops: int = 0


def trace_layers(config: ModuleConfig, image_shape: Shape, classes: int) -> tuple[Layer, ...]:
    """Returns the layers of a module, in the order of their calls, without computing anything.

    A layer is a module that calls no other, or that has variables of its own. FLOPs are those of matrix products and
    convolutions; those outside all layers are listed with the module itself.

    Raises:
        InputError: the module does not return logits (batch, `classes`); otherwise as `call_module`.
        CodeError: the module raised an exception.
    """
    module = config.make(classes, jnp.dtype(jnp.float32))
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    calls: dict[Path, _Call] = {(): _Call(type(module).__name__, (classes,))}

    def note_call(method: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        output = method(*args, **kwargs)
        if context.method_name == _OUTPUT and context.module.path:
            arrays = [leaf for leaf in jax.tree.leaves(output) if hasattr(leaf, "shape")]
            shape = arrays[0].shape[1:] if arrays else ()
            calls.setdefault(context.module.path, _Call(type(context.module).__name__, shape))
        return output

    call = functools.partial(call_module, train=False, reference=config.module)
    variables = jax.eval_shape(nn.init(call, module), jax.random.key(0), images)
    saved = {name: tree for name, tree in variables.items() if name not in UNSAVED}
    with nn.intercept_methods(note_call):
        program, logits = jax.make_jaxpr(nn.apply(call, module), return_shape=True)(saved, images)
    if logits.shape[1] != classes:
        fill = f"; the number of classes is filled into a field called {', '.join(CLASSES[:-1])} or {CLASSES[-1]}"
        raise InputError(f"{WHERE}={config.module!r}: returns {logits.shape[1]} logits for {classes} classes{fill}")
    for path, flops in count_flops(program.jaxpr):
        known = next(path[:depth] for depth in range(len(path), -1, -1) if path[:depth] in calls)
        calls[known].flops += flops
    sizes = _count_variables(variables)
    for path in [path for path in sizes if path not in calls]:  # of layers inside a scan, which have other names there
        trainable, others = sizes.pop(path)
        own = sizes.setdefault((), [0, 0])
        own[0], own[1] = own[0] + trainable, own[1] + others
    outer = {path[:depth] for path in calls for depth in range(len(path))}
    layers = [path for path in calls if path not in outer or path in sizes or calls[path].flops]
    return tuple(_make_layer(path, calls[path], *sizes.get(path, (0, 0))) for path in layers)


def _make_layer(path: Path, call: _Call, trainable: int, non_trainable: int) -> Layer:
    return Layer("/".join(path) or call.kind, call.kind, call.shape, trainable, non_trainable, call.flops)


def _count_variables(variables: Any) -> dict[Path, list[int]]:
    """Returns the numbers of trainable and of other variables of every module, by its path."""
    sizes: dict[Path, list[int]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        collection, *names = (key.key for key in path if hasattr(key, "key"))
        if collection not in UNSAVED:
            count = sizes.setdefault(tuple(names[:-1]), [0, 0])
            count[collection != "params"] += math.prod(leaf.shape)
    return sizes


def count_flops(jaxpr: Any, outer: Path = (), times: int = 1) -> Iterator[tuple[Path, int]]:
    """Yields the FLOPs of every matrix product and convolution of a program, with the path of the module it is in.

    A multiply-add counts as two. Those of a scan count as often as it runs; of several branches, the first counts.

    Args:
        jaxpr: the program.
        outer: path of the module that calls the program.
        times: how often the program runs.

    Example:
        >>> list(count_flops(jax.make_jaxpr(jnp.dot)(jnp.zeros((2, 3)), jnp.zeros((3, 5))).jaxpr))
        [((), 60)]
    """
    for equation in jaxpr.eqns:
        scopes = [scope for scope in str(equation.source_info.name_stack).split("/") if scope]
        path = (*outer, *(scopes if outer else scopes[1:]))  # the first is that of the whole module
        flops = _count_equation(equation)
        if flops:
            yield path, flops * times
        params = equation.params
        programs = [*_list_programs(params)][: 1 if equation.primitive.name == "cond" else None]
        for program in programs:
            yield from count_flops(program, path, times * params.get("length", 1))


def _count_equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    shapes = [variable.aval.shape for variable in equation.invars]
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        taps = math.prod(shapes[0][axis] for axis in contracted)
    elif name == "conv_general_dilated":
        taps = math.prod(shapes[1]) // shapes[1][params["dimension_numbers"].rhs_spec[0]]
    else:
        return 0
    multiplications: int = taps * math.prod(equation.outvars[0].aval.shape)
    return 2 * multiplications


def _list_programs(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            program = getattr(part, "jaxpr", part)
            if hasattr(program, "eqns"):
                yield program
