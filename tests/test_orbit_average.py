"""Fluxes of a revolution against independent quadrature and dense samples, and their derivatives."""

import csv
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import eclipse, environment, orbit_average, vector
from dawndusk.kernels.attitude import Attitude
from dawndusk.kernels.constants import AU, R_EARTH, R_SUN
from dawndusk.kernels.earth import KNOCKE_EPOCH, Earth, knocke
from dawndusk.kernels.orbit import Orbit, period, position_at_time
from dawndusk.kernels.revolution import Revolution, Surfaces, revolution_loads
from dawndusk.kernels.sun import sun_position

REFERENCE = Path(__file__).parent / "reference"
# Planes by normals as sums of up, ram, orbit normal and Sun; plates are their sides.
PLANES = np.array([(-1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (-(0.5**0.5), 0.5**0.5, 0, 0)])
PLATES = {
    "nadir": (0, 0),
    "zenith": (1, 0),
    "ram": (0, 1),
    "wake": (1, 1),
    "north": (0, 2),
    "south": (1, 2),
    "sun": (0, 3),
    "tilt45": (0, 4),
}
S, ALBEDO, INFRARED = 1361.0, 0.3, 237.0


def table(name):
    lines = (REFERENCE / name).read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def columns(rows, *names):
    return np.array([[float(r[n]) for n in names] for r in rows]).T


def normals_under(sun):
    def normals(r, v):
        up = vector.unit(r)
        north = vector.unit(vector.cross(r, v))
        axes = up, vector.cross(north, up), north, sun
        return [vector.combination(*zip(plane, axes)) for plane in PLANES.tolist()]

    return normals


def sources_like(x, solar_flux=S):
    return orbit_average.Sources(
        solar_flux + 0 * x, jnp.full_like(x, ALBEDO), jnp.full_like(x, INFRARED), jnp.full_like(x, R_EARTH)
    )


def circular(a, beta):
    """Orbits with the Sun at beta above them."""
    zero = jnp.zeros_like(a)
    return Orbit(a, zero, zero, zero, zero, zero), jnp.stack([jnp.cos(beta), zero, jnp.sin(beta)])


def means(a, beta, n, exact=False):
    orbit, sun = circular(a, beta)
    distance = jnp.full_like(a, AU)
    return orbit_average.mean_fluxes(orbit, sun, distance, sources_like(a), normals_under(sun), n, exact)


# W/m2. Measured: 0.035 with 32, 1.4e-3 with 64, both albedo; 7.5e-5 with 128 and the exact albedo; direct Sun 5e-6
# with 32. In float32 the same, direct Sun 4e-4.
@pytest.mark.parametrize(
    "n, dtype, exact, tolerance",
    [
        (32, jnp.float32, False, 0.1),
        (64, jnp.float64, False, 5e-3),
        pytest.param(128, jnp.float64, True, 1e-4, marks=pytest.mark.slow),
    ],
)
def test_means_meet_the_reference(n, dtype, exact, tolerance):
    rows = table("orbit_flux_mean.csv")
    h, beta, *fluxes = columns(rows, "h_km", "beta_deg", "solar_mean", "albedo_mean", "ir_mean")
    f = jax.jit(lambda a, beta: means(a, beta, n, exact))
    ours = f(jnp.asarray(R_EARTH + 1e3 * h, dtype), jnp.asarray(np.radians(beta), dtype))
    assert ours.dtype == dtype
    ours = np.array([np.asarray(ours)[:, *PLATES[row["plate"]], k] for k, row in enumerate(rows)]).T
    np.testing.assert_allclose(ours, fluxes, rtol=0, atol=tolerance)
    np.testing.assert_allclose(ours[0], fluxes[0], rtol=0, atol=1e-3)


def test_eclipse_fraction_meets_the_reference():
    h, beta, lit = columns(table("eclipse_circular.csv"), "h_km", "beta_deg", "mean_illumination")

    @jax.jit
    def fraction(a, beta):
        orbit, sun = circular(a, beta)
        distance = jnp.full_like(a, AU)
        return eclipse.hidden_seconds(orbit, eclipse.shadow(orbit, sun, distance), distance) / period(a)

    ours = fraction(jnp.asarray(R_EARTH + 1e3 * h), jnp.asarray(np.radians(beta)))
    # The reference is trusted to 1e-10; measured 5e-11.
    np.testing.assert_allclose(ours, 1 - lit, rtol=0, atol=1e-10)


# ------------------------------------------------------------------------------------- whole satellites

# Perigee and apogee [km], argument of perigee, pointing, drive of the array, what the case is for.
ORBITS = {
    "dawn-dusk": (650, 650, 0.0, 1.4),
    "noon": (650, 650, 0.0, 0.1),
    "elliptic": (600, 8000, 2.0, 0.4),
    "Molniya": (600, 39_700, 4.7, 0.3),
    "grazing": (650, 650, 0.0, math.asin(R_EARTH / (R_EARTH + 650e3))),
}
LAWS = {
    "sun": ("sun", "along_track", False, "fixed"),
    "nadir": ("nadir", "along_track", False, "one_axis"),
    "yaw": ("nadir", "along_track", True, "two_axis"),
    "velocity": ("velocity", "along_track", False, "fixed"),
    "inertial": ("inertial", "along_track", False, "one_axis"),
}


def satellites(law, dtype=float):
    """One on each of ORBITS, rows first; a radiator that no body axis stands for, half of its view blocked."""
    perigee, apogee, argp, beta = np.array(list(ORBITS.values())).T
    n = len(beta)
    a, e = R_EARTH + 500 * (perigee + apogee), (apogee - perigee) * 500
    pointing, roll, yaw, drive = LAWS[law]

    def rows(x):
        return jnp.asarray(np.broadcast_to(x, (n, *np.shape(x))), dtype)

    zero = np.zeros(n)
    surfaces = Surfaces(
        rows([0.2, 0.1]),
        rows([0.85, 0.8]),
        rows([0.5, 0.9]),
        rows([0.9, 0.3]),
        rows([0.8, 0.7]),
        rows(100.0),
        rows(np.full(6, 2.0)),
        rows(0.3),
        rows(0.05),
    )
    axes = np.linalg.qr(np.array([[1.0, 2, 0], [0, 1, 1], [1, 0, 3]]))[0]
    return Revolution(
        orbit=Orbit(*(jnp.asarray(x, dtype) for x in (a, e / a, zero, zero, argp, zero))),
        sun_hat=jnp.asarray(np.stack([np.cos(beta), zero, np.sin(beta)], 1), dtype),
        sun_distance=rows(AU),
        solar_flux=rows(S),
        albedo=rows(ALBEDO),
        earth_infrared=rows(INFRARED),
        earth_radius=rows(R_EARTH),
        attitude=Attitude(rows(axes * np.linalg.det(axes)), pointing, roll, yaw),
        radiator_normal_body=rows([0.6, 0.0, 0.8]),
        array_axis_body=rows([0.0, 1.0, 0.0]),
        surfaces=surfaces,
        demand_edges=jnp.zeros((n, 0), dtype),
        demand_levels=jnp.ones((n, 1), dtype),
        eclipse_demand=rows(1.0),
        array_drive=drive,
    )


@jax.jit
def dense(fleet):
    """Incident flux on radiator and array front at 4,096 equal steps of the mean anomaly, (rows, n, 3, 3), and dt."""

    def loads(row):
        found = revolution_loads(row, 2048)
        return found.incident, found.dt, found.sunlit

    return jax.lax.map(loads, fleet)


@pytest.mark.parametrize(
    "law",
    ["sun", "nadir", pytest.param("yaw", marks=pytest.mark.slow)]
    + [pytest.param(law, marks=pytest.mark.slow) for law in ("velocity", "inertial")],
)
def test_means_and_extremes_are_those_of_dense_samples(law):
    fleet = satellites(law)
    found = jax.jit(lambda fleet: orbit_average.fleet_fluxes(fleet, 64))(fleet)
    incident, dt, sunlit = (np.asarray(x) for x in dense(fleet))
    weight = (dt / dt.sum(axis=1, keepdims=True))[:, :, None, None]
    ours = {
        name: np.moveaxis(np.asarray(getattr(found, name))[:, 6:9], -1, 0)
        for name in ("incident", "peak", "least")
    }
    # Measured 3e-3, and 0.03 where a satellite whose velocity passes within 6 deg of the Sun turns over in minutes.
    np.testing.assert_allclose(ours["incident"], np.sum(weight * incident, axis=1), rtol=0, atol=0.05)
    # Nodes are 5.6 deg apart, and a parabola lies between them; measured 1, 6 at the perigee of a Molniya orbit, 13
    # where the satellite turns over.
    np.testing.assert_allclose(ours["peak"], incident.max(axis=1), rtol=0, atol=15.0)
    np.testing.assert_allclose(ours["least"], incident.min(axis=1), rtol=0, atol=1.0)
    hidden = np.sum(dt * (1 - sunlit), axis=1) / dt.sum(axis=1)
    np.testing.assert_allclose(found.eclipse_fraction, hidden, rtol=0, atol=1e-5)
    s = fleet.surfaces
    for side in (0, 1):
        solar, albedo, infrared = np.asarray(found.incident)[:, 6 + side]
        alpha, eps = s.radiator_solar_absorptance[0, side], s.radiator_emissivity[0, side]
        absorbed = alpha * (solar + albedo) + eps * infrared
        np.testing.assert_allclose(found.absorbed[6 + side], absorbed, rtol=1e-12)
    assert np.all(np.asarray(found.absorbed_least) <= np.asarray(found.absorbed) + 1e-9)
    assert np.all(np.asarray(found.absorbed_peak) >= np.asarray(found.absorbed) - 1e-9)


@pytest.mark.slow
def test_an_earth_that_varies_is_that_of_the_loads():
    """Knocke's Earth at the solstice, each satellite with coefficients of its own."""
    fleet = satellites("nadir")
    zonal = np.tile(knocke(KNOCKE_EPOCH, S), (len(ORBITS), 1, 1))
    zonal[1] *= 0.5
    fleet = replace(fleet, earth=Earth(jnp.asarray(zonal)))
    found = jax.jit(lambda fleet: orbit_average.fleet_fluxes(fleet, 64))(fleet)
    incident, dt, _ = (np.asarray(x) for x in dense(fleet))
    weight = (dt / dt.sum(axis=1, keepdims=True))[:, :, None, None]
    ours = np.moveaxis(np.asarray(found.incident)[:, 6:9], -1, 0)
    np.testing.assert_allclose(ours, np.sum(weight * incident, axis=1), rtol=0, atol=0.05)


@pytest.mark.slow
def test_extremes_where_a_face_turns_in_full_sun():
    """A tilted radiator, orbits without eclipse: what a face absorbs has a kink where it turns to or from the Sun."""
    fleet = satellites("nadir")
    n = len(ORBITS)
    beta = np.radians(np.linspace(62, 80, n))
    sun = np.stack([np.cos(beta), 0 * beta, np.sin(beta)], 1)
    orbit = Orbit(jnp.full(n, R_EARTH + 1.4e6), *(jnp.zeros(n) for _ in range(5)))
    fleet = replace(fleet, orbit=orbit, sun_hat=jnp.asarray(sun))
    found = jax.jit(lambda fleet: orbit_average.fleet_fluxes(fleet, 64))(fleet)
    incident = np.asarray(dense(fleet)[0])
    s = fleet.surfaces
    for face in (0, 1):
        alpha, eps = float(s.radiator_solar_absorptance[0, face]), float(s.radiator_emissivity[0, face])
        absorbed = alpha * incident[:, :, :2, face].sum(axis=2) + eps * incident[:, :, 2, face]
        # Half the step to the nearest node at a kink: 0.05 rad of a slope of some 100 W/m2.
        np.testing.assert_allclose(found.absorbed_least[6 + face], absorbed.min(axis=1), rtol=0, atol=1.0)
        np.testing.assert_allclose(found.absorbed_peak[6 + face], absorbed.max(axis=1), rtol=0, atol=1.0)


def test_a_row_that_is_not_a_number_leaves_the_others_alone():
    fleet = satellites("nadir", jnp.float32)
    f = jax.jit(lambda fleet: orbit_average.fleet_fluxes(fleet, 32))
    broken = replace(
        fleet, orbit=replace(fleet.orbit, eccentricity=fleet.orbit.eccentricity.at[2].set(jnp.nan))
    )
    others = np.array([0, 1, 3, 4])
    for good, bad in zip(jax.tree.leaves(f(fleet)), jax.tree.leaves(f(broken)), strict=True):
        np.testing.assert_array_equal(np.asarray(bad)[..., others], np.asarray(good)[..., others])
    assert np.isnan(f(broken).absorbed[:, 2]).all()


def test_blocks_and_known_axes_change_nothing():
    """Rows by blocks of two, and planes that coincide with the body's."""
    fleet = satellites("nadir")
    down = jnp.zeros_like(fleet.radiator_normal_body).at[:, 1].set(-1.0)
    fleet = replace(fleet, radiator_normal_body=down)
    whole = jax.jit(lambda fleet: orbit_average.fleet_fluxes(fleet, 32))(fleet)
    split = jax.jit(lambda fleet: orbit_average.fleet_fluxes(fleet, 32, ("-y", None), 2))(fleet)
    for one, two in zip(jax.tree.leaves(whole), jax.tree.leaves(split), strict=True):
        assert one.shape == two.shape
        # Fewer planes have fewer cuts, and so other nodes.
        np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-4)


