"""Sizing: problems with known optimum and multipliers, the case's messages, and what is written."""

import json
import tomllib
from datetime import UTC, datetime
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels.constants import SIGMA
from dawndusk.solver import cli, differentiable, optimise, optimise_batch, sizing, sizing_batch, sizing_report
from dawndusk.solver.case import CaseError, case_hash, find, to_toml, validate
from dawndusk.solver.optimise import Evaluation, Problem
from dawndusk.solver.quadratic import minimum
from typer.testing import CliRunner

# ------------------------------------------------------------------------------------------- the optimisers


def rosen_suzuki(x):
    """Hock and Schittkowski's problem 43: least -44 at (0, 1, 2, -1), multipliers 1, 0, 2."""
    a, b, c, d = x
    f = a * a + b * b + 2 * c * c + d * d - 5 * a - 5 * b - 21 * c + 7 * d
    slope = np.array([2 * a - 5, 2 * b - 5, 4 * c - 21, 2 * d + 7])
    margins = [
        8 - a * a - b * b - c * c - d * d - a + b - c + d,
        10 - a * a - 2 * b * b - c * c - 2 * d * d + a + d,
        5 - 2 * a * a - b * b - c * c - 2 * a + b + d,
    ]
    jacobian = [
        [-2 * a - 1, -2 * b + 1, -2 * c - 1, -2 * d + 1],
        [-2 * a + 1, -4 * b, -2 * c, -4 * d + 1],
        [-4 * a - 2, -2 * b + 1, -2 * c, 1],
    ]
    return Evaluation(f, slope, np.array(margins), np.array(jacobian))


def test_a_published_problem_and_its_multipliers():
    found = optimise.minimise(
        Problem(rosen_suzuki, np.full(4, -4.0), np.full(4, 4.0), np.arange(3)), np.zeros(4)
    )
    assert found.converged and found.feasible
    # SLSQP stops at 1e-8 of the scaled objective, which is flat there: the square root in x.
    np.testing.assert_allclose(found.x, [0, 1, 2, -1], atol=1e-4)
    assert found.found.objective == pytest.approx(-44, abs=1e-5)
    np.testing.assert_allclose(found.optimality.rows, [1, 0, 2], atol=1e-3)


def kinks(seed, k=6, rows=200):
    """Least price . x with sum_j C_ij/x_j <= 1 in every row i: several rows bind at once."""
    rng = np.random.default_rng(seed)
    C, price = rng.uniform(0, 1, (rows, k)) ** 6, rng.uniform(0.1, 1, k)
    return C, price, np.full(k, 0.05), np.full(k, 20.0)


def of_rows(C, price):
    return lambda x: Evaluation(float(price @ x), price, 1 - (C / x).sum(1), C / x**2)


@pytest.mark.parametrize("seed", range(4))
def test_rows_that_take_over_from_each_other_do_not_stall_the_search(seed):
    """One limit of 200 rows, some of which bind: taken as its least alone it takes hundreds of calls."""
    C, price, low, high = kinks(seed)
    found = optimise.minimise(Problem(of_rows(C, price), low, high, np.zeros(200, int)), np.full(6, 3.0))
    assert found.converged and len(found.history) < 40
    assert (found.optimality.rows > 0).sum() > 1
    # The problem is convex: what the multipliers make of the linear rows is a lower bound (weak duality).
    here = found.found
    weights = found.optimality.rows
    dual = 2 * np.sqrt(price * (weights @ C)).sum() - weights.sum()
    assert here.objective == pytest.approx(dual, rel=1e-4)


def test_where_slsqp_stalls_a_box_of_trust_goes_on(monkeypatch):
    C, price, low, high = kinks(0)
    problem, start = Problem(of_rows(C, price), low, high, np.zeros(200, int)), np.full(6, 3.0)
    expected = optimise.minimise(problem, start)
    monkeypatch.setattr(optimise, "_slsqp", lambda start, *_: start)
    found = optimise.minimise(problem, start)
    assert found.converged and found.found.objective == pytest.approx(expected.found.objective, rel=1e-5)


def test_an_infeasible_problem_ends_where_the_worst_violation_is_least():
    """x >= 1 and x <= 0 at once, the second with three times the slope: both are missed alike after scaling."""

    def both(x):
        return Evaluation(
            x[1], np.array([0.0, 1.0]), np.array([x[0] - 1, -3 * x[0]]), np.array([[1.0, 0], [-3, 0]])
        )

    found = optimise.minimise(
        Problem(both, np.full(2, -2.0), np.full(2, 2.0), np.arange(2)), np.array([1.5, 1.0])
    )
    assert not found.feasible and not found.converged
    assert found.x[0] == pytest.approx(0.5, abs=1e-5)
    np.testing.assert_allclose(found.violations, [0.5 / 4, 1.5 / 12], atol=1e-5)


