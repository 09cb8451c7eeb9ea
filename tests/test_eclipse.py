"""Sunlit fraction and shadow times against independent programs; gradients at every kind of edge."""

import csv
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import eclipse
from dawndusk.kernels import orbit as orbits
from dawndusk.kernels.constants import AU, R_EARTH, R_SUN
from dawndusk.kernels.orbit import Orbit
from scipy.optimize import brentq
from sgp4.api import WGS72, Satrec

REFERENCE = Path(__file__).parent / "reference"
EVENTS = ("penumbra_entry", "umbra_entry", "umbra_exit", "penumbra_exit")

shadow_times = jax.jit(eclipse.shadow_times)
JACOBIANS = [jax.jit(mode(eclipse.shadow_times, (0, 1, 2))) for mode in (jax.jacfwd, jax.jacrev)]
fractions = jax.jit(jax.vmap(eclipse.sunlit_fraction))


def rows(name):
    lines = (REFERENCE / name).read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def columns(table, *names):
    return np.array([[float(r[n]) for n in names] for r in table])


def circular(height, beta):
    """Equatorial circular orbit, and a Sun at beta in the x-z plane."""
    zero = jnp.zeros_like(height)
    o = Orbit(R_EARTH + height, zero, zero, zero, zero, zero)
    return o, jnp.stack([jnp.cos(beta), zero, jnp.sin(beta)]), jnp.full_like(height, AU)


def eccentric(perigee_height, e, angles):
    return Orbit((R_EARTH + perigee_height) / (1 - e), e, angles[0], angles[1], angles[2], jnp.zeros_like(e))


# --- sunlit fraction


def test_penumbra_profiles():
    table = rows("penumbra_profile.csv")
    sat, sun = columns(table, "rx", "ry", "rz"), columns(table, "sx", "sy", "sz")
    expected = columns(table, "planar")[:, 0]
    # Positions are printed to 1e-4 m of a penumbra 30 km wide: 3e-9.
    assert np.abs(fractions(jnp.asarray(sat), jnp.asarray(sun)) - expected).max() < 1e-8
    single = fractions(jnp.asarray(sat, jnp.float32), jnp.asarray(sun, jnp.float32))
    assert single.dtype == jnp.float32
    # float32 rounds the position to 0.25 m at 7,000 km and 2 m at 42,000 km, its angles to 6e-8 of 0.0093
    # rad.
    assert np.abs(np.asarray(single, float) - expected).max() < 5e-5


def across_the_penumbra(distance, u):
    """Positions whose separation of centres is (Earth's radius + u x Sun's radius) as seen from there."""
    b = np.arcsin(R_EARTH / distance)

    def separation(psi):
        sat = np.array([-distance * np.cos(psi), distance * np.sin(psi)])
        d = np.array([AU, 0.0]) - sat
        a = np.arcsin(R_SUN / np.linalg.norm(d))
        c = np.arctan2(abs(d[0] * -sat[1] + d[1] * sat[0]), -(d @ sat))
        return c - b - u * a

    psi = brentq(separation, b - 0.02, b + 0.02, xtol=1e-15)
    return np.array([-distance * np.cos(psi), distance * np.sin(psi), 0.0])


SUN = np.array([AU, 0.0, 0.0])
EDGES = {
    "full Sun": np.array([7e6, 0.0, 0.0]),
    "terminator": np.array([0.0, 0.0, 7e6]),
    "umbra": across_the_penumbra(7e6, -1.5),
    "umbra axis": np.array([-7e6, 0.0, 0.0]),
    "outer contact": across_the_penumbra(7e6, 1.0),
    "inner contact": across_the_penumbra(7e6, -1.0),
    "half": across_the_penumbra(7e6, 0.0),
    "annular axis": np.array([-1.6e9, 0.0, 0.0]),
    "annular": np.array([-1.6e9, 1e3, 0.0]),
    "centre of the Earth": np.zeros(3),
    "ground": np.array([-R_EARTH, 0.0, 0.0]),
}