@pytest.mark.slow
def test_single_precision_meets_double():
    double, single = (satellites("nadir", dtype) for dtype in (jnp.float64, jnp.float32))
    f = jax.jit(lambda fleet: orbit_average.fleet_fluxes(fleet, 32))
    one, two = f(double), f(single)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(two))
    # 1e-4 of the flux is what the design asks.
    np.testing.assert_allclose(two.incident, one.incident, rtol=1e-4, atol=5e-3)
    np.testing.assert_allclose(two.absorbed, one.absorbed, rtol=1e-4, atol=5e-3)
    np.testing.assert_allclose(two.eclipse_fraction, one.eclipse_fraction, rtol=0, atol=2e-6)


def test_full_sun_and_polar_night():
    """No shadow at a high beta angle; the face away from the Sun never sees it, and nothing is nan."""
    a, beta = jnp.full(2, R_EARTH + 1.4e6), jnp.asarray([np.pi / 2, np.radians(80)])
    found = np.asarray(jax.jit(lambda a, beta: means(a, beta, 32))(a, beta))
    north, south = found[:, :, 2].transpose(1, 0, 2)
    np.testing.assert_allclose(north[0], S * np.sin(np.asarray(beta)), rtol=1e-12)
    np.testing.assert_array_equal(south[0], 0)
    np.testing.assert_allclose(found[0, 0, 3], S, rtol=1e-12)
    assert np.all(found >= 0) and np.all(np.isfinite(found))


