"""Runs of fluxes alone: the kernel's numbers are stored, whatever stops the run, and the summary is theirs."""

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr
from dawndusk.kernels import orbit_average
from dawndusk.kernels.constants import MU_EARTH
from dawndusk.solver import build, case, cli, flux, flux_plots, flux_summary, plots, results, run
from typer.testing import CliRunner

pytestmark = pytest.mark.usefixtures("compile_once")

# Three planes of two satellites of a draw each, 24 rows in chunks of 8 at most on two devices; an eclipse season in
# June for the lowest.
SMALL = ("orbit.planes=3", "orbit.satellites_per_plane=2", "epoch.count=4", "epoch.span_days=365")
ROWS, CHUNK = 24, 4


def load(*overrides):
    return case.load("project_sunrise", [*SMALL, *overrides])


def solve(loaded, out, progress=lambda done, rows: None, **changes):
    outcome = run.run(
        loaded, out, kind=flux.FluxSolver, precision="double", chunk=CHUNK, progress=progress, **changes
    )
    flux.conclude(outcome)
    return outcome


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return solve(load(), tmp_path_factory.mktemp("flux"))


def call(*arguments):
    with pytest.MonkeyPatch.context() as patch:
        # What the command sets up would have the next test compile its programs again.
        patch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"])
        patch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)  # pyright: ignore
        result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def command(out, *options):
    sets = itertools.chain.from_iterable(("--set", item) for item in SMALL)
    words = ("run", "project_sunrise", "--only", "flux", "--precision", "double", "--chunk", str(CHUNK))
    return [*words, "--out", str(out), *sets, *options]


def stored(out):
    with xr.open_zarr(out / results.DATASET, mask_and_scale=False) as data:
        return data.load()


def test_what_is_stored_is_what_the_kernel_gives(finished):
    data = results.open_run(finished.path)
    assert data["absorbed_w_m2"].dims == ("satellite", "epoch", "face")
    every = build.rows_of(finished.fleet.revolutions, np.arange(ROWS), 0)
    found = jax.jit(orbit_average.fleet_fluxes)(jax.tree.map(np.ascontiguousarray, every))

    def check(name, value, **at):
        value = np.moveaxis(np.asarray(value), -1, 0)[finished.fleet.row]
        # float32 rounds what is stored.
        np.testing.assert_allclose(data[name].sel(**at).values, value, rtol=1e-6, atol=1e-6, err_msg=name)

    check("incident_w_m2", found.incident)
    check("incident_w_m2", found.incident[1:2, 6:7], source=["albedo"], face=["radiator_0"])
    check("absorbed_w_m2", found.absorbed)
    check("absorbed_max_w_m2", found.absorbed_peak)
    check("absorbed_min_w_m2", found.absorbed_least)
    check("beta_deg", np.degrees(found.beta))
    check("period_min", found.period / 60)
    check("eclipse_min", found.eclipse_fraction * found.period / 60)
    check("umbra_min", found.umbra_seconds / 60)
    check("penumbra_min", found.penumbra_seconds / 60)
    assert (data["status"] == 0).all()
    assert data["eclipse_min"].max() > 20 and (data["eclipse_min"] == 0).any()


