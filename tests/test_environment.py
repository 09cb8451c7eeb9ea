"""Fluxes on a face against independent quadrature, at the terminator, and between the two albedo methods."""

import csv
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import environment
from dawndusk.kernels.constants import AU, R_EARTH
from dawndusk.kernels.eclipse import sunlit_fraction
from jax.test_util import check_grads

REFERENCE = Path(__file__).parent / "reference"
# Solar flux times albedo of a nominal environment: turns an albedo factor into W/m2.
NOMINAL = 1361 * 0.3
# Largest error of the fast albedo that the kernel promises [W/m2].
FAST = 0.01

exact = jax.jit(environment.albedo_factor)


@jax.jit
def fast(cos_tilt, cos_zenith, cos_sun, H):
    return environment.albedo_factor_pairs(cos_tilt[None], cos_zenith, cos_sun[None], H)[0][0]


def table(name):
    lines = (REFERENCE / name).read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def columns(rows, *names):
    return np.array([[float(r[n]) for n in names] for r in rows]).T


def invariants(tilt, zenith, azimuth, H, dtype=float):
    """Cosines of tilt, solar zenith angle and incidence, and the distance, from angles [rad]."""
    cos_sun = np.sin(tilt) * np.sin(zenith) * np.cos(azimuth) - np.cos(tilt) * np.cos(zenith)
    return [jnp.asarray(x, dtype) for x in (np.cos(tilt), np.cos(zenith), cos_sun, H)]


def albedo_reference():
    h, tilt, zenith, azimuth, F = columns(
        table("albedo_factor.csv"), "h_km", "theta_deg", "zeta_deg", "phi_deg", "F"
    )
    return (*np.radians([tilt, zenith, azimuth]), 1 + h / 6378.137), F


def random_directions(n, seed=0):
    """Any face under any Sun, half of them within some 20 deg of the terminator, 200 km to beyond GEO."""
    rng = np.random.default_rng(seed)
    H = 1 + np.exp(rng.uniform(np.log(200), np.log(40000), n)) / 6378.137
    tilt, zenith = np.arccos(rng.uniform(-1, 1, (2, n)))
    zenith[::2] = np.pi / 2 + 0.35 * rng.normal(size=len(zenith[::2]))
    return tilt, np.clip(zenith, 0, np.pi), rng.uniform(0, np.pi, n), H


def test_exact_albedo_meets_the_reference():
    angles, F = albedo_reference()
    # The file is trusted to 1e-9; measured 1.4e-11.
    np.testing.assert_allclose(exact(*invariants(*angles)), F, rtol=0, atol=1e-10)


def test_fast_albedo_meets_the_reference():
    angles, F = albedo_reference()
    error = NOMINAL * np.abs(np.asarray(fast(*invariants(*angles))) - F)
    assert error.max() < FAST


def test_fast_albedo_meets_the_exact_one_in_any_direction():
    cosines = invariants(*random_directions(20_000))
    error = NOMINAL * np.abs(np.asarray(fast(*cosines) - exact(*cosines)))
    assert error.max() < FAST
    assert np.sqrt(np.mean(error**2)) < 0.001


def test_exact_albedo_has_converged(monkeypatch):
    """Twice the rings change nothing, so the quadrature, cut at every kink, is at rounding."""
    cosines = invariants(*random_directions(2_000, seed=1))
    coarse = exact(*cosines)
    monkeypatch.setattr(environment, "EXACT_NODES", 48)
    np.testing.assert_allclose(jax.jit(environment.albedo_factor)(*cosines), coarse, rtol=0, atol=1e-10)