def test_no_finite_answer_is_stepped_around_and_at_the_start_said():
    """The least of -log(1 - x) + x^2 - 3 x, which is NaN beyond 1: 1/(1 - x) + 2 x = 3 at x = 1/2."""

    def barrier(x):
        with np.errstate(invalid="ignore", divide="ignore"):
            value, slope = -np.log(1 - x[0]) + x[0] ** 2 - 3 * x[0], 1 / (1 - x[0]) + 2 * x[0] - 3
        return Evaluation(float(value), np.array([slope]), np.zeros(0), np.zeros((0, 1)))

    problem = Problem(barrier, np.array([-5.0]), np.array([5.0]), np.zeros(0, int))
    found = optimise.minimise(problem, np.array([-4.0]))
    # An objective to 1e-8 is an x to about 1e-4 of the range.
    assert found.x[0] == pytest.approx(0.5, abs=1e-3) and found.converged
    with pytest.raises(optimise.NoStart):
        optimise.minimise(problem, np.array([2.0]))


def test_quadratic_programs_meet_their_conditions():
    rng = np.random.default_rng(1)
    n, k, m = 60, 5, 30
    root = rng.normal(size=(n, k, k))
    B, g = root @ root.transpose(0, 2, 1), rng.normal(size=(n, k))
    A, b = rng.normal(size=(n, m, k)), rng.uniform(0.1, 1, (n, m))
    d, weights = minimum(B, g, A, b)
    room = np.einsum("nmk,nk->nm", A, d) + b
    slope = np.einsum("nij,nj->ni", B, d) + g - np.einsum("nmk,nm->nk", A, weights)
    # Convex: primal and dual feasible and complementary is optimal. The solver stops at 1e-8.
    assert room.min() > -1e-8 and weights.min() >= 0
    assert np.abs(slope).max() < 1e-6 and np.abs(room * weights).max() < 1e-6
    assert (weights.max(1) > 1e-3).mean() > 0.5


def test_many_problems_at_once_end_where_slsqp_does():
    n, k = 40, 6
    cases = [kinks(seed, k, 48) for seed in range(n)]
    C, price = (np.stack([case[i] for case in cases]) for i in (0, 1))

    def evaluate(x, which):
        objective = np.sum(price[which] * x, 1)
        margins = 1 - np.sum(C[which] / x[:, None], 2)
        return optimise_batch.Evaluations(objective, price[which], margins, C[which] / x[:, None] ** 2)

    low, high, groups = cases[0][2], cases[0][3], np.zeros(48, int)
    found = optimise_batch.minimise(evaluate, np.full((n, k), 3.0), low, high, groups)
    assert found.feasible.all() and found.converged.all()
    alone = [
        optimise.minimise(Problem(of_rows(*case[:2]), low, high, groups), np.full(k, 3.0)) for case in cases
    ]
    # Both stop where 1e-3 of the slope, and 1e-6 of a constraint, is left.
    np.testing.assert_allclose(found.found.objective, [one.found.objective for one in alone], rtol=1e-5)
    worth = [one.optimality.rows.sum() for one in alone]
    here = [one.rows.sum() for one in found.optimality]
    np.testing.assert_allclose(here, worth, rtol=1e-3)


def test_many_problems_without_constraints():
    centre = np.array([[0.2, -0.4], [0.9, 3.0]])

    def evaluate(x, which):
        away = x - centre[which]
        none = np.zeros((len(x), 0))
        return optimise_batch.Evaluations((away**2).sum(1), 2 * away, none, np.zeros((len(x), 0, 2)))

    found = optimise_batch.minimise(
        evaluate, np.zeros((2, 2)), np.full(2, -1.0), np.ones(2), np.zeros(0, int)
    )
    assert found.converged.all()
    np.testing.assert_allclose(found.x, np.clip(centre, -1, 1), atol=1e-4)


