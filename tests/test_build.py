"""Case to pytrees: every unit by hand, rows and their satellites, exchange that closes, spread and age."""

import math
import tomllib
import tracemalloc
from datetime import timedelta

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import orbit, revolution, satellite, view_factor
from dawndusk.kernels.constants import AU, SIGMA
from dawndusk.kernels.panel import weighted_fourth
from dawndusk.solver import build as builder
from dawndusk.solver import case as cases
from dawndusk.solver.build import advance, build, masses, rows_of

CASE = """
[epoch]
start = 2027-06-21T00:00:00Z
count = 2
span_days = 200
[orbit]
kind = "sun_synchronous"
altitude_km = 650
altitude_max_km = 900
planes = 3
satellites_per_plane = 4
[array]
area_m2 = 105
efficiency = 0.2
temperature_coefficient_per_k = -0.003
reference_temperature_c = 25
annual_degradation = 0.02
drive = "one_axis"
solar_absorptance = 0.75
emissivity_front = 0.82
emissivity_back = 0.7
back_solar_absorptance = 0.3
areal_heat_capacity_j_m2_k = 1500
areal_mass_kg_m2 = 1.6
[battery]
capacity_kwh = 12
min_soc = 0.3
max_soc = 0.95
initial_soc = 0.8
charge_efficiency = 0.96
discharge_efficiency = 0.94
charge_limit_kw = 6
discharge_limit_kw = 24
calendar_fade_per_year = 0.02
cycle_fade = 2e-5
cycles_per_year = 1300
heat_capacity_kj_k = 80
to_structure_w_k = 30
[bus]
base_load_kw = 1.2
transmitted_kw = 0.3
conversion_efficiency = 0.95
[payload]
power_kw = 16
chip_fraction = 0.9
packages = 50
junction_resistance_k_w = 0.08
chip_heat_capacity_j_k = 120
cold_plate_heat_capacity_kj_k = 50
throttle_start_c = 85
throttle_end_c = 95
throttle_floor = 0.3
demand = 0.9
eclipse_demand = 0.4
windows = [{ start = 0.6, end = 0.7, demand = 0.2 }, { start = 0.1, end = 0.3, demand = 1.0 }]
[loop]
coolant = "water"
mass_flow_kg_s = 0.3
cold_plate_conductance_w_k = 2000
wall_conductance_w_m_k = 20
pressure_drop_kpa = 60
pump_efficiency = 0.4
bypass_setpoint_c = 15
[radiator]
area_m2 = 28
length_m = 4
tube_pitch_m = 0.1
thickness_mm = 1
conductivity_w_m_k = 167
conductivity_across_w_m_k = 300
density_kg_m3 = 2700
specific_heat_j_kg_k = 900
strip_conductance_w_m = 0.005
emissivity = [0.88, 0.8]
solar_absorptance_begin = [0.14, 0.1]
solar_absorptance_end = [0.22, 0.2]
areal_heat_capacity_j_m2_k = 1200
heat_w_m2 = 3
array_view = "perpendicular"
shared_edge_m = 7
array_depth_m = 7.5
body_view = [0.05, 0.02]
[structure]
mass_kg = 150
heat_capacity_kj_k = 135
face_areas_m2 = [1, 2, 3, 4, 5, 6]
emissivity = 0.85
solar_absorptance = 0.3
mli_effective_emittance = 0.05
[heaters.battery]
node = "battery"
setpoint_c = 5
gain_w_k = 50
max_kw = 0.4
[nodes.mast]
heat_capacity_kj_k = 5
heat_w = 12
radiating_area_m2 = 0.5
start_temperature_c = -40
[[links]]
from = "mast"
to = "structure"
conductance_w_k = 1.5
[[links]]
from = "battery"
to = "loop"
conductance_w_k = 40
[[links]]
from = "structure"
to = "panel"
conductance_w_k = 2
[[links]]
from = "mast"
to = "panel"
radiative_m2 = 0.3
[[links]]
from = "mast"
to = "space"
radiative_m2 = 0.1
[mass]
payload_kg = 100
loop_kg = 20
life_years = 5
[run]
cells = [8, 6]
start_temperature_c = 15
"""
NAMES = ("structure", "chip", "cold_plate", "battery", "array", "mast")
STRUCTURE, CHIP, PLATE, BATTERY, ARRAY, MAST = range(6)


def case_of(*overrides, text=CASE):
    data = tomllib.loads(text)
    for item in overrides:
        cases.override(data, item)
    return cases.validate(data)


@pytest.fixture(scope="module")
def fleet():
    return build(case_of(), np.float64)