def test_albedo_by_brute_force():
    """Sum over 2,000 x 4,000 ground patches, which knows nothing of arcs, horizons or terminators."""
    tilt, zenith, azimuth, H = np.radians(70), np.radians(80), np.radians(40), 1.1
    psi_max = np.arccos(1 / H)
    psi = (np.arange(2000) + 0.5) / 2000 * psi_max
    phi = (np.arange(4000) + 0.5) / 4000 * 2 * np.pi
    psi, phi = psi[:, None], phi[None, :]
    ground = np.stack([np.sin(psi) * np.cos(phi), np.sin(psi) * np.sin(phi), np.cos(psi) + 0 * phi])
    n = np.array([np.sin(tilt) * np.cos(azimuth), np.sin(tilt) * np.sin(azimuth), -np.cos(tilt)])
    sun = np.array([np.sin(zenith), 0, np.cos(zenith)])
    line = ground - np.array([0, 0, H])[:, None, None]
    d = np.sqrt(np.sum(line**2, axis=0))
    sunlight = np.maximum(np.tensordot(sun, ground, 1), 0)
    seen = np.maximum(np.tensordot(n, line, 1), 0) / d * (-np.sum(ground * line, axis=0)) / d
    area = np.sin(psi) * (psi_max / 2000) * (2 * np.pi / 4000)
    F = np.sum(sunlight * seen / d**2 * area) / np.pi
    ours = exact(*invariants(*(np.array([x]) for x in (tilt, zenith, azimuth, H))))
    # Midpoint sums of a kinked integrand: second order in 1/2000.
    np.testing.assert_allclose(ours, F, rtol=1e-6)


# Of the edge-on plane below the fast method integrates both sides, each with its own error.
@pytest.mark.parametrize("method, error", [(exact, 1e-10), (fast, FAST / NOMINAL)])
def test_opposite_faces_share_the_lit_ground(method, error):
    """F(n) - F(-n) is linear in n: two axes give it for any face."""
    _, zenith, azimuth, H = random_directions(50, seed=2)
    tilt = np.random.default_rng(3).uniform(0, np.pi, 50)

    def difference(tilt, azimuth):
        there = method(*invariants(tilt, zenith, azimuth, H))
        back = method(*invariants(np.pi - tilt, zenith, azimuth + np.pi, H))
        return np.asarray(there - back)

    down, along = difference(0 * tilt, azimuth), difference(0 * tilt + np.pi / 2, 0 * tilt)
    linear = np.cos(tilt) * down + np.sin(tilt) * np.cos(azimuth) * along
    np.testing.assert_allclose(difference(tilt, azimuth), linear, rtol=0, atol=error)


def test_dawn_dusk_orbit_sees_the_lit_limb():
    """11.3-11.4 W/m2 at beta 90 deg, 650 km, R = 6371 km, where the sub-satellite point is dark."""
    r = jnp.asarray([7_021_000.0, 0.0, 0.0])
    sun = jnp.asarray([0.0, 0.0, 1.0])
    S, a, R = (jnp.asarray(x) for x in (1361.0, 0.3, 6_371_000.0))
    for n in ([-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]):
        assert 11.3 < environment.albedo(jnp.asarray(n), r, sun, S, a, R) < 11.45


def test_full_cap_is_the_sub_point_formula():
    """A nadir face over a fully lit cap gets exactly its overhead value times cos(zenith)."""
    zenith = np.radians([0.0, 20, 40, 60])
    F = np.asarray(exact(*invariants(0 * zenith, zenith, 0 * zenith, 0 * zenith + 7021 / 6371)))
    np.testing.assert_allclose(F, F[0] * np.cos(zenith), rtol=1e-12)
    assert abs(F[0] - 0.816448) < 1e-6


