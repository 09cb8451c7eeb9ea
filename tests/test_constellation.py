"""Constellations: Walker, sun-synchronous, relative motion in closed form; TLEs against Orekit's events."""

import csv
import itertools
import json
import math
from datetime import UTC, datetime
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import eclipse, orbit, sun
from dawndusk.kernels.constants import R_EARTH
from dawndusk.solver import case as cases
from dawndusk.solver import constellation as constellations
from dawndusk.solver import tle
from plate import RADIATOR

REFERENCE = Path(__file__).parent / "reference"


def made(epoch=None, **orbit_keys):
    case = cases.validate({"orbit": orbit_keys, "radiator": RADIATOR, "epoch": epoch or {}}, "mine.toml")
    return constellations.constellation(case)


state = jax.jit(jax.vmap(orbit.state))
beta_angle = jax.jit(lambda sun_hat, o: sun.beta_angle(sun_hat, orbit.orbit_normal(o)))
shadow_times = jax.jit(jax.vmap(eclipse.shadow_times))


# --------------------------------------------------------------------------------------- closed forms


@pytest.mark.parametrize(("pattern", "turn"), [("delta", 360.0), ("star", 180.0)])
def test_walker_pattern(pattern, turn):
    # Walker 53: 24/4/1: nodes turn/p apart, satellites 360 p/t apart, f 360/t ahead from plane to plane.
    found = made(
        kind="walker", altitude_km=550, inclination_deg=53, planes=4, satellites_per_plane=6, phasing=1,
        pattern=pattern, raan_deg=10,
    )  # fmt: skip
    assert len(found.names) == len(set(found.names)) == 24
    assert found.names[0] == "p1-s1" and found.names[-1] == "p4-s6"
    np.testing.assert_allclose(np.degrees(found.planes.raan[:, 0]), 10 + turn / 4 * np.arange(4), atol=1e-12)
    anomaly = np.degrees(found.satellites.mean_anomaly).reshape(4, 6)
    expected = (360 / 6 * np.arange(6) + 360 / 24 * np.arange(4)[:, None]) % 360
    np.testing.assert_allclose(anomaly, expected, atol=1e-12)
    assert np.array_equal(found.plane, np.repeat(np.arange(4), 6))


def test_sun_synchronous_inclination_against_reference():
    rows = [r for r in csv.reader((REFERENCE / "sso_inclination.csv").open()) if r and r[0][0].isdigit()]
    for altitude, e, expected, _ in rows:
        if float(e) < 0.02:
            found = made(kind="sun_synchronous", altitude_km=float(altitude), eccentricity=float(e))
            # Closed form printed to 1e-10 deg.
            assert abs(math.degrees(found.planes.inclination[0, 0]) - float(expected)) < 1e-9


def test_sun_synchronous_planes_are_spread_in_altitude():
    found = made(
        kind="sun_synchronous", altitude_km=500, altitude_max_km=1800, planes=14, satellites_per_plane=3
    )
    np.testing.assert_allclose(
        found.planes.semi_major_axis[:, 0], R_EARTH + 1000 * np.linspace(500, 1800, 14)
    )
    assert len(found.names) == 42 and found.names[0] == "p01-s1"


def test_node_keeps_its_local_time_through_the_year():
    keys = {"kind": "sun_synchronous", "altitude_km": 650, "ltan_h": 6.5}
    case = cases.validate({"orbit": keys, "radiator": RADIATOR, "epoch": {"count": 12}})
    raan = constellations.constellation(case).planes.raan[0]
    mean_sun = constellations.sun_at(*constellations.dates(constellations.epochs(case))).mean_right_ascension
    hours = np.degrees(raan - mean_sun) % 360 / 15 + 12
    # The J2 rate meets the mean tropical rate by construction; the mean Sun's rate changes by below 1e-5.
    np.testing.assert_allclose(hours % 24, 6.5, atol=1e-4)