# ------------------------------------------------------------------------------------------- convergence


def direct_errors():
    """Largest error of the mean direct Sun on eight plates at 650 km, by nodes, and that of 2,000 uniform samples."""
    a, beta = jnp.full(7, R_EARTH + 6.5e5), jnp.asarray(np.linspace(0, 1.5, 7))
    errors = {}
    best = means(a, beta, 256)[0]
    for n in (16, 32, 64):
        errors[n] = float(jnp.max(jnp.abs(means(a, beta, n)[0] - best)))
    sun = circular(a, beta)[1]
    u = 2 * np.pi * (np.arange(2000) + 0.5) / 2000

    def sample(total, angle):
        o = Orbit(a, 0 * a, 0 * a, 0 * a, 0 * a, 0 * a)
        r, v = jax.vmap(lambda o, t: position_at_time(o, jnp.asarray([1.0, 0, 0]), t), (0, None), -1)(
            o, angle * period(a[0]) / (2 * np.pi)
        )
        lit = jax.vmap(eclipse.sunlit_fraction, -1)(r, sun * AU)
        cosines = jnp.stack([vector.dot(plane, sun) for plane in normals_under(sun)(r, v)])
        both = jnp.stack([jnp.maximum(cosines, 0), jnp.maximum(-cosines, 0)])
        return total + S * lit[None, None] * both / 2000, None

    uniform = jax.lax.scan(sample, jnp.zeros_like(best), jnp.asarray(u))[0]
    errors["uniform"] = float(jnp.max(jnp.abs(uniform - best)))
    return errors


