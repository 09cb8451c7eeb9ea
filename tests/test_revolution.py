"""Time steps between shadow edges, and loads: balance, order, derivatives, precision, edge cases."""

import csv
import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels.attitude import Attitude
from dawndusk.kernels.constants import AU, R_EARTH
from dawndusk.kernels.eclipse import shadow_times
from dawndusk.kernels.orbit import Orbit, period
from dawndusk.kernels.revolution import Revolution, Surfaces, geometry, revolution_loads, step_times

REFERENCE = Path(__file__).parent / "reference"
loads_of = jax.jit(revolution_loads, static_argnums=1)
steps_of = jax.jit(step_times, static_argnums=1)


def revolution(
    altitude=6.5e5,
    beta=0.3,
    eccentricity=0.0,
    arg_perigee=0.7,
    raan=0.4,
    inclination=1.7,
    sun=None,
    law=("sun", "along_track", False),
    drive="two_axis",
    edges=(),
    levels=(1.0,),
    incident=None,
    dtype=float,
):
    """A satellite at a beta angle, or under a given Sun; radiator along body x, array along body z."""

    def x(value):
        return jnp.asarray(value, dtype)

    if sun is None:
        # Orbit normal and a direction in the plane.
        h = [np.sin(inclination) * np.sin(raan), -np.sin(inclination) * np.cos(raan), np.cos(inclination)]
        node = [np.cos(raan), np.sin(raan), 0]
        sun = np.sin(beta) * np.array(h) + np.cos(beta) * np.array(node)
    orbit = Orbit(*(x(v) for v in (R_EARTH + altitude, eccentricity, inclination, raan, arg_perigee, 0)))
    surfaces = Surfaces(
        radiator_solar_absorptance=x([0.1, 0.2]),
        radiator_emissivity=x([0.9, 0.8]),
        radiator_open=x([0.9, 0.7]),
        array_solar_absorptance=x([0.9, 0.3]),
        array_emissivity=x([0.85, 0.8]),
        array_area=x(100.0),
        body_area=x([1.0, 2, 3, 4, 5, 6]),
        body_solar_absorptance=x(0.2),
        body_emissivity=x(0.3),
    )
    return Revolution(
        orbit=orbit,
        sun_hat=x(sun / np.linalg.norm(sun)),
        sun_distance=x(AU),
        solar_flux=x(1361.0),
        albedo=x(0.3),
        earth_infrared=x(237.0),
        earth_radius=x(R_EARTH),
        attitude=Attitude(x(np.eye(3)), *law),
        radiator_normal_body=x([1.0, 0, 0]),
        array_axis_body=x([0.0, 0, 1]),
        surfaces=surfaces,
        demand_edges=x(edges),
        demand_levels=x(levels),
        eclipse_demand=x(0.5),
        incident=None if incident is None else x(incident),
        array_drive=drive,
    )