def bent(C, price, pieces):
    """As `of_rows`, with the least of every `pieces` rows in place of them: rows with kinks of their own."""

    def evaluate(x):
        smooth = of_rows(C, price)(x)
        least = smooth.margins.reshape(-1, pieces).argmin(1) + pieces * np.arange(len(C) // pieces)
        return smooth._replace(margins=smooth.margins[least], jacobian=smooth.jacobian[least])

    return evaluate


def test_kinks_within_rows_do_not_stall_the_search_of_many():
    """The same problems with their rows one by one are smooth: same optimum, and the worth of a bent row is the sum.

    With the slopes at the present point alone 24 of these 40 converge.
    """
    n, k, pieces = 40, 6, 6
    cases = [kinks(seed, k, 48) for seed in range(n)]
    low, high = cases[0][2:]
    problems = [bent(*case[:2], pieces) for case in cases]

    def evaluate(x, which):
        every = [problems[i](one) for i, one in zip(which, x)]
        return optimise_batch.Evaluations(*(np.array(part) for part in zip(*every)))

    found = optimise_batch.minimise(evaluate, np.full((n, k), 3.0), low, high, np.arange(48 // pieces))
    assert found.converged.all()
    smooth = [
        optimise.minimise(Problem(of_rows(*case[:2]), low, high, np.arange(48) // pieces), np.full(k, 3.0))
        for case in cases
    ]
    np.testing.assert_allclose(found.found.objective, [one.found.objective for one in smooth], rtol=1e-5)
    worth = [one.optimality.rows.reshape(-1, pieces).sum(1) for one in smooth]
    np.testing.assert_allclose([one.rows for one in found.optimality], worth, rtol=2e-2, atol=2e-2)


def test_a_search_that_stalls_at_a_kink_ends_with_its_worth(monkeypatch):
    C, price, low, high = kinks(0, 6, 48)
    start, groups = np.full(6, 3.0), np.arange(48) // 6
    smooth = optimise.minimise(Problem(of_rows(C, price), low, high, groups), start)
    monkeypatch.setattr(optimise, "_slsqp", lambda start, *_: start)
    found = optimise.minimise(Problem(bent(C, price, 6), low, high, np.arange(8)), start)
    assert found.converged and found.found.objective == pytest.approx(smooth.found.objective, rel=1e-5)
    worth = smooth.optimality.rows.reshape(-1, 6).sum(1)
    np.testing.assert_allclose(found.optimality.rows, worth, rtol=2e-2, atol=2e-2)


def test_some_of_many_problems_may_be_infeasible():
    """x >= a and x <= 1, least x: at a where that is up to 1, else half way between."""
    a = np.array([0.2, 0.8, 1.5, 2.5])

    def evaluate(x, which):
        ones = np.ones((len(x), 1))
        margins = np.concatenate([x - a[which, None], 1 - x], axis=1)
        jacobian = np.tile(np.array([[[1.0], [-1.0]]]), (len(x), 1, 1))
        return optimise_batch.Evaluations(x[:, 0], ones, margins, jacobian)

    found = optimise_batch.minimise(
        evaluate, np.full((4, 1), 0.5), np.array([-5.0]), np.array([5.0]), np.arange(2)
    )
    assert found.feasible.tolist() == [True, True, False, False]
    np.testing.assert_allclose(found.x[:, 0], [0.2, 0.8, 1.25, 1.75], atol=1e-5)


# ------------------------------------------------------------------------------------------- plates as a case

EPOCHS = tuple(datetime(2027, month, 21, tzinfo=UTC) for month in (3, 6, 9))
HEAT, EMITTANCE, KELVIN = 18e3, 1.76, 273.15  # W, both faces, 0 C
SINK = np.array([[230.0, 250.0, 240.0], [200.0, 180.0, 190.0]])  # K, hot and cold, by epoch
LIMIT = 40.0  # C, after the uncertainty


class Plates:
    """A stand-in for `Differentiable` with answers in closed form: an isothermal plate that radiates to a sink.

    T^4 = heat x demand/(emittance sigma area) + sink^4, at three epochs, hot and cold.
    """

    dtype = np.dtype(float)

    def __init__(self, names, start):
        self.names, self.start, self.limit = tuple(names), np.array(start, float), LIMIT
        self.places = tuple(
            differentiable.Place("s1", epoch, differentiable.Condition(level))
            for level in ("hot", "cold")
            for epoch in EPOCHS
        )
        F, limit = differentiable.Figure, SimpleNamespace(name="chip hottest", of_power=False)
        self.figures = {
            one.name: one
            for one in (
                F("peak_chip_temperature", "C", -1, ""),
                F("power_shed", "kW", -1, ""),
                F("delivered_compute", "kW", 1, "", None, True),
                F("mass", "kg", -1, "", None, False),
                F("radiator_area", "m2", -1, "", None, False),
                F("array_area", "m2", 0, "", None, False),
                F("margin of chip hottest", "K", 1, "", limit),
            )
        }

    def entry(self, x, key, default):
        """(designs, epochs) of it."""
        columns = [i for i, name in enumerate(self.names) if name.partition("@")[0] == key]
        values = x[:, np.array(columns)] if columns else jnp.full((len(x), 1), default)
        return jnp.broadcast_to(values, (len(x), len(EPOCHS)))

    def solved(self, x, varied):
        for i, column in varied.items():
            x = x.at[:, i].set(column)
        area, demand = self.entry(x, "radiator.area_m2", 30.0), self.entry(x, "payload.demand", 1.0)
        heat = HEAT * self.entry(x, "payload.power_kw", 18.0) / 18.0 * demand / (EMITTANCE * SIGMA * area)
        T = (heat[:, None] + jnp.asarray(SINK**4)[None]) ** 0.25
        return {
            "T": T.reshape(len(x), -1) - KELVIN,
            "compute": jnp.tile(HEAT / 1e3 * demand, (1, 2)),
            "status": jnp.where(T.reshape(len(x), -1) < 500, 0, 2),
        }

    def figured(self, x, found):
        area = self.entry(x, "radiator.area_m2", 30.0)[:, 0]
        margin = self.limit - found["T"]
        compute = found["compute"]
        whole = {
            "peak_chip_temperature": jnp.max(found["T"], 1),
            "power_shed": jnp.zeros_like(area),
            "delivered_compute": jnp.mean(compute, 1),
            "mass": jnp.full_like(area, 575.0),
            "radiator_area": area,
            "array_area": jnp.full_like(area, 105.0),
            "margin of chip hottest": jnp.min(margin, 1),
        }
        rows = {"peak_chip_temperature": found["T"], "delivered_compute": compute}
        rows |= {"power_shed": jnp.zeros_like(margin), "margin of chip hottest": margin}
        return whole, rows


def cased(changes=(), **spec):
    """Suncatcher with a [sizing] of its radiator's area."""
    data = tomllib.loads(find("suncatcher").read_text())
    variables = [{"key": "radiator.area_m2", "min": 15.0, "max": 60.0}]
    for key, value in dict(changes).items():
        section, _, name = key.partition(".")
        data[section][name] = value
    sizing_spec = {
        "objective": "radiator_area",
        "environments": ["hot", "cold"],
        "variables": variables,
    } | spec
    return validate(data | {"sizing": sizing_spec}, "mine.toml")


def plates(*more):
    names = ["radiator.area_m2", *more]
    return Plates(names, [30.0] * len(names))


def least_area(limit_c=LIMIT, heat=HEAT):
    return heat / (EMITTANCE * SIGMA * ((limit_c + KELVIN) ** 4 - SINK.max() ** 4))


def test_the_least_radiator_and_what_a_kelvin_is_worth():
    """Area = Q/(e s (T^4 - sink^4)) at the warmest sink, and d(area)/dT = -4 T^3 area/(T^4 - sink^4)."""
    found = sizing.search(cased(), plates())
    told = sizing_report.report(found)
    area, T = least_area(), LIMIT + KELVIN
    # A constraint counts as met to 1e-6 of what the variable changes, some 1e-5 of the area.
    assert found.best.x[0] == pytest.approx(area, rel=1e-4)
    assert found.case.radiator.area_m2 == pytest.approx(found.best.x[0], rel=1e-11)
    (limit,) = told["constraints"]
    assert limit["active"] and limit["active_rows"] == 1 and limit["met"]
    assert limit["worth"] == pytest.approx(4 * T**3 * area / (T**4 - SINK.max() ** 4), rel=1e-3)
    assert (limit["epoch"], limit["condition"]) == ("2027-06-21T00:00Z", "hot")
    assert told["converged"] and told["agreement"]["same_design"] == 3
    assert told["objective"]["start"] == 30 and told["variables"][0]["at"] is None
    # What a kelvin is worth, by sizing again with the limit a kelvin higher.
    assert limit["worth"] == pytest.approx(area - least_area(LIMIT + 1), rel=0.03)


def test_at_a_bound_the_bound_has_the_worth():
    """A radiator of 40 m2 at least is more than heat asks for: nothing binds but that, at 1 m2 a m2."""
    told = sizing_report.report(
        sizing.search(
            cased(
                {"radiator.area_m2": 45.0}, variables=[{"key": "radiator.area_m2", "min": 40.0, "max": 60.0}]
            ),
            Plates(["radiator.area_m2"], [45.0]),
        )
    )
    (variable,), (limit,) = told["variables"], told["constraints"]
    assert (variable["at"], variable["worth"]) == ("min", pytest.approx(1.0))
    assert not limit["active"] and limit["worth"] == 0 and limit["margin"] > 1


def test_a_figure_is_held_on_the_side_that_is_asked_for():
    """Peak of 30 C at most in place of the limit, which is ignored."""
    spec = {"ignore": ["chip hottest"], "constraints": [{"of": "peak_chip_temperature", "max": 30.0}]}
    found = sizing.search(cased(**spec), plates())
    assert found.best.x[0] == pytest.approx(least_area(30.0), rel=1e-4)
    assert [one.name for one in found.task.constraints] == ["peak_chip_temperature max 30"]


def scheduled(area=22.0):
    """A schedule of the demand over the season, for a radiator that is too small for all of it."""
    variables = [{"key": "payload.demand", "min": 0.0, "max": 1.0, "per": "epoch"}]
    case = cased(objective="delivered_compute", variables=variables)
    model = Plates(["radiator.area_m2", *(f"payload.demand@{k}" for k in range(3))], [area, 1.0, 1.0, 1.0])
    return sizing.search(case, model)


def test_demand_over_a_season_is_what_each_epoch_can_radiate():
    found = scheduled()
    told = sizing_report.report(found)
    T = LIMIT + KELVIN
    each = np.minimum(1, EMITTANCE * SIGMA * 22.0 * (T**4 - SINK[0] ** 4) / HEAT)
    np.testing.assert_allclose(found.best.x, each, rtol=1e-4)
    assert told["objective"]["optimum"] == pytest.approx(18 * each.mean(), rel=1e-4)
    # A kelvin is worth what it lets every limited epoch radiate more, averaged.
    worth = 18 * np.mean(np.where(each < 1, 4 * T**3 * EMITTANCE * SIGMA * 22.0 / HEAT, 0))
    assert told["constraints"][0]["worth"] == pytest.approx(worth, rel=1e-3)
    # Flat out the limit breaks, by as much as heat says.
    peak = (HEAT / (EMITTANCE * SIGMA * 22.0) + SINK.max() ** 4) ** 0.25
    (broken,) = told["flat_out"]["broken"]
    assert broken["margin"] == pytest.approx(T - peak) and broken["epoch"] == "2027-06-21T00:00Z"
    assert told["flat_out"]["flat_out"]["delivered_compute"] == 18
    # A case file has one demand: the least.
    assert found.case.payload.demand == pytest.approx(each.min(), rel=1e-4)


def test_a_family_of_cases_at_once_agrees_with_one_by_one():
    """Payload powers from 12 to 24 kW, each with its own least radiator; more than 60 m2 it may not be."""
    power = np.linspace(12.0, 60.0, 5)
    model = Plates(["radiator.area_m2", "payload.power_kw"], [30.0, 18.0])
    found = sizing_batch.search_batch(cased(), model, {"payload.power_kw": power})
    area = least_area(heat=1e3 * power)
    assert found.feasible.tolist() == (area < 60).tolist() and not found.feasible.all()
    good = found.feasible
    np.testing.assert_allclose(found.x[good, 0], area[good], rtol=1e-4)
    np.testing.assert_allclose(found.objective[good], area[good], rtol=1e-4)
    for k in np.flatnonzero(good):
        model = Plates(["radiator.area_m2", "payload.power_kw"], [30.0, power[k]])
        alone = sizing.search(cased(starts=1), model)
        # Two searches, each to 1e-6 of the constraint.
        assert found.objective[k] == pytest.approx(alone.best.found.objective, rel=1e-4)
        assert found.worth[k, 0] == pytest.approx(alone.best.optimality.rows.sum(), rel=1e-3)


# --------------------------------------------------------------------------------------------- bad input


def refused(spec, words, changes=(), model=None):
    case = cased(changes, **spec)
    with pytest.raises(CaseError, match=words) as caught:
        sizing.check_variables(case, sizing.section(case))
        sizing.search(case, model or plates())
    assert str(caught.value).startswith("mine.toml: ") and "\n" not in str(caught.value)


def variable(key, low, high, **more):
    return {"variables": [{"key": key, "min": low, "max": high, **more}]}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (variable("radiator.sides", 1, 2), "radiator.sides: got 2; cannot vary, it is a whole number"),
        (variable("radiator.aera_m2", 1, 2), "no such key; did you mean radiator.area_m2"),
        (
            variable("radiator.area_m2", 35, 60),
            r"variables.0.min: got 35, a bound that excludes the start: .* = 30",
        ),
        (
            variable("radiator.area_m2", 15, 25),
            r"variables.0.max: got 25, a bound that excludes the start: .* = 30",
        ),
        (variable("radiator.area_m2", 0, 60), "variables.0.min: got 0; radiator.area_m2 must be > 0"),
        (variable("payload.demand", 0, 2), "variables.0.max: got 2; payload.demand must be >= 0, <= 1"),
        (
            variable("array.area_m2", 60, 200),
            "variables.0.min: got 60, with which the case is refused: .*array_depth_m",
        ),
        (
            {"objective": "radiator_are"},
            "sizing.objective: got 'radiator_are'; unknown figure; did you mean radiator_",
        ),
        ({"objective": "beauty"}, "unknown figure; those of this case are peak_chip_temperature, "),
        ({"objective": "array_area"}, "of which neither more nor less is better"),
        ({"objective": "mass"}, "'mass'; no variable changes it; mass.total_kg = 575 stands in place"),
        (
            {"ignore": ["chip hotest"]},
            "sizing.ignore.0: got 'chip hotest'; unknown limit; did you mean chip hottest",
        ),
        (
            {"constraints": [{"of": "peak_chip_temp", "max": 3}]},
            "sizing.constraints.0.of: got 'peak_chip_temp'; unknown figure; did you mean peak_chip_temperature",
        ),
    ],
)
def test_what_cannot_be_sized_is_said_in_one_line(spec, words):
    refused(spec, words)


def test_a_case_without_a_periodic_state_is_said_so():
    refused(
        {"starts": 1},
        "at none of them has the case a periodic state",
        model=Plates(["radiator.area_m2", "payload.power_kw"], [30.0, 1e6]),
    )


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"variables": []}, "sizing.variables: got 0 entries; must be at least 1"),
        (
            variable("radiator.area_m2", 60, 15),
            r"sizing.variables.0.min: got 60; must be < max = 15 \('radiator.area_m2",
        ),
        (
            {"constraints": [{"of": "mass"}]},
            "sizing.constraints.0.min: missing; 'mass' needs min, max or both",
        ),
        ({"constraints": [{"of": "mass", "min": 3, "max": 2}]}, "got 3; must be < max = 2"),
        ({"ignore": ["x" * 101]}, "sizing.ignore.0: is no name of a key, a figure or a limit"),
        ({"environments": ["hott"]}, "sizing.environments.0: got 'hott'; .*did you mean 'hot'"),
        ({"lives": ["end", "end"]}, "sizing.lives: got 'end' twice"),
        ({"starts": 0}, "sizing.starts: got 0; must be >= 1"),
        (
            {"variables": [variable("a", 0, 1)["variables"][0]] * 2},
            "sizing.variables.1.key: got 'a' twice",
        ),
        ({"objektive": "mass"}, "sizing.objektive: unknown key; did you mean objective"),
    ],
)
def test_a_wrong_section_is_refused(spec, words):
    with pytest.raises(CaseError, match=words):
        cased(**spec)