@pytest.mark.parametrize(
    ("altitude", "least_beta", "days", "longest"),
    [(500, 59.16, 106, 22.66), (650, 58.57, 90, 19.73), (1000, 57.08, 58, 13.05)],
)
def test_dawn_dusk_year(altitude, least_beta, days, longest):
    # Independent figures for LTAN 18 h, equation of time included: days with shadow, longest shadow [min].
    epoch = {"start": datetime(2027, 1, 1, tzinfo=UTC), "count": 365, "span_days": 365.0}
    found = made(epoch, kind="sun_synchronous", altitude_km=altitude)
    case = cases.validate(
        {"orbit": {"kind": "sun_synchronous", "altitude_km": altitude}, "radiator": RADIATOR, "epoch": epoch}
    )
    position = constellations.sun_at(*constellations.dates(constellations.epochs(case)))
    plane = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), found.planes)
    beta = np.degrees(jax.vmap(beta_angle)(jnp.asarray(position.direction), plane))
    shadow = np.asarray(shadow_times(plane, jnp.asarray(position.direction), jnp.asarray(position.distance)))
    # The figures are those of a cylinder: midway between umbra and penumbra.
    minutes = (shadow[:, 3] - shadow[:, 0] + shadow[:, 2] - shadow[:, 1]) / 120
    # Another year and a daily grid: 0.05 deg, three days at its ends, 0.15 min cone against cylinder.
    assert abs(np.abs(beta).min() - least_beta) < 0.05
    assert abs((minutes > 0).sum() - days) <= 3
    assert abs(minutes.max() - longest) < 0.15


@pytest.mark.parametrize("beta", [-29.5, 0.0, 45.0, 58.9])
@pytest.mark.parametrize("inclination", [53.0, 97.6])
def test_beta_is_met_at_the_first_epoch(beta, inclination):
    case = cases.validate(
        {
            "orbit": {
                "kind": "elements",
                "altitude_km": 550,
                "inclination_deg": inclination,
                "beta_deg": beta,
            },
            "radiator": RADIATOR,
        }
    )
    found = constellations.constellation(case)
    direction = constellations.sun_at(*constellations.dates(constellations.epochs(case))).direction[0]
    first = jax.tree.map(lambda leaf: jnp.asarray(leaf[0, 0]), found.planes)
    # asin and back: rounding, grown by 1/cos(beta).
    assert abs(math.degrees(beta_angle(jnp.asarray(direction), first)) - beta) < 1e-10


def test_beta_out_of_reach_names_the_range():
    with pytest.raises(cases.CaseError) as caught:
        made(kind="elements", altitude_km=550, inclination_deg=30, beta_deg=-60)
    # June solstice: declination 23.43 deg, so beta goes from 23.43 - 30 to 23.43 + 30, through 53.4.
    line = str(caught.value)
    assert line.startswith(
        "mine.toml: orbit.beta_deg: got -60; with inclination_deg = 30 on 2027-06-21 it must lie"
    )
    low, high = (float(word) for word in line.split("between ")[1].split(" and "))
    assert abs(low + 6.57) < 0.02 and abs(high - 53.43) < 0.02


def test_elements_drift_by_j2():
    keys = {
        "kind": "elements",
        "altitude_km": 650,
        "inclination_deg": 97.99,
        "raan_deg": 9,
        "eccentricity": 0.001,
    }
    found = made({"start": datetime(2024, 1, 1, tzinfo=UTC), "count": 2, "span_days": 6}, **keys)
    rows = [r for r in csv.reader((REFERENCE / "beta_year.csv").open()) if r[0] == "sso650_ltan18"]
    # Three days of node drift by first-order J2, printed to 1e-8 deg.
    assert abs(math.degrees(found.planes.raan[0, 1]) - float(rows[1][6])) < 2e-8


# -------------------------------------------------------------------------------------------- cluster


@pytest.mark.parametrize("n", [1, 2, 7, 81, 300])
def test_cluster_stays_together_and_apart(n):
    found = made(kind="cluster", altitude_km=650, satellites=n, radius_km=1.0)
    assert len(found.names) == n and set(found.plane) == {0}
    centre = jax.tree.map(lambda leaf: jnp.asarray(leaf[:1, 0]), found.planes)
    all_ = jax.tree.map(jnp.asarray, found.satellites)
    nearest, farthest = np.inf, 0.0
    for phase in np.linspace(0, 2 * math.pi, 16, endpoint=False):
        turned = jax.tree.map(lambda leaf: leaf, all_)
        positions = []
        for o in (centre, turned):
            moved = orbit.Orbit(
                o.semi_major_axis,
                o.eccentricity,
                o.inclination,
                o.raan,
                o.arg_perigee,
                o.mean_anomaly + phase,
            )
            positions.append(np.asarray(state(moved)[0]))
        offset = positions[1] - positions[0]
        farthest = max(farthest, np.linalg.norm(offset, axis=1).max())
        if n > 1:
            gap = np.linalg.norm(offset[:, None] - offset[None], axis=2) + 1e9 * np.eye(n)
            nearest = min(nearest, gap.min())
    # Second order in the size over the orbit's radius: 1 km/7000 km of 1 km.
    assert farthest <= 1000.5
    if n > 1:
        # A square lattice of n points in a disc of radius 500 m (radial) is about 500 sqrt(pi/n) apart.
        assert nearest > 0.7 * 500 * math.sqrt(math.pi / n)
    if n == 81:
        assert nearest > 90  # the 100-200 m of the published 81-satellite cluster


