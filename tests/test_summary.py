"""Margins, headroom and what the summary says, on numbers made by hand."""

import json
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest
from dawndusk.solver import cli, drawing, run, summary
from dawndusk.solver import limits as bounds
from dawndusk.solver.limits import Limit
from rich.console import Console

NODES = ("structure", "chip", "cold_plate", "battery", "array")


def toy_limit(name, allowed, side="max", binds="more", key="t"):
    return Limit(name, "C", allowed, 5.0, lambda s: s[key], side, binds)


def solve(rows, factors, starved=False):
    """20 C + 40 K a unit of power, 10 K more on row 1; fails beyond 3 x power; starved: sheds beyond 2.5."""
    zero = np.zeros(len(rows))
    power = {
        f"{name}_kw": zero for name in ("base_power", "heater_power", "pump_power", "transmitted", "unmet")
    }
    power |= {"payload_asked_kw": factors, "payload_curtailed_kw": np.maximum(factors - 2.5, 0) * starved}
    return power | {"t": 20 + 40 * factors + 10 * rows, "status": np.where(factors > 3, 2, 0)}


def headrooms(limits, rows, solve):
    return [found.factor for found in bounds.headrooms(limits, rows, solve)]


def test_headroom_is_where_the_margin_after_uncertainty_is_zero():
    found = headrooms([toy_limit("a", 85.0), toy_limit("b", 85.0)], [0, 1], solve)
    # 20 + 40 f + 5 = 85; two refinements of 12 intervals leave 4 / 12^3 of a factor.
    resolution = 4 / 12**3
    assert found[0] == pytest.approx(1.5, abs=resolution) and found[0] <= 1.5 + 1e-12
    assert found[1] == pytest.approx(1.25, abs=resolution)


def test_headroom_at_the_ends_of_the_range():
    settled = lambda rows, factors: solve(rows, factors) | {"status": np.zeros(len(rows), int)}  # noqa: E731
    high, never = toy_limit("high", 1000.0), toy_limit("low", 10.0)
    cold = toy_limit("cold", 43.0, side="min", binds="less")
    never_cold = toy_limit("cold", -50.0, side="min", binds="less")
    found = headrooms([high, never, cold, never_cold], [0, 0, 0, 0], settled)
    assert found[0] == bounds.LARGEST_FACTOR and found[1] is None and found[3] == 0.0
    # 20 + 40 f - 5 = 43 from f = 0.7 on.
    assert found[2] == pytest.approx(0.7, abs=4 / 12**3) and found[2] >= 0.7 - 1e-12
    # A row that fails bounds the headroom; one that fails far from the nominal power does not.
    assert headrooms([high], [0], solve)[0] == pytest.approx(3.0, abs=4 / 12**3)
    cold_fails = lambda rows, factors: solve(rows, factors) | {"status": np.where(factors < 0.5, 2, 0)}  # noqa: E731
    assert headrooms([toy_limit("a", 85.0)], [0], cold_fails)[0] == pytest.approx(1.5, abs=4 / 12**3)
    # Not met at the nominal power: the factor below it at which it is.
    assert headrooms([toy_limit("a", 55.0)], [0], settled)[0] == pytest.approx(0.75, abs=4 / 12**3)


def test_temperature_headroom_ends_where_power_does():
    starved = lambda rows, factors: solve(rows, factors, starved=True)  # noqa: E731
    hot, cool = bounds.headrooms([toy_limit("hot", 85.0), toy_limit("cool", 1000.0)], [0, 0], starved)
    assert hot.factor == pytest.approx(1.5, abs=4 / 12**3) and not hot.starved
    assert cool.factor == pytest.approx(2.5, abs=4 / 12**3) and cool.starved
    entry = {"headroom": cool.factor, "binds": "more", "power_runs_out_first": True}
    assert summary.factor(entry) == "> 2.500"


