"""The command line: instant help, readable errors, the whole way from a case file to pictures."""

import json
import os
import re
import subprocess
import sys

import pytest
import xarray as xr
from dawndusk.solver import cli
from dawndusk.solver.case import find
from typer.testing import CliRunner

runner = CliRunner()

# Small enough to compile and run while a reader waits, with an eclipse in the first of its two epochs.
SMALL = (
    "epoch.count=2",
    "orbit.satellites=3",
    "run.steps=48",
    "run.cells=[4, 6]",
    "run.error_estimate=false",
)
QUICK = ("--precision", "double", *(word for item in SMALL for word in ("--set", item)))


@pytest.fixture
def case_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(find("suncatcher").read_text())
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
    for verb in ("run", "study", "sensitivity", "check", "plot", "schema"):
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
            lambda text: text.replace("[radiator]", "[radiator]\naera_m2 = 28"),
            ("radiator.aera_m2", "did you mean area_m2"),
        ),
        (
            lambda text: text.replace("capacity_kwh = ", "capacity_kwh = -"),
            ("battery.capacity_kwh", "got -", "must be > 0"),
        ),
        (lambda text: text + "\n[[[", ("not valid TOML",)),
    ],
)
def test_bad_cases_end_with_one_message(case_file, change, words):
    case_file.write_text(change(case_file.read_text()))
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


def test_from_case_to_pictures(tmp_path):
    out = tmp_path / "out"
    result = call("run", "suncatcher", "--out", out, *QUICK, "--set", "run.error_estimate=true")
    assert result.exit_code == 0, result.output
    for words in (
        "time error",
        "no estimate of the error of the grid: 4 x 6 cells",
        "chip hottest",
        "state of charge",
        "binding",
        "energy closure",
        "TWh a year",
        "m2/kW",
        "GiB in use at most",
    ):
        assert words in " ".join(result.stdout.split())
    found = json.loads((out / "summary.json").read_text(), parse_constant=pytest.fail)
    assert [one["grid_error"] for one in found["accuracy"]["figures"]] == [None] * 6
    assert all(0 < abs(one["time_error"]) < 1 for one in found["accuracy"]["figures"])
    with xr.open_zarr(out / "results.zarr") as data:
        assert json.loads(data.attrs["discretisation_errors"]) == found["accuracy"]
        assert data.attrs["rows_per_s"] == found["rows_per_s"] > 0 and data.attrs["compile_s"] > 0
        assert data.attrs["devices"] == found["device"]["count"] and data.attrs["chunk"] == 2
        assert 0 < data.attrs["peak_memory_gib"] and 0 < data.attrs["device_memory_gib"]
    assert found["complete"] and found["satellites"] == 3 and found["rows"] == 2
    # Trapezoids of T^4 over 48 steps of 120 s; the bus has no such error.
    assert found["energy"]["heat_residual"] < 1e-3 and found["energy"]["bus_residual"] < 1e-9
    # The design closes, with little to spare: 18 kW of a 24 kW array at the end of life.
    assert all(limit["met"] for limit in found["limits"]) and 1 < found["binding"]["headroom"] < 1.2
    for name in ("case.toml", "revolution.png", "panel.png", "fleet.png"):
        assert (out / name).stat().st_size > 100

    # The same run again finds all of it done; another case is refused; the pictures can be drawn again.
    result = call("run", "suncatcher", "--out", out, *QUICK, "--set", "run.error_estimate=true")
    assert result.exit_code == 0
    assert json.loads((out / "summary.json").read_text())["wall_s"]["rows_solved_now"] == 0
    result = call("run", "suncatcher", "--out", out, *QUICK, "--set", "payload.power_kw=11")
    assert result.exit_code == cli.BAD_INPUT and "another case" in result.stderr
    (out / "panel.png").unlink()
    assert call("plot", out).exit_code == 0 and (out / "panel.png").exists()


