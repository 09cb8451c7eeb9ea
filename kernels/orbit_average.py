"""Fluxes of a revolution: means by quadrature laid between shadow edges, greatest and least values.

Everything is counted by eccentric anomaly. Direct Sun: Gauss-Legendre over the penumbra crossings, and over the
sunlit arc cut where the planes turn to or from the Sun, twice a revolution at most: further turns are kinks inside a
piece, as are turns during a crossing. Albedo and infrared know no shadow edge and are periodic: equal steps, which
converge fastest for a smooth periodic function. Where terminator, limb and a face's own horizon meet they have kinks
of order 5/2, which limit the order.

Components and planes come first, satellites last: a kernel of many satellites is a loop over nodes of operations on
whole vectors of satellites.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from .attitude import array_normal, body_axes, in_eci
from .earth import Earth, earth_fluxes
from .eclipse import (
    Shadow,
    crossing_nodes,
    hidden_seconds,
    shadow,
    sunlit_at_zenith,
    zenith,
)
from .environment import albedo_factor_pairs, view_factor_pairs
from .numerics import gauss_legendre, scaled
from .orbit import Orbit, in_plane, perifocal_axes, period
from .pytree import pytree
from .revolution import Revolution, geometry_of
from .vector import combination, dot

# Slope dh/dtheta of the shadow's edge below which a cut's derivative no longer grows. What the cuts enclose is
# continuous across them, so that their motion leaves no more than the quadrature's own error times that derivative.
FLATTEST = 1e-5
FULL = 1 - 1e-6  # of the solar disc in view
# Body axes, and faces: those of the body along them, and the two sides of radiator and array.
AXES = ("+x", "-x", "+y", "-y", "+z", "-z")
FACES = (*(f"body_{axis}" for axis in AXES), "radiator_0", "radiator_1", "array_front", "array_back")


@pytree
class Sources:
    """What shines on a satellite: the Sun, and a diffuse Earth.

    Attributes:
        solar_flux: At the Earth and at the satellite [W/m2].
        albedo: Of a uniform Earth [-]. Not used with `earth`.
        infrared: Of a uniform Earth, emitted at `radius` [W/m2]. Not used with `earth`.
        radius: Of the reflecting and radiating sphere [m].
        earth: None for a uniform Earth, or one that varies over the ground.
    """

    solar_flux: Float[Array, "*batch"]
    albedo: Float[Array, "*batch"]
    infrared: Float[Array, "*batch"]
    radius: Float[Array, "*batch"]
    earth: Earth | None = None


@pytree
class Fluxes:
    """Fluxes of one revolution; of many, with the satellites on the last axis of every leaf.

    Faces as in `FACES`. Greatest and least values are those of the nodes, between them by the parabola through three,
    and at the edges of the shadow.

    Attributes:
        period: [s].
        beta: Angle of the Sun above the orbit plane, positive on the side of the orbit normal [rad].
        eclipse_fraction: Mean over the revolution of the hidden part of the solar disc [-].
        umbra_seconds: [s].
        penumbra_seconds: Both crossings [s].
        incident: Means of direct Sun, albedo and Earth infrared; of the latter two what the surroundings leave open
            [W/m2].
        peak: Their greatest values [W/m2].
        least: Their least values [W/m2].
        absorbed: Mean of alpha (solar + open albedo) + eps open infrared [W/m2].
        absorbed_peak: [W/m2].
        absorbed_least: [W/m2].
    """

    period: Float[Array, "*batch"]
    beta: Float[Array, "*batch"]
    eclipse_fraction: Float[Array, "*batch"]
    umbra_seconds: Float[Array, "*batch"]
    penumbra_seconds: Float[Array, "*batch"]
    incident: Float[Array, "3 faces *batch"]
    peak: Float[Array, "3 faces *batch"]
    least: Float[Array, "3 faces *batch"]
    absorbed: Float[Array, "faces *batch"]
    absorbed_peak: Float[Array, "faces *batch"]
    absorbed_least: Float[Array, "faces *batch"]


# Outward normals of planes, (planes, 3, *batch), from position and velocity of any length, (3, *batch).
Normals = Callable[[Array, Array], Array]


class _Instant(NamedTuple):
    """Directions at one point of the orbit. Planes first where there are several."""

    radius: Array  # over the semi-major axis; also dM/dE
    up: Array
    planes: Sequence[Array]  # their normals
    cos_zenith: Array
    sin_zenith: Array
    cos_tilt: Array
    cos_sun: Array


class _Passage(NamedTuple):
    """A revolution as the quadratures see it."""

    orbit: Orbit
    sun_hat: Array
    sun_distance: Array
    shadow: Shadow
    axes: Array  # perifocal

    def at(self, E: Array, normals: Normals) -> _Instant:
        cos_nu, sin_nu, radius = in_plane(E, self.orbit.eccentricity)
        P, Q, _ = self.axes
        up = jnp.stack(combination((cos_nu, P), (sin_nu, Q)))
        # But for its length.
        v = jnp.stack(combination((self.orbit.eccentricity + cos_nu, Q), (-sin_nu, P)))
        planes = normals(up, v)
        return _Instant(
            radius,
            up,
            planes,
            *zenith(self.shadow, cos_nu, sin_nu),
            jnp.stack([-dot(plane, up) for plane in planes]),
            jnp.stack([dot(plane, self.sun_hat) for plane in planes]),
        )

    def sunlit(self, now: _Instant) -> Array:
        distance = self.orbit.semi_major_axis * now.radius
        return sunlit_at_zenith(now.cos_zenith, now.sin_zenith, distance, self.sun_distance)


def _passage(orbit: Orbit, sun_hat: Array, sun_distance: Array) -> _Passage:
    found = shadow(orbit, sun_hat, sun_distance, FLATTEST)
    return _Passage(orbit, sun_hat, sun_distance, found, perifocal_axes(orbit))


def mean_fluxes(
    orbit: Orbit,
    sun_hat: Float[Array, "3 *batch"],
    sun_distance: Float[Array, "*batch"],
    sources: Sources,
    normals: Normals,
    n: int = 32,
    exact: bool = False,
) -> Float[Array, "3 2 planes *batch"]:
    """Means over a revolution of direct Sun, albedo and Earth infrared on both sides of planes [W/m2].

    Args:
        orbit: Its mean anomaly is not used.
        sun_hat: Unit vector to the Sun.
        sun_distance: [m].
        sources: What shines on them.
        normals: Outward unit normals of the planes, (planes, 3, *batch), from position and velocity of any length.
            Static.
        n: Nodes a revolution for albedo and infrared; direct Sun has its own, n/8 for each piece. Static.
        exact: Albedo of a uniform Earth by the reference method, to 1e-10 at each node, in place of the fast one.
            Static.
    """
    passage = _passage(orbit, sun_hat, sun_distance)
    solar = scaled(sources.solar_flux, _direct(passage, normals, n))
    earthly, _ = _all_round(passage, sources, normals, n, exact)
    return jnp.concatenate([solar[None], earthly])


def mean_sunlight(
    orbit: Orbit,
    sun_hat: Float[Array, "3 *batch"],
    sun_distance: Float[Array, "*batch"],
    normals: Normals,
    n: int = 32,
) -> tuple[Float[Array, "2 planes *batch"], Float[Array, "*batch"]]:
    """Means over a revolution of nu max(0, +-n.s) on both sides of planes, and of the Sun's hidden part 1 - nu [-].

    Arguments as in `mean_fluxes`.
    """
    passage = _passage(orbit, sun_hat, sun_distance)
    hidden = hidden_seconds(orbit, passage.shadow, sun_distance)
    return _direct(passage, normals, n), hidden / period(orbit.semi_major_axis)


def revolution_fluxes(
    revolution: Revolution,
    n: int = 32,
    along: tuple[str | None, str | None] = (None, None),
) -> Fluxes:
    """Means, greatest and least values of the fluxes on all faces of a satellite over a revolution.

    Args:
        revolution: Of one satellite, or of many with the satellites last in every leaf.
        n: As in `mean_fluxes`. Static.
        along: Body axes, such as "+x", along which radiator face 0 and the front of the array look at any time, where
            that is known: their planes are then those of the body. Static.
    """
    orbit, s = revolution.orbit, revolution.surfaces
    passage = _passage(orbit, revolution.sun_hat, revolution.sun_distance)
    sources = Sources(
        revolution.solar_flux,
        revolution.albedo,
        revolution.earth_infrared,
        revolution.earth_radius,
        revolution.earth,
    )

    for axis in along:
        if axis is not None and axis not in AXES:
            raise ValueError(f"along: got {axis!r}; one of {', '.join(AXES)}")

    def normals(up, ahead):
        axes = body_axes(up, ahead, revolution.sun_hat, revolution.attitude)
        more = []
        if along[0] is None:
            more.append(in_eci(revolution.radiator_normal_body, axes))
        if along[1] is None:
            drive, axis = revolution.array_drive, revolution.array_axis_body
            more.append(array_normal(axes, revolution.sun_hat, drive, axis))
        return jnp.stack([jnp.stack(normal) for normal in (*axes, *more)])

    # Plane and side of every face.
    places, planes = [(k // 2, k % 2) for k in range(len(AXES))], 3
    for axis in along:
        plane, side = (planes, 0) if axis is None else divmod(AXES.index(axis), 2)
        planes += axis is None
        places += [(plane, side), (plane, 1 - side)]

    def faces(incident):
        """Incident flux (3, 2, planes, *batch) by face, radiator faces as their surroundings leave it."""
        found = jnp.stack([incident[:, side, plane] for plane, side in places], axis=1)
        radiator = found[:, 6:8]
        if revolution.incident is not None:
            radiator = jnp.broadcast_to(revolution.incident, radiator.shape)
        else:
            radiator = jnp.concatenate([radiator[:1], radiator[1:] * s.radiator_open[None]])
        return jnp.concatenate([found[:, :6], radiator, found[:, 8:]], axis=1)

    def of_faces(body, radiator, array):
        return jnp.concatenate([jnp.broadcast_to(body[None], (6, *body.shape)), radiator, array])

    alpha = of_faces(s.body_solar_absorptance, s.radiator_solar_absorptance, s.array_solar_absorptance)
    epsilon = of_faces(s.body_emissivity, s.radiator_emissivity, s.array_emissivity)

    def track(incident):
        """Three incident fluxes and the absorbed one of each face, (4, faces, *batch)."""
        found = faces(incident)
        absorbed = alpha * (found[0] + found[1]) + epsilon * found[2]
        return jnp.concatenate([found, absorbed[None]])

    solar = scaled(sources.solar_flux, _direct(passage, normals, n))
    earthly, extremes = _all_round(
        passage, sources, normals, n, False, _Track(track, [plane for plane, _ in places])
    )
    peak, least = extremes.peak, extremes.least
    mean = track(jnp.concatenate([solar[None], earthly]))
    seen = geometry_of(orbit, passage.shadow, revolution.sun_distance)
    return Fluxes(
        period=seen.period,
        beta=seen.beta,
        eclipse_fraction=seen.eclipse_fraction,
        umbra_seconds=seen.umbra_seconds,
        penumbra_seconds=seen.penumbra_seconds,
        incident=mean[:3],
        peak=peak[:3],
        least=least[:3],
        absorbed=mean[3],
        absorbed_peak=peak[3],
        absorbed_least=least[3],
    )


def fleet_fluxes(
    revolutions: Revolution,
    n: int = 32,
    along: tuple[str | None, str | None] = (None, None),
    block: int | None = None,
) -> Fluxes:
    """`revolution_fluxes` of many revolutions: on the first axis of every leaf, and on the last of the result's.

    Args:
        block: Revolutions taken at once, so that what they need stays in a CPU's second-level cache; all if not
            given. Static.
    """
    last = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -1), revolutions)
    rows = revolutions.sun_distance.shape[0]
    if block is None or block >= rows:
        return revolution_fluxes(last, n, along)
    blocks = -(-rows // block)

    def divided(leaf):
        # The last row stands in for those that fill up the last block.
        leaf = jnp.pad(leaf, [(0, 0)] * (leaf.ndim - 1) + [(0, blocks * block - rows)], mode="edge")
        return jnp.moveaxis(leaf.reshape(*leaf.shape[:-1], blocks, block), -2, 0)

    def joined(leaf):
        leaf = jnp.moveaxis(leaf, 0, -2)
        return leaf.reshape(*leaf.shape[:-2], blocks * block)[..., :rows]

    found = lax.map(lambda part: revolution_fluxes(part, n, along), jax.tree.map(divided, last))
    return jax.tree.map(joined, found)


# --------------------------------------------------------------------------------------------- direct Sun


def _direct(passage: _Passage, normals: Normals, n: int) -> Array:
    """Mean of nu max(0, +-n.s) on both sides of the planes, (2, planes, *batch)."""
    turn, contacts = 2 * math.pi, passage.shadow.contacts
    first, last = contacts[3], contacts[0] + turn
    cuts = [jnp.clip(first + (cut - first) % turn, first, last) for cut in _turns(passage, normals, n)]
    ends = jnp.stack(_sorted([first, *cuts, last]))

    def add(total, node, crossing):
        E, weight = node
        now = passage.at(E, normals)
        weight = weight * now.radius * (passage.sunlit(now) if crossing else 1.0)
        return total + scaled(weight, _both(now.cos_sun)), None

    # Each piece's nodes, and the crossings'.
    x, weight = (jnp.asarray(a, first.dtype) for a in gauss_legendre(max(3, n // 8)))
    start, length = ends[:-1, None], jnp.diff(ends, axis=0)[:, None]
    spread = (1, len(x), *([1] * first.ndim))
    E = (start + length * x.reshape(spread)).reshape(-1, *first.shape)
    weight = (length * weight.reshape(spread)).reshape(-1, *first.shape)
    like = jax.eval_shape(lambda E: _both(passage.at(E, normals).cos_sun), first)
    zero = jnp.zeros(like.shape, like.dtype)
    total, _ = lax.scan(lambda *a: add(*a, crossing=False), zero, (E, weight))
    total, _ = lax.scan(lambda *a: add(*a, crossing=True), total, crossing_nodes(contacts))
    return total / turn


def _both(cos_sun: Array) -> Array:
    """max(0, n.s) of both sides."""
    return jnp.stack([jnp.maximum(cos_sun, 0.0), jnp.maximum(-cos_sun, 0.0)])


def _turns(passage: _Passage, normals: Normals, n: int) -> list[Array]:
    """Eccentric anomalies at which the planes turn to or from the Sun, two for each.

    The first two changes of sign between n points equally spaced all round, by linear interpolation and one more step
    with the secant's slope: 1e-4 rad with 32, which costs the mean its square. Points that divide the revolution
    evenly in place of those that a plane lacks.
    """
    step = 2 * math.pi / n
    like = passage.shadow.contacts[0]

    def cosines(E):
        return passage.at(E, normals).cos_sun

    def look(state, E):
        before, seen, found = state
        now = cosines(jnp.broadcast_to(E, like.shape))
        # What stays edge-on to the Sun turns by rounding alone.
        turned = ((before > 0) != (now > 0)) & (jnp.abs(before - now) > 64 * jnp.finfo(now.dtype).eps)
        fall = jnp.where(turned, before - now, 1.0)
        here = E - step + step * before / fall, -fall / step
        found = [
            tuple(jnp.where(turned & (seen == k), new, old) for new, old in zip(here, pair, strict=True))
            for k, pair in enumerate(found)
        ]
        return (now, seen + turned.astype(seen.dtype), found), None

    points = step * (np.arange(n + 1) + 0.5)
    begin = cosines(jnp.full_like(like, points[0]))
    planes = len(begin)
    even = jnp.asarray(2 * math.pi * (np.arange(2 * planes) + 0.5) / (2 * planes), like.dtype)
    even = jnp.broadcast_to(even.reshape(2, planes, *[1] * like.ndim), (2, *begin.shape))
    none = [(even[k], jnp.ones_like(begin)) for k in (0, 1)]
    seen = jnp.zeros(begin.shape, jnp.int32)
    (_, seen, found), _ = lax.scan(look, (begin, seen, none), jnp.asarray(points[1:], like.dtype))

    def improve(_, guess):
        E, slope, there, plane = guess
        miss = cosines(E)[plane] / slope
        return None, E - jnp.where(there, jnp.clip(miss, -step, step), 0.0)

    E, slope = (jnp.concatenate(x) for x in zip(*found))
    there = jnp.concatenate([seen > 0, seen > 1])
    which = jnp.asarray(np.tile(np.arange(planes), 2))
    return list(lax.scan(improve, None, (E, slope, there, which))[1])


def _sorted(values: list[Array]) -> list[Array]:
    """In ascending order, element by element; the first is the least and the last the greatest already.

    A network of minima and maxima: XLA's sort takes one element of the batch after the other on a CPU.
    """
    values = list(values)
    for k in range(len(values) - 2):
        for i in range(1 + k % 2, len(values) - 2, 2):
            low, high = values[i], values[i + 1]
            values[i], values[i + 1] = jnp.minimum(low, high), jnp.maximum(low, high)
    return values


# -------------------------------------------------------------------------------------- Earth, and extremes


class _Seen(NamedTuple):
    """A node on the way round."""

    value: Array
    bright: Array  # in full Sun
    facing: Array  # the Sun, by face


class _Extremes(NamedTuple):
    """What has been seen on the way round, and the last two nodes."""

    peak: Array
    least: Array
    before: _Seen
    last: _Seen


class _Track(NamedTuple):
    """What extremes are looked for of.

    Attributes:
        values: From incident flux (3, 2, planes, *batch) to (4, faces, *batch), of which the rows 1 and 2 are free of
            direct Sun.
        planes: Of the faces.
    """

    values: Callable[[Array], Array]
    planes: list[int]


def _all_round(
    passage: _Passage, sources: Sources, normals: Normals, n: int, exact: bool, track: Any = None
) -> tuple[Array, Any]:
    """Means of albedo and infrared, (2, 2, planes, *batch), and `_Extremes`, None without a `_Track`."""
    like = passage.shadow.contacts[0]

    def fluxes(E):
        now = passage.at(E, normals)
        H = passage.orbit.semi_major_axis * now.radius / sources.radius
        if sources.earth is not None:
            planes = jnp.stack([jnp.stack([*plane]) for plane in now.planes])
            where = now.up, H, planes, passage.sun_hat
            return now, jnp.stack(earth_fluxes(sources.earth, *where, sources.solar_flux))
        reflected = jnp.stack(albedo_factor_pairs(now.cos_tilt, now.cos_zenith, now.cos_sun, H, exact))
        infrared = jnp.stack(view_factor_pairs(now.cos_tilt, H))
        sunlight = sources.solar_flux * sources.albedo
        return now, jnp.stack([scaled(sunlight, reflected), scaled(sources.infrared, infrared)])

    def see(now, earthly):
        lit = passage.sunlit(now)
        solar = scaled(sources.solar_flux * lit, _both(now.cos_sun))
        facing = jnp.stack([now.cos_sun[plane] > 0 for plane in track.planes])
        return _Seen(track.values(jnp.concatenate([solar[None], earthly])), lit > FULL, facing)

    def look(state, node):
        E, weight, between = node
        mean, extremes = state
        now, earthly = fluxes(E)
        mean = mean + scaled(weight * now.radius, earthly)
        if track is not None:
            extremes = _reached(extremes, see(now, earthly), between)
        return (mean, extremes), None

    # Two nodes more, ahead of the first, so that every one has neighbours; without extremes none of them is needed.
    k = np.arange(0 if track is None else -2, n)
    E = [jnp.full_like(like, x) for x in 2 * math.pi / n * (k + 0.5)]
    weight, between = (k >= 0) / n, k >= 0
    now, earthly = jax.eval_shape(fluxes, like)
    extremes = None
    if track is not None:
        E += list(passage.shadow.contacts)
        weight, between = np.append(weight, np.zeros(4)), np.append(between, np.zeros(4, bool))
        none = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(see, now, earthly))
        extremes = _Extremes(none.value - jnp.inf, none.value + jnp.inf, none, none)
    nodes = jnp.stack(E), jnp.asarray(weight, like.dtype), jnp.asarray(between)
    zero = jnp.zeros(earthly.shape, earthly.dtype)
    (mean, extremes), _ = lax.scan(look, (zero, extremes), nodes)
    return mean, extremes


def _reached(seen: _Extremes, now: _Seen, between: Array) -> _Extremes:
    """One node more; where `between`, also the extreme of the parabola through the last three, in the middle."""
    a, b, c = seen.before.value, seen.last.value, now.value
    bend = 2 * b - a - c
    # Across an edge of the shadow, or where the face turns to or from the Sun, there is no parabola.
    bright = seen.before.bright & seen.last.bright & now.bright
    steady = (seen.before.facing == seen.last.facing) & (seen.last.facing == now.facing)
    sunlit = bright[None] & steady
    smooth = jnp.stack([sunlit, *[jnp.ones_like(sunlit)] * 2, sunlit]) & between
    top = smooth & (b >= a) & (b >= c) & (bend > 0)
    bottom = smooth & (b <= a) & (b <= c) & (bend < 0)
    beyond = (c - a) ** 2 / (8 * jnp.where(top | bottom, bend, 1.0))
    peak, least = jnp.maximum(seen.peak, c), jnp.minimum(seen.least, c)
    return _Extremes(
        jnp.where(top, jnp.maximum(peak, b + beyond), peak),
        jnp.where(bottom, jnp.minimum(least, jnp.maximum(b + beyond, 0.0)), least),
        seen.last,
        now,
    )
