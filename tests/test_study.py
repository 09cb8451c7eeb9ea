"""Studies: sweeps and samples against closed forms, what is kept of a study that stops, and every refusal."""

import json
import math

import numpy as np
import pytest
import xarray as xr
from dawndusk.kernels.constants import SIGMA
from dawndusk.solver import case as cases
from dawndusk.solver import cli, keys, results, study, study_plots, sweep, uncertainty
from dawndusk.solver.case import CaseError
from dawndusk.solver.differentiable import Condition, Differentiable, Evaluated, Figure
from dawndusk.solver.limits import limits_of
from dawndusk.solver.study import LEAST_MARGIN
from rich.console import Console
from scipy import stats
from typer.testing import CliRunner

# A plate that radiates what it is heated with, and what it absorbs of a constant flux, in a steady orbit.
SUN, ABSORPTANCE, SPACE = 100.0, 0.2, 2.7255
PLATE = (
    "run.mode=steady",
    "run.steps=16",
    f"environment.incident.solar_w_m2={SUN}",
    "radiator.areal_mass_kg_m2=2",
    "radiator.max_temperature_c=70",
    "mass.loop_kg=20",
    "structure.mass_kg=30",
)
GIVEN = 5.0  # limits.uncertainty_k
HEAT, EMISSIVITY = "radiator.heat_w_m2", "radiator.emissivity"


def plate(*more):
    return cases.load("single_node_cyclic", (*PLATE, *more))


def temperature(heat, emissivity):
    """Of the plate [C]."""
    return ((ABSORPTANCE * SUN + heat) / (emissivity * SIGMA) + SPACE**4) ** 0.25 - 273.15


class Plate:
    """The same in closed form, in place of `Differentiable`: nothing to compile."""

    def __init__(self, case, names, conditions, dtype):
        self.case, self.names, self.places = case, tuple(names), (0,)
        self.own = {key: keys.find(case, key).value for key in (HEAT, EMISSIVITY, "mass.loop_kg")}
        self.start = np.array([keys.find(case, name).value for name in names], dtype)
        (limit,) = limits_of(case, case.node_names)
        listed = (
            Figure("peak_panel_temperature", "C", -1, "highest temperature"),
            Figure("mass", "kg", -1, "mass of a satellite"),
            Figure("heat_per_mass", "W/kg", 1, "heat per mass beyond 40 kg"),
            Figure("middle", "C", 0, "neither good nor bad"),
            Figure("margin of panel hottest", "K", 1, "margin", limit),
        )
        self.figures, self.limit = {one.name: one for one in listed}, limit

    figure = Differentiable.figure

    def at(self, x):
        now = self.own | dict(zip(self.names, np.asarray(x, float).T))
        T = temperature(now[HEAT], now[EMISSIVITY])
        mass = now["mass.loop_kg"] + 30 + 2 + 0 * T
        values = {
            "peak_panel_temperature": T,
            "mass": mass,
            "heat_per_mass": np.where(mass > 40, now[HEAT] / mass, np.inf),
            "middle": -T,
            "margin of panel hottest": self.limit.allowed - T - self.limit.uncertainty,
        }
        return {name: np.broadcast_to(value, np.shape(x)[:-1]) for name, value in values.items()}


def evaluate(model, x, progress=lambda done, all: None):
    figures = model.at(x)
    progress(len(x), len(x))
    return Evaluated(figures, np.zeros(len(x), np.int32))


def jacobian(model, x, names):
    steps = np.diag(1e-5 * np.abs(x))
    up, down = model.at(x + steps), model.at(x - steps)
    slopes = [(up[name] - down[name]) / (2 * np.diag(steps)) for name in names]
    return model.at(x), np.array(slopes)


@pytest.fixture
def closed_form(monkeypatch):
    """Studies of the plate by its closed form."""
    for name, replacement in (
        ("Differentiable", Plate),
        ("evaluate", evaluate),
        ("jacobian", jacobian),
        ("chunk_size", lambda model, count: min(count, 256)),
    ):
        monkeypatch.setattr(study.differentiable, name, replacement)