@pytest.mark.parametrize(
    ("spec", "environment", "expected"),
    [
        ({"environments": ["hot", "cold"], "lives": ["beginning", "end"]}, {}, 5),
        ({"environments": ["hot", "nominal"], "lives": ["beginning", "end"]}, {}, 4),
        (
            {"environments": ["hot", "nominal"], "lives": ["beginning", "end"]},
            {"environment.albedo": 0.35},
            5,
        ),
        ({"environments": [], "lives": ["beginning", "end"]}, {}, 2),
        ({"environments": [], "lives": ["beginning"]}, {}, 2),
        ({"environments": ["nominal"], "lives": []}, {}, 1),
        ({"environments": [], "lives": []}, {}, 1),
    ],
)
def test_the_cases_own_condition_is_always_looked_at(spec, environment, expected):
    """Suncatcher: nominal, at the end of life."""
    assert len(sizing.conditions(cased(environment, **spec))) == expected


def test_a_case_without_the_section():
    case = cased().model_copy(update={"sizing": None})
    with pytest.raises(CaseError, match=r"mine.toml: sizing: missing; a \[sizing\] section names"):
        sizing.size(case)


@pytest.mark.parametrize(
    ("fixed", "words"),
    [
        ({}, "needs a key in which they differ"),
        (
            {"payload.power_kw": np.array([10.0, 11]), "bus.base_load_kw": np.ones(3)},
            "one value a design each",
        ),
        ({"payload.power_kw": np.array([10.0, -1])}, "payload.power_kw: got -1; must be > 0"),
        ({"payload.power_kw": np.array([10.0, np.nan])}, "payload.power_kw: got nan; must be"),
        ({"radiator.area_m2": np.array([10.0])}, r"radiator.area_m2: is a variable of \[sizing\]"),
        ({"radiator.sides": np.array([1.0])}, "radiator.sides: got 2; cannot vary"),
    ],
)
def test_a_wrong_family_is_refused(fixed, words):
    with pytest.raises(CaseError, match=words):
        sizing_batch.size_batch(cased(), fixed)


