"""The ground that a satellite sees, as rings on which it sees the satellite under one angle.

On a ring the cosines of the Sun's and of a face's incidence are A + B cos(azimuth), cut at zero. Rings are counted
by

    y = cosine of the satellite's zenith angle at the ground,   y = sqrt(H^2 - 1) sinh(w),   H = r/R

in which the solid angle is dOmega = y dw dphi / H, with no singularity near the limb however low the orbit.
Integrals over w are cut where an arc begins (the face's horizon, the terminator), and each piece starts with a
square: w = w0 - L u^2 turns the 3/2 power of an arc that opens into an analytic function of u, so that
Gauss-Legendre converges exponentially.

Derived in docs/physics.md, "Albedo".
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .numerics import gauss_legendre, safe_arccos, safe_sqrt

# Squared sine below which a direction counts as vertical: the albedo no longer depends on the azimuth
# there.
VERTICAL = 1e-10


class Cap(NamedTuple):
    """The ground in view, whatever the face."""

    H: Array
    k: Array  # sqrt(H^2 - 1)
    cos_zenith: Array
    sin_zenith: Array


def visible_cap(cos_zenith: Array, r_over_R: Array) -> Cap:
    """The cap at a distance, under a Sun whose zenith angle is that at the sub-satellite point."""
    sin_zenith = jnp.sqrt(jnp.maximum(1 - cos_zenith**2, VERTICAL))
    return Cap(r_over_R, safe_sqrt(r_over_R**2 - 1), cos_zenith, sin_zenith)


def integrate(
    f: Callable[[Array], tuple[Array, ...]], start: Array, stop: Array, n: int, smooth: str = "start"
) -> list[Array]:
    """Integrals of f(w) from stop up to start by n Gauss-Legendre nodes in u, w = start - (start - stop) t.

    t = u^2 for a 3/2 power at the start ("start"), u^2 (3 - 2 u) for one at each end ("both"), or u ("none").
    """
    u, weight = gauss_legendre(n)
    match smooth:
        case "both":
            t, weight = u * u * (3 - 2 * u), weight * 6 * u * (1 - u)
        case "start":
            t, weight = u * u, weight * 2 * u
        case "none":
            t = u
    length = start - stop
    table = jnp.asarray(np.stack([t, weight], axis=1), start.dtype)

    # A loop, and nothing kept from it for the reverse pass: written out, its gradient compiles for minutes.
    @jax.checkpoint
    def add(total, node):
        return [a + node[1] * x for a, x in zip(total, f(start - length * node[0]))], None

    zero = [jnp.zeros_like(x) for x in jax.eval_shape(f, start)]
    return [length * x for x in jax.lax.scan(add, zero, table)[0]]


def ring(cap: Cap, w: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Ring w: y, sine and cosine of its nadir angle, cosine and sine of its Earth-central angle."""
    e = jnp.exp(w)
    y = cap.k * (e - 1 / e) / 2
    # A piece of no length may lie at nadir, where there is no ring to divide by.
    sin_gamma = jnp.sqrt(jnp.maximum(1 - y * y, VERTICAL))
    sin_eta, cos_eta = sin_gamma / cap.H, cap.k * (e + 1 / e) / (2 * cap.H)
    # Earth-central angle psi = zenith angle gamma at the ground - nadir angle eta at the satellite.
    cos_psi = y * cos_eta + sin_gamma * sin_eta
    sin_psi = sin_eta * cap.k / e
    return y, sin_eta, cos_eta, cos_psi, sin_psi


def sunlit_ring(cap: Cap, w: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Ring w: y, sine and cosine of its nadir angle, and the Sun on its ground C + D cos(azimuth): C, D."""
    y, sin_eta, cos_eta, cos_psi, sin_psi = ring(cap, w)
    return y, sin_eta, cos_eta, cos_psi * cap.cos_zenith, sin_psi * cap.sin_zenith


def ring_coordinate(cap: Cap, y: Array) -> Array:
    """Ring coordinate, asinh(y/k)."""
    x = y / cap.k
    return jnp.log(x + jnp.sqrt(x * x + 1))


def zenith_cosine(cap: Cap, cos_psi: Array) -> Array:
    """Cosine of the satellite's zenith angle at Earth-central angle psi; 0 beyond the limb."""
    x = jnp.maximum(cap.H * cos_psi - 1, 0.0)
    return x / jnp.sqrt(cap.H**2 + 1 - 2 * cap.H * cos_psi)


def arc(A: Array, B: Array, exact: bool) -> tuple[Array, Array, Array]:
    """Half-width of the azimuths where A + B cos > 0 (B > 0), its cosine and its sine."""
    c = jnp.clip(-A / B, -1, 1)
    return arccos(c, exact), c, safe_sqrt(1 - c * c)


def arccos(x: Array, exact: bool) -> Array:
    """arccos on [-1, 1]. In float32, if not exact, sqrt(1 - |x|) times a polynomial: 2e-8 rad (Abramowitz and Stegun
    4.4.46)."""
    if exact or x.dtype != jnp.float32:
        return safe_arccos(x)
    a = jnp.abs(x)
    p = -0.0012624911
    for c in (
        0.0066700901,
        -0.0170881256,
        0.0308918810,
        -0.0501743046,
        0.0889789874,
        -0.2145988016,
        1.5707963050,
    ):
        p = p * a + c
    p = p * safe_sqrt(1 - a)
    return jnp.where(x < 0, math.pi - p, p)


def over_both_arcs(
    G: Callable[..., Array],
    mean: Array,
    face: tuple[Array, Array, Array],
    sun: tuple[Array, Array, Array],
    azimuth: Array,
    cos_azimuth: Array,
    sin_azimuth: Array,
) -> Array:
    """Integral over the azimuths phi that lie in both arcs, |phi| < a_f and |phi - azimuth| < a_s.

    They overlap once, or twice if together they go round.

    Args:
        G: Antiderivative at (phi, sin phi, cos phi, sin(phi - azimuth), cos(phi - azimuth)).
        mean: Of the integrand over a turn.
        face: a_f, its cosine and its sine: `arc`.
        sun: a_s likewise.
        azimuth: 0..pi, with its cosine and sine.
    """
    a_f, c_f, s_f = face
    a_s, c_s, s_s = sun
    cd, sd = cos_azimuth, sin_azimuth
    # The four ends: face -, face +, Sun -, Sun +.
    f_minus = G(-a_f, -s_f, c_f, -s_f * cd - c_f * sd, c_f * cd - s_f * sd)
    f_plus = G(a_f, s_f, c_f, s_f * cd - c_f * sd, c_f * cd + s_f * sd)
    s_minus = G(azimuth - a_s, sd * c_s - cd * s_s, cd * c_s + sd * s_s, -s_s, c_s)
    s_plus = G(azimuth + a_s, sd * c_s + cd * s_s, cd * c_s - sd * s_s, s_s, c_s)
    low, high = azimuth - a_s, azimuth + a_s
    upper = jnp.where(a_f < high, f_plus, s_plus)
    lower = jnp.where(-a_f > low, f_minus, s_minus)
    once = jnp.where(jnp.minimum(a_f, high) > jnp.maximum(-a_f, low), upper - lower, 0.0)
    # The Sun's arc comes round from the other side by a whole turn.
    again = s_plus - 2 * math.pi * mean - f_minus
    return once + jnp.where(high - 2 * math.pi > -a_f, again, 0.0)
