"""Direct Sun, albedo and Earth infrared on a flat one-sided face near a spherical, diffuse Earth.

The albedo of a face is an integral of (Sun on the ground) x (ground seen by the face) over the visible cap.
On a ring of ground points that all see the satellite under one angle (`rings`), both factors are A + B
cos(azimuth), cut at zero, and the azimuth integral is closed (`_overlap`). What is left is a one-dimensional
integral over rings, cut where an arc begins.

Derived in docs/physics.md, "Albedo".
"""

import itertools
import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .numerics import safe_sqrt
from .rings import (
    VERTICAL,
    Cap,
    arc,
    arccos,
    integrate,
    over_both_arcs,
    ring_coordinate,
    sunlit_ring,
    visible_cap,
    zenith_cosine,
)
from .vector import dot, norm, unit
from .view_factor import plate_to_sphere

# Gauss-Legendre nodes of the fast method: whole cap by day and beyond the terminator (shared by all faces),
# then for each face from its horizon to the terminator, and from there to the limb. Largest error 0.009
# W/m2 at S 1361, a 0.3 over all directions and altitudes above 200 km (tests/test_environment.py).
CAP_NODES = (5, 5)
FACE_NODES = (6, 5)
# Nodes a piece of the reference method: 1e-11 of the albedo factor.
EXACT_NODES = 24
# 1 - |cosine| of an azimuth that counts as 0 or 180 degrees to a derivative, which is left wrong by its square root;
# rounding over this is what the angle's own derivative would be wrong by.
AHEAD = {"float32": 1e-5, "float64": 1e-10}
# Cosine of a tilt that counts as 90 degrees or more. Above float32 rounding; what is left out is its cube.
EDGE_ON = 1e-5


def solar(
    n: Float[Array, "3"],
    sun_hat: Float[Array, "3"],
    sunlit_fraction: Float[Array, ""],
    solar_flux: Float[Array, ""],
) -> Float[Array, ""]:
    """Direct sunlight on a face, S nu max(0, n.s) [W/m2].

    Args:
        n: Outward unit normal.
        sun_hat: Unit vector to the Sun, same frame.
        sunlit_fraction: Visible part of the solar disc nu [-].
        solar_flux: Irradiance S at the satellite, normal to the Sun [W/m2].
    """
    return solar_flux * sunlit_fraction * jnp.maximum(dot(n, sun_hat), 0.0)


def earth_infrared(
    n: Float[Array, "3"], r: Float[Array, "3"], earth_radius: Float[Array, ""], earth_flux: Float[Array, ""]
) -> Float[Array, ""]:
    """Infrared of a uniform diffuse Earth on a face, M F [W/m2], with F from `plate_to_sphere`.

    Args:
        n: Outward unit normal.
        r: Position from the Earth's centre, same frame [m].
        earth_radius: Of the radiating sphere [m].
        earth_flux: Emitted flux M at that sphere [W/m2].
    """
    return earth_flux * plate_to_sphere(-dot(n, unit(r)), norm(r) / earth_radius)


def albedo(
    n: Float[Array, "3"],
    r: Float[Array, "3"],
    sun_hat: Float[Array, "3"],
    solar_flux: Float[Array, ""],
    albedo: Float[Array, ""],
    earth_radius: Float[Array, ""],
) -> Float[Array, ""]:
    """Sunlight returned by a uniform Lambert Earth on a face, a S F [W/m2], F from `albedo_factor`.

    Args:
        n: Outward unit normal.
        r: Position from the Earth's centre, same frame [m].
        sun_hat: Unit vector to the Sun, taken to be at infinity.
        solar_flux: Irradiance S at the Earth [W/m2].
        albedo: Reflected part a [-].
        earth_radius: Of the reflecting sphere [m].
    """
    up = unit(r)
    F = albedo_factor(-dot(n, up), dot(sun_hat, up), dot(n, sun_hat), norm(r) / earth_radius)
    return albedo * solar_flux * F


def albedo_factor(
    cos_tilt: Float[Array, "*batch"],
    cos_zenith: Float[Array, "*batch"],
    cos_sun: Float[Array, "*batch"],
    r_over_R: Float[Array, "*batch"],
) -> Float[Array, "*batch"]:
    """Albedo factor of a face, to 1e-10.

        F = 1/pi Int over the visible cap of max(0, cos th_sun) max(0, cos alpha_face) dOmega

    96 rings for the face and 48 for the cap, cut also where the terminator crosses the face's horizon.

    Args:
        cos_tilt: Cosine of the angle between the face's normal and nadir.
        cos_zenith: Cosine of the Sun's zenith angle at the sub-satellite point.
        cos_sun: Cosine of the angle between the face's normal and the Sun.
        r_over_R: Distance from the Earth's centre over its radius, > 1.
    """
    cap = visible_cap(cos_zenith, r_over_R)
    return _both_sides(cap, _cap_flux(cap, exact=True), cos_tilt, cos_sun, exact=True)[0]