def value(leaf):
    """What all rows hold."""
    assert np.all(leaf == leaf[..., :1])
    return leaf[..., 0]


# ------------------------------------------------------------------------------------------------ units


def test_panel(fleet):
    p = fleet.params.panel
    expected = {
        "heat_capacity": 2700 * 900 * 1e-3 + 1200,
        "kt_x": 0.167,
        "kt_y": 0.3,
        "strip_conductance": 0.005,
        "length": 4.0,
        "half_pitch": 0.05,
        "half_strips": 28 / (4 * 0.05),
        "heat": 3.0,
    }
    for name, number in expected.items():
        assert value(getattr(p, name)) == pytest.approx(number, rel=1e-15), name
    assert (p.nx, p.ny) == (8, 6)
    assert value(p.length * p.half_pitch * p.half_strips) == pytest.approx(28)
    assert (p.passes, value(p.tubes), value(p.width)) == (1, pytest.approx(70), 0.05)


def test_panel_of_a_serpentine():
    """28 m2 of tubes that cross 4 m three times at 0.1 m: 23 1/3 of them, a row of cells and six on each side."""
    p = build(case_of("radiator.tube_layout=serpentine", "radiator.tube_passes=3"), np.float64).params.panel
    assert (p.nx, p.ny, p.passes) == (8, 3 * 13, 3)
    assert value(p.tubes) == pytest.approx(28 / 1.2) and value(p.width) == pytest.approx(0.3)
    assert value(p.tubes * p.width * p.length) == pytest.approx(28)
    assert build(case_of("radiator.tube_layout=u"), np.float64).params.panel.passes == 2