def solved(case, designs, out, **options):
    study.check(case, designs)
    return study.solve(case, designs, out, precision="double", **options)


def printed(kind, found):
    console = Console(width=cli.PIPE_WIDTH, record=True, markup=False, highlight=False, quiet=True)
    with console.capture() as captured:
        console.quiet = False
        kind.show(found, console)
    return captured.get()


# ------------------------------------------------------------------------------------------------- sweeps


def test_a_grid_has_the_keys_as_coordinates(closed_form, tmp_path):
    case = plate()
    outcome = solved(case, sweep.designs(case, [f"{HEAT}=400:600:5", f"{EMISSIVITY}=0.8,0.95,0.9"]), tmp_path)
    found = sweep.summarise(outcome)
    study.write(outcome, found)
    with study.open_study(tmp_path) as data:
        assert data["peak_panel_temperature"].dims == (HEAT, EMISSIVITY)
        np.testing.assert_allclose(data[HEAT], (400, 450, 500, 550, 600))
        np.testing.assert_allclose(data[EMISSIVITY], (0.8, 0.9, 0.95))
        expected = temperature(*np.meshgrid(data[HEAT], data[EMISSIVITY], indexing="ij"))
        np.testing.assert_allclose(data["peak_panel_temperature"], expected, rtol=1e-12)
        np.testing.assert_array_equal(data["limits_met"], expected + GIVEN <= 70)
        np.testing.assert_allclose(data[LEAST_MARGIN], 70 - expected - GIVEN, rtol=1e-9)
        assert data[HEAT].attrs["units"] == "W/m2" and data["mass"].attrs["units"] == "kg"
        assert data["peak_panel_temperature"].attrs["allowed"] == 70
        assert data.attrs["case_hash"] == cases.case_hash(case) and data.attrs["of"] == LEAST_MARGIN
    # The coldest plate is the best, by its margin.
    assert found["best"]["keys"] == {HEAT: 400.0, EMISSIVITY: 0.95} and found["best"]["meets_all"]
    assert found["limits"][0]["met"] == found["meeting_all"] == int(np.sum(expected <= 65))
    text = printed(sweep, found)
    assert f"{found['meeting_all']} of 15 designs meet every limit" in text
    assert (
        "best by least_margin: radiator.heat_w_m2 = 400, radiator.emissivity = 0.95 (all limits met)" in text
    )
    assert "the same in all designs: mass 52.00 kg" in text
    assert json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail) == found


def test_the_best_design_meets_the_limits_and_then_the_figure_decides(closed_form, tmp_path):
    """Most heat a kilogram wants most heat, which the panel's limit ends."""
    case = plate()
    designs = sweep.designs(case, [f"{HEAT}=400:800:81"])
    outcome = solved(case, designs, tmp_path, of="heat_per_mass")
    found = sweep.summarise(outcome, "heat_per_mass")
    # T = 65 C at eps sigma (T^4 - Ts^4) - alpha S.
    most = 0.91 * SIGMA * (338.15**4 - SPACE**4) - ABSORPTANCE * SUN
    assert found["best"]["keys"][HEAT] == 5 * math.floor(most / 5) and found["best"]["by"] == "heat_per_mass"
    # A figure of which neither more nor less is better, and limits that nothing meets, leave the margin.
    assert sweep.summarise(outcome, "middle")["best"]["by"] == LEAST_MARGIN
    hot = plate("radiator.max_temperature_c=0")
    found = sweep.summarise(solved(hot, designs, tmp_path / "hot"), "mass")
    assert found["best"] == {"design": 0, "keys": {HEAT: 400.0}, "meets_all": False, "by": LEAST_MARGIN}
    assert "not all limits met, as in no design" in printed(sweep, found)