DERIVATIVES = [jax.jit(mode(eclipse.sunlit_fraction, (0, 1))) for mode in (jax.jacfwd, jax.jacrev)]


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize("edge", EDGES)
def test_gradient_is_finite_everywhere(edge, dtype):
    args = jnp.asarray(EDGES[edge], dtype), jnp.asarray(SUN, dtype)
    assert 0 <= float(eclipse.sunlit_fraction(*args)) <= 1
    for derivative in DERIVATIVES:
        assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(derivative(*args)))
    # Steepest at half cover: 2/(pi a) per radian of separation, 1/d of that per metre.
    assert float(jnp.abs(DERIVATIVES[0](*args)[0]).max()) < 1e-4


def test_limits():
    sun = jnp.asarray(SUN)
    value = {name: float(eclipse.sunlit_fraction(jnp.asarray(x), sun)) for name, x in EDGES.items()}
    assert value["full Sun"] == value["terminator"] == 1
    assert value["umbra"] == value["umbra axis"] == 0
    assert value["outer contact"] == pytest.approx(1, abs=1e-12)
    assert value["inner contact"] == pytest.approx(0, abs=1e-12)
    # Beyond the tip of the umbra (1.38e9 m) a ring remains: 1 - (b/a)^2.
    ring = 1 - (np.arcsin(R_EARTH / 1.6e9) / np.arcsin(R_SUN / (AU + 1.6e9))) ** 2
    assert value["annular axis"] == pytest.approx(ring, rel=1e-12)
    assert value["annular"] == pytest.approx(ring, rel=1e-6)


def planar_overlap(a, b, c):
    """Montenbruck and Gill's area as printed, in extended precision."""
    a, b, c = (np.longdouble(x) for x in (a, b, c))
    x = (c**2 + a**2 - b**2) / (2 * c)
    y = np.sqrt(a**2 - x**2)
    return float((a**2 * np.arccos(x / a) + b**2 * np.arccos((c - x) / b) - c * y) / (np.pi * a**2))


@pytest.mark.parametrize("b", [1.14, 0.15, 0.006, 0.003])
@pytest.mark.parametrize("u", [-0.99, -0.5, 0.0, 0.3, 0.999])
def test_overlap_loses_nothing_in_float32(b, u):
    a = 0.00465
    c = b + u * a if b > a else a + u * b
    expected = planar_overlap(a, b, c)
    args = [jnp.asarray(x) for x in (a, b, c)]
    # The printed formula loses 1e-11 near the contacts even in extended precision.
    assert abs(float(eclipse.overlap_fraction(*args)) - expected) < 2e-11
    # Rounding of c - b, 6e-8 b against 2a; the printed formula is off by up to 0.3 here in float32.
    single = eclipse.overlap_fraction(*(x.astype(jnp.float32) for x in args))
    assert abs(float(single) - expected) < 2e-7 * (1 + b / a)


@pytest.mark.parametrize("u", [-0.999, -0.4, 0.1, 0.9999])
def test_penumbra_gradient(u):
    per_km = jax.jit(jax.grad(lambda x: eclipse.sunlit_fraction(x * 1e3, jnp.asarray(SUN, x.dtype))))
    at = across_the_penumbra(7e6, u) / 1e3
    gradient = np.asarray(per_km(jnp.asarray(at)))
    differences = np.array(
        [
            eclipse.sunlit_fraction(jnp.asarray((at + dx) * 1e3), jnp.asarray(SUN))
            - eclipse.sunlit_fraction(jnp.asarray((at - dx) * 1e3), jnp.asarray(SUN))
            for dx in 1e-4 * np.eye(3)
        ]
    )
    # Steps of 0.1 m, not small near the contacts, where the slope vanishes as a square root.
    np.testing.assert_allclose(gradient, differences / 2e-4, atol=1e-7, rtol=1e-3 if abs(u) > 0.99 else 1e-6)
    # Of 0.02 per km at half cover; float32 rounds the position to 0.25 m, 5 % of the last 3 m to the contact.
    np.testing.assert_allclose(per_km(jnp.asarray(at, jnp.float32)), gradient, atol=6e-5)


# --- shadow times