def test_network(fleet):
    n = fleet.params.network
    assert n.names == NAMES
    np.testing.assert_allclose(value(n.heat_capacity), [135e3, 50 * 120, 50e3, 80e3, 105 * 1500, 5e3])
    conductance = np.zeros((6, 6))
    for i, j, g in ((CHIP, PLATE, 50 / 0.08), (BATTERY, STRUCTURE, 30), (MAST, STRUCTURE, 1.5)):
        conductance[i, j] = conductance[j, i] = g
    np.testing.assert_allclose(value(n.conductance), conductance)
    np.testing.assert_allclose(value(n.loop_conductance), [0, 0, 2000, 40, 0, 0])
    np.testing.assert_allclose(value(n.panel_conductance), [2, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(value(n.heat), [0, 0, 0, 0, 0, 12])
    np.testing.assert_allclose(value(n.heater_gain), [0, 0, 0, 50, 0, 0])
    np.testing.assert_allclose(value(n.heater_setpoint)[BATTERY], 278.15)
    np.testing.assert_allclose(value(n.heater_max), [0, 0, 0, 400, 0, 0])
    assert value(n.to_space)[MAST] == pytest.approx(0.6)
    assert value(n.panel_radiative)[MAST] == pytest.approx(0.3)
    assert np.all(n.heat_capacity > 0)


def test_power_and_fluid(fleet):
    p = fleet.params
    numbers = [
        (p.bus, {"base_load": 1200, "transmitted": 300, "conversion_efficiency": 0.95}),
        (
            p.coolant,
            {
                "capacity_rate": 0.3 * 4180,
                "wall_conductance": 20,
                "evaporator_fraction": 1,
                "pump_power": 60e3 * (0.3 / 992.2) / 0.4,
                "setpoint": 288.15,
            },
        ),
        (
            p.array,
            {
                "area": 105,
                "efficiency": 0.2,
                "temperature_coefficient": -0.003,
                "reference_temperature": 298.15,
            },
        ),
        (
            p.battery,
            {
                "capacity": 12 * 3.6e6,
                "soc_min": 0.3,
                "soc_max": 0.95,
                "charge_efficiency": 0.96,
                "discharge_efficiency": 0.94,
                "charge_power_max": 6000,
                "discharge_power_max": 24000,
            },
        ),
        (
            p.payload,
            {
                "power": 16000,
                "throttle_start": 358.15,
                "throttle_end": 368.15,
                "throttle_floor": 0.3,
            },
        ),
        (p, {"chip_fraction": 0.9, "space_temperature": 2.7255}),
    ]
    for part, fields in numbers:
        for name, number in fields.items():
            assert value(getattr(part, name)) == pytest.approx(number, rel=1e-14), name
    assert p.coolant.bypass


def test_tube_diameter_gives_the_film():
    at_20 = {"specific_heat_j_kg_k": 4184, "viscosity_pa_s": 1.002e-3, "conductivity_w_m_k": 0.598}
    text = CASE.replace("wall_conductance_w_m_k = 20", "tube_diameter_mm = 6")
    coolant = build(case_of("loop.property_temperature_c=20", text=text), np.float64).params.coolant
    assert np.all(np.isinf(coolant.wall_conductance))
    assert value(coolant.film.diameter) == pytest.approx(0.006, rel=1e-15)
    # Handbook values of water at 20 C, to their last digit.
    assert value(coolant.film.specific_heat) == pytest.approx(at_20["specific_heat_j_kg_k"], rel=5e-4)
    assert value(coolant.film.viscosity) == pytest.approx(at_20["viscosity_pa_s"], rel=1e-3)
    assert value(coolant.film.conductivity) == pytest.approx(at_20["conductivity_w_m_k"], rel=1e-3)
    assert value(coolant.capacity_rate) == pytest.approx(0.3 * value(coolant.film.specific_heat), rel=1e-15)
    # The pump moves the volume of that temperature.
    assert value(coolant.pump_power) == pytest.approx(60e3 * (0.3 / 998.2) / 0.4, rel=1e-4)
    given = ("loop.bond_conductance_w_m_k=40", "loop.viscosity_pa_s=1e-3", "loop.conductivity_w_m_k=0.6")
    coolant = build(case_of(*given, text=text), np.float64).params.coolant
    assert value(coolant.wall_conductance) == 40
    assert value(coolant.film.viscosity) == 1e-3 and value(coolant.film.conductivity) == 0.6
    assert build(case_of()).params.coolant.film is None


def test_state(fleet):
    assert np.all(fleet.state.panel == 288.15) and fleet.state.panel.shape == (8, 6, 6)
    np.testing.assert_allclose(value(fleet.state.nodes), [288.15] * 5 + [233.15])
    assert value(fleet.state.energy) == pytest.approx(0.8 * 12 * 3.6e6)


def test_surfaces_and_demand(fleet):
    r = fleet.revolutions
    s = r.surfaces
    np.testing.assert_allclose(s.radiator_solar_absorptance[0], [0.14, 0.1])
    np.testing.assert_allclose(s.radiator_emissivity[0], [0.88, 0.8])
    np.testing.assert_allclose(s.array_solar_absorptance[0], [0.75, 0.3])
    np.testing.assert_allclose(s.array_emissivity[0], [0.82, 0.7])
    np.testing.assert_allclose(s.body_area[0], [1, 2, 3, 4, 5, 6])
    # Insulation passes e/(eps + e) of what its outer layer absorbs.
    passed = 0.05 / 0.9
    assert s.body_solar_absorptance[0] == pytest.approx(0.3 * passed)
    assert s.body_emissivity[0] == pytest.approx(0.85 * passed)
    assert s.array_area[0] == 105
    np.testing.assert_allclose(r.demand_edges[0], [0.1, 0.3, 0.6, 0.7])
    np.testing.assert_allclose(r.demand_levels[0], [0.9, 1.0, 0.9, 0.2, 0.9])
    assert r.eclipse_demand[0] == 0.4
    assert r.array_drive == "one_axis" and list(r.array_axis_body[0]) == [0, 1, 0]
    assert list(r.radiator_normal_body[0]) == [1, 0, 0]
    assert r.attitude.pointing == "sun" and r.attitude.roll == "along_track" and not r.attitude.yaw_steering
    assert r.incident is None and r.earth_radius[0] == pytest.approx(6378137)


def test_insulated_body_is_that_of_its_two_layers():
    # The outer layer without heat capacity, solved for: q + e (T^4 - To^4) sigma = eps sigma To^4.
    q, T, eps, e = 300.0, 280.0, 0.85, 0.05
    outer4 = (q / SIGMA + e * T**4) / (eps + e)
    into = e * SIGMA * (outer4 - T**4)
    factor = e / (eps + e)
    assert into == pytest.approx(factor * q - factor * eps * SIGMA * T**4, rel=1e-12)


@pytest.mark.parametrize(
    ("overrides", "flux", "albedo", "infrared", "scaled"),
    [
        ([], 1361, 0.30, 237, True),
        (["environment.level=hot"], 1423, 0.40, 286, False),
        (["environment.level=cold"], 1321, 0.20, 206, False),
        (["environment.level=hot", "environment.scale_with_distance=true"], 1423, 0.40, 286, True),
        (["environment.solar_flux_w_m2=1400", "environment.albedo=0.25"], 1400, 0.25, 237, False),
        (
            ["environment.scale_with_distance=false", "environment.earth_infrared_w_m2=220"],
            1361,
            0.3,
            220,
            False,
        ),
    ],
)
def test_environment(overrides, flux, albedo, infrared, scaled):
    r = build(case_of(*overrides), np.float64).revolutions
    expected = flux * ((AU / r.sun_distance) ** 2 if scaled else np.ones(6))
    np.testing.assert_allclose(r.solar_flux, expected, rtol=1e-12)
    assert r.albedo[0] == albedo and r.earth_infrared[0] == infrared
    # Aphelion is on 5 July: in June sunlight is 3.3 % weaker than at 1 au.
    assert 0.966 < (AU / r.sun_distance[0]) ** 2 < 0.969


def test_prescribed_flux():
    r = build(case_of("environment.incident={solar_w_m2=[5, 6], infrared_w_m2=7}"), np.float64).revolutions
    assert r.incident.shape == (6, 3, 2)
    np.testing.assert_allclose(r.incident[0], [[5, 6], [0, 0], [7, 7]])


@pytest.mark.parametrize(
    ("overrides", "axes"),
    [
        # +z at (ra 90, dec 0) is inertial y; +x to the north; +y completes.
        (
            ["attitude.pointing=inertial", "attitude.ra_deg=90", "attitude.dec_deg=0"],
            [[0, 0, 1], [1, 0, 0], [0, 1, 0]],
        ),
        (
            [
                "attitude.pointing=inertial",
                "attitude.ra_deg=0",
                "attitude.dec_deg=0",
                "attitude.roll_deg=90",
            ],
            [[0, -1, 0], [0, 0, -1], [1, 0, 0]],
        ),
        (["attitude.roll=inertial", "attitude.ra_deg=0", "attitude.dec_deg=90"], [[0, 0, 1], None, None]),
    ],
)
def test_inertial_axes(overrides, axes):
    found = build(case_of(*overrides), np.float64).revolutions.attitude.inertial_axes[0]
    np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-15)
    assert np.linalg.det(found) == pytest.approx(1)
    for row, expected in zip(found, axes):
        if expected is not None:
            np.testing.assert_allclose(row, expected, atol=1e-15)


# -------------------------------------------------------------------------------------------- exchange


def test_radiative_exchange_closes(fleet):
    n, p = fleet.params.network, fleet.params.panel
    # What the panel emits goes to space, array, body and the linked mast.
    to_nodes = value(n.panel_radiative).sum()
    assert value(p.emission) * 28 == pytest.approx(value(p.to_space) * 28 + to_nodes, rel=1e-12)
    radiative = value(n.radiative)
    np.testing.assert_array_equal(radiative, radiative.T)
    # No surface gives more than its own emissivity times area; reflections give part of it back.
    assert value(p.emission) < 0.88 + 0.8 + 0.3 / 28
    assert value(p.emission) > 0.95 * (0.88 + 0.8)
    body = 0.85 * 0.05 / 0.9 * 21
    assert (
        value(n.to_space)[STRUCTURE] + value(n.panel_radiative)[STRUCTURE] + radiative[STRUCTURE, ARRAY]
        <= body
    )
    front = 105 * 0.82
    rest = value(n.to_space)[ARRAY] - front + value(n.panel_radiative)[ARRAY] + radiative[ARRAY, STRUCTURE]
    assert 0.9 * 105 * 0.7 < rest <= 105 * 0.7


def test_perpendicular_array_is_hamilton_and_morgan(fleet):
    F = float(view_factor.perpendicular_plates(jnp.asarray(7.0), jnp.asarray(4.0), jnp.asarray(7.5)))
    np.testing.assert_allclose(fleet.revolutions.surfaces.radiator_open[0], [1 - F - 0.05, 1 - F - 0.02])
    given = build(case_of_views(f"[{F}, {F}]"), np.float64)
    assert given.params.panel.emission[0] == pytest.approx(fleet.params.panel.emission[0], rel=1e-12)


def case_of_views(view):
    data = tomllib.loads(CASE)
    for name in ("shared_edge_m", "array_depth_m"):
        del data["radiator"][name]
    cases.override(data, f"radiator.array_view={view}")
    return cases.validate(data)


def test_panel_that_sees_nothing_radiates_all_to_space():
    data = tomllib.loads(CASE)
    for name in ("shared_edge_m", "array_depth_m", "array_view", "body_view"):
        del data["radiator"][name]
    data["links"] = []
    p = build(cases.validate(data), np.float64).params
    assert value(p.panel.emission) == pytest.approx(1.68) and value(p.panel.to_space) == pytest.approx(1.68)
    assert not p.network.panel_radiative.any()


def seen(neighbours, *overrides):
    """A bare case whose radiator sees only surfaces of known temperature and space."""
    data = tomllib.loads(CASE)
    for name in ("shared_edge_m", "array_depth_m", "array_view", "body_view", "heat_w_m2"):
        del data["radiator"][name]
    data["links"] = []
    data["radiator"] |= {"emissivity": 0.8, "neighbours": neighbours}
    for item in overrides:
        cases.override(data, item)
    return build(cases.validate(data), np.float64)


OPPOSITE = {"geometry": "parallel", "gap_m": 2.0, "temperature_c": 26.85, "emissivity": 1.0}


def test_neighbours_by_hand():
    """A black plate opposite, 4 m x 7 m at 2 m: eps F sigma T^4; what is left of the face's view is the sky's."""
    fleet, p = seen([OPPOSITE]), seen([OPPOSITE]).params.panel
    F = float(view_factor.parallel_plates(*(jnp.asarray(x) for x in (4.0, 7.0, 2.0))))
    assert value(p.emission) == pytest.approx(1.6) and value(p.to_space) == pytest.approx(1.6)
    assert value(p.heat) == pytest.approx(0.8 * F * SIGMA * (300**4 - 2.7255**4), rel=1e-12)
    np.testing.assert_allclose(fleet.revolutions.surfaces.radiator_open[0], [1 - F, 1])
    # At right angles, on the other face, gray: of two surfaces by Hottel.
    wall = {
        "geometry": "perpendicular",
        "face": 1,
        "shared_edge_m": 7.0,
        "depth_m": 3.0,
        "temperature_c": 26.85,
    }
    found = seen([wall | {"emissivity": 0.5}])
    F = float(view_factor.perpendicular_plates(*(jnp.asarray(x) for x in (7.0, 4.0, 3.0))))
    back = F * 28 / 21
    expected = 0.8 * 0.5 * F / (1 - 0.2 * 0.5 * F * back)
    assert value(found.params.panel.heat) == pytest.approx(expected * SIGMA * (300**4 - 2.7255**4), rel=1e-12)
    np.testing.assert_allclose(found.revolutions.surfaces.radiator_open[0], [1, 1 - F])
    # What is given counts as what is found.
    given = seen(
        [
            {
                "geometry": "given",
                "face": 1,
                "view_factor": F,
                "area_m2": 21.0,
                "temperature_c": 26.85,
                "emissivity": 0.5,
            }
        ]
    )
    assert value(given.params.panel.heat) == pytest.approx(value(found.params.panel.heat), rel=1e-12)


def test_a_neighbour_as_cold_as_space_is_space():
    black = seen([OPPOSITE | {"temperature_c": 2.7255 - 273.15}]).params
    assert value(black.panel.heat) == pytest.approx(0, abs=1e-15)
    assert value(black.panel.to_space) == pytest.approx(value(seen([]).params.panel.to_space), rel=1e-12)


@pytest.mark.parametrize("slopes", ["[]", "[1e-4]"])
def test_all_at_one_temperature_exchange_nothing(slopes):
    """Panel, neighbours and sky of 250 K, gray, emissivity by temperature, too: what is radiated comes back."""
    around = [OPPOSITE | {"temperature_c": -23.15, "emissivity": 0.4}]
    around += [
        {
            "geometry": "given",
            "face": 1,
            "view_factor": 0.3,
            "area_m2": 20.0,
            "temperature_c": -23.15,
            "emissivity": 0.7,
        }
    ]
    found = seen(
        around, f"radiator.emissivity_slopes_per_k={slopes}", "environment.space_temperature_k=250"
    ).params
    p = jax.tree.map(lambda x: jnp.asarray(x[..., :1]), found.panel)
    assert float(p.heat[0]) == pytest.approx(0, abs=1e-10)
    # Warmer than the sky, the same neighbours heat; the sum closes with what the sky sends.
    cold = seen(around, f"radiator.emissivity_slopes_per_k={slopes}").params
    q = jax.tree.map(lambda x: jnp.asarray(x[..., :1]), cold.panel)
    T = jnp.full(1, 250.0)
    to_sky = float((q.to_space * SIGMA * weighted_fourth(q, T) - q.heat)[0])
    alone = seen([{**one, "temperature_c": 2.7255 - 273.15} for one in around]).params.panel
    assert 0 < to_sky < float(value(alone.to_space)) * SIGMA * 250**4


def test_a_neighbours_heat_reaches_the_array_by_reflection():
    """The array sees the neighbour in the radiator only, and loses to it what it would have lost to space."""
    data = tomllib.loads(CASE)
    bare = build(cases.validate(data), np.float64).params.network
    data["radiator"]["neighbours"] = [OPPOSITE | {"geometry": "given", "view_factor": 0.2, "area_m2": 30.0}]
    del data["radiator"]["neighbours"][0]["gap_m"]
    n = build(cases.validate(data), np.float64).params.network
    assert value(n.heat)[ARRAY] > 0 and value(n.heat)[STRUCTURE] > 0
    assert value(n.to_space)[ARRAY] == pytest.approx(value(bare.to_space)[ARRAY], rel=1e-12)


def test_views_that_add_up_to_more_than_one():
    with pytest.raises(
        cases.CaseError, match="face 0 sees array, body and neighbours with view factors that add"
    ):
        seen([OPPOSITE | {"gap_m": 0.2}, OPPOSITE | {"gap_m": 0.2}])


def test_one_sided_radiator():
    data = tomllib.loads(CASE)
    data["radiator"] |= {
        "sides": 1,
        "emissivity": 0.9,
        "solar_absorptance_begin": 0.2,
        "body_view": [0.1, 0.0],
    }
    del data["radiator"]["solar_absorptance_end"]
    fleet = build(cases.validate(data), np.float64)
    s = fleet.revolutions.surfaces
    assert list(s.radiator_emissivity[0]) == [0.9, 0] and list(s.radiator_solar_absorptance[0]) == [0.2, 0]
    assert value(fleet.params.panel.emission) < 0.9 + 0.3 / 28


# ------------------------------------------------------------------------------------------------- rows


def test_rows_are_planes_times_epochs(fleet):
    assert fleet.row.shape == (12, 2)
    np.testing.assert_array_equal(fleet.row[:, 0], np.repeat([0, 2, 4], 4))
    np.testing.assert_array_equal(fleet.row[:, 1], np.repeat([1, 3, 5], 4))
    assert len(fleet.names) == 12 and fleet.epochs[1] - fleet.epochs[0] == timedelta(days=100)
    a = fleet.revolutions.orbit.semi_major_axis
    np.testing.assert_allclose(a[fleet.row[:, 0]], np.repeat([650e3, 775e3, 900e3], 4) + 6378137)
    # 100 days after the solstice the Sun is past the equinox.
    assert fleet.revolutions.sun_hat[0, 2] > 0.39 and fleet.revolutions.sun_hat[1, 2] < -0.02


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("spread", [[], ["spread.payload_power=0.1"]])
def test_every_leaf_has_the_precision_asked_for_and_all_rows(dtype, spread):
    fleet = build(case_of(*spread), dtype)
    n = 24 if spread else 6
    for leaf in jax.tree.leaves(fleet.revolutions):
        assert leaf.dtype == dtype and leaf.shape[0] == n
    for leaf in jax.tree.leaves((fleet.params, fleet.state)):
        assert leaf.dtype == dtype and leaf.shape[-1] == n
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((fleet.revolutions, fleet.params)))


