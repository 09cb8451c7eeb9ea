"""The command line: instant help, readable errors, the whole way from a case file to pictures."""

import json
import os
import subprocess
import sys

import pytest
from dawndusk.solver import cli
from typer.testing import CliRunner

runner = CliRunner()

CASE = """
title = "small test case"

[epoch]
start = 2027-06-21T00:00:00Z
count = 2

[orbit]
kind = "sun_synchronous"
altitude_km = 650
ltan_h = 18
satellites_per_plane = 3

[attitude]
pointing = "sun"
roll = "along_track"

[array]
area_m2 = 105
efficiency = 0.2
temperature_coefficient_per_k = -0.003
drive = "fixed"
axis = "+z"
solar_absorptance = 0.75
emissivity_front = 0.82
emissivity_back = 0.82
back_solar_absorptance = 0.3
areal_heat_capacity_j_m2_k = 1500
areal_mass_kg_m2 = 1.6

[battery]
capacity_kwh = 12
min_soc = 0.3
max_soc = 0.95
charge_limit_kw = 8
discharge_limit_kw = 30
heat_capacity_kj_k = 80
to_structure_w_k = 30

[bus]
base_load_kw = 1

[payload]
power_kw = 12
packages = 40
junction_resistance_k_w = 0.08
chip_heat_capacity_j_k = 120
cold_plate_heat_capacity_kj_k = 50
eclipse_demand = 0.5

[loop]
coolant = "ammonia"
mass_flow_kg_s = 0.3
cold_plate_conductance_w_k = 2700
wall_conductance_w_m_k = 20
max_temperature_c = 60
min_temperature_c = -60

[radiator]
area_m2 = 28
length_m = 4
tube_pitch_m = 0.1
thickness_mm = 1.0
conductivity_w_m_k = 167
density_kg_m3 = 2700
specific_heat_j_kg_k = 896
emissivity = 0.88
solar_absorptance_begin = 0.14
solar_absorptance_end = 0.22
normal = "+x"

[run]
steps = 16
cells = [4, 6]
"""


@pytest.fixture
def case_file(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(CASE)
    return path


def call(*arguments):
    result = runner.invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_help_needs_no_jax():
    code = (
        "import sys; from dawndusk.solver import cli\n"
        "try: cli.app(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit('jax' in sys.modules or 'xarray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for verb in ("run", "check", "plot", "schema"):
        assert verb in done.stdout


def test_importing_dawndusk_does_not_import_the_runner():
    heavy = ("xarray", "matplotlib", "rich", "typer", "pydantic")
    code = f"import sys, dawndusk; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_schema_is_json_schema():
    result = call("schema")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["properties"]["radiator"] and found["additionalProperties"] is False


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda text: text.replace("area_m2 = 28", "aera_m2 = 28"),
            ("radiator.aera_m2", "did you mean area_m2"),
        ),
        (
            lambda text: text.replace("capacity_kwh = 12", "capacity_kwh = -5"),
            ("battery.capacity_kwh", "got -5"),
        ),
        (lambda text: text + "\n[[[", ("not valid TOML",)),
    ],
)
def test_bad_cases_end_with_one_message(case_file, change, words):
    case_file.write_text(change(CASE))
    for verb in ("run", "check"):
        result = call(verb, case_file)
        assert result.exit_code == cli.BAD_INPUT
        assert result.stderr.startswith("error: ") and "Traceback" not in result.output
        for word in words:
            assert word in result.stderr


def test_missing_file_override_and_directory(case_file, tmp_path):
    result = call("run", tmp_path / "no.toml")
    assert (
        result.exit_code == cli.BAD_INPUT and "no.toml" in result.stderr and "no such file" in result.stderr
    )
    result = call("run", case_file, "--set", "orbit.altitude_km")
    assert result.exit_code == cli.BAD_INPUT and "key=value" in result.stderr
    result = call("plot", tmp_path)
    assert result.exit_code == cli.BAD_INPUT and "run directory" in result.stderr


def test_absent_device_is_said_so(case_file):
    environment = os.environ | {"JAX_PLATFORMS": "", "XLA_FLAGS": ""}
    code = f"from dawndusk.solver.cli import app; app(['run', {str(case_file)!r}, '--device', 'tpu'])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == cli.BAD_INPUT
    assert "no tpu on this machine" in done.stderr and "Traceback" not in done.stderr


def test_from_case_to_pictures(case_file, tmp_path):
    out = tmp_path / "out"
    result = call("run", case_file, "--out", out, "--precision", "double")
    assert result.exit_code == 0, result.output
    for words in ("chip hottest", "state of charge", "binding", "energy closure", "TWh a year", "m2/kW"):
        assert words in result.stdout
    found = json.loads((out / "summary.json").read_text(), parse_constant=pytest.fail)
    assert found["complete"] and found["satellites"] == 3 and found["rows"] == 2
    # Double precision: both balances close to the rounding of sums of 16 steps, and the orbit is periodic.
    assert found["energy"]["heat_residual"] < 1e-3 and found["energy"]["bus_residual"] < 1e-9
    for name in ("case.toml", "revolution.png", "panel.png", "fleet.png"):
        assert (out / name).stat().st_size > 100

    # The same run again finds all of it done; another case is refused; the pictures can be drawn again.
    result = call("run", case_file, "--out", out, "--precision", "double")
    assert (
        result.exit_code == 0
        and json.loads((out / "summary.json").read_text())["wall_s"]["rows_solved_now"] == 0
    )
    result = call("run", case_file, "--out", out, "--precision", "double", "--set", "payload.power_kw=11")
    assert result.exit_code == cli.BAD_INPUT and "another case" in result.stderr
    (out / "panel.png").unlink()
    assert call("plot", out).exit_code == 0 and (out / "panel.png").exists()


def test_infeasible_case_is_run_and_said_so(case_file, tmp_path):
    result = call(
        "run", case_file, "--out", tmp_path / "out", "--precision", "double", "--set", "array.area_m2=20"
    )
    assert result.exit_code == cli.INFEASIBLE
    assert "infeasible: no power balance" in result.stderr and "Traceback" not in result.output
    found = json.loads((tmp_path / "out" / "summary.json").read_text(), parse_constant=pytest.fail)
    assert len(found["infeasible"]) == 1 and "p1-s1" in found["infeasible"][0]


def test_check_shows_case_and_derived(case_file):
    result = call("check", case_file, "--precision", "double")
    assert result.exit_code == 0, result.output
    for words in (
        "orbit.altitude_km",
        "650000 m",
        "period",
        "beta",
        "eclipse",
        "mean flux",
        "equilibrium panel",
    ):
        assert words in result.stdout


def test_check_without_a_case_shows_cases_and_devices():
    result = call("check")
    assert result.exit_code == 0, result.output
    assert "devices" in result.stdout
