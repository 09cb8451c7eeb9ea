"""Means over a revolution against independent quadrature, and their derivatives."""

import csv
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import environment, orbit_average
from dawndusk.kernels.constants import AU, R_EARTH
from dawndusk.kernels.eclipse import shadow_times, sunlit_fraction
from dawndusk.kernels.numerics import unit
from dawndusk.kernels.orbit import Orbit, period, position_at_time

REFERENCE = Path(__file__).parent / "reference"
# Normals as sums of up, ram, orbit normal and Sun.
PLATES = {
    "nadir": (-1, 0, 0, 0),
    "zenith": (1, 0, 0, 0),
    "ram": (0, 1, 0, 0),
    "wake": (0, -1, 0, 0),
    "north": (0, 0, 1, 0),
    "south": (0, 0, -1, 0),
    "sun": (0, 0, 0, 1),
    "tilt45": (-(0.5**0.5), 0.5**0.5, 0, 0),
}
S, ALBEDO, INFRARED, R = (jnp.asarray(x) for x in (1361.0, 0.3, 237.0, R_EARTH))


def table(name):
    lines = (REFERENCE / name).read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def columns(rows, *names):
    return np.array([[float(r[n]) for n in names] for r in rows]).T


def plate_normal(plate, sun):
    def normal(r, v):
        up = unit(r)
        north = unit(jnp.cross(r, v))
        return plate[0] * up + plate[1] * jnp.cross(north, up) + plate[2] * north + plate[3] * sun

    return normal


def case(a, beta, e=0.0, argp=0.0):
    a, beta = jnp.asarray(a), jnp.asarray(beta)
    zero = jnp.zeros_like(a)
    orbit = Orbit(a, jnp.full_like(a, e), zero, zero, jnp.full_like(a, argp), zero)
    return orbit, jnp.stack([jnp.cos(beta), jnp.zeros_like(beta), jnp.sin(beta)])


def mean(a, beta, plate, n, e=0.0, argp=0.0):
    orbit, sun = case(a, beta, e, argp)
    return orbit_average.mean_fluxes(
        orbit, sun, jnp.asarray(AU), S, ALBEDO, INFRARED, R, plate_normal(plate, sun), n
    )


# W/m2; measured 1.4e-3 and 7.5e-5, both for the plate that follows the Sun, at 420 km.
@pytest.mark.parametrize("n, tolerance", [(64, 5e-3), (128, 1e-4)])
def test_means_meet_the_reference(n, tolerance):
    rows = table("orbit_flux_mean.csv")
    h, beta, *fluxes = columns(rows, "h_km", "beta_deg", "solar_mean", "albedo_mean", "ir_mean")
    plates = jnp.asarray([PLATES[row["plate"]] for row in rows], float)
    f = jax.jit(jax.vmap(lambda a, beta, plate: mean(a, beta, plate, n)))
    ours = f(jnp.asarray(R_EARTH + 1e3 * h), jnp.asarray(np.radians(beta)), plates)
    np.testing.assert_allclose(ours, np.transpose(fluxes), rtol=0, atol=tolerance)


def test_eccentric_orbit_against_equal_time_steps():
    """A tilted plate on an orbit of 600 x 8,000 km, 20,000 samples equally spaced in time."""
    a, e, argp, beta = R_EARTH + 4.3e6, 3.7e6 / (R_EARTH + 4.3e6), 2.0, 0.4
    plate = jnp.asarray(PLATES["tilt45"], float)
    orbit, sun = case(a, beta, e, argp)
    n = 20_000

    @jax.jit
    @jax.vmap
    def fluxes(t):
        r, v = position_at_time(orbit, sun, t)
        face = plate_normal(plate, sun)(r, v)
        direct = environment.solar(face, sun, sunlit_fraction(r, sun * AU), S)
        H = jnp.linalg.norm(r) / R
        up = r / jnp.linalg.norm(r)
        cosines = -jnp.sum(face * up)[None], jnp.sum(up * sun), jnp.sum(face * sun)[None], H
        reflected = S * ALBEDO * environment.albedo_factor_pairs(*cosines)[0][0]
        return jnp.stack([direct, reflected, environment.earth_infrared(face, r, R, INFRARED)])

    t = period(orbit.semi_major_axis) * jnp.asarray((np.arange(n) + 0.5) / n)
    brute = jnp.mean(fluxes(t), axis=0)
    ours = jax.jit(lambda: mean(a, beta, plate, 128, e, argp))()
    # Direct Sun: the samples smear two shadow edges, each by up to half a step, 1361/20,000 = 0.07 at worst and
    # 2e-5 as measured, for the penumbra is wider than a step. Albedo: the fast method's error, mostly averaged
    # out; infrared: quadrature alone.
    np.testing.assert_allclose(ours[0], brute[0], rtol=0, atol=1e-3)
    np.testing.assert_allclose(ours[1], brute[1], rtol=0, atol=1e-3)
    np.testing.assert_allclose(ours[2], brute[2], rtol=0, atol=1e-5)


def test_eclipse_fraction_meets_the_reference():
    h, beta, lit = columns(table("eclipse_circular.csv"), "h_km", "beta_deg", "mean_illumination")

    @jax.jit
    @jax.vmap
    def fraction(a, beta):
        orbit, sun = case(a, beta)
        distance = jnp.asarray(AU)
        shadow = shadow_times(orbit, sun, distance)
        return orbit_average.shadow_seconds(orbit, sun, distance, shadow) / period(a)

    ours = fraction(jnp.asarray(R_EARTH + 1e3 * h), jnp.asarray(np.radians(beta)))
    # The reference is trusted to 1e-10; measured 5e-11.
    np.testing.assert_allclose(ours, 1 - lit, rtol=0, atol=1e-10)


def test_derivatives_meet_central_differences():
    """Cuts move with the orbit: the mean's slope is exact, not that of fixed nodes."""
    plate = jnp.asarray(PLATES["tilt45"], float)
    f = jax.jit(lambda x: mean(x[0], x[1], plate, 64))
    x, step = jnp.asarray([R_EARTH + 6.5e5, 0.6]), np.array([1.0, 1e-6])
    central = [(f(x.at[i].add(step[i])) - f(x.at[i].add(-step[i]))) / (2 * step[i]) for i in (0, 1)]
    slopes = np.asarray(jax.jit(jax.jacfwd(lambda x: mean(x[0], x[1], plate, 64)))(x)).T
    # Rounding of means of some 100 W/m2 over the step.
    np.testing.assert_allclose(slopes[0], central[0], rtol=1e-5, atol=1e-10)
    np.testing.assert_allclose(slopes[1], central[1], rtol=1e-5, atol=1e-5)