def test_single_precision_keeps_dates_and_angles():
    one, two = (build(case_of(), dtype).revolutions for dtype in (np.float32, np.float64))
    # A direction in float32: 6e-8; a date in float32 would be off by hours, a Sun by 0.1 deg.
    np.testing.assert_allclose(one.sun_hat, two.sun_hat, atol=1e-7)
    np.testing.assert_allclose(one.orbit.raan, two.orbit.raan, atol=5e-7)


def test_later_revolutions_are_those_of_later_epochs():
    case = case_of("epoch.count=1")
    fleet = build(case, np.float64)
    later = advance(fleet, 7, np.arange(3))
    # The first plane's period; the others have their own.
    period = float(orbit.period(jnp.asarray(fleet.orbits.semi_major_axis[0])))
    start = case.epoch.start + timedelta(seconds=7 * period)
    moved = build(
        cases.validate(
            tomllib.loads(cases.to_toml(case)) | {"epoch": {"start": start.isoformat(), "count": 1}}
        ),
        np.float64,
    ).revolutions
    # A datetime holds microseconds: the Sun moves 2e-13 rad in one.
    np.testing.assert_allclose(later.sun_hat[0], moved.sun_hat[0], atol=1e-11)
    assert later.orbit.raan[0] == pytest.approx(moved.orbit.raan[0], abs=1e-6)  # J2 against the mean Sun
    assert later.orbit.raan[0] != fleet.revolutions.orbit.raan[0]
    # The slower outer planes are further on in time.
    assert later.sun_distance[2] != later.sun_distance[0]
    same = advance(fleet, 0, np.arange(3))
    for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(fleet.revolutions)):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("spread", [[], ["spread.radiator_emissivity=0.02", "spread.seed=3"]])