def make_case(**changes):
    loop = SimpleNamespace(
        min_temperature_c=-60.0,
        max_temperature_c=60.0,
        bypass_setpoint_c=20.0,
        property=lambda name: {"freezing_c": -77.0, "boiling_c": 70.0}[name],
    )
    case = SimpleNamespace(
        title="toy",
        run=SimpleNamespace(mode="orbit"),
        limits=SimpleNamespace(uncertainty_k=5.0),
        payload=SimpleNamespace(max_chip_temperature_c=95.0, power_kw=10.0, windows=()),
        loop=loop,
        radiator=SimpleNamespace(max_temperature_c=80.0, area_m2=28.0, heat_pipe_capability_w_m=None),
        battery=SimpleNamespace(max_temperature_c=45.0, min_temperature_c=0.0, min_soc=0.4),
        array=SimpleNamespace(),
        mass=SimpleNamespace(launch_price_usd_kg=200.0, life_years=5.0),
    )
    for name, value in changes.items():
        setattr(case, name, value)
    return case


def make_outcome(case=None, **changes):
    """Two satellites, two epochs, three rows."""
    temperatures = np.array(
        [[20.0, 80.0, 60.0, 20.0, 40.0], [25.0, 85.0, 62.0, 22.0, 50.0], [22.0, 82.0, 61, 21, 45]]
    )
    three = lambda *values: np.array(values, np.float32)  # noqa: E731
    zero = np.zeros(3, np.float32)
    scalars = {
        "status": np.zeros(3, np.int32),
        "iterations": np.full(3, 7, np.int32),
        "closure_k": zero + 1e-3,
        "distance_k": zero + 2e-3,
        "slowest_h": three(3, 4, 5),
        "neutral_charge": np.zeros(3, np.int32),
        "period_min": zero + 97,
        "eclipse_min": three(0, 10, 5),
        "node_max_c": temperatures.astype(np.float32),
        "node_min_c": (temperatures - 5).astype(np.float32),
        "panel_max_c": three(50, 55, 52),
        "panel_min_c": three(30, 28, 29),
        "coolant_max_c": three(50, 54, 51),
        "coolant_min_c": three(20, 20, 20),
        "supply_max_c": three(20, 25, 20),
        "soc_min": three(0.9, 0.6, 0.7),
        "depth_of_discharge": three(0.05, 0.35, 0.2),
        "array_available_kw": three(28, 26, 27),
        "payload_asked_kw": three(10, 9, 10),
        "payload_power_kw": three(10, 9, 10),
        "payload_throttled_kw": zero,
        "payload_curtailed_kw": zero,
        "base_power_kw": zero + 1,
        "heater_power_kw": zero,
        "pump_power_kw": zero,
        "transmitted_kw": zero,
        "unmet_kw": zero,
        "energy_balance_kwh": three(20, 15, 18),
        "revolutions_to_floor": zero,
        "compute_kwh_day": three(240, 216, 240),
        "compute_percent": three(100, 100, 100),
        "heat_residual": three(1e-6, -2e-6, 0),
        "bus_residual": three(1e-7, 0, 0),
    } | changes
    scalars["reason"] = scalars["status"]
    # Of b at the first epoch the same as of a.
    scalars = {name: value[[0, 1, 0, 2]] for name, value in scalars.items()}
    fleet = SimpleNamespace(
        group=np.array([0, 1]),
        names=["a", "b"],
        plane=np.array([0, 1]),
        epochs=[datetime(2027, 1, 1, tzinfo=UTC), datetime(2027, 6, 1, tzinfo=UTC)],
        params=SimpleNamespace(network=SimpleNamespace(names=NODES)),
        mass_kg=575.0,
        revolutions=np.zeros(4),
        left_out=(),
    )
    return run.Outcome(
        None, case or make_case(), fleet, None, scalars, run.Walls(1, 2, 3, 0), 3, devices={"count": 2}
    )


