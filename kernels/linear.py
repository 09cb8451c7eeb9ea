"""Linear maps that bring their own transpose: forward mode takes the one, reverse mode the other."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import ad, batching, mlir

from .primitive import new_primitive


def linear_map(forward: Callable, transpose: Callable, known: Any, x: Any, absent: bool = False) -> Any:
    """forward(known, x), linear in x, whose transpose JAX takes to be transpose(known, y).

    For the tangent of a `jax.custom_jvp`: both modes then have a rule of their own, where a `custom_vjp` would end
    forward mode.

    Args:
        forward: From pytrees to a pytree of arrays. Of a module, so that it hashes.
        transpose: From `known` and a pytree like forward's answer to one like x. Likewise.
        known: What the map depends on; its own derivatives are forward's.
        x: What it is linear in.
        absent: Whether `transpose` takes None for a leaf of y that is known to be zero, and saves itself the trouble.
    """
    known, known_tree = jax.tree.flatten(known)
    x, tree = jax.tree.flatten(x)
    shapes = jax.eval_shape(partial(_apply, forward, len(known), known_tree, tree), *known, *x)
    out_tree = jax.tree.structure(shapes)
    maps, trees = (forward, transpose), (known_tree, tree, out_tree)
    found = _linear_map.bind(*known, *x, maps=maps, count=len(known), trees=trees, absent=absent)
    return jax.tree.unflatten(out_tree, found)


_linear_map = new_primitive("linear_map")


def _apply(forward, count, known_tree, tree, *leaves):
    return forward(jax.tree.unflatten(known_tree, leaves[:count]), jax.tree.unflatten(tree, leaves[count:]))


def _leaves(*leaves, maps, count, trees, absent):
    return jax.tree.leaves(_apply(maps[0], count, *trees[:2], *leaves))


@_linear_map.def_abstract_eval
def _(*leaves, **params):
    shapes = jax.eval_shape(partial(_leaves, **params), *leaves)
    return [leaves[0].update(shape=s.shape, dtype=s.dtype, weak_type=False) for s in shapes]


def _transposed(cotangents, *leaves, maps, count, trees, absent):
    known, (known_tree, tree, out_tree) = leaves[:count], trees
    maps = maps[::-1]
    if absent:
        given = tuple(not isinstance(c, ad.Zero) for c in cotangents)
        maps = _of_some(*maps, given, out_tree)
        cotangents = [c for c, there in zip(cotangents, given) if there]
        out_tree = jax.tree.structure(cotangents)
    y = [ad.instantiate_zeros(c) for c in cotangents]
    trees = (known_tree, out_tree, tree)
    found = _linear_map.bind(*known, *y, maps=maps, count=count, trees=trees, absent=False)
    # What is not asked for is a tangent that is known to be zero.
    asked = [ad.is_undefined_primal(leaf) for leaf in leaves[count:]]
    return [None] * count + [y if wanted else None for y, wanted in zip(found, asked)]


@cache
def _of_some(transpose, forward, given, tree):
    """Both maps, between x and those leaves of y that are given."""

    def of_given(known, y):
        y = iter(y)
        return transpose(known, jax.tree.unflatten(tree, [next(y) if there else None for there in given]))

    def to_given(known, x):
        return [leaf for leaf, there in zip(jax.tree.leaves(forward(known, x)), given) if there]

    return of_given, to_given


def _jvp(primals, tangents, **params):
    count = params["count"]
    out = _linear_map.bind(*primals, **params)
    if all(isinstance(t, ad.Zero) for t in tangents[:count]):
        x = [ad.instantiate_zeros(t) for t in tangents[count:]]
        return out, _linear_map.bind(*primals[:count], *x, **params)
    tangents = [ad.instantiate_zeros(t) for t in tangents]
    return out, jax.jvp(partial(_leaves, **params), tuple(primals), tuple(tangents))[1]


@cache
def _over(function, axes, known_tree):
    """`function` of batches: of what is known along these axes of its leaves, of what it is linear in along 0."""

    def of_leaves(known, x):
        return function(jax.tree.unflatten(known_tree, known), x)

    return lambda known, x: jax.vmap(of_leaves, (list(axes), 0))(jax.tree.leaves(known), x)


def _batched(leaves, axes, *, maps, count, trees, absent):
    size = next(leaf.shape[axis] for leaf, axis in zip(leaves, axes) if axis is not None)

    def first(leaf, axis):
        return jnp.broadcast_to(leaf, (size, *leaf.shape)) if axis is None else jnp.moveaxis(leaf, axis, 0)

    x = [first(leaf, axis) for leaf, axis in zip(leaves[count:], axes[count:])]
    maps = tuple(_over(function, tuple(axes[:count]), trees[0]) for function in maps)
    found = _linear_map.bind(*leaves[:count], *x, maps=maps, count=count, trees=trees, absent=absent)
    return found, [0] * len(found)


ad.primitive_transposes[_linear_map] = _transposed
ad.primitive_jvps[_linear_map] = _jvp
batching.primitive_batchers[_linear_map] = _batched
mlir.register_lowering(_linear_map, mlir.lower_fun(_leaves, multiple_results=True))