def test_a_roster_has_the_revolutions_of_a_fleet(spread):
    loaded, rows = case_of(*spread), np.array([5, 2, 3, 0])
    made, fleet = builder.roster(loaded, np.float64), build(loaded, np.float64)
    np.testing.assert_array_equal(made.row, fleet.row)
    for mine, its in ((made.revolutions, fleet.revolutions), (made.orbits, fleet.orbits)):
        some = rows_of(mine, rows, 0)
        assert jax.tree.structure(some) == jax.tree.structure(its)
        for one, every in zip(jax.tree.leaves(some), jax.tree.leaves(its), strict=True):
            np.testing.assert_array_equal(one, np.asarray(every)[rows])


# ------------------------------------------------------------------------------------- spread and life


def test_spread_makes_every_satellite_its_own():
    keys = [
        "spread.seed=3",
        "spread.radiator_absorptance=0.1",
        "spread.radiator_emissivity=0.02",
        "spread.array_efficiency=0.03",
        "spread.payload_power=0.05",
        "orbit.satellites_per_plane=400",
    ]
    case = case_of(*keys)
    fleet = build(case, np.float64)
    assert fleet.row.shape == (1200, 2) and len(np.unique(fleet.row)) == 2400
    first, second = fleet.row.T
    drawn = {
        "absorptance": (fleet.revolutions.surfaces.radiator_solar_absorptance[:, 0] / 0.14, 0.1),
        "emissivity": (fleet.revolutions.surfaces.radiator_emissivity[:, 0] / 0.88, 0.02),
        "efficiency": (fleet.params.array.efficiency / 0.2, 0.03),
        "power": (fleet.params.payload.power / 16e3, 0.05),
    }
    for name, (factor, sigma) in drawn.items():
        # A satellite keeps its numbers from epoch to epoch.
        np.testing.assert_array_equal(factor[first], factor[second])
        draws = (factor[first] - 1) / sigma
        # 1200 draws: four standard errors of mean and deviation; the cut at 3 sigma takes 1.3 % off that.
        assert abs(draws.mean()) < 4 / math.sqrt(1200), name
        assert abs(draws.std() - 0.987) < 4 / math.sqrt(2400), name
        assert abs(draws).max() <= 3 + 1e-9, name
    # The panel's emission follows the emissivity of its own row.
    emission = fleet.params.panel.emission
    assert np.corrcoef(emission, fleet.revolutions.surfaces.radiator_emissivity[:, 0])[0, 1] > 0.99
    again = build(case, np.float64)
    np.testing.assert_array_equal(again.params.payload.power, fleet.params.payload.power)
    other = build(case_of(*keys[1:], "spread.seed=4"), np.float64)
    assert not np.array_equal(other.params.payload.power, fleet.params.payload.power)