def test_lattice_of_81_is_within_the_unit_disc():
    points = constellations.lattice(81)
    assert points.shape == (81, 2)
    assert np.hypot(*points.T).max() == pytest.approx(1.0)
    assert len(np.unique(np.round(points, 9), axis=0)) == 81


# ----------------------------------------------------------------------------------------------- TLEs

CASES = json.loads((REFERENCE / "eclipse_tle.json").read_text())["cases"]
# Largest error of an edge of the shadow [s]: J2's long periods and the motion of node and perigee within the
# revolution stay; sso650 grazes the shadow, molniya and geo have slow edges.
EDGE = {"starlink53_550": 1.5, "iss_like": 1.5, "sso650_ltan18": 2.5, "molniya": 1.0, "geo": 6.0}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_tle_meets_the_shadow_of_an_independent_propagator(case):
    sets, _ = tle.parse([case["l1"], case["l2"]])
    year = 2000 + int(case["l1"][18:20])
    midnight = datetime(year, 1, 1).toordinal() + 1_721_424.5 - 1
    days = float(case["l1"][20:32])
    errors, lengths = [], []
    for events in zip(*(case["events"][k:] for k in range(4))):
        if events[0]["event"] != "penumbra_entry" or events[3]["event"] != "penumbra_exit":
            continue
        t = np.array([e["t_s"] for e in events])
        to_sun = np.mean([e["sun_teme_m"] for e in events], axis=0)
        distance = np.linalg.norm(to_sun)
        found, _ = tle.elements(sets, np.array([midnight]), np.array([days + t.mean() / 86400]))
        o = orbit.Orbit(**{name: jnp.asarray(value[0]) for name, value in found.items()})
        sun_hat = jnp.asarray(to_sun / distance)
        shadow = np.asarray(shadow_times(o, sun_hat[None], jnp.asarray([distance])))[0]
        one = jax.tree.map(lambda leaf: leaf[0], o)
        now, period = float(orbit.time_since_noon(one, sun_hat)), float(orbit.period(one.semi_major_axis))
        edges = shadow - now + t.mean()
        edges += period * round((t.mean() - edges.mean()) / period)
        errors.append(np.abs(edges - t).max())
        lengths.append(t[3] - t[0])
        if len(errors) == 4:
            break
    assert errors and max(errors) < EDGE[case["name"]]


def test_half_the_samples_do_for_nearly_circular_orbits(monkeypatch):
    """Within 0.1 s along the orbit, and as much in radius, at ten instants over three days."""
    sets, _ = tle.parse([line for case in CASES for line in (case["l1"], case["l2"])])
    epochs = [datetime(2000 + int(s.line1[18:20]), 1, 1).toordinal() + 1_721_423.5 for s in sets]
    for one, midnight in zip(sets, epochs):
        day, fraction = np.full(10, midnight), float(one.line1[20:32]) + np.linspace(0, 3, 10)
        half, _ = tle.elements([one], day, fraction)
        monkeypatch.setattr(tle, "NEARLY_CIRCULAR", 0.0)
        whole, _ = tle.elements([one], day, fraction)
        monkeypatch.undo()
        a = whole["semi_major_axis"]
        along = sum(half[name] - whole[name] for name in ("arg_perigee", "mean_anomaly"))
        along = a * np.abs((along + math.pi) % (2 * math.pi) - math.pi)
        radius = np.abs(half["semi_major_axis"] - a) + a * np.abs(
            half["eccentricity"] - whole["eccentricity"]
        )
        assert np.all(np.maximum(along, radius) < 0.1 * np.sqrt(3.986e14 / a))


