"""One computation in several ways, of which each platform traces only its own."""

import importlib
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
from jax.interpreters import ad, batching, mlir

from .primitive import new_primitive


def choose(
    ways: dict[str, Callable], out: Any, *args: Any, tangent: Callable | None = None, **static: Any
) -> Any:
    """`ways[platform](*args, **static)` of the platform that is compiled for, or else `ways["default"]`.

    As `lax.platform_dependent`, but that traces every branch on every platform: here ways of accelerators cost a CPU
    nothing, not even the import of what they are written in. Under vmap accelerators take the default.

    Args:
        ways: Functions by platform ("cpu", "tpu", "cuda"), and "default". Of the module, so that they hash.
        out: What they return, as shapes.
        args: Pytrees of arrays.
        tangent: tangent(answer, args, tangents of args), linear in these, of the module as well; by default that of
            the default way. JAX drops a `custom_jvp` where it looks for a second derivative within a scan; not this.
        static: Further arguments, hashable.
    """
    leaves, tree = jax.tree.flatten(args)
    shapes, out_tree = jax.tree.flatten(out)
    found = _choice.bind(
        *leaves,
        ways=tuple(sorted(ways.items())),
        tree=tree,
        out=tuple((shape.shape, shape.dtype) for shape in shapes),
        out_tree=out_tree,
        tangent=tangent,
        static=tuple(sorted(static.items())),
    )
    return jax.tree.unflatten(out_tree, found)


_choice = new_primitive("platform_choice")


def _way(platform, *leaves, ways, tree, static, **_params):
    known = dict(ways)
    way = known.get(platform, known["default"])
    return jax.tree.leaves(way(*jax.tree.unflatten(tree, leaves), **dict(static)))


@_choice.def_abstract_eval
def _(*leaves, out, **_params):
    return [leaves[0].update(shape=shape, dtype=dtype, weak_type=False) for shape, dtype in out]


@cache
def _over(way, tree, axes):
    """`way` of a batch along these axes of its arguments' leaves."""

    def of_leaves(static, *leaves):
        return way(*jax.tree.unflatten(tree, leaves), **static)

    return lambda *args, **static: jax.vmap(partial(of_leaves, static), axes)(*jax.tree.leaves(args))


@cache
def _tangent_over(tangent, tree, axes):
    """`tangent` of such a batch."""

    def of_leaves(answer, *both):
        return tangent(answer, *(jax.tree.unflatten(tree, leaves) for leaves in both))

    by_leaf = list(axes)
    along = jax.vmap(of_leaves, (0, by_leaf, by_leaf))
    return lambda answer, *both: along(answer, *(jax.tree.leaves(trees) for trees in both))


def _batched(leaves, axes, *, ways, tree, out, tangent, **params):
    """A kernel has no batches of batches."""
    axes = tuple(axes)
    size = next(leaf.shape[axis] for leaf, axis in zip(leaves, axes) if axis is not None)
    ways = tuple((name, _over(way, tree, axes)) for name, way in ways if name in ("cpu", "default"))
    out = tuple(((size, *shape), dtype) for shape, dtype in out)
    if tangent is not None:
        tangent = _tangent_over(tangent, tree, axes)
    found = _choice.bind(*leaves, ways=ways, tree=tree, out=out, tangent=tangent, **params)
    return found, [0] * len(found)


def _jvp(primals, tangents, **params):
    found = _choice.bind(*primals, **params)
    tangents = tuple(ad.instantiate_zeros(t) for t in tangents)
    if params["tangent"] is None:
        return found, jax.jvp(partial(_way, "default", **params), tuple(primals), tangents)[1]
    answer = jax.tree.unflatten(params["out_tree"], found)
    both = (jax.tree.unflatten(params["tree"], leaves) for leaves in (primals, tangents))
    return found, jax.tree.leaves(params["tangent"](answer, *both))


ad.primitive_jvps[_choice] = _jvp
batching.primitive_batchers[_choice] = _batched

for _platform in ("cpu", "tpu", "cuda", None):
    mlir.register_lowering(
        _choice, mlir.lower_fun(partial(_way, _platform), multiple_results=True), platform=_platform
    )


def gpu_kernel(name: str) -> Any:
    """A module of `kernels` by name, None where JAX's Pallas is older than its kernel or lacks absl."""
    if jax.__version_info__ < (0, 10, 2):
        return None
    try:
        return importlib.import_module(f"..{name}", __name__)
    except ImportError:
        return None