def test_infeasible_case_is_run_and_said_so(tmp_path):
    out = tmp_path / "out"
    result = call("run", "suncatcher", "--out", out, *QUICK, "--set", "array.efficiency=0.1")
    assert result.exit_code == cli.INFEASIBLE
    assert "infeasible: no power balance" in result.stderr and "Traceback" not in result.output
    found = json.loads((out / "summary.json").read_text(), parse_constant=pytest.fail)
    assert len(found["infeasible"]) == 1 and "(s1, 2027-" in found["infeasible"][0]


def test_check_shows_case_and_derived():
    result = call("check", "suncatcher", *QUICK)
    assert result.exit_code == 0, result.output
    for words in (
        "orbit.altitude_km",
        "650000 m",
        "period",
        "beta",
        "eclipse",
        "mean flux",
        "equilibrium panel",
        "devices",
        "1 of 2 rows",
    ):
        assert words in result.stdout
    said = " ".join(result.stdout.split())
    # Of a satellite and epoch the figures; of a revolution them once more, to go on from, and two maps of 24 cells.
    each, row = (
        int(number) for number in re.search(r"(\d+) bytes for each .*, ([\d]+) a rev", said).groups()
    )
    assert 500 < each < 700 and row - each == 2 * 24 * 8


@pytest.mark.slow
def test_check_measures_what_a_run_takes():
    result = call("check", "suncatcher", *QUICK, "--measure")
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.split())
    assert re.search(r"memory of a chunk [\d.]+ [kM]B of a device", said)
    assert re.search(r"time about 1 s at [\d,]+ revolutions/s, measured on 1 chunks", said)
    alone = call("check", "--measure")
    assert alone.exit_code == 2 and "--measure goes with a case" in alone.stderr


def test_check_shows_the_film_in_the_tubes(case_file):
    """75 tubes of 4 m, 0.32 kg/s of ammonia: what the case's own constant of 21 W/m/K was derived from."""
    text = case_file.read_text()
    assert "tubes" not in call("check", case_file, *QUICK).stdout.split("mean flux")[1]
    constant = next(line for line in text.splitlines() if line.startswith("wall_conductance_w_m_k"))
    case_file.write_text(text.replace(constant, "tube_diameter_mm = 6\nbond_conductance_w_m_k = 40"))
    result = call("check", case_file, *QUICK)
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.split())
    assert "tubes 75, Reynolds 7,935, Prandtl 1.27, Nusselt 31.7, 21 W/m/K to the panel" in said
    assert "straight tubes take 0.43 kPa" in said
    # Half as many with twice the flow, twice as long.
    result = call("check", case_file, *QUICK, "--set", "radiator.tube_layout=u")
    said = " ".join(result.stdout.split())
    assert "tubes 37.5, Reynolds 15,871" in said and "U tubes without bends take 2.85 kPa" in said


def test_check_without_a_case_shows_cases_and_devices():
    result = call("check")
    assert result.exit_code == 0, result.output
    for words in ("suncatcher", "starlink_ai", "devices", "cpu"):
        assert words in result.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--process-index", "1"], ["--process-index goes with --distributed"]),
        (["--distributed", "--processes", "2"], ["go together", "got --processes only"]),
        (
            ["--distributed", "--coordinator", "a:1", "--processes", "2", "--process-index", "2"],
            ["--process-index: got 2", "below --processes, 2"],
        ),
    ],
)
def test_processes_are_named_whole(case_file, options, words):
    result = call("run", case_file, *options)
    assert result.exit_code == 2
    said = " ".join(result.stderr.split())
    assert all(word in said for word in words), said


def test_distributed_outside_a_cluster_says_what_to_give(case_file, tmp_path):
    """In a process of its own: JAX must not have computed before."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "dawndusk",
            "run",
            str(case_file),
            "--distributed",
            "--out",
            str(tmp_path / "out"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "JAX finds no cluster" in done.stderr and "--coordinator HOST:PORT" in done.stderr
