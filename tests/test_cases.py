"""The shipped case files: every number sourced, every case solvable, known answers met."""

import math
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from dawndusk.solver import case as cases
from dawndusk.solver import summary
from dawndusk.solver.run import run

CASES = sorted((Path(__file__).resolve().parents[1] / "cases").glob("*.toml"))
SIGMA = 5.670374419e-8  # W/m^2/K^4

# Small enough for a test, fine enough that the periodic orbit is solved as in a full run.
TINY = ["run.steps=24", "run.cells=[4, 6]", "epoch.count=1"]
THIN = {
    "project_sunrise": ["orbit.planes=2", "orbit.satellites_per_plane=2"],
}


def name_of(path: Path) -> str:
    return path.stem


def solved(name: str, folder: Path, *overrides: str):
    """Outcome of a shipped case in float64."""
    return run(cases.load(name, overrides), folder / "run", precision="double")


@pytest.mark.parametrize("path", CASES, ids=name_of)
def test_every_number_has_a_source(path):
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if "=" not in line or line.lstrip().startswith("#"):
            continue
        value, _, comment = line.partition("#")
        value = re.sub(r'"[^"]*"', "", value.partition("=")[2])
        if not re.search(r"\d", value):
            continue
        assert re.match(r"\s*(published|derived|assumed)\b", comment), f"{path.name}:{number}: {line}"
        if re.match(r"\s*(published|derived)\s*$", comment):
            pytest.fail(f"{path.name}:{number}: published or derived from what? {line}")


@pytest.mark.parametrize("path", CASES, ids=name_of)
def test_case_validates_and_keeps_its_hash(path):
    case = cases.load(path)
    assert case.title
    again = cases.validate(tomllib.loads(cases.to_toml(case)))
    assert cases.case_hash(again) == cases.case_hash(case)


@pytest.mark.parametrize("path", CASES, ids=name_of)
def test_case_runs_and_its_energy_closes(path, tmp_path):
    outcome = solved(path.stem, tmp_path, *TINY, *THIN.get(path.stem, []))
    scalars = outcome.scalars
    for name, values in scalars.items():
        assert np.isfinite(values).all(), name
    assert (scalars["status"] == 0).all()
    # The step conserves heat by construction: what is left is rounding over 24 steps of 1e4-1e6 J.
    assert np.abs(scalars["heat_residual"]).max() < 1e-9
    assert np.abs(scalars["bus_residual"]).max() < 1e-9


# ------------------------------------------------------------------------- cases with a known answer

# AI1 with the radiator alone: edge-on at every instant (normal square to nadir and Sun), only space and
# the Earth's infrared in view, fin and flow so conductive that the panel is isothermal.
STRIPPED = [
    "epoch.start=2027-03-21T00:00:00Z",  # no eclipse
    "epoch.count=1",
    "orbit.altitude_km=642.863",  # 650 km above the 6371 km sphere of the closed-form view factor
    "environment.earth_radius_km=6371",
    "environment.albedo=0",
    "attitude.roll=nadir",
    "radiator.normal=+y",
    "radiator.thickness_mm=100",
    "radiator.conductivity_w_m_k=4000",
    "loop.mass_flow_kg_s=4000",
    "loop.wall_conductance_w_m_k=1e4",
    "loop.pressure_drop_kpa=0",
    "payload.windows=[]",
    "payload.throttle_start_c=200",
    "payload.throttle_end_c=250",
    "array.area_m2=2000",
    "run.cells=[8, 6]",
    "run.steps=24",
    "run.mode=steady",
]


@pytest.mark.parametrize(("power_kw", "temperature_k"), [(120, 328.01), (150, 345.32)])
def test_ai1_radiator_alone(power_kw, temperature_k, tmp_path):
    """(Q / (A eps sigma) + F OLR / sigma)^(1/4) with A 220 m2, eps .91, F .240574, OLR 237 W/m2."""
    data = tomllib.loads((CASES[0].parent / "starlink_ai.toml").read_text())
    for key in ("array_view", "shared_edge_m", "array_depth_m"):
        del data["radiator"][key]
    del data["loop"]["bypass_setpoint_c"]
    for item in [*STRIPPED, f"payload.demand={power_kw / 150}"]:
        cases.override(data, item)
    scalars = run(cases.validate(data), tmp_path / "run", precision="double").scalars
    assert scalars["payload_power_kw"] == pytest.approx(power_kw, rel=1e-9)
    # The reference is given to 0.01 K.
    assert scalars["panel_mean_c"] + 273.15 == pytest.approx(temperature_k, abs=0.01)
    # Isothermal, so that the mean is the effective temperature.
    assert scalars["panel_max_c"] - scalars["panel_min_c"] < 0.05