@pytest.mark.slow
def test_few_nodes_do_what_two_thousand_samples_do():
    errors = direct_errors()
    assert errors[32] < errors["uniform"]
    assert errors[64] < errors[32] + 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("e", [0.0, 0.3, 0.7, 0.95])
def test_direct_sun_on_any_plane_of_any_ellipse(e):
    """Forty ellipses of 600 km perigee, five planes: 32 nodes against 512."""
    rng = np.random.default_rng(0)
    argp, beta = rng.uniform(0, 2 * np.pi, 40), rng.uniform(-1.5, 1.5, 40)
    orbit, sun = circular(jnp.full(40, (R_EARTH + 6e5) / (1 - e)), jnp.asarray(beta))
    orbit = replace(orbit, eccentricity=jnp.full(40, e), arg_perigee=jnp.asarray(argp))

    def direct(n):
        f = jax.jit(lambda d: orbit_average.mean_sunlight(orbit, sun, d, normals_under(sun), n)[0])
        return S * np.asarray(f(jnp.full(40, AU)))

    error = np.abs(direct(32) - direct(512)).max()
    print(f"e {e}: {error:.1e} W/m2")
    assert error < 2e-3


# ------------------------------------------------------------------------------------------- derivatives

EPOCH = 2_461_000.5


def of_elements(x):
    """Mean fluxes from altitude [Mm], inclination, node [rad], day and eccentricity, rows last."""
    h, i, raan, day, e = x
    sun, distance = jax.vmap(sun_position, out_axes=-1)(jnp.full_like(day, EPOCH), day)
    orbit = Orbit(R_EARTH + 1e6 * h, e, i, raan, jnp.full_like(h, 0.3), jnp.zeros_like(h))
    sources = sources_like(h, S * (AU / distance) ** 2)
    return orbit_average.mean_fluxes(orbit, sun, distance, sources, normals_under(sun), 32)