def albedo_factor_pairs(
    cos_tilt: Float[Array, "faces *batch"],
    cos_zenith: Float[Array, "*batch"],
    cos_sun: Float[Array, "faces *batch"],
    r_over_R: Float[Array, "*batch"],
    exact: bool = False,
) -> tuple[Float[Array, "faces *batch"], Float[Array, "faces *batch"]]:
    """Albedo factors of several faces and of the faces opposite to them, fast.

    11 rings a pair of faces and 10 shared ones. F(n) - F(-n) is linear in n, the flux of the whole lit cap through
    the plane: only the side turned away from the Earth is integrated. Largest error 2.2e-5 (0.009 W/m2 at S = 1361
    W/m2, a = 0.3) above 200 km, rms 1.3e-6; no sub-point approximation, so it is as good at the terminator.

    Arguments as in `albedo_factor`; `exact` takes its rings, eight times as many. Static.

    Returns:
        F of the faces, and F of the opposite faces.
    """
    cap = visible_cap(cos_zenith, r_over_R)
    flux = _cap_flux(cap, exact)
    # A loop rather than one more axis: on a CPU the arrays of one face stay contiguous, 4 times faster.
    return lax.map(lambda x: _both_sides(cap, flux, *x, exact=exact), (cos_tilt, cos_sun))


def view_factor_pairs(
    cos_tilt: Float[Array, "faces *batch"], r_over_R: Float[Array, "*batch"]
) -> tuple[Float[Array, "faces *batch"], Float[Array, "faces *batch"]]:
    """`plate_to_sphere` of several faces and of the faces opposite to them."""
    H = jnp.broadcast_to(r_over_R[None], cos_tilt.shape)
    F = plate_to_sphere(cos_tilt, H)
    # F(n) - F(-n) = cos(tilt)/H^2, the flux of the whole disc through the plane.
    return F, jnp.maximum(F - cos_tilt / H**2, 0.0)


def _both_sides(
    cap: Cap, flux: tuple[Array, Array], cos_tilt: Array, cos_sun: Array, exact: bool
) -> tuple[Array, Array]:
    """Albedo factors of a face and of the face opposite to it, from the lit ground `flux` of `_cap_flux`."""
    sin_tilt = jnp.sqrt(jnp.maximum(1 - cos_tilt**2, VERTICAL))
    # Product of the horizontal parts of normal and Sun: exact even where one of them vanishes and the azimuth
    # between them means nothing.
    horizontal = cos_sun + cos_tilt * cap.cos_zenith
    cos_azimuth = jnp.clip(horizontal / (sin_tilt * cap.sin_zenith), -1, 1)
    # Where the Sun is straight ahead the cosine is at its greatest, its derivative zero; that of the angle is not.
    ahead = jnp.abs(cos_azimuth) > 1 - AHEAD[cos_azimuth.dtype.name]
    cos_azimuth = jnp.where(ahead, lax.stop_gradient(cos_azimuth), cos_azimuth)
    # Both sides of an edge-on plane may be integrated; one is chosen that rounding does not swap.
    facing = cos_tilt > EDGE_ON
    turn = jnp.where(facing, -1.0, 1.0).astype(cos_tilt.dtype)  # to the side that faces away from the Earth
    away = jnp.maximum(_away(cap, turn * cos_tilt, sin_tilt, turn * cos_azimuth, exact), 0.0)
    down, across = flux
    toward = jnp.maximum(away - turn * (cos_tilt * down + horizontal * across), 0.0)
    return jnp.where(facing, toward, away), jnp.where(facing, away, toward)


def _cap_flux(cap: Cap, exact: bool) -> tuple[Array, Array]:
    """Lit ground in view, weighted with the cosine from nadir, and with the sine towards the Sun's azimuth.

    The second is divided by the sine of the Sun's zenith angle, to which it is proportional.
    """

    def sunlit(w):
        y, sin_eta, cos_eta, C, D = sunlit_ring(cap, w)
        return 2 * math.pi * y * cos_eta * C, math.pi * y * sin_eta * D

    def crossed(w):
        y, sin_eta, cos_eta, C, D = sunlit_ring(cap, w)
        a, c, s = arc(C, D, exact)
        return 2 * y * cos_eta * (C * a + D * s), y * sin_eta * (2 * C * s + D * (a + s * c))

    zero = jnp.zeros_like(cap.H)
    w_nadir = ring_coordinate(cap, jnp.ones_like(cap.H))
    w_sun = ring_coordinate(cap, zenith_cosine(cap, cap.sin_zenith))
    sunlit_nodes, crossed_nodes = (EXACT_NODES, EXACT_NODES) if exact else CAP_NODES
    day = integrate(sunlit, w_nadir, w_sun, sunlit_nodes, smooth="none")
    dusk = integrate(crossed, w_sun, zero, crossed_nodes)
    down, across = (jnp.where(cap.cos_zenith > 0, a, 0.0) + b for a, b in zip(day, dusk))
    return down / (math.pi * cap.H), across / (math.pi * cap.H * cap.sin_zenith)