def test_starcloud_panel_net_is_584_8(tmp_path):
    scalars = solved("starcloud_panel", tmp_path).scalars
    # sigma 5.67e-8 in the paper and 5.670374e-8 here: 0.05 W/m2, 0.005 K.
    assert scalars["panel_mean_c"] == pytest.approx(20.0, abs=0.01)


def test_starcloud_panel_with_the_papers_infrared_absorptance(tmp_path):
    """633.1 W/m2 comes out if infrared is absorbed as sunlight is: moved to the solar band."""
    scalars = solved(
        "starcloud_panel",
        tmp_path,
        "environment.incident.albedo_w_m2=[0, 160.6676]",
        "environment.incident.infrared_w_m2=0",
        "radiator.heat_w_m2=633.1",
    ).scalars
    # 0.1 W/m2 of net over 4 eps sigma T^3 of two faces.
    kelvin = 0.1 / (8 * 0.92 * SIGMA * 293.15**3)
    assert scalars["panel_mean_c"] == pytest.approx(20.0, abs=kelvin)


def test_single_node_cyclic_orbit(tmp_path):
    scalars = solved("single_node_cyclic", tmp_path).scalars
    assert scalars["panel_min_c"] + 273.15 == pytest.approx(345.242, abs=0.01)
    assert scalars["panel_max_c"] + 273.15 == pytest.approx(350.138, abs=0.01)
    assert scalars["panel_mean_c"] + 273.15 == pytest.approx(347.824, abs=0.01)


def test_iss_radiators_exceed_their_rating(tmp_path):
    outcome = solved("iss_eatcs", tmp_path, "run.steps=48", "run.cells=[8, 6]")
    assert outcome.scalars["payload_power_kw"] == pytest.approx(70, rel=1e-6)
    # The bypass is open all the way round: supply stays at 2.8 C with flow to spare.
    assert outcome.scalars["bypass_min"] > 0
    assert outcome.scalars["supply_max_c"] == pytest.approx(2.8, abs=0.02)
    assert outcome.scalars["supply_min_c"] == pytest.approx(2.8, abs=0.02)
    found = {limit["name"]: limit for limit in summary.summarise(outcome)["limits"]}
    assert found["supply set point"]["headroom"] > 1.0


def test_a_ninth_of_the_radiator_cannot_hold_the_set_point(tmp_path):
    """The headroom above can fail: with a ninth of the radiator the supply leaves its set point."""
    scalars = solved(
        "iss_eatcs", tmp_path, "run.steps=48", "run.cells=[8, 6]", "radiator.area_m2=49.87"
    ).scalars
    assert scalars["supply_max_c"] > 2.9


# ------------------------------------------------------------------------- designs that must close


@pytest.mark.parametrize("name", ["suncatcher", "suncatcher_prototype", "starlink_ai"])
def test_design_meets_every_limit_at_the_end_of_life(name, tmp_path):
    outcome = solved(name, tmp_path, "run.steps=48", "run.cells=[8, 6]", "epoch.count=4")
    found = summary.summarise(outcome, headroom=False)
    assert not found["infeasible"]
    for limit in found["limits"]:
        assert limit["met"], limit
    assert outcome.case.environment.life == "end"
    # The eclipse season is in it.
    assert outcome.scalars["eclipse_min"].max() > 10
    assert outcome.scalars["eclipse_min"].min() == 0


def test_sunrise_thins_and_keeps_its_rows_distinct(tmp_path):
    outcome = solved("project_sunrise", tmp_path, *TINY, "orbit.planes=2", "orbit.satellites_per_plane=3")
    assert outcome.rows == 6
    assert len(set(outcome.scalars["panel_mean_c"])) == 6
    assert math.isclose(cases.load("project_sunrise").orbit.planes * 50, 1000)