def test_other_sweeps_have_a_dimension_of_designs(closed_form, tmp_path):
    case = plate()
    designs = sweep.designs(case, [f"{HEAT}=400:600", f"{EMISSIVITY}=0.5:0.9:log"], "latin", 50, seed=3)
    outcome = solved(case, designs, tmp_path)
    data = study.dataset(outcome)
    assert data["mass"].dims == ("design",) and data[HEAT].dims == ("design",)
    np.testing.assert_allclose(
        data["peak_panel_temperature"], temperature(data[HEAT].values, data[EMISSIVITY].values), rtol=1e-12
    )
    # Evenly in the logarithm: one design in each of 50 slices.
    share = np.log(data[EMISSIVITY].values / 0.5) / np.log(0.9 / 0.5)
    assert sorted(np.floor(50 * share)) == list(range(50))
    again = sweep.designs(case, [f"{HEAT}=400:600", f"{EMISSIVITY}=0.5:0.9:log"], "latin", 50, seed=3)
    np.testing.assert_array_equal(again.x, designs.x)


def test_what_has_no_number_is_masked(closed_form, tmp_path, monkeypatch):
    """A design that failed, and a figure that is infinite."""

    def failing(model, x, progress):
        found = evaluate(model, x)
        return Evaluated(found.figures, np.where(x[:, 0] > 590, results.FAILED, 0).astype(np.int32))

    monkeypatch.setattr(study.differentiable, "evaluate", failing)
    case = plate()
    designs = sweep.designs(case, [f"{HEAT}=400:600:3", "mass.loop_kg=0,20"])
    outcome = solved(case, designs, tmp_path)
    found = sweep.summarise(outcome, "heat_per_mass")
    assert found["failed"] == 2 and found["solved"] == 4
    assert "2 have no numbers" in printed(sweep, found)
    study.write(outcome, found)
    with study.open_study(tmp_path) as data:
        assert np.isnan(data["mass"].sel({HEAT: 600})).all() and data["mass"].notnull().sum() == 4
        assert (data["limits_met"].sel({HEAT: 600}) == 0).all()
        # Below 40 kg there is none.
        assert data["heat_per_mass"].notnull().sum() == 2
    with xr.open_zarr(tmp_path / results.DATASET, mask_and_scale=False) as raw:
        assert np.isfinite(raw["mass"]).all()
    assert found["best"]["keys"]["mass.loop_kg"] == 20


@pytest.mark.parametrize(
    ("vary", "options"),
    [
        ([f"{HEAT}=400:800:9"], {}),
        ([f"{HEAT}=100:800:5:log", f"{EMISSIVITY}=0.7:0.95:6"], {}),
        ([f"{HEAT}=400:800:3", f"{EMISSIVITY}=0.7:0.95:4", "mass.loop_kg=0:20:3"], {}),
        ([f"{HEAT}=400:800", f"{EMISSIVITY}=0.7:0.95"], {"scheme": "sobol", "points": 16}),
        (
            [f"{HEAT}=400:800", f"{EMISSIVITY}=0.7:0.95:log", "mass.loop_kg=0:20"],
            {"scheme": "latin", "points": 16},
        ),
    ],
    ids=["line", "map", "map of more keys", "map of points", "scatter"],
)
def test_every_sweep_has_its_picture(closed_form, tmp_path, vary, options):
    case = plate()
    outcome = solved(case, sweep.designs(case, vary, **options), tmp_path)
    study.write(outcome, sweep.summarise(outcome, "peak_panel_temperature"))
    (picture,) = study_plots.plot(tmp_path)
    assert picture.name == "sweep.png" and picture.stat().st_size > 10_000


def test_the_telling_keys_are_those_that_the_figure_follows(closed_form, tmp_path):
    case = plate()
    vary = ["mass.loop_kg=10:20", f"{HEAT}=400:800", f"{EMISSIVITY}=0.7:0.95"]
    outcome = solved(case, sweep.designs(case, vary, "sobol", 64), tmp_path)
    data = study.dataset(outcome).assign_attrs(of="peak_panel_temperature")
    ranks = study_plots._rank_correlations(data)
    x, T = outcome.designs.x, outcome.values["peak_panel_temperature"]
    for i, name in enumerate(outcome.designs.names):
        assert ranks[name] == pytest.approx(stats.spearmanr(x[:, i], T)[0], abs=1e-12)
    assert study_plots._telling_pair(data) == (HEAT, EMISSIVITY)


