"""Errors of grid and time step: estimated from coarser ones, judged by finer ones."""

import tomllib
from types import SimpleNamespace

import numpy as np
import pytest
from dawndusk.solver import accuracy, build, run
from dawndusk.solver import case as cases
from dawndusk.solver.quantities import POWERS, SCALARS

# A heated box on a loop: a panel hot at its tubes, an eclipse, and nothing else to compile.
CASE = """
[orbit]
kind = "elements"
altitude_km = 550
inclination_deg = 53
beta_deg = 20
[nodes.box]
heat_capacity_kj_k = 20
heat_w = 1500
[[links]]
from = "box"
to = "loop"
conductance_w_k = 400
[loop]
coolant = "water"
mass_flow_kg_s = 0.1
tube_diameter_mm = 8
[radiator]
area_m2 = 5
length_m = 2.5
tube_pitch_m = 0.4
thickness_mm = 1
conductivity_w_m_k = 167
density_kg_m3 = 2700
specific_heat_j_kg_k = 896
emissivity = 0.88
solar_absorptance_begin = 0.14
[run]
cells = [8, 12]
steps = 48
"""
KEYS = ["coolant_max_c", "coolant_min_c", "panel_max_c", "panel_min_c"]
LABELS = ["loop hottest", "loop coldest", "panel hottest", "panel coldest"]


def outcome_of(*overrides):
    """What a run of the case finds, by the module's own program on the case's own grid."""
    data = tomllib.loads(CASE)
    for item in overrides:
        cases.override(data, item)
    case = cases.validate(data)
    fleet = build.build(case, np.float64)
    scalars = dict.fromkeys((f"{name}_kw" for name in POWERS), np.zeros(1)) | solved(case, fleet)
    return SimpleNamespace(
        case=case, fleet=fleet, scalars=scalars, wall=run.Walls(), rows=run.row_count(fleet)
    )


def solved(case, fleet, cells=None, steps=None):
    found = accuracy._solve(case, fleet, [0], cells or case.run.cells, [steps or case.run.steps], KEYS)
    return {name: value[:1] for name, value in found.items()} | {"status": np.zeros(1, int)}


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ((32, 16), ((16, 8), 2.0)),
        ((33, 16), ((16, 8), 2.0)),
        ((32, 15), ((16, 8), 15 / 8)),
        ((8, 9), ((5, 6), 1.5)),
        ((6, 64), ((4, 43), 64 / 43)),
        ((5, 64), None),
        ((64, 8), None),
    ],
)
def test_coarser_grid_keeps_both_ratios(cells, expected):
    assert accuracy.coarser_cells(cells) == expected


def test_coarser_grid_of_a_serpentine():
    """33 rows of cells for each pass become 17, whatever their number."""
    assert accuracy.coarser_cells((32, 16), passes=3) == ((16, 8), 33 / 17)


def test_coarser_steps():
    assert accuracy.coarser_steps(128) == (64, 2.0)
    assert accuracy.coarser_steps(25) == (16, 25 / 16)
    assert accuracy.coarser_steps(23) is None
    # Sixteen demand windows have 32 edges, whose pieces need 71 steps.
    assert accuracy.coarser_steps(128, 32) == (71, 128 / 71)
    assert accuracy.coarser_steps(100, 32) is None


@pytest.mark.slow
def test_estimates_agree_with_finer_solutions():
    """Half the cells' size and half the step take three quarters of the error away: the estimate knew how much."""
    outcome = outcome_of()
    found = accuracy.estimate(outcome)
    case, fleet, scalars = outcome.case, outcome.fleet, outcome.scalars
    assert found["cells"] == [4, 6] and found["steps"] == 24 and found["missing"] == []
    assert [one["name"] for one in found["figures"]] == LABELS
    grid = solved(case, fleet, cells=(16, 24))
    time = solved(case, fleet, steps=96)
    for key, one in zip(KEYS, found["figures"]):
        assert one["value"] == pytest.approx(scalars[key][0]) and one["satellite"] == "satellite"
        for finer, error in ((grid, one["grid_error"]), (time, one["time_error"])):
            gained = (finer[key] - scalars[key])[0]
            # Coarse solutions are not yet where the second order is all there is; below 0.03 K is no matter.
            assert 0.75 * error == pytest.approx(gained, rel=0.5, abs=0.03), (one["name"], error, gained)
    # The panel's edges are extrapolated to, which leaves little of the grid's error, but more than is let pass above.
    assert abs(found["figures"][2]["grid_error"]) > 0.035


@pytest.mark.slow
def test_steady_loads_have_no_error_of_time():
    found = accuracy.estimate(outcome_of("run.mode=steady", "run.cells=[4, 6]"))
    assert found["missing"] == ["the grid: 4 x 6 cells cannot be halved, 4 x 6 is the least"]
    for one in found["figures"]:
        assert one["grid_error"] is None and abs(one["time_error"]) < 0.01


@pytest.mark.slow
def test_transient_runs_are_estimated_over_all_their_revolutions():
    """From 20 C and cooling: the coldest panel is that of the last revolution."""
    outcome = outcome_of("run.mode=transient", "run.revolutions=3", "run.steps=20", "nodes.box.heat_w=100")
    found = accuracy.estimate(outcome)
    assert found["missing"] == ["the time step: 20 steps cannot be halved"]
    one = next(one for one in found["figures"] if one["name"] == "panel coldest")
    assert one["time_error"] is None and 0 < abs(one["grid_error"]) < 1


def test_no_estimate_is_said_so_or_not_wanted():
    case = cases.validate(tomllib.loads(CASE))
    fleet = build.build(case, np.float64)

    def of(status=0, **changes):
        other = case.model_copy(update={"run": case.run.model_copy(update=changes)})
        scalars = (
            {} if status is None else dict.fromkeys(SCALARS, np.zeros(1)) | {"status": np.array([status])}
        )
        return accuracy.estimate(SimpleNamespace(case=other, fleet=fleet, scalars=scalars, rows=1))

    assert of(error_estimate=False) is None
    assert of(status=None) is None and of(status=-1) is None
    lost = of(status=1)
    assert lost["figures"] == [] and lost["missing"] == ["grid and time step: no revolution has converged"]
    few = of(steps=16, cells=(4, 6))
    assert few["figures"] == [] and len(few["missing"]) == 2


@pytest.mark.slow
def test_error_of_a_serpentines_grid():
    """Estimated from half the cells, against twice as many."""
    outcome = outcome_of("radiator.tube_layout=serpentine", "radiator.tube_passes=3", "run.mode=steady")
    estimates = {figure["name"]: figure for figure in accuracy.estimate(outcome)["figures"]}
    fine = solved(outcome.case, outcome.fleet, (16, 24))
    for key, label in zip(KEYS, LABELS, strict=True):
        gained = float(fine[key][0] - outcome.scalars[key][0])
        # The finer grid has a quarter of the error itself.
        assert estimates[label]["grid_error"] == pytest.approx(
            4 / 3 * gained, abs=0.02 + 0.5 * abs(gained)
        ), key