def test_circular_orbits():
    table = rows("eclipse_circular.csv")
    height, beta = columns(table, "h_km", "beta_deg").T
    umbra, penumbra, illumination = columns(table, "umbra_frac", "penumbra_frac", "mean_illumination").T
    nodes, weights = np.polynomial.legendre.leggauss(40)
    # The fraction starts as the 3/2 power of the distance from a contact: x = (3 s - s^3)/2 smooths that.
    x, w = (3 * nodes - nodes**3) / 2, 1.5 * (1 - nodes**2) * weights

    @jax.jit
    def solve(h, b):
        o, s, D = circular(h, b)
        t = eclipse.shadow_times(o, s, D)
        P = orbits.period(o.semi_major_axis)

        def mean(t0, t1):
            times = (t0 + t1) / 2 + (t1 - t0) / 2 * x
            r = jax.vmap(lambda t: orbits.position_at_time(o, s, t)[0])(times)
            nu = jax.vmap(eclipse.sunlit_fraction, (0, None))(r, s * D)
            return jnp.dot(nu, w) * (t1 - t0) / 2

        return t / P, (P - (t[3] - t[0]) + mean(t[0], t[1]) + mean(t[1], t[2]) + mean(t[2], t[3])) / P

    t, mean = jax.vmap(solve)(jnp.asarray(height * 1e3), jnp.asarray(np.deg2rad(beta)))
    assert np.abs(t[:, 2] - t[:, 1] - umbra).max() < 1e-11  # printed to 1e-12
    assert np.abs(t[:, 3] - t[:, 0] - (t[:, 2] - t[:, 1]) - penumbra).max() < 1e-11
    assert np.abs(t.mean(1) - 0.5).max() < 1e-12
    assert np.abs(mean - illumination).max() < 1e-10


@pytest.mark.parametrize("dtype, tolerance", [(jnp.float64, 1e-6), (jnp.float32, 0.01)])
def test_events_of_orekit(dtype, tolerance):
    """Event times, the Sun given at the event. float32: 1 ms in low orbits, 6 ms in geostationary ones."""
    for case in json.loads((REFERENCE / "eclipse_events.json").read_text())["cases"]:
        angles = (np.deg2rad(case[k]) for k in ("inc_deg", "raan_deg", "argp_deg", "M_deg"))
        start = Orbit(*(jnp.asarray(x) for x in (case["a_m"], case["e"], *angles)))
        for event in case["events_sphere"]:
            D = np.linalg.norm(event["sun_m"])
            sun_hat = jnp.asarray(np.array(event["sun_m"]) / D)
            moved = orbits.propagate(start, jnp.asarray(event["t_s"]), j2=0.0)
            expected = orbits.time_since_noon(moved, sun_hat)
            single = jax.tree.map(lambda x: x.astype(dtype), start)
            t = shadow_times(single, sun_hat.astype(dtype), jnp.asarray(D, dtype))
            assert t.dtype == dtype
            assert abs(float(t[EVENTS.index(event["event"])]) - float(expected)) < tolerance


def test_events_along_sgp4_orbits():
    """The sunlit fraction reaches 1 and 0 at Orekit's events of TLE orbits, within 1 ms of motion."""
    for case in json.loads((REFERENCE / "eclipse_tle.json").read_text())["cases"]:
        satellite = Satrec.twoline2rv(case["l1"], case["l2"], WGS72)
        for event in case["events"]:
            sun = np.array(event["sun_teme_m"])

            umbra = event["event"].startswith("umbra")

            def gap(t, sun=sun, umbra=umbra, satellite=satellite):
                r = 1e3 * np.array(satellite.sgp4_tsince(t / 60)[1])
                d = sun - r
                a, b = np.arcsin(R_SUN / np.linalg.norm(d)), np.arcsin(R_EARTH / np.linalg.norm(r))
                c = np.arctan2(np.linalg.norm(np.cross(d, r)), -(d @ r))
                return c - b + (a if umbra else -a), r

            t = event["t_s"]
            rate = (gap(t + 1)[0] - gap(t - 1)[0]) / 2
            assert abs(gap(t)[0] / rate) < 2e-3  # the file's own check found up to 1e-3 s
            inside, outside = (t - 0.05, t + 0.05) if rate > 0 else (t + 0.05, t - 0.05)
            nu = [
                float(eclipse.sunlit_fraction(jnp.asarray(gap(x)[1]), jnp.asarray(sun)))
                for x in (inside, outside)
            ]
            assert nu[0] == 0 < nu[1] if umbra else nu[0] < 1 == nu[1]