# ------------------------------------------------------------------------------------- what a stop leaves


def test_an_interrupted_study_goes_on(closed_form, tmp_path, monkeypatch):
    monkeypatch.setattr(study.differentiable, "chunk_size", lambda model, count: 4)
    monkeypatch.setattr(study, "ROWS", 4)
    case = plate()
    designs = sweep.designs(case, [f"{HEAT}=400:600:11"])
    whole = solved(case, designs, tmp_path / "whole")
    calls = []

    def stopping(model, x, progress):
        calls.append(len(x))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(model, x)

    monkeypatch.setattr(study.differentiable, "evaluate", stopping)
    out = tmp_path / "out"
    first = solved(case, designs, out)
    assert first.interrupted and first.solved.sum() == first.solved_now == 4
    found = sweep.summarise(first)
    study.write(first, found)
    assert not found["complete"]
    with study.open_study(out) as data:
        assert (data["limits_met"] == results.NOT_RUN).sum() == 7 and data["mass"].notnull().sum() == 4
    done = []
    second = solved(case, designs, out, progress=lambda now, all: done.append((now, all)))
    assert not second.interrupted and second.solved_now == 7 and calls == [4, 4, 4, 4]
    assert done[0] == (4, 11) and done[-1] == (11, 11)
    for name, values in whole.values.items():
        np.testing.assert_array_equal(second.values[name], values)
    assert solved(case, designs, out).solved_now == 0


@pytest.mark.parametrize(
    ("case", "options", "message"),
    [
        ({"edits": ("mass.loop_kg=21",)}, {}, "a run of another case"),
        ({"vary": f"{HEAT}=400:600:12"}, {}, "a run of other designs or conditions"),
        ({"vary": f"{HEAT}=400:601:11"}, {}, "a run of other designs or conditions"),
        ({}, {"conditions": (Condition(life="beginning"),)}, "a run of other designs or conditions"),
        ({}, {"precision": "single"}, "a run of another precision"),
    ],
)
def test_another_study_is_refused(closed_form, tmp_path, case, options, message):
    own = plate()
    solved(own, sweep.designs(own, [f"{HEAT}=400:600:11"]), tmp_path)
    other = plate(*case.get("edits", ()))
    designs = sweep.designs(other, [case.get("vary", f"{HEAT}=400:600:11")])
    with pytest.raises(results.RunDirectoryError, match=message):
        study.solve(other, designs, tmp_path, **{"precision": "double", **options})


def test_a_study_is_no_run(closed_form, tmp_path):
    case = plate()
    outcome = solved(case, sweep.designs(case, [f"{HEAT}=400:600:3"]), tmp_path)
    study.write(outcome, sweep.summarise(outcome))
    with pytest.raises(results.RunDirectoryError, match="holds no run of satellites and epochs"):
        results.open_run(tmp_path)
    with pytest.raises(results.RunDirectoryError, match="is not a run directory"):
        study.open_study(tmp_path / "elsewhere")
    (tmp_path / "empty").mkdir()
    results.begin_with(tmp_path / "empty", {"rows": 1, "chunk": 1}, "")
    with pytest.raises(results.RunDirectoryError, match="is not a run directory"):
        study.open_study(tmp_path / "empty")


# -------------------------------------------------------------------------------------------- uncertainty


def uncertain(*tables, seed=0):
    return (f"uncertainty.seed={seed}", f"uncertainty.of=[{', '.join(tables)}]")


SAMPLES = 4000


