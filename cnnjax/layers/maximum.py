"""The maximum over one axis, whose gradient goes to the first of equal maxima, as that of other frameworks does."""

import functools

import jax
import jax.numpy as jnp


def take_maximum(values: jax.Array, axis: int) -> jax.Array:
    """Returns the maximum over an axis of few members; not-a-number wherever a member is."""
    return _take_maximum(values, axis, values.shape[axis])


def find_first_maximum(members: list[jax.Array]) -> jax.Array:
    """Returns the index int32 of the first of the largest members, elementwise."""
    best, first = members[0], jnp.zeros(members[0].shape, jnp.int32)
    for index, member in enumerate(members[1:], 1):
        larger = member > best
        best, first = jnp.where(larger, member, best), jnp.where(larger, index, first)
    return first


def give_to_first(first: jax.Array, cotangent: jax.Array, count: int) -> list[jax.Array]:
    """Returns the cotangent of each of `count` members: all of it for the first maximum, zero for the others."""
    return [jnp.where(first == index, cotangent, jnp.zeros_like(cotangent)) for index in range(count)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _take_maximum(values: jax.Array, axis: int, count: int) -> jax.Array:
    return functools.reduce(jnp.maximum, _take_apart(values, axis))


def _forward(values: jax.Array, axis: int, count: int) -> tuple[jax.Array, jax.Array]:
    return _take_maximum(values, axis, count), find_first_maximum(_take_apart(values, axis))


def _backward(axis: int, count: int, first: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
    # One long axis, cut in two: XLA copies that much faster than members along an axis of their own.
    given = jnp.concatenate(give_to_first(first, cotangent, count), axis)
    return (given.reshape(*cotangent.shape[:axis], count, *cotangent.shape[axis:]),)


_take_maximum.defvjp(_forward, _backward)


def _take_apart(values: jax.Array, axis: int) -> list[jax.Array]:
    return [jax.lax.index_in_dim(values, index, axis, keepdims=False) for index in range(values.shape[axis])]