def random_orbits(n, seed=0):
    rng = np.random.default_rng(seed)
    perigee = 1e5 * 10 ** rng.uniform(0, 2.6, n)
    e = rng.uniform(0, 0.95, n)
    e[: n // 8] = 0
    angles = rng.uniform(-np.pi, np.pi, (n, 3))
    angles[:, 0] = np.abs(angles[:, 0])
    suns = rng.normal(size=(n, 3))
    return perigee, e, angles, suns / np.linalg.norm(suns, axis=1)[:, None]


def contact_gaps(r, sun):
    """Separation less the sum (penumbra) and the difference (umbra) of the discs' radii, from positions."""
    d = sun - r
    a = np.arcsin(R_SUN / np.linalg.norm(d, axis=-1))
    b = np.arcsin(R_EARTH / np.linalg.norm(r, axis=-1))
    c = np.arctan2(np.linalg.norm(np.cross(d, r), axis=-1), -np.sum(d * r, axis=-1))
    return c - b - a, c - b + a


def test_random_orbits_against_a_dense_scan():
    """Any e <= 0.95: each eclipse is one passage, found at the instants where positions put the contacts."""
    n = 256
    perigee, e, angles, suns = random_orbits(n)
    o = jax.vmap(eccentric)(jnp.asarray(perigee), jnp.asarray(e), jnp.asarray(angles))
    s, D = jnp.asarray(suns), jnp.full((n,), AU)
    times = np.asarray(jax.vmap(eclipse.shadow_times)(o, s, D))
    assert np.isfinite(times).all() and (np.diff(times, axis=1) >= 0).all()

    @jax.jit
    @jax.vmap
    def at_times(o, s, times):
        return jax.vmap(lambda t: orbits.position_at_time(o, s, t)[0])(times)

    # The scan is even in true anomaly, so that it does not step over a short passage near perigee.
    @jax.jit
    @jax.vmap
    def around(o):
        return jax.vmap(lambda nu: orbits.state_at_true_anomaly(o, nu)[0])(
            jnp.linspace(-jnp.pi, jnp.pi, 3001)
        )

    gaps = contact_gaps(np.asarray(at_times(o, s, jnp.asarray(times))), AU * suns[:, None])
    scan_gaps = contact_gaps(np.asarray(around(o)), AU * suns[:, None])
    P = np.asarray(orbits.period(o.semi_major_axis))
    shadowed = 0
    for gap, dense, (i, j) in ((gaps[0], scan_gaps[0], (0, 3)), (gaps[1], scan_gaps[1], (1, 2))):
        crossings = (np.diff(np.sign(dense), axis=1) != 0).sum(1)
        assert crossings.max() == 2
        long = times[:, j] - times[:, i]
        # Scan and solver agree on who is eclipsed, but for passages shorter than a step of the scan.
        assert (long[crossings == 0] / P[crossings == 0] < 0.02).all() and (long[crossings == 2] > 0).all()
        hit = long > 0
        assert np.abs(gap[hit][:, [i, j]]).max() < 1e-12
        shadowed += hit.sum()
    assert shadowed > 100


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_jacobians_are_finite_for_random_orbits(dtype):
    perigee, e, angles, suns = (jnp.asarray(x, dtype) for x in random_orbits(256, seed=1))
    o = jax.vmap(eccentric)(perigee, e, angles)
    D = jnp.full((256,), AU, dtype)
    for mode in (jax.jacfwd, jax.jacrev):
        jacobian = jax.jit(jax.vmap(mode(eclipse.shadow_times, (0, 1, 2))))(o, jnp.asarray(suns), D)
        assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(jacobian))
        assert all(g.dtype == dtype for g in jax.tree.leaves(jacobian))


EDGE_BETAS = {  # 550 km: the umbra ends at 66.75 deg, the penumbra at 67.28 deg
    "noon in the plane": 0.0,
    "penumbra only": 67.1,
    "full Sun": 75.0,
    "Sun on the normal": 90.0,
    "Sun on the other normal": -90.0,
}


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize("edge", EDGE_BETAS)
def test_times_and_jacobians_at_the_edges(edge, dtype):
    o, s, D = circular(jnp.asarray(550e3, dtype), jnp.asarray(np.deg2rad(EDGE_BETAS[edge]), dtype))
    t = shadow_times(o, s, D)
    assert bool((jnp.diff(t) >= 0).all())
    if edge == "noon in the plane":
        assert float(t[2] - t[1]) > 2000
    elif edge == "penumbra only":
        assert float(t[3] - t[0]) > 100 and t[1] == t[2]
        assert abs(float(t[1] / orbits.period(o.semi_major_axis)) - 0.5) < 1e-6
    else:
        assert t[0] == t[1] == t[2] == t[3]
    for jacobian in JACOBIANS:
        assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(jacobian(o, s, D)))