def test_a_linear_figure_is_the_same_to_first_order(closed_form, tmp_path):
    """Mass is a sum: its sigma is the root of the sum of squares, its mean that of the means, exactly; the sampled
    ones within 4 standard errors of independent draws, than which a Latin hypercube is better."""
    case = plate(
        *uncertain(
            "{key='mass.loop_kg', sigma=3}", f"{{key='{HEAT}', distribution='uniform', low=500, high=600}}"
        )
    )
    outcome = solved(case, uncertainty.designs(case, SAMPLES), tmp_path)
    found = uncertainty.summarise(outcome)
    mass = next(one for one in found["figures"] if one["name"] == "mass")
    cut = stats.truncnorm(-3, 3)
    sigma = 3 * cut.std()
    assert mass["first_order_sigma"] == pytest.approx(sigma, rel=1e-6)  # of a difference quotient
    assert mass["case"] == mass["first_order_mean"] == 52
    assert mass["sigma"] == pytest.approx(sigma, rel=4 / math.sqrt(2 * SAMPLES))
    assert mass["mean"] == pytest.approx(52, abs=4 * sigma / math.sqrt(SAMPLES))
    for percentile, value in mass["percentiles"].items():
        # One sample in each slice of the probability: no percentile is off by more than two slices.
        low, high = (52 + 3 * cut.ppf(float(percentile) / 100 + 2 * k / SAMPLES) for k in (-1, 1))
        assert low < value < high


def test_samples_of_one_key_are_its_distribution_through_the_balance(closed_form, tmp_path):
    """T rises with the heat, so that each percentile of T is T at that percentile of the heat, to a slice."""
    case = plate(
        *uncertain(
            f"{{key='{HEAT}', distribution='uniform', low=500, high=800}}", "{key='mass.loop_kg', sigma=1}"
        )
    )
    outcome = solved(case, uncertainty.designs(case, SAMPLES), tmp_path, of="peak_panel_temperature")
    found = uncertainty.summarise(outcome, "peak_panel_temperature")
    slice_k = temperature(500 + 300 * 2 / SAMPLES, 0.91) - temperature(500, 0.91)
    figure = found["figures"][0]
    for percentile, value in figure["percentiles"].items():
        assert value == pytest.approx(temperature(500 + 3 * float(percentile), 0.91), abs=slice_k)
    (limit,) = found["limits"]
    own = keys.find(case, HEAT).value
    # The limit itself, 70 C, is met up to this heat.
    most = 0.91 * SIGMA * (343.15**4 - SPACE**4) - ABSORPTANCE * SUN
    share = (most - 500) / 300
    assert limit["probability"] == pytest.approx(share, abs=2 / SAMPLES)
    error = 1.96 * math.sqrt(share * (1 - share) / SAMPLES)  # of independent draws, 95 %
    assert limit["probability_low"] == pytest.approx(share - error, abs=0.1 * error)
    assert limit["probability_high"] == pytest.approx(share + error, abs=0.1 * error)
    # What the margin loses to the 95th percentile of the temperature.
    needed = temperature(500 + 3 * 95, 0.91) - temperature(own, 0.91)
    assert limit["needed"] == pytest.approx(needed, abs=slice_k)
    assert limit["needed_low"] < needed < limit["needed_high"]
    # To first order: dT/dq = 1 / (4 eps sigma T^3), sigma_q = 300 / sqrt 12, mean 650.
    slope = 1 / (4 * 0.91 * SIGMA * (temperature(own, 0.91) + 273.15) ** 3)
    sigma = slope * 300 / math.sqrt(12)
    assert figure["first_order_sigma"] == pytest.approx(sigma, rel=1e-6)
    assert limit["first_order_needed"] == pytest.approx(slope * (650 - own) + 1.6449 * sigma, rel=1e-4)
    margin = 70 - temperature(own, 0.91) - slope * (650 - own)
    assert limit["first_order_probability"] == pytest.approx(stats.norm.cdf(margin / sigma), rel=1e-5)
    assert limit["uncertainty"] == GIVEN and limit["margin"] == pytest.approx(70 - temperature(own, 0.91))
    shares = {one["key"]: one["share_percent"] for one in found["keys"]}
    assert shares == {HEAT: pytest.approx(100), "mass.loop_kg": pytest.approx(0, abs=1e-9)}
    text = printed(uncertainty, found)
    for words in ("limit itself", "margin that 95 % need", "peak_panel_temperature to first order", "given"):
        assert words in text
    study.write(outcome, found)
    (picture,) = study_plots.plot(tmp_path)
    assert picture.name == "samples.png" and picture.stat().st_size > 10_000
    with study.open_study(tmp_path) as data:
        assert data["mass"].dims == ("sample",) and data.sizes["sample"] == SAMPLES