def near_onset(x):
    """Likewise from altitude [Mm] and beta angle [rad]."""
    return means(R_EARTH + 1e6 * x[0], x[1], 32)


def onsets(h):
    """Beta angles at which penumbra and umbra begin."""
    ratio = R_EARTH / (R_EARTH + 1e6 * h)
    return [np.arcsin(ratio) + np.arcsin(x / AU) for x in (R_SUN + R_EARTH, R_EARTH - R_SUN)]


ORDINARY = [(0.65, 1.71, 1.0, 100.3, 0.0), (0.65, 1.71, 2.6, 100.3, 1e-3), (4.0, 1.2, 1.0, 100.3, 0.2)]
NEAR = [
    (0.65, at + off) for at in onsets(0.65) for off in np.radians([-1e-2, -1e-4, -1e-5, 1e-5, 1e-4, 1e-2])
]


@pytest.mark.slow
@pytest.mark.parametrize("f, points", [(of_elements, ORDINARY), (near_onset, NEAR)])
def test_derivatives_meet_central_differences(f, points):
    """Also where an edge of the shadow moves, and on either side of a season's onset."""
    x = jnp.asarray(points).T
    value = jax.jit(f)
    step = 1e-6 if f is of_elements else 2e-8
    derivative = jax.jit(lambda x, d: jax.jvp(f, (x,), (d,))[1])
    for k in range(len(x)):
        d = jnp.zeros_like(x).at[k].set(1.0)
        if k == 4:  # an eccentricity of zero has only one side
            d = jnp.where(x[4] > 0, d, 0.0)
        central = (value(x + step * d) - value(x - step * d)) / (2 * step)
        # 1e-6 of the largest, and the rounding of means of some 1,000 W/m2 over the step.
        scale = 1e-6 * float(jnp.max(jnp.abs(central)))
        np.testing.assert_allclose(derivative(x, d), central, rtol=1e-6, atol=scale + 1e-12 / step)


