"""Sensitivities: against central differences, exact where the figure is simple, ranked, told and refused."""

import json
import tomllib
from types import SimpleNamespace

import numpy as np
import pytest
from dawndusk.solver import case as cases
from dawndusk.solver import cli, keys, sensitivity
from dawndusk.solver.case import CaseError
from dawndusk.solver.differentiable import Differentiable, Figure
from plate import SECTION
from typer.testing import CliRunner

# A bare panel, small enough to compile while a reader waits, in and out of the eclipse season.
PANEL = f"""
title = "small"
[epoch]
start = 2027-06-21T00:00:00Z
count = 2
[orbit]
kind = "sun_synchronous"
altitude_km = 650
[attitude]
pointing = "nadir"
[structure]
mass_share = 0.1
[run]
mode = "orbit"
steps = 16
cells = [4, 6]
{SECTION}
heat_w_m2 = 300
tube_mass_kg_m = 0.1
"""
# The same with array, battery and load.
WHOLE = f"""{PANEL.replace('"nadir"', '"sun"')}
[array]
area_m2 = 9
efficiency = 0.25
emissivity_back = 0.8
back_solar_absorptance = 0.3
areal_heat_capacity_j_m2_k = 1500
areal_mass_kg_m2 = 2
[battery]
capacity_kwh = 2
charge_rate_per_h = 0.5
discharge_rate_per_h = 2
heat_capacity_kj_k = 15
to_structure_w_k = 10
specific_energy_wh_kg = 140
[payload]
power_kw = 1.2
chip = false
cold_plate_heat_capacity_kj_k = 4
[[links]]
from = "cold_plate"
to = "panel"
conductance_w_k = 300
[mass]
payload_kg_kw = 5
"""
FIGURES = ("peak_panel_temperature", "mass", "radiator_area")


def case_of(text, *changes):
    data = tomllib.loads(text)
    for change in changes:
        cases.override(data, change)
    return cases.validate(data, "small.toml")


@pytest.fixture(scope="module")
def found():
    """Sensitivities of FIGURES, by name, and the revolutions told on the way."""
    told = []
    some = sensitivity.sensitivities(
        case_of(PANEL), FIGURES, progress=lambda done, all: told.append((done, all))
    )
    return {one.figure.name: one for one in some}, told


@pytest.fixture(scope="module")
def whole():
    """Of a satellite with all but a loop, by name."""
    names = ("peak_panel_temperature", "margin_of_state_of_charge", "mass", "delivered_compute")
    return {one.figure.name: one for one in sensitivity.sensitivities(case_of(WHOLE), names)}


def slopes(one):
    return {effect.key.name: effect.slope for effect in one.effects}


def test_every_key_is_there_and_progress_is_told(found):
    by_name, told = found
    assert list(by_name) == list(FIGURES)
    known = set(keys.continuous(case_of(PANEL)))
    for one in by_name.values():
        assert {effect.key.name for effect in one.effects} == known
        groups = (one.ranked, one.unranked, one.idle)
        assert {effect.key.name for group in groups for effect in group} == known
    assert told[0] == (0, 2) and told[-1] == (2 * len(FIGURES), 2 * len(FIGURES))


def test_mass_and_area_are_exact(found):
    mass, area = (slopes(found[0][name]) for name in ("mass", "radiator_area"))
    assert area == {name: float(name == "radiator.area_m2") for name in area}
    share = 1.1  # what is carried, and the structure for it
    expected = {
        "radiator.area_m2": share * (2700 * 1e-3 + 0.1 / 0.2),
        "radiator.thickness_mm": share * 4 * 2700 * 1e-3,
        "radiator.tube_pitch_m": -share * 4 * 0.1 / 0.2**2,
        "structure.mass_kg": 1.0,
        "structure.mass_share": 4 * (2.7 + 0.5),
        "orbit.altitude_km": 0.0,
        "radiator.heat_w_m2": 0.0,
    }
    for name, value in expected.items():
        assert mass[name] == pytest.approx(value, rel=1e-12), name


def differences(case, names, figures):
    """Central ones of some figures, over 1 % of each key up and down, (figures, keys), and twice those steps."""
    model = Differentiable(case, list(names))
    x = np.asarray(model.start)
    batch = model.batch(np.concatenate([x + np.diag(0.01 * x), x - np.diag(0.01 * x)]))
    up, down = np.moveaxis(np.array([np.asarray(batch[name]).reshape(2, -1) for name in figures]), 1, 0)
    return (up - down) / (0.02 * x), 0.02 * x