def test_the_section_is_no_part_of_the_hash_and_is_kept():
    bare = validate(tomllib.loads(find("suncatcher").read_text()))
    case = cased()
    assert case_hash(case) == case_hash(bare)
    assert validate(tomllib.loads(to_toml(case))).sizing == case.sizing


# ------------------------------------------------------------------------------------------ the command line


@pytest.fixture
def call(monkeypatch, tmp_path):
    """`dawndusk size` of a case whose model is `Plates`."""

    def called(case, out, model=None, *more):
        file = tmp_path / "mine.toml"
        file.write_text(to_toml(case))
        monkeypatch.setattr(sizing, "model_of", lambda *_: model or plates())
        result = CliRunner().invoke(cli.app, ["size", str(file), "--out", str(out), *more])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return called


def test_table_files_and_picture(call, tmp_path):
    out = tmp_path / "sized"
    result = call(cased(), out)
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.split())
    for words in (
        "1 satellites x 3 epochs, hot / cold: 6 revolutions a design",
        "least radiator_area: 30.00 m2 in the case, 31.",
        "chip hottest * 0.00 K",
        "2027-06-21 hot",
        "all 3 searches agree",
    ):
        assert words in said, said
    found = json.loads((out / "sizing.json").read_text(), parse_constant=pytest.fail)
    sized = validate(tomllib.loads((out / "sized.toml").read_text()))
    assert sized.radiator.area_m2 == pytest.approx(found["variables"][0]["optimum"], rel=1e-11)
    assert (out / "sizing.png").stat().st_size > 1000
    # Again from the sized case, into the same directory.
    again = call(sized, out, Plates(["radiator.area_m2"], [sized.radiator.area_m2]), "--starts", "1")
    assert again.exit_code == 0
    now = json.loads((out / "sizing.json").read_text())
    assert now["objective"]["optimum"] == pytest.approx(found["objective"]["optimum"], rel=1e-6)
    assert len(now["starts"]) == 1