def _away(cap: Cap, cos_tilt: Array, sin_tilt: Array, cos_azimuth: Array, exact: bool) -> Array:
    """Albedo factor of faces turned away from the Earth, cos_tilt < EDGE_ON.

    They see the rings between their horizon and the limb. From the horizon to the ring that touches the
    terminator the ground is all lit, or all dark.
    """
    sin_azimuth = safe_sqrt(1 - cos_azimuth**2)
    azimuth = arccos(cos_azimuth, exact)

    def sunlit(w):
        y, sin_eta, cos_eta, C, D = sunlit_ring(cap, w)
        A, B = cos_eta * cos_tilt, sin_eta * sin_tilt
        a, c, s = arc(A, B, exact)
        return (y * (2 * C * (A * a + B * s) + D * cos_azimuth * (2 * A * s + B * (a + s * c))),)

    def crossed(w):
        y, sin_eta, cos_eta, C, D = sunlit_ring(cap, w)
        A, B = cos_eta * cos_tilt, sin_eta * sin_tilt
        face, sun = arc(A, B, exact), arc(C, D, exact)
        return (y * _overlap(A, B, face, C, D, sun, azimuth, cos_azimuth, sin_azimuth),)

    zero = jnp.zeros_like(cos_tilt)
    w_face = ring_coordinate(cap, safe_sqrt(1 - (cap.H * cos_tilt) ** 2))
    w_sun = jnp.minimum(w_face, ring_coordinate(cap, zenith_cosine(cap, cap.sin_zenith)))
    if exact:
        cuts = [w_sun, *(jnp.minimum(w_face, w) for w in _crossings(cap, cos_tilt, sin_tilt, cos_azimuth))]
        cuts = [w_face, *jnp.sort(jnp.stack(cuts), axis=0)[::-1], zero]
        total = sum(
            integrate(crossed, a, b, EXACT_NODES, smooth="both")[0] for a, b in itertools.pairwise(cuts)
        )
    else:
        (day,) = integrate(sunlit, w_face, w_sun, FACE_NODES[0])
        (dusk,) = integrate(crossed, w_sun, zero, FACE_NODES[1])
        total = jnp.where(cap.cos_zenith > 0, day, 0.0) + dusk
    return total / (math.pi * cap.H)


def _overlap(A, B, face, C, D, sun, azimuth, cos_azimuth, sin_azimuth) -> Array:
    """Int of (A + B cos phi)(C + D cos(phi - azimuth)) over the phi at which both factors are positive.

    The antiderivative is

        G(phi) = A C phi + B C sin phi + A D sin(phi - azimuth) + B D/2 [phi cos azimuth + sin(2 phi -
        azimuth)/2]
    """
    cd = cos_azimuth
    constant, BC, AD, BD = A * C + B * D * cd / 2, B * C, A * D, B * D / 4

    def G(phi, sin_phi, cos_phi, sin_diff, cos_diff):
        return constant * phi + BC * sin_phi + AD * sin_diff + BD * (sin_phi * cos_diff + cos_phi * sin_diff)

    return over_both_arcs(G, constant, face, sun, azimuth, cos_azimuth, sin_azimuth)


def _crossings(cap: Cap, cos_tilt: Array, sin_tilt: Array, cos_azimuth: Array) -> tuple[Array, Array]:
    """Rings through the two ground points where the terminator meets the horizon of a face.

    Points p of the unit sphere with p.s = 0 and p.n = n.sat, in axes with the Sun's azimuth in x: the
    nearest point of the line to the centre, and half a chord to each side. Without a crossing: the nearest
    point.
    """
    ns = sin_tilt * cap.sin_zenith * cos_azimuth - cos_tilt * cap.cos_zenith
    q = jnp.maximum(1 - ns * ns, VERTICAL)
    offset = -cos_tilt * cap.H
    middle = (-cos_tilt - ns * cap.cos_zenith) * offset / q
    rise = sin_tilt * cap.sin_zenith * safe_sqrt(1 - cos_azimuth**2) / jnp.sqrt(q)
    half = safe_sqrt(1 - offset * offset / q) * rise
    cos_psi = (jnp.clip(middle + s * half, -1, 1) for s in (-1, 1))
    near, far = (ring_coordinate(cap, zenith_cosine(cap, x)) for x in cos_psi)
    return near, far
