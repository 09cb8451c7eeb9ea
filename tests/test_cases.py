"""The shipped case files: every number sourced, every case solvable, known answers met."""

import functools
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from dawndusk.solver import build, schema, summary
from dawndusk.solver import case as cases
from dawndusk.solver.run import Solver, Walls, run

FOLDER = Path(__file__).resolve().parents[1] / "cases"
CASES = sorted(FOLDER.glob("*.toml"))
STUDIES = sorted((FOLDER / "studies").glob("*.toml"))
SIGMA = 5.670374419e-8  # W/m^2/K^4

# Coarse, but fine enough that the periodic orbit is solved as in a full run.
GRID = ("run.steps=48", "run.cells=[8, 6]", "run.error_estimate=false")
YEAR = (*GRID, "epoch.count=4")  # the first in the eclipse season
BYPASSED = ("run.cells=[8, 6]",)  # the valve lags by a step: steps as shipped
OVERRIDES = {
    "iss_eatcs": BYPASSED,
    "project_sunrise": (*GRID, "orbit.planes=2", "orbit.satellites_per_plane=3"),
    "starlink_ai": YEAR,
    "suncatcher": YEAR,
    "suncatcher_prototype": YEAR,
    **{path.stem: YEAR for path in STUDIES},
}
SLOW = {path.stem for path in STUDIES}  # a program of its own for each


def name_of(path: Path) -> str:
    return path.stem


def solvable(names):
    """Names of cases as parameters, those that are slow marked."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in sorted(names)]


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    """Outcome of a shipped case in float64, solved once for all tests."""

    @functools.cache
    def solve(name: str):
        case = cases.load(name, OVERRIDES.get(name, ()))
        return run(case, tmp_path_factory.mktemp(name) / "run", precision="double")

    return solve


def solved_again(outcome, case):
    """Quantities of a case that differs from the outcome's in values only, by the same program."""
    solver = Solver(case, build.build(case, np.float64), outcome.solver.size, Walls())
    solver._program = outcome.solver._program
    return solver.solve(np.arange(outcome.rows))


@pytest.mark.parametrize("path", CASES + STUDIES, ids=name_of)
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


@pytest.mark.parametrize("path", CASES + STUDIES, ids=name_of)
def test_case_validates_and_keeps_its_hash(path):
    case = cases.load(path)
    assert case.title
    again = cases.validate(tomllib.loads(cases.to_toml(case)))
    assert cases.case_hash(again) == cases.case_hash(case)


@pytest.mark.parametrize("name", solvable(path.stem for path in CASES + STUDIES))
def test_case_runs_and_its_energy_closes(name, solved):
    scalars = solved(name).scalars
    for key, values in scalars.items():
        assert np.isfinite(values).all(), key
    assert (scalars["status"] == 0).all()
    # Heat is summed anew from temperatures, by trapezoids of T^4 over steps of two minutes: 1e-3.
    assert np.abs(scalars["heat_residual"]).max() < 1e-3
    assert np.abs(scalars["bus_residual"]).max() < 1e-9


# ------------------------------------------------------------------------- cases with a known answer

# AI1 with the radiator alone: edge-on at every instant (normal square to nadir and Sun), only space and
# the Earth's infrared in view, fin and flow so conductive that the panel is isothermal.
STRIPPED = (
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
)


def stripped_ai1(power_kw: float, *more: str):
    data = tomllib.loads((FOLDER / "starlink_ai.toml").read_text())
    if not more:
        for key in ("array_view", "shared_edge_m", "array_depth_m"):
            del data["radiator"][key]
    for item in (*STRIPPED, f"payload.demand={power_kw / 150}", *more):
        cases.override(data, item)
    return cases.validate(data)


def test_ai1_radiator_alone(tmp_path):
    """(Q / (A eps sigma) + F OLR / sigma)^(1/4) with A 220 m2, eps .91, F .240574, OLR 237 W/m2."""
    outcome = run(stripped_ai1(120), tmp_path / "run", precision="double")
    for power_kw, kelvin, scalars in (
        (120, 328.01, outcome.scalars),
        (150, 345.32, solved_again(outcome, stripped_ai1(150))),
    ):
        assert scalars["payload_power_kw"] == pytest.approx(power_kw, rel=1e-9)
        # The reference is given to 0.01 K.
        assert scalars["panel_mean_c"] + 273.15 == pytest.approx(kelvin, abs=0.01)
        # Isothermal, so that the mean is the effective temperature.
        assert scalars["panel_max_c"] - scalars["panel_min_c"] < 0.05
    # Along a 20 m edge of the array, 10 m of it on each side: about 19 K warmer, as both faces see a hot wall.
    beside = stripped_ai1(120, "radiator.shared_edge_m=20", "radiator.array_depth_m=10")
    warmer = solved_again(outcome, beside)["panel_mean_c"] - outcome.scalars["panel_mean_c"]
    assert warmer == pytest.approx(19, abs=1.5)