def test_an_infeasible_problem_is_one_line_and_leaves_no_case(call, tmp_path):
    out = tmp_path / "sized"
    assert call(cased(), out).exit_code == 0 and (out / "sized.toml").exists()
    result = call(cased(variables=[{"key": "radiator.area_m2", "min": 20.0, "max": 31.0}]), out)
    assert result.exit_code == cli.INFEASIBLE
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("infeasible")]
    # At 31 m2.
    peak = (HEAT / (EMITTANCE * SIGMA * 31.0) + SINK.max() ** 4) ** 0.25 - KELVIN
    assert f"chip hottest by {peak - LIMIT:.4g} K (s1, 2027-06-21T00:00Z, hot)" in line
    assert not (out / "sized.toml").exists()
    assert json.loads((out / "sizing.json").read_text())["feasible"] is False


def test_a_smooth_model_only_leads_the_way():
    """One whose limit is 5 K lower: the search goes through its optimum and ends at that of the exact model."""
    rough = plates()
    rough.limit = LIMIT - 5
    found = sizing.search(cased(starts=1), plates(), rough)
    assert found.best.x[0] == pytest.approx(least_area(), rel=1e-4)
    assert found.best.found.margins.min() == pytest.approx(0, abs=1e-3)
    (solution,) = found.solutions
    assert solution.history[0, 0] == pytest.approx(least_area(LIMIT - 5), rel=1e-4)