def test_heat_pipes_are_judged_by_their_capability():
    """One more row, only with the key: the largest transport of all rows, and who has it."""
    transport = {"pipe_transport_max_w_m": np.array([90.0, 130.0, 110.0])}
    without = summary.summarise(make_outcome(**transport), headroom=False)["limits"]
    assert "heat pipe transport" not in {one["name"] for one in without}
    radiator = SimpleNamespace(max_temperature_c=80.0, area_m2=28.0, heat_pipe_capability_w_m=120.0)
    with_it = summary.summarise(make_outcome(make_case(radiator=radiator), **transport), headroom=False)
    row = next(one for one in with_it["limits"] if one["name"] == "heat pipe transport")
    assert (row["value"], row["allowed"], row["margin"], row["unit"]) == (130.0, 120.0, -10.0, "W m")
    assert not row["met"] and row["satellite"] == "a" and row["epoch"].startswith("2027-06")
    assert len(with_it["limits"]) == len(without) + 1


def test_summary_names_the_worst_satellite_and_epoch():
    found = summary.summarise(make_outcome(), headroom=False)
    by_name = {(one["name"], one["unit"]): one for one in found["quantities"]}
    chip = by_name["chip hottest", "C"]
    assert (chip["worst"], chip["satellite"], chip["epoch"][:10]) == (85.0, "a", "2027-06-01")
    assert chip["fleet_mean"] == pytest.approx((80 + 85 + 80 + 82) / 4)  # each satellite and epoch once
    limits = {one["name"]: one for one in found["limits"]}
    assert limits["chip hottest"]["margin"] == pytest.approx(95 - 85 - 5)
    assert limits["coolant coldest"]["margin"] == pytest.approx(20 + 60 - 5)
    assert not limits["supply set point"]["met"] and limits["panel hottest"]["met"]
    assert found["energy"]["heat_residual"] == pytest.approx(2e-6)
    assert found["design"]["launch_usd_per_kw_year"] == pytest.approx(
        575 * 200 / np.mean([28, 26, 28, 27]) / 5
    )
    assert found["design"]["fleet_compute_twh_year"] == pytest.approx(234 * 2 * 365.25 / 1e9)
    assert not found["infeasible"] and not found["warnings"] and found["binding"] is None
    json.dumps(found, allow_nan=False)


def test_the_fleet_by_plane_and_epoch_and_its_worst_satellites():
    outcome = make_outcome()
    outcome.scalars["node_max_c"][2, 1] = 83  # of b at the first epoch
    found = summary.summarise(outcome, headroom=False)
    fleet, chip = found["fleet"], [one["name"] for one in found["fleet"]["headlines"]].index("chip hottest")
    assert [one["worst"][chip] for one in fleet["planes"]] == [85, 83]
    assert [one["satellites"] for one in fleet["planes"]] == [1, 1]
    assert [one["worst"][chip] for one in fleet["epochs"]] == [83, 85]
    charge = [one["name"] for one in fleet["headlines"]].index("state of charge, minimum")
    assert [one["worst"][charge] for one in fleet["epochs"]] == pytest.approx([90, 60])
    # The set point of 20 C, held to 0.1 K: a at 25 C, b at 20 C at most.
    assert fleet["nearest_limit"] == "supply set point"
    worst = {one["satellite"]: one["margin"] for one in fleet["worst_satellites"]}
    assert list(worst) == ["a", "b"] and worst == pytest.approx({"a": -4.9, "b": 0.1})
    quantity = next(one for one in found["quantities"] if one["name"] == "chip hottest")
    assert quantity["percentile_95"] == pytest.approx(np.percentile([80, 85, 83, 82], 95))
    # A row that failed counts in neither.
    outcome.scalars["status"] = np.array([0, 2, 0, 0], np.int32)
    fleet = summary.summarise(outcome, headroom=False)["fleet"]
    assert [one["worst"][chip] for one in fleet["planes"]] == [80, 83]
    outcome.scalars["status"] = np.array([0, 2, 0, 2], np.int32)
    assert summary.summarise(outcome, headroom=False)["fleet"]["epochs"][1]["worst"][chip] is None