def test_a_fleet_costs_what_its_satellites_do_not_its_rows():
    """Distinct satellites over many epochs: rows are made as they are taken, equal to those of the whole array."""
    spread = ("spread.radiator_emissivity=0.1", "spread.payload_power=0.1", "orbit.satellites_per_plane=100")
    case = case_of(*spread, "epoch.count=2000")
    build(case, np.float32)
    tracemalloc.start()
    fleet = build(case, np.float32)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert fleet.row.size == 600_000
    # Planes x epochs and satellites; the leaves of all rows would take 300 bytes a row.
    assert most < 8 * fleet.row.size
    some = np.array([5, 599_999, 5, 1999, 2000])
    for tree, axis in ((fleet.revolutions, 0), (fleet.params, -1), (fleet.state, -1), (fleet.orbits, 0)):
        for taken, leaf in zip(jax.tree.leaves(rows_of(tree, some, axis)), jax.tree.leaves(tree)):
            if math.prod(leaf.shape) < 10_000_000:
                np.testing.assert_array_equal(taken, np.moveaxis(np.asarray(leaf), axis, 0)[some])
    one, two = (rows_of(fleet.params.payload.power, np.array([row]), -1)[0] for row in (0, 2000))
    assert one != two and one == fleet.params.payload.power[1999]