def test_searches_that_do_not_agree_are_said_so():
    found = sizing.search(cased(starts=2), plates())
    other = found.solutions[1]
    worse = found.__class__(
        found.task, found.case, found.starts, (found.best, other.__class__(**vars(other) | {"feasible": False})),
        found.best, found.wall,
    )  # fmt: skip
    told = sizing_report.report(worse)["agreement"]
    assert told["said"].startswith("the searches do not agree: 1 of 2 reach this objective")


def test_a_directory_of_other_things_is_left_alone(call, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("")
    result = call(cased(), tmp_path / "notes")
    assert result.exit_code == cli.BAD_INPUT and "holds mine.txt but no sizing.json" in result.stderr
    result = call(cased(), tmp_path / "notes" / "mine.txt")
    assert result.exit_code == cli.BAD_INPUT and "is a file" in result.stderr


def test_an_interrupted_search_leaves_nothing(call, monkeypatch, tmp_path):
    model = plates()

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "solved", stop)
    result = call(cased(), tmp_path / "sized", model)
    assert result.exit_code == cli.INTERRUPTED and not (tmp_path / "sized").exists()
    # Nor does it stand in the way of the next.
    assert call(cased(), tmp_path / "sized").exit_code == 0


# ------------------------------------------------------------------------------------------ with the solver