def test_failed_satellite_is_named_and_counts_nowhere():
    chip = make_outcome().scalars["node_max_c"][[0, 1, 3]]
    chip[1] = 9.97e36
    found = summary.summarise(
        make_outcome(status=np.array([0, 2, 0], np.int32), node_max_c=chip), headroom=False
    )
    assert found["failed"] == {"count": 1, "first": [{"satellite": "a", "epoch": "2027-06-01T00:00Z"}]}
    worst = next(one for one in found["quantities"] if one["name"] == "chip hottest")
    assert (worst["worst"], worst["satellite"]) == (82.0, "b")
    assert any("a at 2027-06-01" in text for text in found["warnings"])
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"coolant_min_c": np.array([20, -80, 20.0])},
            ("loop freezes", "-80.00 C", "-77 C", "a, 2027-06-01"),
        ),
        ({"coolant_max_c": np.array([20, 20, 72.0])}, ("loop boils", "72.00 C", "70 C", "b, 2027-06-01")),
        (
            {
                "energy_balance_kwh": np.array([1, 1, -3.0]),
                "payload_curtailed_kw": np.array([0, 0, 2.0]),
                "revolutions_to_floor": np.array([0, 0, 4.0]),
            },
            ("no power balance", "-3 kWh", "allowed >= 0", "after 4 revolutions", "b, 2027-06-01"),
        ),
    ],
)
def test_infeasible_cases_say_limit_value_allowed_and_who(changes, words):
    found = summary.summarise(make_outcome(**changes), headroom=False)
    assert len(found["infeasible"]) == 1
    for word in words:
        assert word in found["infeasible"][0]


def test_a_slow_satellite_over_a_season_is_warned_about():
    found = summary.summarise(make_outcome(slowest_h=np.array([3, 30, 5.0])), headroom=False)
    assert any("30.0 h" in text for text in found["warnings"])


def test_energy_that_does_not_close_is_warned_about():
    found = summary.summarise(make_outcome(), headroom=False)
    assert not any("does not close" in text for text in found["warnings"])
    for residual in ({"heat_residual": [1e-4, -0.2, 0]}, {"bus_residual": [1e-9, 2e-3, 0]}):
        changes = {name: np.array(values) for name, values in residual.items()}
        found = summary.summarise(make_outcome(**changes), headroom=False)
        assert any("energy does not close for 1 satellites and epochs" in text for text in found["warnings"])


def test_brackets_in_a_users_words_are_no_markup(tmp_path):
    """Rich takes [red] for a style and stops at [/]; the terminal of the command line does not."""
    found = summary.summarise(make_outcome(make_case(title="[/] [red]toy")), headroom=False)
    found["limits"][0]["satellite"] = "[/b] SAT"
    console = cli._console()
    console.record, console.file = True, (tmp_path / "out").open("w")
    summary.show(found, console)
    text = console.export_text()
    assert "[/] [red]toy: 2 satellites" in text and "[/b] SAT" in text


def test_dollars_in_a_title_are_no_formula(tmp_path):
    with drawing.drawing():
        import matplotlib.pyplot as plt

        figure, axis = plt.subplots()
        axis.set_title("saves $x_ and $y^")
        figure.savefig(tmp_path / "one.png")
        plt.close(figure)


def test_table_shows_every_quantity_and_limit(capsys):
    found = summary.summarise(make_outcome(), headroom=False)
    console = Console(width=160, record=True, file=open("/dev/null", "w"))
    summary.show(found, console)
    text = console.export_text()
    for one in (*found["quantities"], *found["limits"]):
        assert one["name"] in text
    for words in ("energy closure", "TWh a year", "US data centres", "$/kW/year", "compile", "m2/kW"):
        assert words in text


def test_numbers_keep_their_figures():
    assert [summary.number(x) for x in (0.0, 21.3391, 1234.5, 3e-5, 2e7)] == [
        "0.00",
        "21.34",
        "1,234.50",
        "3e-05",
        "2e+07",
    ]
