"""The chunked run: independent of chunks, resumable, one bad row beside good ones, revolutions joined."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from dawndusk.kernels import revolution
from dawndusk.kernels.panel import extremes
from dawndusk.solver import build, case, devices, results, run
from jax.experimental.compilation_cache import compilation_cache

# A dawn-dusk year in five epochs, the first with an eclipse, on the coarsest panel.
SMALL = ("epoch.count=5", "run.steps=32", "run.cells=[4, 6]", "run.save=nodes")


@pytest.fixture(scope="module", autouse=True)
def compile_once(tmp_path_factory):
    """Runs of one shape share a program, as they do through the user's cache."""
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    )
    before = [getattr(jax.config, name) for name in names]
    for name, value in zip(names, (str(tmp_path_factory.mktemp("xla")), 0.0, -1)):
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in zip(names, before):
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def load(*overrides):
    return case.load("suncatcher", [*SMALL, *overrides])


def run_small(out, progress=lambda done, rows: None, **changes):
    outcome = run.run(load(), out, precision="double", chunk=1, progress=progress, **changes)
    run.conclude(outcome)
    return outcome


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Two rows at a time on two devices: three chunks, the last one padded."""
    return run_small(tmp_path_factory.mktemp("straight"))


def test_saved_cells_are_the_recorded_march(tmp_path):
    """Panels of every step, marched once more: their extremes are those that the record found on its way."""
    wanted = load("epoch.count=1", "run.save=cells")
    outcome = run.run(wanted, tmp_path, precision="double", chunk=1, progress=lambda done, rows: None)
    run.conclude(outcome)
    with xr.open_zarr(tmp_path / results.DATASET) as data:
        panel = jax.tree.map(jnp.asarray, outcome.fleet.params.panel)
        panels = data["cell_c"].values.reshape(-1, 4, 6, 1)
        hottest = max(float(extremes(panel, jnp.asarray(T))[0][0]) for T in panels)
    assert hottest == pytest.approx(float(outcome.scalars["panel_max_c"][0]), abs=1e-3)


def test_rows_converge_and_energy_closes(straight):
    scalars = straight.scalars
    assert scalars["status"].tolist() == [0] * 5
    assert scalars["closure_k"].max() < 1e-2  # twice the tolerance of the periodic solve
    # 1e-3: trapezoids of T^4 over 32 steps of 180 s; the bus has no such error.
    assert np.abs(scalars["heat_residual"]).max() < 1e-3
    assert np.abs(scalars["bus_residual"]).max() < 1e-9
    # Eclipse around the June solstice only, and colder then.
    assert (scalars["eclipse_min"] > 1).tolist() == [True, False, False, False, False]
    chip = straight.fleet.params.network.names.index("chip")
    assert scalars["node_min_c"][0, chip] < scalars["node_min_c"][2, chip] - 20
    # Nothing is shed: what is made and not taken stays in the array.
    np.testing.assert_allclose(scalars["payload_power_kw"], scalars["payload_asked_kw"], rtol=1e-9)
    np.testing.assert_allclose(scalars["compute_kwh_day"], 24 * scalars["payload_power_kw"], rtol=1e-9)


def test_extremes_are_those_of_the_series(straight):
    with xr.open_zarr(straight.path / results.DATASET) as data:
        assert data["node_c"].sizes["revolution"] == 5 and data["node_c"].sizes["time"] == 32
        np.testing.assert_allclose(data["node_c"].max("time").values, straight.scalars["node_max_c"])
        mean = (data["array_available_series_kw"] * data["step_s"]).sum("time") / data["step_s"].sum("time")
        np.testing.assert_allclose(mean, straight.scalars["array_available_kw"])
        maps = data["panel_hottest_c"].values.reshape(5, *straight.case.run.cells)
        # The extreme counts the panel's edges, beyond the cells' centres; float32 holds it to 1e-4 K.
        panel = jax.tree.map(jnp.asarray, straight.fleet.params.panel)
        top, _ = extremes(panel, jnp.asarray(np.moveaxis(maps, 0, -1)))
        np.testing.assert_allclose(top, straight.scalars["panel_max_c"], atol=1e-3)
        # 81 satellites share each epoch's row.
        assert data["panel_max_c"].shape == (81, 5)
        assert (data["panel_max_c"].values == straight.scalars["panel_max_c"]).all()
        assert np.isfinite(data["panel_max_c"].values).all()
    whole = results.open_run(straight.path)
    assert whole["node_c"].dims == ("satellite", "epoch", "time", "node")


def test_interrupted_run_goes_on_and_ends_the_same(straight, tmp_path):
    def stop(done, rows):
        if done == 2:
            raise KeyboardInterrupt

    first = run_small(tmp_path, stop)
    assert first.interrupted and first.scalars["status"].tolist() == [0, 0, -1, -1, -1]
    with xr.open_zarr(tmp_path / results.DATASET) as data:
        assert np.isfinite(data["panel_max_c"].values).sum() == 81 * 2
    seen = []
    second = run_small(tmp_path, lambda done, rows: seen.append((done, rows)))
    assert seen == [(2, 5), (4, 5), (5, 5)] and second.solved_now == 3 and not second.interrupted
    for name, value in straight.scalars.items():
        np.testing.assert_array_equal(second.scalars[name], value, err_msg=name)
    with (
        xr.open_zarr(tmp_path / results.DATASET) as one,
        xr.open_zarr(straight.path / results.DATASET) as two,
    ):
        xr.testing.assert_equal(one, two)


def test_a_row_that_fails_leaves_the_others_alone(straight, tmp_path, monkeypatch):
    good = build.build

    def one_bad(loaded, dtype):
        fleet = good(loaded, dtype)
        # Row 3 sits beside row 2 in its chunk; a Sun of no number is as bad as it gets.
        flux = np.array(fleet.revolutions.solar_flux)
        flux[3] = np.nan
        return replace(fleet, revolutions=replace(fleet.revolutions, solar_flux=flux))

    monkeypatch.setattr(build, "build", one_bad)
    bad = run_small(tmp_path)
    assert bad.scalars["status"].tolist() == [0, 0, 0, results.FAILED, 0]
    for name, value in straight.scalars.items():
        others = [0, 1, 2, 4]
        np.testing.assert_array_equal(bad.scalars[name][others], value[others], err_msg=name)
        if np.issubdtype(value.dtype, np.floating):
            assert (bad.scalars[name][3] == results.FILL).all()


def test_payload_power_scales(straight):
    found = straight.solver.solve(np.array([2, 2]), np.array([1.0, 1.2]), throttle=False)
    np.testing.assert_allclose(found["payload_asked_kw"][1] / found["payload_asked_kw"][0], 1.2)
    np.testing.assert_allclose(found["node_max_c"][0], straight.scalars["node_max_c"][2], atol=1e-9)
    chip = straight.fleet.params.network.names.index("chip")
    assert found["node_max_c"][1, chip] > found["node_max_c"][0, chip] + 10


def test_successive_revolutions_reach_the_periodic_one(straight, tmp_path):
    # Slowest time constant about 2 h, a revolution 1.6 h: after 10 of them exp(-8) of some 50 K is left, and
    # the Sun has moved by 0.7 deg on the way.
    loaded = load("run.mode=transient", "run.revolutions=10", "epoch.count=1", "run.start_temperature_c=30")
    outcome = run.run(loaded, tmp_path, precision="double", chunk=1)
    run.conclude(outcome)
    data = results.open_run(tmp_path).isel(satellite=0, epoch=0)
    assert data.sizes["time"] == 320
    times, steps = data["time_s"].values, data["step_s"].values
    np.testing.assert_allclose(np.diff(times), (steps[1:] + steps[:-1]) / 2, atol=1e-6)
    last = data["node_c"].isel(time=slice(-32, None))
    np.testing.assert_allclose(last.max("time"), straight.scalars["node_max_c"][0], atol=0.5)
    np.testing.assert_allclose(last.min("time"), straight.scalars["node_min_c"][0], atol=0.5)
    np.testing.assert_allclose(data["node_c"].max("time"), data["node_max_c"])


def test_joined_revolutions():
    def one(k):
        value = np.array([1.0, 5.0]) + k * np.array([1.0, -1.0])
        return {
            "status": np.array([0, k]),
            "period_min": np.array([2.0, 2.0]),
            "panel_max_c": value,
            "panel_min_c": value,
            "panel_mean_c": value,
            "heat_residual": -value,
            "panel_hottest_c": value[:, None],
            "panel_coldest_c": value[:, None],
            "time_s": np.full((2, 1), 60.0),
            "step_s": np.full((2, 1), 120.0),
        }

    joined = run.Joined()
    for k in range(3):
        joined.add(one(k))
    found = joined.values()
    assert found["status"].tolist() == [0, 2]
    assert found["panel_max_c"].tolist() == [3, 5] and found["panel_min_c"].tolist() == [1, 3]
    assert found["panel_mean_c"].tolist() == [2, 4] and found["period_min"].tolist() == [2, 2]
    assert found["panel_hottest_c"][:, 0].tolist() == [3, 5] and found["panel_coldest_c"][:, 0].tolist() == [
        1,
        3,
    ]
    assert found["heat_residual"].tolist() == [-3, -5]
    assert found["time_s"].tolist() == [[60, 180, 300]] * 2


def test_steady_loads_hold_the_means():
    draw = np.random.default_rng(1).uniform
    series = {name: draw(size=(32, 5)) for name in ("dt", "time", "sunlit", "panel", "array", "body")}
    series |= {name: draw(size=(32, 5)) for name in ("irradiance", "demand")}
    loads = revolution.Loads(**series, incident=draw(size=(32, 3, 3, 5)))
    held = run.orbit_mean(loads)
    period = loads.dt.sum(0)
    np.testing.assert_allclose(held.dt, np.broadcast_to(period / 32, (32, 5)))
    np.testing.assert_allclose(held.time[-1] + held.dt[-1] / 2, period)
    for name in ("panel", "array", "irradiance", "demand", "sunlit"):
        mean = (getattr(loads, name) * loads.dt).sum(0) / period
        np.testing.assert_allclose(getattr(held, name), np.broadcast_to(mean, (32, 5)), rtol=1e-12)
    assert held.incident.shape == (32, 3, 3, 5)


def test_chunks_are_of_one_size_and_split_evenly():
    count = jax.local_device_count()
    assert devices.chunk_rows(10_000) == count * devices.ROWS_PER_DEVICE["cpu"]
    assert devices.chunk_rows(10_000, per_device=7) == count * 7
    assert devices.chunk_rows(1) == count
    assert devices.chunk_rows(3, at_least=32) == 32
    assert devices.chunk_rows(5 * count + 1) == 6 * count


def test_sharded_equals_one_device():
    x = np.arange(4.0 * jax.local_device_count()).reshape(-1, 2)
    function = lambda pair: {"y": pair[0] * 2 + pair[1][:, None]}  # noqa: E731
    found = devices.sharded(function)((x, x[:, 0]))["y"]
    np.testing.assert_array_equal(found, x * 2 + x[:, :1])
    assert len(found.sharding.device_set) == jax.local_device_count()


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "dawndusk", "run", "suncatcher", "--out", str(out), "--chunk", "1"]
    for item in ("epoch.count=200", "run.steps=64", "run.cells=[8, 6]", "run.save=nodes"):
        command += ["--set", item]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rows = out / "rows"
    deadline = time.monotonic() + 300
    while len(list(rows.glob("*.npz"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = len(list(rows.glob("*.npz")))
    assert 3 <= done < 100
    finished = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr
    with xr.open_zarr(out / results.DATASET) as data:
        assert (data["status"].values == 0).all()
        assert np.isfinite(data["node_c"].values).all() and data["node_c"].sizes["revolution"] == 200