def test_seeds_and_schemes(closed_form):
    case = plate(*uncertain(f"{{key='{HEAT}', sigma_percent=2}}", seed=7))
    own = uncertainty.designs(case, 32).x
    np.testing.assert_array_equal(own, uncertainty.designs(case, 32, seed=7).x)
    assert not np.array_equal(own, uncertainty.designs(case, 32, seed=8).x)
    sobol = uncertainty.designs(case, 32, "sobol")
    cut = stats.truncnorm(-3, 3)
    share = cut.cdf((sobol.x[:, 0] - keys.find(case, HEAT).value) / (0.02 * keys.find(case, HEAT).value))
    assert sorted(np.floor(32 * share)) == list(range(32))


def test_failed_samples_meet_no_limit_and_an_impossible_case_has_no_gradient(
    closed_form, tmp_path, monkeypatch
):
    def failing(model, x, progress):
        found = evaluate(model, x)
        return Evaluated(found.figures, np.where(x[:, 0] > 550, results.FAILED, 0).astype(np.int32))

    def no_gradient(model, x, names):
        return {name: np.nan for name in names}, np.full((len(names), len(x)), np.nan)

    monkeypatch.setattr(study.differentiable, "evaluate", failing)
    monkeypatch.setattr(study.differentiable, "jacobian", no_gradient)
    case = plate(*uncertain(f"{{key='{HEAT}', distribution='uniform', low=500, high=600}}"))
    outcome = solved(case, uncertainty.designs(case, 100), tmp_path)
    found = uncertainty.summarise(outcome)
    assert found["failed"] == 50 and found["limits"][0]["probability"] == 0.5
    assert found["limits"][0]["needed"] is None and found["figures"][0]["first_order_sigma"] is None
    study.write(outcome, found)  # strict JSON
    assert study_plots.plot(tmp_path) and "50 have no numbers" in printed(uncertainty, found)


def test_an_interrupted_sampling_says_no_more_than_that(closed_form, tmp_path, monkeypatch):
    def stopped(model, x, progress):
        raise KeyboardInterrupt

    monkeypatch.setattr(study.differentiable, "evaluate", stopped)
    case = plate(*uncertain(f"{{key='{HEAT}', sigma=5}}"))
    outcome = solved(case, uncertainty.designs(case, 10), tmp_path)
    found = uncertainty.summarise(outcome)
    study.write(outcome, found)
    assert not found["complete"] and found["figures"] == [] and found["solved"] == 0
    assert "10 samples" in printed(uncertainty, found)


# ----------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        (["radiator.aera_m2=1:2:3"], "radiator.aera_m2: no such key; did you mean radiator.area_m2?"),
        (["run.steps=16:32:2"], "run.steps: cannot vary; "),
        (["radiator.emissivity=0.8:1.2:5"], "radiator.emissivity: got 1.1; must be >= 0, <= 1"),
        (["battery.capacity_kwh=-1,10"], "battery.capacity_kwh: got -1; must be > 0"),
        (
            ["radiator.area_m2=28:32:3", "radiator.solar_absorptance_end=0.1,0.2"],
            "radiator.solar_absorptance_end: got 0.1 on face 0; must be >= solar_absorptance_begin = 0.14;"
            " design 1 of 6, radiator.area_m2 = 28, radiator.solar_absorptance_end = 0.1",
        ),
    ],
)
def test_a_bad_design_stops_the_study_before_it_begins(vary, message):
    case = cases.load("suncatcher")
    with pytest.raises(CaseError) as caught:
        study.check(case, sweep.designs(case, vary))
    assert message in str(caught.value) and "suncatcher.toml" in str(caught.value)
    assert len(caught.value.lines) == 1