def test_spread_stays_physical():
    fleet = build(case_of("spread.radiator_emissivity=0.5", "orbit.satellites_per_plane=100"), np.float64)
    emissivity = np.asarray(fleet.revolutions.surfaces.radiator_emissivity)
    assert emissivity.min() >= 0.01 and emissivity.max() <= 1.0


def test_end_of_life():
    fleet = build(case_of("environment.life=end"), np.float64)
    assert value(fleet.params.array.efficiency) == pytest.approx(0.2 * 0.98**5)
    np.testing.assert_allclose(fleet.revolutions.surfaces.radiator_solar_absorptance[0], [0.22, 0.2])
    capacity = 12 * 3.6e6 * (1 - 0.02 * 5 - 2e-5 * 1300 * 5)
    assert value(fleet.params.battery.capacity) == pytest.approx(capacity)
    assert value(fleet.state.energy) == pytest.approx(0.8 * capacity)


def test_what_a_case_lacks_is_none():
    plate = {"orbit": {"kind": "elements", "altitude_km": 550, "inclination_deg": 53}}
    plate["radiator"] = {
        key: number
        for key, number in tomllib.loads(CASE)["radiator"].items()
        if key not in ("array_view", "shared_edge_m", "array_depth_m", "body_view")
    }
    p = build(cases.validate(plate), np.float64).params
    assert p.coolant is None and p.array is None and p.battery is None and p.payload is None
    assert p.network.names == ("structure",)
    assert not p.bus.base_load.any()


