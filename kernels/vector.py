"""Vectors as three arrays, one for each component: a short axis would be the innermost loop of a compiled kernel.

Anything that gives its components by index 0, 1 and 2 is one, an array of shape (3, *batch) too.
"""

from typing import TypeAlias

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from .numerics import safe_arctan2, safe_sqrt

Vector: TypeAlias = tuple[Array, Array, Array]


def dot(a, b) -> Array:
    """Scalar product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def cross(a, b) -> Vector:
    """Vector product."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def combination(*terms) -> Vector:
    """Sum of x a over pairs (x, a) of a factor and a vector."""
    (factor, a), *others = terms
    x, y, z = (factor * a[i] for i in range(3))
    for factor, a in others:
        x, y, z = x + factor * a[0], y + factor * a[1], z + factor * a[2]
    return x, y, z


def norm(a) -> Array:
    """Length, with derivative zero at the zero vector."""
    return safe_sqrt(dot(a, a))


def unit(a) -> Vector:
    """a / |a|; the zero vector stays zero, with derivative zero."""
    length = norm(a)
    ok = length > 0
    inverse = 1 / jnp.where(ok, length, 1.0)
    x, y, z = (jnp.where(ok, a[i] * inverse, 0.0) for i in range(3))
    return x, y, z


def without(a, z) -> Vector:
    """a without its part along the unit vector z."""
    return combination((1.0, a), (-dot(a, z), z))


def stacked(parts) -> Array:
    """Arrays of one shape on a new first axis, put in place one by one.

    XLA on a CPU fuses what is concatenated into the concatenation, and computes what its parts have in common time
    and again: tangents of many instants at once took sixty times as long.
    """
    out = jnp.zeros((len(parts), *parts[0].shape), parts[0].dtype)
    for k, part in enumerate(parts):
        out = lax.dynamic_update_index_in_dim(out, part, k, 0)
    return out


def choose(ok, a, b) -> Vector:
    """a where ok, else b."""
    x, y, z = (jnp.where(ok, a[i], b[i]) for i in range(3))
    return x, y, z


def angle_between(a, b) -> Array:
    """Angle between two vectors of any length, 0..pi [rad].

    atan2(|a x b|, a . b) of the unit vectors, which unlike the arc cosine loses no digits near 0 and pi.
    The derivative at exactly parallel vectors, where the angle has a kink, is zero.
    """
    u, w = unit(a), unit(b)
    return safe_arctan2(norm(cross(u, w)), dot(u, w))