CASES = {
    "eclipse": revolution(),
    "full Sun": revolution(beta=1.5),
    "grazing, umbra": revolution(beta=np.radians(65.0)),
    "grazing, penumbra alone": revolution(beta=np.radians(65.25)),
    "beta 0": revolution(beta=0.0),
    "beta 90": revolution(beta=np.pi / 2),
    "eccentric": revolution(altitude=4.3e6, eccentricity=0.35, arg_perigee=2.0),
    "demand": revolution(edges=(0.1, 0.25, 0.5, 0.5), levels=(1.0, 0.2, 1.0, 0.3, 0.9)),
    "demand edge within the penumbra": revolution(edges=(0.33157,), levels=(1.0, 0.2)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("n", [16, 128])
def test_steps_fill_the_revolution_and_straddle_nothing(name, n):
    case = CASES[name]
    ends = np.asarray(steps_of(case, n))
    P = float(period(case.orbit.semi_major_axis))
    assert ends.shape == (n + 1,) and ends[0] == 0 and abs(ends[-1] - P) < 1e-12 * P
    assert np.all(np.diff(ends) >= 0)
    shadow = np.asarray(shadow_times(case.orbit, case.sun_hat, case.sun_distance))
    for cut in [*shadow, *(np.asarray(case.demand_edges) * P)]:
        assert np.min(np.abs(ends - cut)) < 2e-6 * P
    for start, stop, least in zip(shadow[:-1], shadow[1:], (2, 1, 2), strict=True):
        inside = np.sum((ends[1:] > start + 1e-6 * P) & (ends[1:] <= stop + 1e-6 * P))
        if stop - start > 1e-5 * P:
            assert inside >= least
    # The rest goes in proportion: no step is longer than its share of what the short stretches leave over.
    spare = n - 7 - 2 * len(case.demand_edges)
    assert np.max(np.diff(ends)) < 1.01 * P / max(spare, 1)


def test_too_few_steps_are_refused():
    with pytest.raises(ValueError, match=r"n_steps: got 8; .* need 9"):
        step_times(revolution(edges=(0.1,), levels=(1.0, 0.5)), 8)


@pytest.mark.parametrize("name", CASES)
def test_eclipse_is_in_the_steps(name):
    """The steps' mean sunlit fraction is the geometry's, and none but penumbra steps lie between 0 and 1."""
    case = CASES[name]
    loads, shadow = loads_of(case, 128), geometry(case)
    dark = float(jnp.sum(loads.dt * (1 - loads.sunlit)) / shadow.period)
    # Two midpoints in a penumbra crossing of up to a tenth of the revolution (grazing); else 1e-5.
    assert abs(dark - float(shadow.eclipse_fraction)) < (2e-3 if "grazing" in name else 2e-5)
    t, nu = np.asarray(loads.time), np.asarray(loads.sunlit)
    times = np.asarray(shadow.shadow_times)
    lit, umbra = (t < times[0]) | (t > times[3]), (t > times[1]) & (t < times[2])
    assert np.all(nu[lit] == 1) and np.all(nu[umbra] == 0)
    assert float(shadow.umbra_seconds) >= 0 and float(shadow.penumbra_seconds) >= 0


def test_geometry():
    case = CASES["eclipse"]
    g = geometry(case)
    assert abs(float(g.beta) - 0.3) < 1e-12
    assert abs(float(g.period) - 5863.694) < 1e-3
    # Mean of umbra and of umbra with penumbra, to the asymmetry of the disc.
    half = (float(g.umbra_seconds) + float(g.penumbra_seconds) / 2) / float(g.period)
    assert abs(float(g.eclipse_fraction) - half) < 2e-5


def test_means_meet_the_reference():
    """Mean fluxes on the faces of an Earth-pointing satellite, 128 steps, against independent quadrature.

    Body +z to nadir, +x to ram and -y along the orbit normal. Areas of one face at a time read it out.
    """
    lines = (REFERENCE / "orbit_flux_mean.csv").read_text().splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    place = {"ram": 0, "wake": 1, "south": 2, "north": 3, "nadir": 4, "zenith": 5}
    case = revolution(law=("nadir", "along_track", False))

    @jax.jit
    @partial(jax.vmap, in_axes=(0, 0, 0, None))
    def mean(a, beta, area, infrared):
        zero = jnp.zeros_like(a)
        surfaces = dataclasses.replace(
            case.surfaces,
            body_area=area,
            body_solar_absorptance=1 - infrared,
            body_emissivity=infrared,
        )
        this = dataclasses.replace(
            case,
            orbit=Orbit(a, zero, zero, zero, zero, zero),
            sun_hat=jnp.stack([jnp.cos(beta), zero, jnp.sin(beta)]),
            surfaces=surfaces,
        )
        loads = revolution_loads(this, 128)
        return jnp.sum(loads.dt * loads.body) / jnp.sum(loads.dt)

    rows = [r for r in rows if r["plate"] in place]
    h, beta, *fluxes = np.array(
        [[float(r[k]) for k in ("h_km", "beta_deg", "solar_mean", "albedo_mean", "ir_mean")] for r in rows]
    ).T
    area = jnp.asarray(np.eye(6)[[place[r["plate"]] for r in rows]])
    a, beta = jnp.asarray(R_EARTH + 1e3 * h), jnp.asarray(np.radians(beta))
    short = mean(a, beta, area, jnp.asarray(0.0))
    # Second-order error of 128 steps, a few 1e-4 of the flux; measured 0.09 W/m2.
    np.testing.assert_allclose(short, fluxes[0] + fluxes[1], rtol=0, atol=0.15)
    np.testing.assert_allclose(mean(a, beta, area, jnp.asarray(1.0)), fluxes[2], rtol=0, atol=1e-6)


def totals(case, n):
    """Absorbed and incident energy and demand over the revolution."""
    loads = revolution_loads(case, n)
    parts = (loads.panel, loads.array, loads.body, loads.irradiance, loads.demand)
    return jnp.stack([jnp.sum(loads.dt * part) for part in parts])


@pytest.mark.parametrize(
    "case",
    [
        revolution(altitude=4.3e6, eccentricity=0.35, arg_perigee=2.0, law=("sun", "nadir", False)),
        revolution(drive="one_axis", law=("velocity", "along_track", False), beta=1.1),
    ],
)
def test_second_order_through_shadow_edges(case):
    """Midpoint rule between the edges. A rule that straddles them is of order one at best."""
    f = jax.jit(totals, static_argnums=1)
    coarse, fine, truth = (np.asarray(f(case, n))[:3] for n in (32, 128, 2048))
    coarse, fine = np.abs(coarse / truth - 1), np.abs(fine / truth - 1)
    # Panel, array and body. 4^2 = 16 less a wobble, as a face may turn from the Sun within a step, down
    # to what two steps in a penumbra crossing leave, which does not shrink before n is some 1,000.
    assert np.all(fine < coarse / 12 + 5e-6)
    assert np.all(fine < 1e-4)


@pytest.mark.parametrize(
    "case",
    [
        revolution(),
        revolution(law=("nadir", "along_track", True), drive="one_axis"),
        revolution(
            altitude=4.3e6, eccentricity=0.35, law=("nadir", "along_track", False), drive="fixed", raan=2.0
        ),
    ],
)
def test_derivatives_meet_central_differences(case):
    """Of every energy with respect to altitude and node, shadow edges moving."""

    def energies(x):
        orbit = dataclasses.replace(case.orbit, semi_major_axis=x[0], raan=x[1])
        return totals(dataclasses.replace(case, orbit=orbit), 64)

    f = jax.jit(energies)
    x, step = jnp.stack([case.orbit.semi_major_axis, case.orbit.raan]), np.array([10.0, 1e-5])
    slopes = np.asarray(jax.jit(jax.jacfwd(energies))(x)).T
    for i in (0, 1):
        central = np.asarray(f(x.at[i].add(step[i])) - f(x.at[i].add(-step[i]))) / (2 * step[i])
        # An azimuth of zero, of a face that points along the Sun's, is good to the square root of rounding;
        # the energies then to 1e-10.
        scale = np.abs(np.asarray(f(x))) * 1e-10 / step[i]
        assert np.all(np.abs(slopes[i] - central) < 1e-6 * np.abs(central) + scale)


@pytest.mark.slow
def test_reverse_mode_agrees_with_forward():
    # No face stays edge-on to the Sun, where rounding chooses the side of a kink.
    law = ("nadir", "along_track", False)
    case = revolution(edges=(0.1, 0.25), levels=(1.0, 0.2, 1.0), law=law, drive="one_axis")

    def energy(case):
        loads = revolution_loads(case, 32)
        return jnp.sum(loads.dt * (loads.panel + loads.body + loads.array) * loads.demand)

    tangent = jax.tree.map(jnp.ones_like, case)
    gradient = jax.jit(jax.grad(energy))(case)
    along = sum(jnp.sum(g) for g in jax.tree.leaves(gradient))
    _, forward = jax.jit(lambda c, t: jax.jvp(energy, (c,), (t,)))(case, tangent)
    np.testing.assert_allclose(along, forward, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "dtype, law",
    [(jnp.float64, ("sun", "nadir", False)), (jnp.float32, ("nadir", "along_track", True))],
)
def test_derivatives_are_finite_at_hard_geometry(dtype, law):
    """No shadow, grazing shadow, the Sun in the orbit plane or on its normal: one batch, one compilation."""
    cases = [
        revolution(beta=beta, law=law, drive="one_axis", dtype=dtype, inclination=i)
        for beta, i in [
            (0.0, 0.0),
            (0.0, 1.7),
            (np.pi / 2, 0.0),
            (-np.pi / 2, 1.7),
            (np.radians(65.164), 1.7),
            (np.radians(65.25), 1.7),
            (np.radians(65.43), 1.7),
            (1.5, 1.7),
        ]
    ]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *cases)

    def energy(case):
        loads = revolution_loads(case, 32)
        return jnp.sum(loads.dt * (loads.panel + loads.body + loads.array))

    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(energy)))(batch)
    assert np.all(np.isfinite(values))
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(slopes))