def test_profile_over_an_orbit():
    """Direct Sun, albedo and infrared on eight plates around circular orbits, eclipse included."""
    rows = table("orbit_flux_profile.csv")
    h, beta, u = columns(rows, "h_km", "beta_deg", "u_deg")
    beta, u, zero = np.radians(beta), np.radians(u), 0 * u
    up = np.stack([np.cos(u), np.sin(u), zero], 1)
    track = np.stack([-np.sin(u), np.cos(u), zero], 1)
    north = np.stack([zero, zero, zero + 1], 1)
    sun = np.stack([np.cos(beta), zero, np.sin(beta)], 1)
    plates = {
        "nadir": -up,
        "zenith": up,
        "ram": track,
        "wake": -track,
        "north": north,
        "south": -north,
        "sun": sun,
        "tilt45": (track - up) / math.sqrt(2),
    }
    normal = np.array([plates[row["plate"]][i] for i, row in enumerate(rows)])
    S, a, M, R = (jnp.asarray(x) for x in (1361.0, 0.3, 237.0, R_EARTH))

    @jax.jit
    @jax.vmap
    def fluxes(n, r, sun):
        direct = environment.solar(n, sun, sunlit_fraction(r, sun * AU), S)
        return direct, environment.albedo(n, r, sun, S, a, R), environment.earth_infrared(n, r, R, M)

    r = (R_EARTH + 1e3 * h)[:, None] * up
    ours = fluxes(*(jnp.asarray(x) for x in (normal, r, sun)))
    for flux, reference in zip(ours, columns(rows, "solar", "albedo", "ir"), strict=True):
        # The file is printed to 1e-6 W/m2.
        np.testing.assert_allclose(flux, reference, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", [exact, fast])
def test_albedo_in_float32(method):
    directions = random_directions(5_000, seed=4)
    double = np.asarray(method(*invariants(*directions)))
    single = np.asarray(method(*invariants(*directions, dtype=jnp.float32)), float)
    # 1e-4 of the flux is what the design asks; measured 3e-7, rounding.
    np.testing.assert_allclose(single, double, rtol=0, atol=2e-6)


EDGES = {
    "nadir": (0, 40, 0),
    "zenith": (180, 40, 0),
    "edge-on, in the plane of the Sun": (90, 40, 0),
    "edge-on, across": (90, 40, 90),
    "sub-solar": (30, 0, 50),
    "anti-solar": (30, 180, 50),
    "terminator below": (60, 90, 30),
    "terminator below, edge-on": (90, 90, 0),
    "terminator below, nadir": (0, 90, 0),
    "Sun-facing": (140, 40, 0),
    "last light": (20, 90 + math.degrees(math.acos(1 / 1.1)), 30),
    "horizon at the limb": (180 - math.degrees(math.acos(1 / 1.1)), 40, 30),
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("method", [exact, fast])
def test_derivatives_are_finite_where_directions_degenerate(method, dtype):
    tilt, zenith, azimuth = np.radians(np.array(list(EDGES.values()), float)).T
    cosines = invariants(tilt, zenith, azimuth, 0 * tilt + 1.1, dtype)
    for mode in (jax.jacfwd, jax.jacrev):
        slopes = jax.jit(jax.vmap(mode(method, (0, 1, 2, 3))))(*cosines)
        assert all(np.all(np.isfinite(g)) for g in slopes)
        # No face gains more than a few albedo factors per radian, or per Earth radius.
        assert max(float(jnp.max(jnp.abs(g))) for g in slopes) < 20


@pytest.mark.parametrize("method", [exact, fast])
def test_derivatives_at_ordinary_points(method):
    """In five kinds of view: cap all lit or cut by the terminator, face seeing all of it, part, a corner."""
    for direction in ((10, 20, 30), (80, 20, 120), (60, 85, 40), (120, 95, 10), (100, 60, 150)):
        cosines = invariants(*np.radians(np.array(direction, float)), 1.1)
        check_grads(method, cosines, order=1, modes=("fwd", "rev"), rtol=1e-5)


def test_edge_on_faces_do_not_jump_with_rounding():
    """Of an edge-on plane either side may be integrated: rounding of its tilt must not choose."""
    tilt = np.pi / 2 + np.array([-1e-7, -1e-16, 0, 1e-16, 1e-7])
    F = np.asarray(fast(*invariants(tilt, *(0 * tilt + x for x in (1.0, 0.4, 1.1)))))
    np.testing.assert_allclose(F, F[2], rtol=0, atol=1e-7)


def test_infrared_pairs():
    cos_tilt = jnp.asarray(np.linspace(-1, 1, 9))
    H = jnp.asarray(1.1)
    ours = environment.view_factor_pairs(cos_tilt, H)
    for F, sign in zip(ours, (1, -1), strict=True):
        one_by_one = environment.plate_to_sphere(sign * cos_tilt, jnp.full_like(cos_tilt, H))
        np.testing.assert_allclose(F, one_by_one, atol=1e-15)
