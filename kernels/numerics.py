"""Gradient-safe square root, arc cosine, arc tangent; implicitly differentiated roots; long sums
and scans."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float


def scaled(x: Float[Array, "*batch"], a: Float[Array, "..."]) -> Float[Array, "..."]:
    """x a, with further axes of a before those of x."""
    return x.reshape((1,) * (a.ndim - x.ndim) + x.shape) * a


def safe_sqrt(x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """sqrt(max(x, 0)), with derivative zero where x <= 0."""
    ok = x > 0
    return jnp.where(ok, jnp.sqrt(jnp.where(ok, x, 1.0)), 0.0)


def safe_arccos(x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """arccos of x clipped to [-1, 1], with derivative zero where |x| >= 1."""
    ok = jnp.abs(x) < 1
    return jnp.where(ok, jnp.arccos(jnp.where(ok, x, 0.0)), jnp.where(x > 0, 0.0, jnp.pi))


# Of single precision; S. L. Moshier, Cephes Mathematical Library (1992), sinf, cosf, atanf. pi/2 in three parts, of
# which the first two have few enough digits that whole multiples of them are exact.
_HALF_PI = (1.5703125, 4.837512969970703125e-4, 7.549789948768648e-8)
_SIN = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
_COS = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
_ATAN = (8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1)
_TAN_22_5 = math.sqrt(2) - 1


def _horner(coefficients: tuple[float, ...], x: Array) -> Array:
    total = jnp.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        total = total * x + c
    return total


@jax.custom_jvp
def sincos(x: Float[Array, "*batch"]) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """Sine and cosine of an angle of up to some hundred turns.

    In float32 by polynomials, 1e-7, where a CPU would call a library for each element (12 ns in place of 1).
    """
    if x.dtype != jnp.float32:
        return jnp.sin(x), jnp.cos(x)
    turns = jnp.round(x * (2 / math.pi))
    r = x
    for part in _HALF_PI:
        r = r - turns * part
    r2 = r * r
    s = r + r * r2 * _horner(_SIN, r2)
    c = 1 - r2 / 2 + r2 * r2 * _horner(_COS, r2)
    quadrant = turns.astype(jnp.int32)
    odd = quadrant % 2 != 0
    sine, cosine = jnp.where(odd, c, s), jnp.where(odd, s, c)
    return jnp.where(quadrant & 2 != 0, -sine, sine), jnp.where((quadrant + 1) & 2 != 0, -cosine, cosine)


@sincos.defjvp
def _(primals, tangents):
    s, c = sincos(*primals)
    return (s, c), (c * tangents[0], -s * tangents[0])


@jax.custom_jvp
def arctan2(y: Float[Array, "*batch"], x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """arctan2(y, x), not both 0; in float32 by a polynomial, 2e-7, as `sincos`."""
    if x.dtype != jnp.float32:
        return jnp.arctan2(y, x)
    low, high = jnp.minimum(jnp.abs(x), jnp.abs(y)), jnp.maximum(jnp.abs(x), jnp.abs(y))
    far = low > _TAN_22_5 * high
    t = jnp.where(far, low - high, low) / jnp.where(far, low + high, high)
    t2 = t * t
    angle = jnp.where(far, math.pi / 4, 0.0) + (t + t * t2 * _horner(_ATAN, t2))
    angle = jnp.where(jnp.abs(y) > jnp.abs(x), math.pi / 2 - angle, angle)
    angle = jnp.where(x < 0, math.pi - angle, angle)
    return jnp.where(y < 0, -angle, angle)


@arctan2.defjvp
def _(primals, tangents):
    (y, x), (dy, dx) = primals, tangents
    # Squares of lengths in metres leave float32's range.
    size = lax.stop_gradient(jnp.maximum(jnp.abs(x), jnp.abs(y)))
    c, s = x / size, y / size
    return arctan2(y, x), (dy / size * c - dx / size * s) / (c * c + s * s)


def safe_arctan2(y: Float[Array, "*batch"], x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """arctan2(y, x), and 0 with derivative zero at the origin."""
    ok = (x != 0) | (y != 0)
    return jnp.where(ok, arctan2(y, jnp.where(ok, x, 1.0)), 0.0)


def wrap_angle(x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """x less whole turns, in [-pi, pi], with derivative one."""
    return x - 2 * jnp.pi * jax.lax.stop_gradient(jnp.round(x / (2 * jnp.pi)))


def find_root(
    f: Callable[[Array], Array],
    negative: Float[Array, "*batch"],
    positive: Float[Array, "*batch"],
    iterations: int = 16,
    flattest: float | None = None,
) -> Float[Array, "*batch"]:
    """Elementwise root of f between a point where f < 0 and a point where f > 0.

    Every iteration takes a Newton step, or halves the bracket if that step would leave it, and then halves
    the bracket once more; an element is done when such a step is below the bracket's width times the square root of
    rounding, or after `iterations`. A last step makes the error rounding at a simple root of a smooth f, and
    width / 2^iterations whatever f does. f must act on each element alone. Without a change of sign the result is
    some point of the bracket.

    The derivative with respect to whatever f closes over is that of the implicit function theorem, forward
    and reverse and to any order; the ends of the bracket carry none. At a double root (df/dx = 0), where
    the true derivative is infinite, `flattest` (the rounding unit if not given) stands in for the slope and the
    result stays finite.
    """

    def slope(x):
        return jax.jvp(f, (x,), (jnp.ones_like(x),))

    def newton(x, lo, hi):
        fx, dfx = slope(x)
        lo, hi = jnp.where(fx < 0, x, lo), jnp.where(fx < 0, hi, x)
        step = x - fx / jnp.where(dfx == 0, 1.0, dfx)
        inside = (dfx != 0) & (step >= jnp.minimum(lo, hi)) & (step <= jnp.maximum(lo, hi))
        return jnp.where(inside, step, (lo + hi) / 2), lo, hi

    def solve(_, x):
        ends = jax.lax.stop_gradient((negative, positive))
        near = jnp.sqrt(jnp.finfo(x.dtype).eps) * jnp.abs(ends[1] - ends[0])

        def body(state):
            k, done, x, lo, hi = state
            new, lower, upper = newton(x, lo, hi)
            step = jnp.abs(new - x)
            middle = (lower + upper) / 2
            below = f(middle) < 0
            lower, upper = jnp.where(below, middle, lower), jnp.where(below, upper, middle)
            new = jnp.clip(new, jnp.minimum(lower, upper), jnp.maximum(lower, upper))
            # What is done stays as it is, whatever else is in the batch.
            kept = (jnp.where(done, a, b) for a, b in ((x, new), (lo, lower), (hi, upper)))
            return k + 1, done | (step <= near), *kept

        def going(state):
            return (state[0] < iterations) & ~jnp.all(state[1])

        _, _, *state = jax.lax.while_loop(going, body, (0, jnp.zeros(x.shape, bool), x, *ends))
        return newton(*state)[0]

    def tangent_solve(g, y):
        d = g(jnp.ones_like(y))
        floor = jnp.finfo(d.dtype).eps if flattest is None else flattest
        return y / jnp.where(jnp.abs(d) < floor, jnp.where(d < 0, -floor, floor), d)

    guess = jax.lax.stop_gradient((negative + positive) / 2)
    return jax.lax.custom_root(f, guess, solve, tangent_solve)


def gauss_legendre(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the n-point Gauss-Legendre rule on 0..1, on the host in float64."""
    x, weight = np.polynomial.legendre.leggauss(n)
    return (x + 1) / 2, weight / 2


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