def test_unthrottled_payload_never_throttles():
    data = tomllib.loads(CASE)
    for name in ("throttle_start_c", "throttle_end_c", "throttle_floor"):
        del data["payload"][name]
    payload = build(cases.validate(data), np.float64).params.payload
    assert value(payload.throttle_floor) == 1.0 and value(payload.throttle_start) < value(
        payload.throttle_end
    )


# ------------------------------------------------------------------------------------------ mass, kernels


def test_masses():
    found = masses(case_of())
    expected = {
        "radiator": 28 * 2.7,
        "array": 168,
        "battery": 80,
        "structure": 150,
        "payload": 100,
        "loop": 20,
    }
    for name, mass in expected.items():
        assert found[name] == pytest.approx(mass), name
    assert found["total"] == pytest.approx(sum(expected.values()))
    assert masses(case_of("mass.total_kg=700"))["total"] == 700
    assert masses(case_of("battery.mass_kg=100", "radiator.areal_mass_kg_m2=5"))["radiator"] == 140
    assert build(case_of()).mass_kg == pytest.approx(found["total"])


def test_masses_follow_the_sizes():
    follows = (
        "radiator.tube_mass_kg_m=0.3",
        "radiator.fixed_areal_mass_kg_m2=1.5",
        "battery.specific_energy_wh_kg=120",
        "structure.mass_share=0.2",
        "mass.payload_kg_kw=6",
        "mass.loop_kg_kw=80",
        "loop.pressure_drop_kpa=60",
        "loop.pump_efficiency=0.4",
    )
    case = case_of(*follows)
    found = masses(case)
    pump_kw = 60 * case.loop.mass_flow_kg_s / case.loop.property("density_kg_m3") / 0.4
    pitch, before = case.radiator.tube_pitch_m, masses(case_of())
    assert found["radiator"] == pytest.approx(28 * (2.7 + 0.3 / pitch + 1.5))
    assert found["battery"] == pytest.approx(1e3 * case.battery.capacity_kwh / 120)
    assert found["payload"] == pytest.approx(before["payload"] + 6 * case.payload.power_kw)
    assert found["loop"] == pytest.approx(before["loop"] + 80 * pump_kw)
    rest = sum(found[name] for name in ("radiator", "array", "battery", "payload", "loop"))
    assert found["structure"] == pytest.approx(before["structure"] + 0.2 * rest)
    assert found["total"] == pytest.approx(found["structure"] + rest)
    # What is given outright follows nothing.
    assert masses(case_of("radiator.areal_mass_kg_m2=5", "radiator.thickness_mm=9"))["radiator"] == 140


def test_power_limits_of_the_battery_by_rate():
    by_rate = case_of(
        "battery.discharge_limit_kw=7",
        text=CASE.replace("charge_limit_kw = 6", "charge_rate_per_h = 0.5"),
    )
    battery = build(by_rate).params.battery
    assert float(battery.charge_power_max[0]) == pytest.approx(500 * by_rate.battery.capacity_kwh)
    assert float(battery.discharge_power_max[0]) == pytest.approx(7000)


def test_kernels_take_the_fleet(fleet):
    loads = jax.jit(jax.vmap(lambda r: revolution.revolution_loads(r, 24), out_axes=-1))(fleet.revolutions)
    assert loads.panel.shape == (24, 6)

    @jax.jit
    def first_step(params, state, loads):
        load = jax.tree.map(lambda leaf: leaf[0], loads)
        return satellite.step(params, satellite.depart(params, state), load)[0].state

    state = first_step(fleet.params, fleet.state, loads)
    assert np.isfinite(state.panel).all() and np.isfinite(state.nodes).all()


def test_wrong_leaves_are_refused():
    with pytest.raises(TypeError, match="Bus takes"):
        builder._unchecked(satellite.Bus, base_load=1.0)