def test_grids_have_no_points_and_points_no_grid():
    case = cases.load("suncatcher")
    with pytest.raises(CaseError, match="--points: got 9 with --design grid, whose ranges say it"):
        sweep.designs(case, ["radiator.area_m2=20:30:3"], points=9)
    with pytest.raises(CaseError, match="--points: missing; --design sobol needs the number of designs"):
        sweep.designs(case, ["radiator.area_m2=20:30"], "sobol")


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (("{key='radiator.epsilon', sigma=1}",), "radiator.epsilon: no such key"),
        (("{key='radiator.epsilon', sigma=1}",), "(from uncertainty.of.0.key)"),
        (("{key='radiator.sides', sigma=1}",), "radiator.sides: got 2; cannot vary, it is a whole number"),
        (
            ("{key='payload.power_kw', sigma_percent=0.1}", "{key='radiator.emissivity', sigma=0.1}"),
            "uncertainty.of.1: radiator.emissivity: normal distribution from 0.58 to 1.18; must be >= 0, <= 1",
        ),
        (
            ("{key='payload.throttle_start_c', sigma=6}",),
            "payload.throttle_start_c: normal distribution from 72 to 108; at 108",
        ),
        (("{key='payload.throttle_start_c', sigma=6}",), "must be < throttle_end_c = 105"),
        (
            ("{key='radiator.conductivity_w_m_k', distribution='uniform', low=170, high=180}",),
            "must reach around the case's radiator.conductivity_w_m_k = 167",
        ),
    ],
)
def test_distributions_that_leave_the_physical_range(tables, message):
    case = cases.load("suncatcher", uncertain(*tables))
    with pytest.raises(CaseError) as caught:
        uncertainty.designs(case, 10)
    assert message in str(caught.value) and "suncatcher.toml" in str(caught.value)
    assert len(caught.value.lines) == 1


def test_keys_that_do_not_fit_each_other_in_one_sample():
    """Either reaches only where the other is not: both together do."""
    case = cases.load(
        "suncatcher",
        uncertain(
            "{key='payload.throttle_start_c', distribution='uniform', low=85, high=102}",
            "{key='payload.throttle_end_c', distribution='uniform', low=95, high=110}",
        ),
    )
    designs = uncertainty.designs(case, 200)
    with pytest.raises(
        CaseError, match=r"throttle_start_c: got .*; must be < throttle_end_c.*; sample \d+ of 200"
    ):
        study.check(case, designs)


# ------------------------------------------------------------------------------------- the command line

runner = CliRunner()


def call(*arguments):
    result = runner.invoke(cli.app, ["study", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "give --vary"),
        (("--vary", f"{HEAT}=1:2:3", "--samples", 10), 2, "not both"),
        (("--samples", 10, "--design", "grid"), 2, "--design grid goes with --vary"),
        (("--samples", 10, "--points", 5), 2, "--points goes with --vary"),
        (("--vary", f"{HEAT}=1:2"), cli.BAD_INPUT, "must be key=low:high:count"),
        (("--vary", f"{HEAT}=1:2", "--design", "latin"), cli.BAD_INPUT, "--points: missing"),
        (
            ("--vary", f"{EMISSIVITY}=0.5:1.5:3"),
            cli.BAD_INPUT,
            "radiator.emissivity: got 1.5; must be >= 0, <= 1",
        ),
        (("--samples", 10), cli.BAD_INPUT, "uncertainty: missing"),
        (
            ("--vary", f"{HEAT}=400:500:3", "--set", "run.mode=transient"),
            cli.BAD_INPUT,
            "run.mode: got 'transient'",
        ),
        (("--vary", f"{HEAT}=400:500:3", "--of", "beauty"), cli.BAD_INPUT, "no figure 'beauty'"),
    ],
)
def test_bad_commands_end_with_one_message(arguments, code, message, tmp_path):
    result = call("single_node_cyclic", "--precision", "double", "--out", tmp_path / "out", *arguments)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.stderr.replace("│", " ").split()) and "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_an_interrupted_command_says_how_it_goes_on(closed_form, tmp_path, monkeypatch):
    def stopped(model, x, progress):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(study.differentiable, "evaluate", stopped)
        command = ("single_node_cyclic", "--out", tmp_path, "--vary", f"{HEAT}=400:500:3")
        result = call(*command)
    assert result.exit_code == cli.INTERRUPTED
    assert "interrupted; the same command goes on from 0 designs" in result.stderr
    result = call(*command)
    assert result.exit_code == 0 and "3 of 3 designs meet every limit" in result.stdout