def test_averaged_elements_of_kepler_motion_are_the_elements():
    rng = np.random.default_rng(1)
    for _ in range(20):
        o = orbit.Orbit(
            *map(
                jnp.asarray,
                (
                    rng.uniform(7e6, 4e7),
                    rng.uniform(0, 0.8),
                    rng.uniform(0.01, 3.0),
                    *rng.uniform(0, 6.28, 3),
                ),
            )
        )
        phase = 2 * math.pi * ((np.arange(tle.SAMPLES) + 0.5) / tle.SAMPLES - 0.5)
        turned = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (tle.SAMPLES,)), o)
        turned = orbit.Orbit(
            *(getattr(turned, name) for name in constellations.ELEMENTS[:-1]), turned.mean_anomaly + phase
        )
        r, v = (np.asarray(x) for x in state(turned))
        found = tle._averaged(r, v, phase)
        a, e, i, *angles = (float(getattr(o, name)) for name in constellations.ELEMENTS)
        # Rounding of 1e-16 over e, i and 1 - e.
        np.testing.assert_allclose(found[:3], (a, e, i), rtol=1e-10)
        turns = (found[3:] - angles + math.pi) % (2 * math.pi) - math.pi
        np.testing.assert_allclose(turns, 0, atol=1e-9)


def test_averages_hold_at_zero_eccentricity_and_inclination():
    o = orbit.Orbit(*(jnp.full(tle.SAMPLES, x) for x in (7e6, 0.0, 0.0, 0.0, 0.0, 0.0)))
    phase = 2 * math.pi * ((np.arange(tle.SAMPLES) + 0.5) / tle.SAMPLES - 0.5)
    o = orbit.Orbit(*(getattr(o, name) for name in constellations.ELEMENTS[:-1]), jnp.asarray(phase + 1.0))
    a, e, i, *angles = tle._averaged(*(np.asarray(x) for x in state(o)), phase)
    assert abs(a - 7e6) < 1e-3 and e < 1e-12 and i < 1e-12
    assert abs(sum(angles) % (2 * math.pi) - 1.0) < 1e-9


def tle_case(tmp_path, sets, start="2024-03-20T12:00:00Z", **epoch):
    (tmp_path / "fleet.tle").write_text("\n".join(itertools.chain(*sets)))
    data = {
        "orbit": {"kind": "tle", "file": "fleet.tle"},
        "radiator": RADIATOR,
        "epoch": {"start": start, **epoch},
    }
    return constellations.constellation(cases.validate(data, "mine.toml", tmp_path))


def test_tle_file_gives_a_plane_for_each_set(tmp_path):
    first, second = ((c["l1"], c["l2"]) for c in CASES[:2])
    found = tle_case(tmp_path, [("ALPHA", *first), first, ("0 ALPHA", *second)], count=3, span_days=0.3)
    assert found.names == ("ALPHA", "70001", "ALPHA (2)")
    assert found.planes.raan.shape == (3, 3)
    # 53 deg, 550 km: the node moves west by 4.5 deg a day.
    rate = np.degrees(np.diff(found.planes.raan[0])) / 0.1
    np.testing.assert_allclose(rate, -4.5, atol=0.2)
    np.testing.assert_allclose(found.planes.semi_major_axis[0], 6.928e6, rtol=1e-3)


def with_field(line, start, text):
    """A line with other characters from column `start` (from 0), its checksum made right."""
    line = line[:start] + text + line[start + len(text) :]
    return line[:68] + str(tle.checksum(line))


def test_decayed_satellite_is_named_and_left_out(tmp_path):
    gone = ("GONE", with_field(CASES[0]["l1"], 53, " 99999+2"), CASES[0]["l2"])
    # Nothing slows it; 6928 km at e = 0.065 come down to 100 km.
    low = ("LOW", with_field(CASES[0]["l1"], 53, " 00000-0"), with_field(CASES[0]["l2"], 26, "0650000"))
    fine = ("FINE", CASES[4]["l1"], CASES[4]["l2"])
    found = tle_case(tmp_path, [gone, low, fine], start="2024-03-21T00:00:00Z", count=3, span_days=3)
    assert found.names == ("FINE",) and found.planes.raan.shape == (1, 3)
    alone = tle_case(tmp_path, [fine], start="2024-03-21T00:00:00Z", count=3, span_days=3)
    assert all(
        np.array_equal(a, b) for a, b in zip(jax.tree.leaves(found.planes), jax.tree.leaves(alone.planes))
    )
    first, second = found.left_out
    assert first.startswith("fleet.tle: line 2: GONE: ") and "days from its epoch" in first
    assert second.startswith("fleet.tle: line 5: LOW: perigee at ") and "must stay above 150 km" in second
    with pytest.raises(cases.CaseError) as caught:
        tle_case(tmp_path, [gone, low], start="2024-03-21T00:00:00Z")
    assert len(caught.value.lines) == 2 and caught.value.lines[0].startswith("fleet.tle: line 2: GONE: ")