@pytest.mark.parametrize("name", CASES)
def test_float32(name):
    """1e-4 of the solar flux on every face at the same instants, and of the energies."""
    double = CASES[name]
    single = jax.tree.map(lambda x: x.astype(jnp.float32), double)
    a, b = loads_of(double, 128), loads_of(single, 128)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(b))
    one, two = (np.asarray(jax.jit(totals, static_argnums=1)(c, 128), float) for c in (double, single))
    # 1e-4 is what the design asks; measured 5e-7, some rounding units.
    np.testing.assert_allclose(two[:4], one[:4], rtol=5e-6)
    if "grazing" not in name and "demand" not in name:
        # Edges move by 5 ms of float32 time, so that penumbra steps are left out.
        full = np.asarray((a.sunlit == 0) | (a.sunlit == 1))
        difference = np.abs(np.asarray(a.incident) - np.asarray(b.incident, float))[full]
        assert difference.max() < 1e-4 * 1361


def test_heat_is_absorbed_by_the_optics():
    """Panel, array and irradiance follow from the incident fluxes that the loads report."""
    case = CASES["eclipse"]
    s, loads = case.surfaces, loads_of(case, 64)
    incident = np.asarray(loads.incident)
    panel = sum(
        float(s.radiator_solar_absorptance[i]) * (incident[:, 0, i] + incident[:, 1, i])
        + float(s.radiator_emissivity[i]) * incident[:, 2, i]
        for i in (0, 1)
    )
    np.testing.assert_allclose(loads.panel, panel, rtol=1e-13)
    # A two-axis array sees the Sun in full, times the sunlit fraction.
    np.testing.assert_allclose(loads.irradiance, 1361 * np.asarray(loads.sunlit), rtol=1e-13)
    np.testing.assert_allclose(incident[:, 0, 2], loads.irradiance, rtol=1e-15)