def assert_agree(found, case, names, figures):
    """Periodic orbits are found to 1e-5 K; the differences' own error, of second order, is below 1e-3 of these."""
    taken, steps = differences(case, names, figures)
    for figure, row in zip(figures, taken):
        exact = slopes(found[figure])
        for name, difference, step in zip(names, row, steps):
            assert exact[name] == pytest.approx(difference, rel=1e-3, abs=2e-5 / step), (figure, name)


@pytest.mark.slow
def test_slopes_are_those_of_central_differences(found):
    names = ("radiator.heat_w_m2", "orbit.altitude_km", "radiator.emissivity", "environment.solar_flux_w_m2")
    assert_agree(found[0], case_of(PANEL), names, ("peak_panel_temperature",))


@pytest.mark.slow
def test_slopes_of_a_whole_satellite(whole):
    names = ("radiator.area_m2", "payload.power_kw", "orbit.altitude_km", "battery.capacity_kwh")
    figures = ("peak_panel_temperature", "margin of state of charge")
    assert_agree(whole, case_of(WHOLE), names, figures)
    mass, compute = (slopes(whole[name]) for name in ("mass", "delivered_compute"))
    assert mass["battery.capacity_kwh"] == pytest.approx(1.1 * 1000 / 140)
    assert mass["payload.power_kw"] == pytest.approx(1.1 * 5)
    # Compute that nothing holds back is what is asked, and depends on no temperature: 0, not 0 / 0.
    assert compute["payload.power_kw"] == pytest.approx(1.0)
    assert compute["payload.demand"] == pytest.approx(1.2)
    assert compute["radiator.area_m2"] == 0
    assert whole["delivered_compute"].place is None
    # The first epoch lies in the eclipse season, the second, half a year later, does not.
    charge = whole["margin of state of charge"]
    assert f"{charge.place.epoch:%Y-%m}" == "2027-06" and charge.ties == ()


def test_ranked_by_what_one_per_cent_does(found):
    one = found[0]["peak_panel_temperature"]
    sizes = [abs(effect.effect) for effect in one.ranked]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] > 0
    by_name = {effect.key.name: effect for effect in one.effects}
    heat = by_name["radiator.heat_w_m2"]
    assert heat.effect == pytest.approx(heat.slope * 3) and heat.effect > 0 and not heat.sigma
    assert by_name["environment.space_temperature_k"].change == pytest.approx(0.027255)
    # 1 % of a temperature is 1 % of what it is in kelvin; nothing is 1 % of zero.
    assert by_name["radiator.max_temperature_c"].change == pytest.approx(0.01 * (120 + 273.15))
    # A body that hides the sky warms the panel; none does.
    body = by_name["radiator.body_view"]
    assert body.key.value == 0 and body.effect is None and body.slope != 0 and body in one.unranked
    assert by_name["mass.launch_price_usd_kg"] in one.idle
    assert one.place is not None and found[0]["mass"].place is None


def test_one_sigma_where_the_case_has_it():
    emissivity = "{key='radiator.emissivity', sigma=0.02}"
    body = "{key='radiator.body_view', distribution='uniform', low=0, high=0.06}"
    case = case_of(PANEL, f"uncertainty.of=[{emissivity}, {body}]")
    changes = sensitivity._changes(case, keys.continuous(case))
    # Cut at three sigma a normal loses 1.3 % of its own; uniform has its width over the root of 12.
    change, is_sigma = changes["radiator.emissivity"]
    assert is_sigma and change == pytest.approx(0.02, rel=0.02)
    assert changes["radiator.body_view"] == (pytest.approx(0.06 / 12**0.5), True)
    assert changes["radiator.heat_w_m2"] == (3, False)


@pytest.mark.slow
def test_least_margin_is_chosen_and_shared_extremes_are_told(capsys):
    # Two planes a millimetre apart are the same orbit twice.
    twice = case_of(PANEL, "epoch.count=1", "orbit.planes=2", "orbit.altitude_max_km=650.000001")
    (one,) = sensitivity.sensitivities(twice)
    assert one.figure.name == "margin of panel hottest"
    assert len(one.ties) == 1 and {one.place.satellite, one.ties[0].satellite} == {"p1-s1", "p2-s1"}
    sensitivity.show([one], cli._console(), 3)
    assert "the extreme is also reached at" in capsys.readouterr().out


