"""Scalar product; gradient-safe square root, norm, arc cosine, angle; implicitly differentiated roots; long sums
and scans."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def dot(a: Float[Array, "... n"], b: Float[Array, "... n"]) -> Float[Array, "..."]:
    """Scalar product along the last axis, in the precision of its arguments.

    `jnp.dot` leaves the precision of float32 to the device, and a TPU multiplies in bfloat16.
    """
    return jnp.sum(a * b, axis=-1)


def safe_sqrt(x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """sqrt(max(x, 0)), with derivative zero where x <= 0."""
    ok = x > 0
    return jnp.where(ok, jnp.sqrt(jnp.where(ok, x, 1.0)), 0.0)


def safe_norm(x: Float[Array, "..."], axis: int = -1, keepdims: bool = False) -> Float[Array, "..."]:
    """Euclidean length along an axis, with derivative zero at the zero vector."""
    return safe_sqrt(jnp.sum(x * x, axis=axis, keepdims=keepdims))


def unit(x: Float[Array, "..."], axis: int = -1) -> Float[Array, "..."]:
    """x / |x| along an axis; the zero vector stays zero, with derivative zero."""
    norm = safe_norm(x, axis, keepdims=True)
    ok = norm > 0
    return jnp.where(ok, x / jnp.where(ok, norm, 1.0), 0.0)


def safe_arccos(x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """arccos of x clipped to [-1, 1], with derivative zero where |x| >= 1."""
    ok = jnp.abs(x) < 1
    return jnp.where(ok, jnp.arccos(jnp.where(ok, x, 0.0)), jnp.where(x > 0, 0.0, jnp.pi))


def safe_arctan2(y: Float[Array, "*batch"], x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """arctan2(y, x), and 0 with derivative zero at the origin."""
    ok = (x != 0) | (y != 0)
    return jnp.where(ok, jnp.arctan2(y, jnp.where(ok, x, 1.0)), 0.0)


def angle_between(a: Float[Array, "3"], b: Float[Array, "3"]) -> Float[Array, ""]:
    """Angle between two vectors of any length, 0..pi [rad].

    atan2(|a x b|, a . b) of the unit vectors, which unlike the arc cosine loses no digits near 0 and pi.
    The derivative at exactly parallel vectors, where the angle has a kink, is zero.
    """
    a, b = unit(a), unit(b)
    return safe_arctan2(safe_norm(jnp.cross(a, b)), dot(a, b))


def wrap_angle(x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """x less whole turns, in [-pi, pi], with derivative one."""
    return x - 2 * jnp.pi * jax.lax.stop_gradient(jnp.round(x / (2 * jnp.pi)))


def find_root(
    f: Callable[[Array], Array],
    negative: Float[Array, "*batch"],
    positive: Float[Array, "*batch"],
    iterations: int = 16,
) -> Float[Array, "*batch"]:
    """Elementwise root of f between a point where f < 0 and a point where f > 0.

    Every iteration takes a Newton step, or halves the bracket if that step would leave it, and then halves
    the bracket once more: the error is below width / 2^iterations whatever f does, and at rounding if f is
    smooth. f must act on each element alone. Without a change of sign the result is some point of the
    bracket.

    The derivative with respect to whatever f closes over is that of the implicit function theorem, forward
    and reverse and to any order; the ends of the bracket carry none. At a double root (df/dx = 0), where
    the true derivative is infinite, the rounding unit stands in for the slope and the result stays finite.
    """

    def slope(x):
        return jax.jvp(f, (x,), (jnp.ones_like(x),))

    def newton(x, lo, hi):
        fx, dfx = slope(x)
        lo, hi = jnp.where(fx < 0, x, lo), jnp.where(fx < 0, hi, x)
        step = x - fx / jnp.where(dfx == 0, 1.0, dfx)
        inside = (dfx != 0) & (step >= jnp.minimum(lo, hi)) & (step <= jnp.maximum(lo, hi))
        return jnp.where(inside, step, (lo + hi) / 2), lo, hi

    def body(_, state):
        x, lo, hi = newton(*state)
        middle = (lo + hi) / 2
        below = f(middle) < 0
        lo, hi = jnp.where(below, middle, lo), jnp.where(below, hi, middle)
        x = jnp.clip(x, jnp.minimum(lo, hi), jnp.maximum(lo, hi))
        return x, lo, hi

    def solve(_, x):
        ends = jax.lax.stop_gradient((negative, positive))
        state = jax.lax.fori_loop(0, iterations, body, (x, *ends))
        return newton(*state)[0]

    def tangent_solve(g, y):
        d = g(jnp.ones_like(y))
        floor = jnp.finfo(d.dtype).eps
        return y / jnp.where(jnp.abs(d) < floor, jnp.where(d < 0, -floor, floor), d)

    guess = jax.lax.stop_gradient((negative + positive) / 2)
    return jax.lax.custom_root(f, guess, solve, tangent_solve)


def compensated_sum(
    total: Float[Array, "*s"], term: Float[Array, "*s"], lost: Float[Array, "*s"]
) -> tuple[Float[Array, "*s"], Float[Array, "*s"]]:
    """total + term, and what rounding has cut off that sum and, by `lost`, off the ones before it.

    Kahan, Comm. ACM 8 (1965) 40. Derivatives are those of total + term.
    """
    term = term + lax.stop_gradient(lost)
    new = total + term
    return new, lax.stop_gradient(term - (new - total))


def segmented_scan(f: Callable, carry: Any, rows: Any) -> tuple[Any, Any]:
    """lax.scan whose reverse mode keeps the carry at about sqrt(k) of its k rows and computes the rest anew.

    Segments have between one and two sqrt(k) rows, as many as leave least over: that is a segment by itself, which
    compiles f a second time.
    """
    k = jax.tree.leaves(rows)[0].shape[0]
    root = max(1, math.isqrt(k))
    size = min(range(root, 2 * root + 1), key=lambda n: k % n)
    whole = k // size * size

    @jax.checkpoint
    def segment(carry, rows):
        return lax.scan(f, carry, rows)

    head = jax.tree.map(lambda a: a[:whole].reshape(k // size, size, *a.shape[1:]), rows)
    carry, out = lax.scan(segment, carry, head)
    out = jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), out)
    if whole == k:
        return carry, out
    carry, rest = segment(carry, jax.tree.map(lambda a: a[whole:], rows))
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), out, rest)