def test_from_a_command_to_dataset_and_picture(tmp_path):
    """Solved for, not in closed form: periodic orbits are found to 1e-5 K, and better where the load is constant."""
    out = tmp_path / "out"
    sets = [word for item in PLATE for word in ("--set", item)]
    command = ("single_node_cyclic", *sets, "--precision", "double", "--out", out)
    result = call(*command, "--vary", f"{HEAT}=400:700:4", "--vary", f"{EMISSIVITY}=0.8:0.95:2")
    assert result.exit_code == 0, result.output
    assert "8 designs on a grid" in result.stdout and "designs meet every limit" in result.stdout
    with study.open_study(out) as data:
        expected = temperature(*np.meshgrid(data[HEAT], data[EMISSIVITY], indexing="ij"))
        np.testing.assert_allclose(data["peak_panel_temperature"], expected, atol=1e-5)
        np.testing.assert_allclose(data["margin_of_panel_hottest"], 65 - expected, atol=1e-5)
        np.testing.assert_allclose(data["mass"], 20 + 30 + 2)
    (out / "sweep.png").unlink()
    plotted = runner.invoke(cli.app, ["plot", str(out)])
    assert plotted.exit_code == 0 and (out / "sweep.png").stat().st_size > 10_000
    result = call(*command, "--vary", f"{HEAT}=400:700:4")
    assert result.exit_code == cli.BAD_INPUT and "other designs" in result.stderr
    result = runner.invoke(
        cli.app, ["run", "single_node_cyclic", *sets, "--precision", "double", "--out", str(out)]
    )
    assert result.exit_code == cli.BAD_INPUT and "another kind" in result.stderr


@pytest.mark.slow
def test_samples_and_gradient_of_a_command(tmp_path):
    """First order by the gradient through the periodic orbit, against the derivative of the balance."""
    tables = uncertain(
        f"{{key='{HEAT}', sigma=10}}", f"{{key='{EMISSIVITY}', sigma=0.01}}", "{key='mass.loop_kg', sigma=3}"
    )
    sets = [word for item in (*PLATE, *tables) for word in ("--set", item)]
    result = call(
        "single_node_cyclic",
        *sets,
        "--samples",
        300,
        "--precision",
        "double",
        "--out",
        tmp_path,
        "--of",
        "peak_panel_temperature",
    )
    assert result.exit_code == 0, result.output
    assert "300 samples of a Latin hypercube" in result.stdout
    found = json.loads((tmp_path / "summary.json").read_text())
    T = temperature(545.4510663, 0.91) + 273.15
    sigma = {one["key"]: one["sigma"] for one in found["keys"]}
    expected = {
        HEAT: sigma[HEAT] / (4 * 0.91 * SIGMA * T**3),
        EMISSIVITY: -sigma[EMISSIVITY] * (T**4 - SPACE**4) / (4 * 0.91 * T**3),
        "mass.loop_kg": 0.0,  # no part in the orbit
    }
    effects = {one["key"]: one["effect"] for one in found["keys"]}
    # The periodic orbit is found to 1e-5 K, and its tangents to as much of themselves.
    assert effects == {key: pytest.approx(value, rel=1e-4, abs=1e-9) for key, value in expected.items()}
    assert found["of_first_order"]["value"] == pytest.approx(T - 273.15, abs=1e-5)
    assert (tmp_path / "samples.png").stat().st_size > 10_000