def test_every_variable_says_what_it_is(finished):
    data = stored(finished.path)
    for name, variable in data.data_vars.items():
        assert variable.attrs["units"] and variable.attrs["long_name"], name
    assert data.attrs["case_hash"] == case.case_hash(finished.case) and "jax_version" in data.attrs
    assert data["face"].values.tolist() == list(flux.FACES)
    assert data["revolution_index"].shape == (6, 4)
    a_row = sum(data[name].dtype.itemsize * data[name].size // ROWS for name in flux.VARIABLES) + 1  # status
    assert a_row == 261
    assert len(flux.faces(case.load("starcloud_panel"))) == 8  # it has no array


def test_a_killed_run_goes_on_where_it_was(finished, tmp_path):
    def stop(done, rows):
        if done == 16:
            raise KeyboardInterrupt

    first = solve(load(), tmp_path, stop)
    assert first.interrupted and first.solved_now == 16
    said = flux_summary.summarise(first)
    assert said["rows_solved"] == 16 and not said["complete"] and said["planes"]
    # Killed in the middle of a chunk's files: it counts as not done.
    next((tmp_path / results.DATASET / "absorbed_w_m2").glob("1.*")).write_bytes(b"cut")
    seen = []
    second = solve(load(), tmp_path, lambda done, rows: seen.append((done, rows)))
    assert seen == [(8, 24), (16, 24), (24, 24)] and second.solved_now == 16 and not second.interrupted
    xr.testing.assert_equal(stored(tmp_path), stored(finished.path))


def test_a_row_that_is_not_finite_leaves_the_others_alone(finished, tmp_path, monkeypatch):
    good = build.roster

    def one_bad(*given):
        fleet = good(*given)
        flux = np.array(fleet.revolutions.solar_flux)
        flux[3] = np.nan
        return replace(fleet, revolutions=replace(fleet.revolutions, solar_flux=flux))

    monkeypatch.setattr(build, "roster", one_bad)
    bad = solve(load(), tmp_path)
    status = np.zeros(ROWS)
    status[3] = results.FAILED
    np.testing.assert_array_equal(bad.scalars["status"], status)
    mine, whole = stored(tmp_path), stored(finished.path)
    for name in flux.VARIABLES:
        np.testing.assert_array_equal(np.delete(mine[name], 3, 0), np.delete(whole[name], 3, 0))
        assert (mine[name][3] == np.float32(results.FILL)).all()
    said = flux_summary.summarise(bad)
    assert said["failed"]["first"] == [{"satellite": "p1-s1", "epoch": "2028-03-20T18:00Z"}]
    assert "p1-s1 at 2028-03-20" in said["warnings"][0]
    json.dumps(said, allow_nan=False)


def test_the_summary_is_the_datasets(finished):
    said, data = flux_summary.summarise(finished), results.open_run(finished.path).load()
    near = lambda value: pytest.approx(float(value), rel=1e-5, abs=1e-6)  # noqa: E731

    def place(entry, values):
        """The entry is the value at its satellite and epoch."""
        epoch = np.datetime64(entry["epoch"].removesuffix("Z"))
        assert entry["value"] == near(values.sel(satellite=entry["satellite"], epoch=epoch))

    eclipse, absorbed = data["eclipse_min"], data["absorbed_w_m2"]
    assert said["eclipse"]["longest_min"]["value"] == near(eclipse.max())
    place(said["eclipse"]["longest_min"], eclipse)
    place(said["eclipse"]["longest_umbra_min"], data["umbra_min"])
    assert said["eclipse"]["longest_umbra_min"]["value"] == near(data["umbra_min"].max())
    assert said["eclipse"]["share_of_time"] == near((eclipse / data["period_min"]).mean())
    assert said["eclipse"]["never_eclipsed"] == int((eclipse.max("epoch") < 1e-3).sum())
    dark = (eclipse > 1e-3).any("satellite").values
    assert said["eclipse"]["epochs"] == dark.sum() and said["eclipse"]["days"] == near(dark.sum() * 365 / 4)
    assert said["eclipse"]["seasons"] == [["2027-06-21T00:00Z", "2027-06-21T00:00Z"]]
    assert said["beta_deg"]["least"]["value"] == near(data["beta_deg"].min())
    assert said["beta_deg"]["greatest"]["value"] == near(data["beta_deg"].max())
    both = absorbed.sel(face=list(flux.RADIATOR)).sum("face")
    entries = {one["face"]: one for one in said["absorbed_w_m2"]["faces"]}
    for face, one in entries.items():
        for key, values, extreme in (
            ("hottest", absorbed, np.max),
            ("coldest", absorbed, np.min),
            ("peak", data["absorbed_max_w_m2"], np.max),
            ("least", data["absorbed_min_w_m2"], np.min),
        ):
            assert one[key]["value"] == near(extreme(values.sel(face=face).values))
            place(one[key], values.sel(face=face))
        assert one["mean"] == near(absorbed.sel(face=face).mean())
    radiator = said["absorbed_w_m2"]["radiator"]
    assert radiator["mean"] == near(both.mean()) and radiator["hottest"]["value"] == near(both.max())
    place(radiator["coldest"], both)

    assert [one["satellites"] for one in said["planes"]] == [2, 2, 2] and said["planes_left_out"] == 0
    for k, one in enumerate(said["planes"]):
        mine = {"satellite": slice(2 * k, 2 * k + 2)}
        assert one["first"] == f"p{k + 1}-s1"
        assert one["beta_deg"] == [near(f(data["beta_deg"].isel(mine))) for f in (np.min, np.max)]
        assert one["longest_eclipse_min"] == near(eclipse.isel(mine).max())
        when = data["epoch"].values[eclipse.isel(mine).max("satellite").values.argmax()]
        assert np.datetime64(one["longest_eclipse_epoch"].removesuffix("Z")) == when
        assert one["share_of_time_eclipsed"] == near((eclipse / data["period_min"]).isel(mine).mean())
        assert one["absorbed_w_m2"]["radiator"]["hottest"] == near(both.isel(mine).max())
        assert one["absorbed_w_m2"]["body_+z"]["coldest"] == near(
            absorbed.sel(face="body_+z").isel(mine).min()
        )
        assert one["epochs"] == int((eclipse.isel(mine) > 1e-3).any("satellite").sum())


def test_the_summary_counts_satellites_that_share_a_row(tmp_path):
    """One plane of 81 satellites and one row an epoch: as many satellites as are there are counted."""
    outcome = solve(case.load("suncatcher", ["epoch.count=3"]), tmp_path)
    said, data = flux_summary.summarise(outcome), results.open_run(tmp_path)
    assert outcome.rows == 3 and data["beta_deg"].shape == (81, 3)
    assert said["planes"][0]["satellites"] == 81
    assert said["eclipse"]["never_eclipsed"] == 81 * int(data["eclipse_min"].max() < 1e-3)


def test_pictures_of_a_large_fleet_show_some_satellites_and_count_all(finished, monkeypatch):
    pictures = plots.plot(finished.path)
    assert [picture.name for picture in pictures] == ["fluxes.png", "season.png"]
    assert all(picture.read_bytes()[:4] == b"\x89PNG" for picture in pictures)
    # Two lines for six satellites, as a picture of thousands has.
    monkeypatch.setattr(flux_plots, "MOST_LINES", 2)
    monkeypatch.setattr(flux_plots, "FEW", 1)
    season, data = flux_plots.read(finished.path), results.open_run(finished.path).load()
    both, eclipse = data["absorbed_w_m2"].sel(face=list(flux.RADIATOR)).sum("face"), data["eclipse_min"]
    order = np.argsort(-both.mean("epoch").values)
    assert season.every == 3 and season.names == data["satellite"].values[order[::3]].tolist()
    np.testing.assert_allclose(season.radiator, both.values[order[::3]], rtol=1e-6)
    np.testing.assert_array_equal(season.eclipse, eclipse.values[order[::3]])
    np.testing.assert_array_equal(season.longest, eclipse.max("satellite"))
    np.testing.assert_allclose(season.mean, eclipse.mean("satellite"), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(season.eclipsed, (eclipse > 1e-3).mean("satellite"))
    np.testing.assert_allclose(season.beta_share.sum(axis=0), 1)
    assert len(plots.plot(finished.path)) == 2


def test_the_command_tells_refuses_and_draws_again(finished, tmp_path):
    shutil.copytree(finished.path, tmp_path / "out")
    result = call(*command(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.split())
    for words in ("fluxes only", "radiator_0", "longest eclipse 22.", "p1-s1", "season.png"):
        assert words in said, said
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["solves"] == "fluxes"
    # A full run of the same case has no business here, nor a run of fluxes in the directory of one.
    full = [word for word in command(tmp_path / "out") if word not in ("--only", "flux")]
    result = call(*full)
    assert result.exit_code == cli.BAD_INPUT and len(result.stderr.strip().splitlines()) == 1
    assert (
        "holds a run of another kind (solves fluxes, now temperatures): choose another --out" in result.stderr
    )
    plan = tmp_path / "out" / "plan.json"
    plan.write_text(plan.read_text().replace('"fluxes"', '"temperatures"'))
    result = call(*command(tmp_path / "out"))
    assert result.exit_code == cli.BAD_INPUT and "(solves temperatures, now fluxes)" in result.stderr
    result = call("plot", tmp_path / "out")
    assert result.exit_code == 0 and "fluxes.png" in result.stdout
    assert call(*command(tmp_path / "other")[:-2], "--only", "shadow").exit_code == 2


def test_one_epoch_without_any_eclipse(tmp_path):
    """The dawn-dusk planes at the equinox, high up: in the Sun all the time, and nothing to draw over time."""
    sets = ("epoch.count=1", "orbit.altitude_km=1500", "epoch.start=2027-03-21T00:00:00Z")
    outcome = solve(load(*sets), tmp_path)
    said = flux_summary.summarise(outcome)
    assert said["eclipse"]["longest_min"]["value"] == 0 and said["eclipse"]["seasons"] == []
    assert said["eclipse"]["never_eclipsed"] == 6 and said["eclipse"]["share_of_time"] == 0
    assert plots.plot(tmp_path) == []
    words = call(*command(tmp_path), *itertools.chain.from_iterable(("--set", item) for item in sets)).stdout
    assert "no eclipse at any epoch" in words


def test_each_set_of_a_catalogue_is_a_plane_of_its_own(tmp_path):
    """Period and beta of three element sets, from their elements by the textbook."""
    sets = json.loads((Path(__file__).parent / "reference" / "eclipse_tle.json").read_text())["cases"][:3]
    (tmp_path / "fleet.tle").write_text("".join(f"{one['name']}\n{one['l1']}\n{one['l2']}\n" for one in sets))
    text = case.find("suncatcher").read_text()
    start, end = text.index("[orbit]"), text.index("[", text.index("[orbit]") + 1)
    text = text[:start] + '[orbit]\nkind = "tle"\nfile = "fleet.tle"\n\n' + text[end:]
    (tmp_path / "mine.toml").write_text(text)
    loaded = case.load(
        tmp_path / "mine.toml", ["epoch.count=3", "epoch.start=2024-03-20T12:00:00Z", "epoch.span_days=3"]
    )
    outcome = solve(loaded, tmp_path / "out")
    data, fleet = results.open_run(tmp_path / "out"), outcome.fleet
    assert data["satellite"].values.tolist() == [one["name"] for one in sets]
    orbits, sun = (build.rows_of(x, np.arange(9), 0) for x in (fleet.orbits, fleet.revolutions.sun_hat))
    period = 2 * np.pi * np.sqrt(orbits.semi_major_axis**3 / MU_EARTH) / 60
    np.testing.assert_allclose(data["period_min"].values.ravel(), period, rtol=1e-6)
    i, node = orbits.inclination, orbits.raan
    normal = np.stack([np.sin(i) * np.sin(node), -np.sin(i) * np.cos(node), np.cos(i)], axis=-1)
    beta = np.degrees(np.arcsin(np.sum(normal * sun, axis=-1)))
    np.testing.assert_allclose(data["beta_deg"].values.ravel(), beta, atol=1e-4)
    said = flux_summary.summarise(outcome)
    assert [one["first"] for one in said["planes"]] == [one["name"] for one in sets]


@pytest.mark.slow
def test_two_processes_give_what_one_gives(finished, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{probe.getsockname()[1]}"
    join = ("--distributed", "--coordinator", where, "--processes", "2", "--process-index")
    parts = [
        subprocess.Popen(
            [sys.executable, "-m", "dawndusk", *command(tmp_path / "out", *join, str(k))],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for k in range(2)
    ]
    printed = [part.communicate(timeout=600)[0] for part in parts]
    assert [part.returncode for part in parts] == [0, 0], printed
    # Other compiler flags than in the tests: another program, which rounds otherwise.
    xr.testing.assert_allclose(stored(tmp_path / "out"), stored(finished.path), rtol=1e-6, atol=1e-6)
