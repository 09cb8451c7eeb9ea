"""Thermal and power loads over one revolution of a satellite, in time steps that straddle no shadow edge."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from . import vector
from .attitude import Attitude, array_normal, body_axes, in_eci
from .earth import Earth, earth_fluxes
from .eclipse import Shadow, hidden_seconds, seconds_from_noon, shadow, shadow_times, sunlit_fraction
from .environment import albedo_factor_pairs, view_factor_pairs
from .numerics import arctan2, safe_sqrt
from .orbit import Orbit, components_at_time, period
from .pytree import pytree, static

# A stretch shorter than this part of the revolution gets no step of its own: the rounding of a time in
# float32.
SHORTEST = 1e-6
# Steps that a crossing of the penumbra gets at least; any other stretch gets one.
PENUMBRA_STEPS = 2


@pytree
class Surfaces:
    """Optics of what the environment heats. Radiator faces: 0 along the radiator's normal, 1 opposite.

    Attributes:
        radiator_solar_absorptance: [-].
        radiator_emissivity: Infrared [-].
        radiator_open: Part of each face's view that array and body leave free; scales albedo and infrared
            [-].
        array_solar_absorptance: Cell side and back, electrical output included [-].
        array_emissivity: Cell side and back [-].
        array_area: One side [m2].
        body_area: Faces +x, -x, +y, -y, +z, -z [m2].
        body_solar_absorptance: Part of the sunlight that reaches the structure (through insulation, if any)
            [-].
        body_emissivity: Likewise in the infrared [-].
    """

    radiator_solar_absorptance: Float[Array, "2"]
    radiator_emissivity: Float[Array, "2"]
    radiator_open: Float[Array, "2"]
    array_solar_absorptance: Float[Array, "2"]
    array_emissivity: Float[Array, "2"]
    array_area: Float[Array, ""]
    body_area: Float[Array, "6"]
    body_solar_absorptance: Float[Array, ""]
    body_emissivity: Float[Array, ""]


@pytree
class Revolution:
    """One satellite on one orbit at one epoch. Sun, node and perigee are frozen over the revolution.

    Attributes:
        orbit: Mean anomaly not used: time counts from orbit noon.
        sun_hat: Unit vector to the Sun, in the axes of the orbit's elements.
        sun_distance: [m].
        solar_flux: At the satellite [W/m2].
        albedo: Of a uniform Earth [-]. Not used with `earth`.
        earth_infrared: Emitted flux of a uniform Earth at earth_radius [W/m2]. Not used with `earth`.
        earth_radius: Of the radiating and reflecting sphere [m].
        attitude: Pointing law.
        radiator_normal_body: Outward unit normal of radiator face 0, body axes.
        array_axis_body: Unit vector, body axes; see `attitude.array_normal`.
        surfaces: Optics and areas.
        demand_edges: Fractions of the revolution after noon where the demand for compute changes, ascending
            [-].
        demand_levels: Demand before, between and after the edges [-].
        eclipse_demand: Factor on the demand while less than half of the Sun is in view [-].
        incident: None, or prescribed constant incident flux [solar, albedo, infrared] x radiator face
            [W/m2] that replaces what is computed for the radiator, shadow and open view included.
        earth: None for a uniform Earth, or one that varies over the ground.
        array_drive: "fixed", "one_axis" or "two_axis". Static.
    """

    orbit: Orbit
    sun_hat: Float[Array, "3"]
    sun_distance: Float[Array, ""]
    solar_flux: Float[Array, ""]
    albedo: Float[Array, ""]
    earth_infrared: Float[Array, ""]
    earth_radius: Float[Array, ""]
    attitude: Attitude
    radiator_normal_body: Float[Array, "3"]
    array_axis_body: Float[Array, "3"]
    surfaces: Surfaces
    demand_edges: Float[Array, " k"]
    demand_levels: Float[Array, " k+1"]
    eclipse_demand: Float[Array, ""]
    incident: Float[Array, "3 2"] | None = None
    earth: Earth | None = None
    array_drive: str = static(default="fixed")


@pytree
class Loads:
    """Loads of a revolution, one row per time step, values at mid-step.

    Attributes:
        dt: Length of the step; their sum is the period [s].
        time: Mid-step, after orbit noon [s].
        sunlit: Visible part of the solar disc [-].
        panel: Absorbed by the two radiator faces together, per area of panel [W/m2].
        array: Absorbed by both sides of the array, the part that becomes electricity included [W].
        body: Absorbed into the structure by the six body faces [W].
        irradiance: Direct sunlight on the cells, incidence and shadow included, albedo left out [W/m2].
        demand: For compute [-].
        incident: [solar, albedo, infrared] on [radiator face 0, radiator face 1, array cell side], what
            array and body block left out [W/m2].
    """

    dt: Float[Array, " n"]
    time: Float[Array, " n"]
    sunlit: Float[Array, " n"]
    panel: Float[Array, " n"]
    array: Float[Array, " n"]
    body: Float[Array, " n"]
    irradiance: Float[Array, " n"]
    demand: Float[Array, " n"]
    incident: Float[Array, "n 3 3"]


@pytree
class Geometry:
    """Sun and shadow of a revolution.

    Attributes:
        period: [s].
        beta: Angle of the Sun above the orbit plane, positive on the side of the orbit normal [rad].
        shadow_times: Penumbra entry, umbra entry, umbra exit, penumbra exit [s after orbit noon].
        eclipse_fraction: Mean over the revolution of the hidden part of the solar disc [-].
        umbra_seconds: [s].
        penumbra_seconds: Both crossings [s].
    """

    period: Float[Array, "*batch"]
    beta: Float[Array, "*batch"]
    shadow_times: Float[Array, "4 *batch"]
    eclipse_fraction: Float[Array, "*batch"]
    umbra_seconds: Float[Array, "*batch"]
    penumbra_seconds: Float[Array, "*batch"]


def geometry(revolution: Revolution) -> Geometry:
    """Period, beta angle and shadow of a revolution."""
    found = shadow(revolution.orbit, revolution.sun_hat, revolution.sun_distance)
    return geometry_of(revolution.orbit, found, revolution.sun_distance)


def geometry_of(orbit: Orbit, passage: Shadow, sun_distance: Float[Array, "*batch"]) -> Geometry:
    """Likewise of any number of orbits whose passage through the shadow is known."""
    P = period(orbit.semi_major_axis)
    times = seconds_from_noon(orbit, passage)
    umbra = times[2] - times[1]
    x, y, z = passage.sun
    return Geometry(
        period=P,
        beta=arctan2(z, safe_sqrt(x * x + y * y)),
        shadow_times=times,
        eclipse_fraction=hidden_seconds(orbit, passage, sun_distance) / P,
        umbra_seconds=umbra,
        penumbra_seconds=times[3] - times[0] - umbra,
    )


def fewest_steps(demand_edges: int) -> int:
    """Steps that the pieces of a revolution need, whatever it is cut into."""
    return 3 + 2 * PENUMBRA_STEPS + 2 * demand_edges


def step_times(revolution: Revolution, n_steps: int) -> Float[Array, " ends"]:
    """Ends of the time steps, n_steps + 1 of them from 0 to the period [s after orbit noon].

    The revolution is cut at the four shadow times and where demand changes. Each stretch gets one step,
    each crossing of the penumbra two, the rest goes in proportion to duration, and the steps within a
    stretch are equal. A stretch of no length (no shadow, say) gets none. The number of steps of a stretch
    is piecewise constant in the inputs; its ends are differentiable.

    Args:
        n_steps: At least `fewest_steps`: 7, and two more for each demand edge. Static.
    """
    fewest = fewest_steps(revolution.demand_edges.shape[0])
    if n_steps < fewest:
        raise ValueError(f"n_steps: got {n_steps}; this revolution is cut into pieces that need {fewest}")
    P = period(revolution.orbit.semi_major_axis)
    times = shadow_times(revolution.orbit, revolution.sun_hat, revolution.sun_distance)
    edges = jnp.sort(jnp.concatenate([times, revolution.demand_edges * P]))
    edges = jnp.concatenate([jnp.zeros_like(P)[None], jnp.clip(edges, 0, P), P[None]])
    start, stop = edges[:-1], edges[1:]

    middle = (start + stop) / 2
    penumbra = _within(middle, times[0], times[1]) | _within(middle, times[2], times[3])
    least = jnp.where(stop - start > SHORTEST * P, jnp.where(penumbra, PENUMBRA_STEPS, 1), 0)
    # Rounding the running total, not each share, makes the counts add up to n_steps.
    spare = (n_steps - jnp.sum(least)).astype(P.dtype)
    last = jnp.cumsum(least) + jnp.round(spare * jax.lax.stop_gradient(stop / P)).astype(least.dtype)
    first = jnp.concatenate([jnp.zeros_like(last[:1]), last[:-1]])

    step = jnp.arange(n_steps)
    stretch = jnp.sum(step[:, None] >= last[None, :], axis=1)
    part = (step - first[stretch]).astype(P.dtype) / jnp.maximum(last - first, 1)[stretch].astype(P.dtype)
    begins = start[stretch] + part * (stop - start)[stretch]
    return jnp.concatenate([begins, P[None]])


def revolution_loads(revolution: Revolution, n_steps: int) -> Loads:
    """Loads at the middle of each of n_steps time steps, second order in the step.

    Absorbed by a face, per area: alpha (solar + open albedo) + eps open infrared. Map over satellites with

        jax.vmap(lambda revolution: revolution_loads(revolution, n), out_axes=-1)

    Albedo by `environment.albedo_factor_pairs`, 0.01 W/m2, or `earth.earth_fluxes`.

    Args:
        n_steps: See `step_times`. Static.
    """
    ends = step_times(revolution, n_steps)
    dt, time = jnp.diff(ends), (ends[1:] + ends[:-1]) / 2
    instants = jax.vmap(lambda t: _instant(revolution, t), out_axes=-1)(time)
    sunlit, up, normals, cos_tilt, cos_zenith, cos_sun, H = instants

    # Five planes, both sides of each: body x, y, z, radiator, array.
    S = revolution.solar_flux
    sun = S * sunlit[None]
    solar = [sun * jnp.maximum(cos_sun, 0.0), sun * jnp.maximum(-cos_sun, 0.0)]
    if revolution.earth is None:
        albedo = [S * revolution.albedo * F for F in albedo_factor_pairs(cos_tilt, cos_zenith, cos_sun, H)]
        infrared = [revolution.earth_infrared * F for F in view_factor_pairs(cos_tilt, H)]
    else:
        sun_hat = jnp.broadcast_to(revolution.sun_hat[:, None], up.shape)
        albedo, infrared = earth_fluxes(revolution.earth, up, H, normals, sun_hat, S)
    solar, albedo, infrared = (jnp.stack(x) for x in (solar, albedo, infrared))

    s = revolution.surfaces
    open_view = s.radiator_open[:, None]
    radiator = jnp.stack([solar[:, 3], open_view * albedo[:, 3], open_view * infrared[:, 3]])
    if revolution.incident is not None:
        radiator = jnp.broadcast_to(revolution.incident[:, :, None], radiator.shape)
    panel = _absorbed(radiator, s.radiator_solar_absorptance, s.radiator_emissivity)

    cells = jnp.stack([solar[:, 4], albedo[:, 4], infrared[:, 4]])
    array = s.array_area * _absorbed(cells, s.array_solar_absorptance, s.array_emissivity)

    areas = s.body_area.reshape(3, 2).T[:, :, None]
    sunlight = jnp.sum(areas * (solar[:, :3] + albedo[:, :3]), axis=(0, 1))
    warmth = jnp.sum(areas * infrared[:, :3], axis=(0, 1))
    body = s.body_solar_absorptance * sunlight + s.body_emissivity * warmth

    window = jnp.sum(time[:, None] > (revolution.demand_edges * ends[-1])[None, :], axis=1)
    demand = revolution.demand_levels[window] * jnp.where(sunlit < 0.5, revolution.eclipse_demand, 1.0)

    incident = jnp.concatenate([radiator, cells[:, :1]], axis=1)
    return Loads(
        dt=dt,
        time=time,
        sunlit=sunlit,
        panel=panel,
        array=array,
        body=body,
        irradiance=cells[0, 0],
        demand=demand,
        incident=jnp.moveaxis(incident, -1, 0),
    )


def _instant(revolution: Revolution, t: Array) -> tuple[Array, ...]:
    """Sunlit fraction, direction, normals of the five planes, and the cosines and distance of their fluxes."""
    sun_hat = revolution.sun_hat
    r, v = components_at_time(revolution.orbit, sun_hat, t)
    axes = body_axes(r, v, sun_hat, revolution.attitude)
    radiator = in_eci(revolution.radiator_normal_body, axes)
    cells = array_normal(axes, sun_hat, revolution.array_drive, revolution.array_axis_body)
    planes = [*axes, radiator, cells]
    up, distance = vector.unit(r), vector.norm(r)
    cos_tilt = vector.stacked([-vector.dot(plane, up) for plane in planes])
    cos_sun = vector.stacked([vector.dot(plane, sun_hat) for plane in planes])
    nu = sunlit_fraction(r, sun_hat * revolution.sun_distance)
    up, normals = vector.stacked(up), vector.stacked([vector.stacked(plane) for plane in planes])
    return nu, up, normals, cos_tilt, vector.dot(up, sun_hat), cos_sun, distance / revolution.earth_radius


def _absorbed(incident: Array, solar_absorptance: Array, emissivity: Array) -> Array:
    """Absorbed by both sides [W/m2], of [solar, albedo, infrared] x side x step."""
    sunlight = solar_absorptance[:, None] * (incident[0] + incident[1])
    return jnp.sum(sunlight + emissivity[:, None] * incident[2], axis=0)


def _within(t: Array, start: Array, stop: Array) -> Array:
    return (t > start) & (t < stop)