def test_starcloud_panel_net_is_584_8(solved):
    # sigma 5.67e-8 in the paper and 5.670374e-8 here: 0.05 W/m2, 0.005 K.
    assert solved("starcloud_panel").scalars["panel_mean_c"] == pytest.approx(20.0, abs=0.01)


def test_starcloud_panel_with_the_papers_infrared_absorptance(solved):
    """633.1 W/m2 comes out if infrared is absorbed as sunlight is: moved to the solar band."""
    case = cases.load(
        "starcloud_panel",
        [
            "environment.incident.albedo_w_m2=[0, 160.6676]",
            "environment.incident.infrared_w_m2=0",
            "radiator.heat_w_m2=633.1",
        ],
    )
    # 0.1 W/m2 of net over 4 eps sigma T^3 of two faces.
    kelvin = 0.1 / (8 * 0.92 * SIGMA * 293.15**3)
    before = solved("starcloud_panel")
    found = solved_again(before, case)
    less = before.scalars["absorbed_kw"] - found["absorbed_kw"]
    assert less == pytest.approx(1e-3 * (0.92 - 0.09) * 58.2176, rel=1e-4)
    assert found["panel_mean_c"] == pytest.approx(20.0, abs=kelvin)


def test_single_node_cyclic_orbit(solved):
    scalars = solved("single_node_cyclic").scalars
    assert scalars["panel_min_c"] + 273.15 == pytest.approx(345.242, abs=0.01)
    assert scalars["panel_max_c"] + 273.15 == pytest.approx(350.138, abs=0.01)
    assert scalars["panel_mean_c"] + 273.15 == pytest.approx(347.824, abs=0.01)


def test_iss_radiators_exceed_their_rating(solved):
    outcome = solved("iss_eatcs")
    scalars = outcome.scalars
    assert scalars["payload_power_kw"] == pytest.approx(70, rel=1e-6)
    # The bypass is open all the way round, and holds the supply well within the published 37 +- 2 F (1.1 K).
    assert scalars["bypass_min"] > 0
    assert abs(scalars["supply_max_c"] - 2.8) < 0.2
    assert abs(scalars["supply_min_c"] - 2.8) < 0.2
    # Two faces of 448.8 m2 at about 4 C, less what they absorb: some 170 kW.
    found = {limit["name"]: limit for limit in summary.summarise(outcome)["limits"]}
    assert 2.0 < found["supply set point"]["headroom"] < 3.0
    # A ninth of the radiator cannot hold the set point.
    small = cases.load("iss_eatcs", [*BYPASSED, "radiator.area_m2=49.87"])
    assert solved_again(outcome, small)["supply_max_c"] > 4


# ------------------------------------------------------------------------- designs that must close


@pytest.mark.parametrize("name", solvable(OVERRIDES.keys() - {"iss_eatcs"}))
def test_design_meets_every_limit_at_the_end_of_life(name, solved):
    outcome = solved(name)
    found = summary.summarise(outcome, headroom=False)
    assert not found["infeasible"]
    for limit in found["limits"]:
        assert limit["met"], limit
    assert outcome.case.environment.life == "end"
    # The eclipse season is in it, and what is not it; at 53 degrees there is hardly a day without.
    assert outcome.scalars["eclipse_min"].max() > 10
    assert outcome.scalars["eclipse_min"].min() == 0 or name == "starlink_53deg"


def test_sunrise_thins_and_keeps_its_rows_distinct(solved):
    outcome = solved("project_sunrise")
    assert outcome.rows == 6
    assert len(set(outcome.scalars["panel_mean_c"])) == 6
    orbit = cases.load("project_sunrise").orbit
    assert isinstance(orbit, schema.SunSynchronousOrbit)
    assert orbit.planes * orbit.satellites_per_plane == 1000