def test_grazing_contact_is_continuous_and_finite():
    """At the limits of umbra and penumbra the durations go to zero as a square root, without a jump."""
    beta = np.deg2rad(np.linspace(66.6, 67.4, 1601))
    o, _, D = circular(jnp.array(550e3), jnp.array(0.0))
    s = jnp.asarray(np.stack([np.cos(beta), 0 * beta, np.sin(beta)], 1))
    t = np.asarray(jax.vmap(eclipse.shadow_times, (None, 0, None))(o, s, D))
    for duration in (t[:, 2] - t[:, 1], t[:, 3] - t[:, 0]):
        assert (np.diff(duration) <= 1e-6).all()
        assert duration[0] > 0 and duration[-1] == 0
        # duration^2 falls linearly: its steps are even, and the last before zero is no larger.
        steps = -np.diff(duration**2)[duration[:-1] > 0]
        assert steps.max() < 1.5 * np.median(steps)
    gradients = jax.jit(jax.vmap(jax.jacrev(lambda s: eclipse.shadow_times(o, s, D))))(s)
    assert bool(jnp.isfinite(gradients).all())


GRADIENT_CASES = {
    "circular": (550e3, 0.0, (0.9, 0.4, 0.0), (0.8, 0.6, 0.0)),
    "eccentric": (800e3, 0.3, (1.1, 0.4, 2.0), (0.6, 0.64, 0.48)),
    "molniya": (600e3, 0.72, (1.107, 2.0, 4.7), (0.6, -0.64, 0.48)),
    "very eccentric": (600e3, 0.95, (0.2, 2.0, 1.0), (0.6, 0.8, 0.0)),
}


def scaled_times(x):
    """Shadow times as fractions of the revolution, of ten numbers of order one."""
    o = Orbit(x[0] * 1e7, x[1], x[2], x[3], x[4], jnp.zeros_like(x[0]))
    return eclipse.shadow_times(o, x[5:8], x[8] * 1e11) / orbits.period(o.semi_major_axis)


SCALED = [jax.jit(f) for f in (scaled_times, jax.jacfwd(scaled_times), jax.jacrev(scaled_times))]


@pytest.mark.parametrize("name", GRADIENT_CASES)
def test_gradients_against_differences(name):
    """With respect to every element, the Sun's direction and its distance; e = 0 is an ordinary point."""
    h, e, angles, sun_hat = GRADIENT_CASES[name]
    x = np.array([(R_EARTH + h) / (1 - e) / 1e7, e, *angles, *sun_hat, AU / 1e11])
    times, forward, reverse = (f(jnp.asarray(x)) for f in SCALED)
    assert float(times[2] - times[1]) > 0  # it has an umbra
    np.testing.assert_allclose(forward, reverse, rtol=1e-9, atol=1e-11)
    step = 1e-6
    numeric = [
        (SCALED[0](jnp.asarray(x + d)) - SCALED[0](jnp.asarray(x - d))) / (2 * step) for d in step * np.eye(9)
    ]
    # Rounding 1e-16/1e-6, and a step error of 1e-12 times third derivatives.
    np.testing.assert_allclose(forward, np.stack(numeric, 1), rtol=1e-6, atol=1e-8)


def test_second_derivative():
    """Umbra by altitude and beta, twice: implicit derivatives nest."""

    def duration(x):
        t = eclipse.shadow_times(*circular(x[0] * 1e6, x[1]))
        return (t[2] - t[1]) / 1e3

    x, step = np.array([0.55, 0.6]), 1e-5
    gradient = jax.jit(jax.grad(duration))
    numeric = [
        (gradient(jnp.asarray(x + d)) - gradient(jnp.asarray(x - d))) / (2 * step) for d in step * np.eye(2)
    ]
    np.testing.assert_allclose(jax.jit(jax.hessian(duration))(jnp.asarray(x)), np.stack(numeric), rtol=1e-6)