def test_unmet_power_comes_before_temperatures(found):
    def margin(name, unit):
        return Figure(f"margin of {name}", unit, 1, "", SimpleNamespace(name=name))

    figures = [margin("panel hottest", "K"), margin("battery coldest", "K"), margin("energy balance", "kWh")]
    names = [one.name for one in figures]
    for values, which in (([9.0, 3.0, 0.1], 1), ([-9.0, 3.0, -0.1], 2)):
        assert sensitivity._nearest(figures, dict(zip(names, values))) is figures[which]


def test_strict_json_with_every_key(found, tmp_path):
    case, some = case_of(PANEL), list(found[0].values())
    assert sensitivity.write(tmp_path / "out", case, some) == ["sensitivity.json", "sensitivity.png"]
    text = (tmp_path / "out" / "sensitivity.json").read_text()
    told = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert [one["name"] for one in told["figures"]] == list(FIGURES)
    assert {one["key"] for one in told["figures"][0]["keys"]} == set(keys.continuous(case))
    panel = {one["key"]: one for one in told["figures"][0]["keys"]}
    assert panel["radiator.area_m2"]["derivative_unit"] == "K/m2"
    assert panel["radiator.emissivity"]["derivative_unit"] == "K"
    assert panel["environment.solar_flux_w_m2"]["derivative_unit"] == "K/(W/m2)"
    assert panel["radiator.max_temperature_c"]["derivative_unit"] == "K/K"
    assert (tmp_path / "out" / "sensitivity.png").stat().st_size > 10_000
    # The same command may write there again; not among other files.
    sensitivity.write(tmp_path / "out", case, some[:1])


def call(*arguments):
    result = CliRunner().invoke(cli.app, ["sensitivity", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def case_file(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(PANEL)
    return path


@pytest.mark.slow
def test_command_shows_writes_and_names_the_rest(case_file, tmp_path):
    result = call(
        case_file, "--of", "peak_panel_temperature", "--environment", "hot", "--top", 3, "--out", tmp_path / "s",
        "--set", "epoch.count=1",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for words in (
        "peak_panel_temperature:",
        "at p1-s1, 2027-06-21, hot",
        "radiator.emissivity",
        "more with an influence, all in sensitivity.json",
        "without influence:",
        "sensitivity.png",
    ):
        assert words in result.output
    (told,) = json.loads((tmp_path / "s" / "sensitivity.json").read_text())["figures"]
    # Where the environment is set by name its numbers do not vary.
    assert not [one for one in told["keys"] if one["key"] in keys.OF_LEVEL]
    assert told["at"]["condition"] == "hot"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--of", "peak_panel_temprature"), ("no figure 'peak_panel_temprature'", "peak_panel_temperature")),
        (("--of", "peak_chip_temperature"), ("no figure 'peak_chip_temperature'",)),
        (("--set", "run.mode=transient"), ("small.toml: run.mode: got 'transient'",)),
        (("--set", "radiator.area_m2=-1"), ("radiator.area_m2: got -1; must be > 0",)),
        (("--life", "end"), ("radiator.solar_absorptance_end: missing",)),
    ],
)
def test_bad_input_ends_with_one_message(arguments, words, case_file, tmp_path):
    result = call(case_file, "--out", tmp_path / "none", *arguments)
    assert result.exit_code == cli.BAD_INPUT
    assert result.stderr.startswith("error: ") and "Traceback" not in result.output
    for word in words:
        assert word in result.stderr


def test_directories_of_others_are_refused(case_file, tmp_path):
    result = call(case_file, "--out", tmp_path)
    assert result.exit_code == cli.BAD_INPUT
    assert "holds small.toml but no sensitivity.json: choose another --out" in result.stderr
    result = call(case_file, "--out", case_file)
    assert result.exit_code == cli.BAD_INPUT and "is a file: choose another --out" in result.stderr


@pytest.mark.slow
def test_figure_that_is_not_finite_is_refused():
    with pytest.raises(CaseError, match=r"small.toml: price_per_kwh is not finite; it has no derivative"):
        sensitivity.sensitivities(case_of(WHOLE, "payload.demand=0", "epoch.count=1"), ["price_per_kwh"])
