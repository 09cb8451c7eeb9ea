"""What JAX primitives of our own have in common."""

from functools import cache, partial

import jax
from jax.extend import core


def new_primitive(name: str) -> core.Primitive:
    """A primitive with any number of results that runs by itself as it does inside a compiled program."""
    primitive = core.Primitive(name)
    primitive.multiple_results = True

    @cache
    def compiled(**params):
        return jax.jit(partial(primitive.bind, **params))

    primitive.def_impl(lambda *leaves, **params: compiled(**params)(*leaves))
    return primitive