@pytest.fixture(scope="module")
def small():
    """Suncatcher at one epoch with eclipses, hot and cold, on the coarsest grid: least radiator and battery."""
    data = tomllib.loads(find("suncatcher").read_text())
    data["epoch"]["count"] = 1
    data["run"] |= {"cells": [4, 6], "steps": 16}
    del data["mass"]["total_kg"], data["battery"]["mass_kg"]
    # Its battery heater holds 5 C, which leaves no room for the uncertainty.
    data["heaters"]["battery"]["setpoint_c"] = 8.0
    data["sizing"] = {
        "objective": "mass",
        "environments": ["hot", "cold"],
        "starts": 2,
        "variables": [
            {"key": "radiator.area_m2", "min": 20.0, "max": 45.0},
            {"key": "battery.capacity_kwh", "min": 2.0, "max": 20.0},
        ],
    }
    return validate(data, "mine.toml")


@pytest.mark.slow
def test_a_satellite_is_sized_and_its_family_with_it(small):
    """Radiator and battery bind by one limit each, both starts agree, the sized case meets its limits when looked
    at anew, and the same design comes out of a family of altitudes."""
    found = sizing.size(small)
    told = sizing_report.report(found)
    assert told["converged"] and told["agreement"]["same_design"] == 2
    active = {one["name"]: one["worth"] for one in told["constraints"] if one["active"]}
    assert set(active) == {"coolant hottest", "state of charge"} and min(active.values()) > 0
    assert told["objective"]["optimum"] < told["objective"]["start"]
    again = sizing.Task(found.case, sizing.model_of(found.case))
    here = again.evaluate(again.start)
    # The search counts a limit as met to 1e-6 of what the variables change, which is some 1e-4 K and %.
    assert here.margins.min() > -1e-3
    assert here.objective == pytest.approx(told["objective"]["optimum"], rel=1e-6)
    # The slopes of all rows, off the optimum: there the charge touches its floor, which bends all of them.
    x, step = 1.05 * again.start, 1e-4 * (again.high - again.low)
    slopes = again.evaluate(x).jacobian
    for i in range(2):
        up, down = (again.evaluate(x + sign * step * np.eye(2)[i]) for sign in (1, -1))
        np.testing.assert_allclose(
            slopes[:, i], (up.margins - down.margins) / (2 * step[i]), rtol=1e-3, atol=1e-3
        )
    # With half the battery the floor curtails: that compute counts all the same where the limits of power must hold,
    # so that the most of it has no kink where they begin to bind.
    starved = again.slopes((again.start * [1.0, 0.5])[None])
    delivered, judged = (which["delivered_compute"][0] for which in (starved.figures, starved.uncurtailed))
    asked = delivered / starved.figures["compute_percent"][0] * 100
    assert delivered < 0.999 * asked
    np.testing.assert_allclose(judged, asked, rtol=1e-9)
    held = again.slopes(again.start[None] * 1.001)
    for one, other in zip(
        held.uncurtailed["delivered_compute"], held.figures["delivered_compute"], strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
    family = sizing_batch.size_batch(small, {"orbit.altitude_km": np.array([600.0, 650.0, 700.0])})
    assert family.feasible.all() and family.converged.all()
    assert family.objective[1] == pytest.approx(told["objective"]["optimum"], rel=1e-4)