def test_open_view_scales_what_comes_from_the_earth_alone():
    case = revolution(law=("nadir", "along_track", False))
    half = dataclasses.replace(case.surfaces, radiator_open=case.surfaces.radiator_open / 2)
    whole, halved = loads_of(case, 32), loads_of(dataclasses.replace(case, surfaces=half), 32)
    np.testing.assert_allclose(halved.incident[:, 0], whole.incident[:, 0], rtol=0)
    np.testing.assert_allclose(2 * halved.incident[:, 1:, :2], whole.incident[:, 1:, :2], rtol=1e-14)


def test_prescribed_fluxes_replace_the_radiators_alone():
    incident = np.array([[100.0, 0.0], [20.0, 10.0], [60.0, 50.0]])
    given, computed = loads_of(revolution(incident=incident), 32), loads_of(revolution(), 32)
    np.testing.assert_allclose(given.incident[:, :, :2], np.broadcast_to(incident, (32, 3, 2)), rtol=0)
    # alpha (solar + albedo) + eps infrared of both faces, in eclipse too.
    np.testing.assert_allclose(given.panel, 0.1 * 120 + 0.9 * 60 + 0.2 * 10 + 0.8 * 50, rtol=1e-14)
    np.testing.assert_allclose(given.array, computed.array, rtol=1e-15)
    np.testing.assert_allclose(given.body, computed.body, rtol=1e-15)


def test_demand_follows_its_windows_and_the_shadow():
    case = CASES["demand"]
    loads = loads_of(case, 128)
    t = np.asarray(loads.time) / float(period(case.orbit.semi_major_axis))
    level = np.select([t < 0.1, t < 0.25, t < 0.5], [1.0, 0.2, 1.0], 0.9)
    factor = np.where(np.asarray(loads.sunlit) < 0.5, 0.5, 1.0)
    np.testing.assert_allclose(loads.demand, level * factor, rtol=1e-15)
    # No step straddles an edge, so the mean over the lit windows is exact: 0.1 x 1 + 0.15 x 0.2.
    early = np.asarray(loads.time) < 0.25 * np.sum(np.asarray(loads.dt))
    mean = np.sum(np.asarray(loads.dt * loads.demand)[early]) / np.sum(np.asarray(loads.dt))
    assert abs(mean - 0.13) < 1e-12


def test_a_fleet_is_mapped_with_satellites_last():
    cases = [revolution(beta=b) for b in (0.0, 0.5, 1.0, 1.5)]
    fleet = jax.tree.map(lambda *x: jnp.stack(x), *cases)
    loads = jax.jit(jax.vmap(lambda r: revolution_loads(r, 32), out_axes=-1))(fleet)
    assert loads.panel.shape == (32, 4) and loads.incident.shape == (32, 3, 3, 4)
    for i, case in enumerate(cases):
        np.testing.assert_allclose(loads.panel[:, i], loads_of(case, 32).panel, rtol=1e-9)


def test_surfaces_of_a_sun_pointing_satellite():
    """Its +z faces see the Sun square on, its -z faces never, the others edge-on."""
    case = revolution(beta=1.5)
    dark = {"albedo": jnp.asarray(0.0), "earth_infrared": jnp.asarray(0.0)}
    for face, expected in enumerate([0, 0, 0, 0, 1361, 0]):
        area = jnp.zeros(6).at[face].set(1.0)
        surfaces = dataclasses.replace(case.surfaces, body_area=area, body_solar_absorptance=jnp.asarray(1.0))
        loads = loads_of(dataclasses.replace(case, surfaces=surfaces, **dark), 32)
        np.testing.assert_allclose(loads.body, expected, atol=1e-9)