DEGENERATE = [*ORDINARY, (0.65, math.pi / 2, 0.0, 0.0, 0.0), (2.0, 0.0, 0.0, 0.0, 0.1)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "f, points",
    [(of_elements, DEGENERATE), (near_onset, [(0.65, b) for b in (0.0, math.pi / 2, *onsets(0.65))])],
)
def test_reverse_mode_agrees_with_forward_where_directions_degenerate(f, points):
    """And all is finite: at onset itself, at beta 0 and 90 deg, for a circle and an ellipse."""
    x = jnp.asarray(points).T
    weights = jnp.asarray(np.random.default_rng(0).normal(size=jax.eval_shape(f, x).shape))
    way = jnp.asarray(np.random.default_rng(1).normal(size=x.shape))
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(weights * f(x))))(x)
    forward = jax.jit(lambda x, d: jax.jvp(f, (x,), (d,))[1])(x, way)
    assert np.all(np.isfinite(gradient))
    along = np.sum(np.asarray(weights * forward), axis=(0, 1, 2))
    np.testing.assert_allclose(np.sum(gradient * way, axis=0), along, rtol=1e-8, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_derivative_by_eccentricity_with_the_sun_near_the_orbit_normal(dtype):
    """Where the shadow's deepest point has no place of its own: as many nodes again change nothing."""

    @partial(jax.jit, static_argnums=1)
    def slopes(beta, n):
        def f(e):
            orbit, sun = circular(jnp.full_like(beta, R_EARTH + 6.5e5), beta)
            orbit = replace(orbit, eccentricity=e, arg_perigee=jnp.full_like(e, 0.7))
            distance = jnp.full_like(e, AU)
            return orbit_average.mean_fluxes(orbit, sun, distance, sources_like(e), normals_under(sun), n)

        e = jnp.full_like(beta, 1e-3)
        return jax.jvp(f, (e,), (jnp.ones_like(e),))[1]

    beta = jnp.asarray(np.radians([85, 89, 89.99, 90]), dtype)
    few, many = np.asarray(slopes(beta, 64)), np.asarray(slopes(beta, 128))
    assert few.dtype == dtype
    # Of derivatives of up to 400 W/m2.
    np.testing.assert_allclose(few, many, rtol=1e-3, atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("law", ["sun", "yaw"])
def test_derivatives_of_whole_satellites_are_finite(law):
    """Of faces that stay edge-on to the Sun, too, and of extremes; direct Sun's meet central differences."""
    fleet = satellites(law)

    def f(raise_by):
        orbit = replace(fleet.orbit, semi_major_axis=fleet.orbit.semi_major_axis + 1e6 * raise_by)
        found = orbit_average.fleet_fluxes(replace(fleet, orbit=orbit), 32)
        return found.incident, found.peak, found.absorbed_least

    here = jnp.asarray(0.0)
    slopes = jax.jit(lambda x: jax.jvp(f, (x,), (jnp.ones_like(x),))[1])(here)
    assert all(np.all(np.isfinite(leaf)) for leaf in slopes)
    value = jax.jit(lambda x: f(x)[0])
    central = (value(here + 1e-6) - value(here - 1e-6)) / 2e-6
    scale = 1e-5 * float(jnp.max(jnp.abs(central)))
    np.testing.assert_allclose(slopes[0], central, rtol=1e-5, atol=scale)


def test_albedo_on_one_face_is_the_exact_kernels():
    """Pairs with all rings against `albedo_factor`, face by face."""
    rng = np.random.default_rng(0)
    tilt, zenith, cos_azimuth = rng.uniform(0, np.pi, 50), rng.uniform(0, np.pi, 50), rng.uniform(-1, 1, 50)
    cos_sun = np.sin(tilt) * np.sin(zenith) * cos_azimuth - np.cos(tilt) * np.cos(zenith)
    H = rng.uniform(1.05, 1.4, 50)
    args = [jnp.asarray(x) for x in (np.cos(tilt), np.cos(zenith), cos_sun, H)]
    there, back = environment.albedo_factor_pairs(args[0][None], args[1], args[2][None], args[3], exact=True)
    np.testing.assert_allclose(there[0], environment.albedo_factor(*args), rtol=0, atol=1e-12)
    opposite = environment.albedo_factor(-args[0], args[1], -args[2], args[3])
    np.testing.assert_allclose(back[0], opposite, rtol=0, atol=1e-9)
