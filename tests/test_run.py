"""The chunked run: independent of chunks, resumable, one bad row beside good ones, revolutions joined."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from dawndusk.kernels import revolution
from dawndusk.kernels.panel import extremes
from dawndusk.solver import build, case, devices, quantities, results, run
from dawndusk.solver.quantities import DECAYED, HOT, UNKNOWN_INPUT, kept

# A dawn-dusk year in five epochs, the first with an eclipse, on the coarsest panel.
SMALL = ("epoch.count=5", "run.steps=32", "run.cells=[4, 6]", "run.save=nodes")


pytestmark = pytest.mark.usefixtures("compile_once")


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
        assert set(data.data_vars) == {*kept(straight.case), "revolution_index"}
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
    assert bad.scalars["reason"].tolist() == [0, 0, 0, UNKNOWN_INPUT, 0]
    for name, value in straight.scalars.items():
        others = [0, 1, 2, 4]
        np.testing.assert_array_equal(bad.scalars[name][others], value[others], err_msg=name)
        if np.issubdtype(value.dtype, np.floating):
            assert (bad.scalars[name][3] == results.FILL).all()


def with_row(tree, row, path, change, axis):
    """A pytree whose leaf at the end of `path` has `change` applied to one row."""
    name, *rest = path
    leaf = getattr(tree, name)
    if rest:
        return replace(tree, **{name: with_row(leaf, row, rest, change, axis)})
    leaf = np.moveaxis(np.array(leaf), axis, 0)
    leaf[row] = change(leaf[row])
    return replace(tree, **{name: np.moveaxis(leaf, 0, axis)})


@pytest.mark.parametrize(
    ("path", "change", "reason"),
    [
        ("revolutions.orbit.inclination", lambda x: np.nan, UNKNOWN_INPUT),
        ("revolutions.orbit.semi_major_axis", lambda x: np.inf, UNKNOWN_INPUT),
        ("revolutions.orbit.semi_major_axis", lambda x: 6.37e6, DECAYED),
        ("revolutions.orbit.eccentricity", lambda x: 0.2, DECAYED),
        ("params.network.heat_capacity", lambda x: np.nan * x, UNKNOWN_INPUT),
        ("params.panel.heat", lambda x: 1e8, HOT),
        # Hardly an emissivity: the radiator's equilibrium lies beyond 2000 K, which it would take days to reach.
        ("params.panel.to_space", lambda x: 1e-6 * x, HOT),
    ],
    ids=[
        "no angle",
        "infinite axis",
        "below ground",
        "dips into it",
        "no capacity",
        "a furnace",
        "a mirror",
    ],
)
def test_a_bad_satellite_says_why_and_the_others_keep_every_bit(straight, path, change, reason):
    """Row 3 of five in one chunk, with the same program."""
    part, *path = path.split(".")
    fleet, axis = straight.fleet, 0 if part == "revolutions" else -1
    tree = with_row(getattr(fleet, part), 3, path, change, axis)
    if path[-1] == "to_space":
        # All that the panel emits, and the network's exchange with it.
        tree = with_row(tree, 3, ["panel", "emission"], change, axis)
        tree = with_row(tree, 3, ["network", "panel_radiative"], change, axis)
        tree = with_row(tree, 3, ["network", "to_space"], change, axis)
        tree = with_row(tree, 3, ["payload", "throttle_floor"], lambda x: 1.0, axis)
    solver = run.Solver(straight.case, replace(fleet, **{part: tree}), straight.solver.size, run.Walls())
    solver._program = straight.solver._program
    found = solver.solve(np.arange(5), series=True)
    assert found["reason"].tolist() == [0, 0, 0, reason, 0]
    assert found["status"].tolist() == [0, 0, 0, results.FAILED, 0]
    wanted = straight.solver.solve(np.arange(5), series=True)
    for name, value in wanted.items():
        others = [0, 1, 2, 4]
        np.testing.assert_array_equal(found[name][others], value[others], err_msg=name)


def test_the_gravest_reason_is_given():
    """Rows: good, not converged, a number lost, hot once and then lost, heading for heat, and bad from the start."""
    fine = np.full(6, 20.0)
    lost = fine + np.array([0, 0, np.nan, np.nan, 0, np.nan])
    q = {name: lost for name in ("panel_max_c", "panel_min_c", "array_available_kw", "payload_power_kw")}
    q |= {"heat_residual": fine, "bus_residual": fine, "node_max_c": lost[None], "node_min_c": fine[None]}
    q |= {
        "status": np.array([0, 1, 2, 2, 1, 2], np.int32),
        "distance_k": fine + np.array([0, 9, 0, 0, 3e3, 0]),
    }
    hot = np.stack([fine, fine + np.array([0, 0, 0, 2500, 0, 0]), lost])
    record = SimpleNamespace(panel_max=jnp.asarray(hot), nodes=jnp.asarray(hot[:, None]))
    found = quantities._judged(q, record, jnp.asarray([0, 0, 0, 0, 0, DECAYED], jnp.int32))
    assert found["reason"].tolist() == [0, quantities.OPEN, quantities.LOST, HOT, HOT, DECAYED]
    assert found["status"].tolist() == [0, 1, 2, 2, 2, 2]


def test_the_order_of_rows_changes_no_bit(straight):
    """A satellite's numbers do not depend on its place in the chunk, nor on which device has it."""
    order = np.array([4, 2, 0, 3, 1] * 6)
    found, wanted = (
        straight.solver.solve(order, series=True),
        straight.solver.solve(np.arange(5), series=True),
    )
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value[order], err_msg=name)


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
    assert devices.chunk_rows(1) == count * devices.LANES
    assert devices.chunk_rows(3, at_least=1000) == 1000
    assert devices.chunk_rows(100) == count * 64
    assert devices.even(5 * count + 1) == 6 * count


def test_sharded_equals_one_device():
    x = np.arange(4.0 * jax.local_device_count()).reshape(-1, 2)
    function = lambda pair: {"y": pair[0] * 2 + pair[1][:, None]}  # noqa: E731
    found = devices.sharded(function)((x, x[:, 0]))["y"]
    np.testing.assert_array_equal(found, x * 2 + x[:, :1])
    assert len(found.sharding.device_set) == jax.local_device_count()


@pytest.mark.slow
def test_a_chunk_fits_the_device(straight):
    """Half the rows need about half the memory; no chunk is smaller than a headroom search."""
    solver = run.Solver(straight.case, straight.fleet, devices.even(128), run.Walls())
    needed = solver.needed()
    solver.fit(needed)
    assert solver.size == 128
    solver.fit(int(0.7 * needed))
    assert solver.size == 64
    solver.fit(1)
    assert solver.size == devices.even(run.SMALLEST_CHUNK)


def test_a_directory_at_work_is_refused(tmp_path):
    with results.claim(tmp_path):
        with pytest.raises(results.RunDirectoryError, match="another run is at work here"):
            run.run(load(), tmp_path)


SPREAD = ("run.cells=[4, 6]", "run.steps=32", "run.error_estimate=false", "epoch.count=2")
SPREAD += ("orbit.satellites_per_plane=3", "run.save=nodes")


def command(out, *options):
    """A run of 120 distinct rows in double precision."""
    parts = [
        sys.executable,
        "-m",
        "dawndusk",
        "run",
        "project_sunrise",
        "--out",
        str(out),
        "--precision",
        "double",
    ]
    for item in SPREAD:
        parts += ["--set", item]
    return [*parts, *options]


def together(out, count, *options):
    """The processes of one run, started."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{probe.getsockname()[1]}"
    join = ["--distributed", "--coordinator", where, "--processes", str(count), "--process-index"]
    return [
        subprocess.Popen(
            command(out, *options, *join, str(k)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for k in range(count)
    ]


def ended(processes):
    """Exit codes and what was printed."""
    printed = [process.communicate(timeout=600)[0] for process in processes]
    return [process.returncode for process in processes], printed


def stored(out):
    """Every number of a run's dataset."""
    with xr.open_zarr(out / results.DATASET, mask_and_scale=False) as data:
        return data.load()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Unbroken, in one process on two devices."""
    out = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("programs")))
        subprocess.run(command(out, "--chunk", "8"), check=True, capture_output=True, timeout=600)
        yield stored(out)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [4, 8])
def test_the_number_of_devices_changes_no_bit(whole, tmp_path, devices):
    flags = f"--xla_force_host_platform_device_count={devices}"
    run = subprocess.run(
        command(tmp_path / "out", "--chunk", "8"),
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr
    xr.testing.assert_equal(stored(tmp_path / "out"), whole)


@pytest.mark.slow
def test_chunks_of_another_size_and_one_device_differ_by_rounding(whole, tmp_path):
    flags = "--xla_force_host_platform_device_count=1"
    subprocess.run(
        command(tmp_path / "out", "--chunk", "33"),
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        check=True,
        timeout=600,
    )
    xr.testing.assert_allclose(stored(tmp_path / "out"), whole, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_give_what_one_gives(whole, tmp_path, count):
    codes, printed = ended(together(tmp_path / "out", count, "--chunk", "8"))
    assert codes == [0] * count, printed
    xr.testing.assert_equal(stored(tmp_path / "out"), whole)


def marks(out):
    return {mark.name: mark.stat().st_mtime_ns for mark in (out / "rows").glob("*.npz")}


def kill_after_a_mark(process, out, delay):
    """Kill a process that has finished a chunk more, `delay` seconds later."""
    before, deadline = len(marks(out)), time.monotonic() + 300
    while len(marks(out)) <= before and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(delay)
    process.kill()


@pytest.mark.slow
def test_killed_at_any_moment_nothing_finished_is_lost(whole, tmp_path):
    out, draw, kills = tmp_path / "out", np.random.default_rng(7), 0
    while kills < 10 and len(marks(out)) < 60:
        process = subprocess.Popen(
            command(out, "--chunk", "1"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        before = marks(out)
        kill_after_a_mark(process, out, draw.uniform(0, 0.05))
        process.wait()
        kills += 1
        # What was finished is there as it was, and can be read.
        assert before.items() <= marks(out).items()
        solved = results.open_run(out)["status"].values != results.NOT_RUN
        assert solved.sum() == results.rows_marked(out) >= 2 * len(before)
    assert kills >= 5
    finished = subprocess.run(command(out, "--chunk", "1"), capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr
    # Other chunks than the unbroken run's: another program, which rounds otherwise.
    xr.testing.assert_allclose(stored(out), whole, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_run_goes_on(whole, tmp_path):
    """Files end at 5 KiB, which a chunk's are longer than."""
    out = tmp_path / "out"
    stopped = subprocess.run(
        command(out, "--chunk", "8"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 10, 5 << 10)),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert stopped.returncode == 1
    said = stopped.stderr.strip()
    assert said == f"error: {out}: file too large; what is finished is kept, and the same command goes on"
    finished = subprocess.run(command(out, "--chunk", "8"), capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr
    xr.testing.assert_equal(stored(out), whole)


@pytest.mark.slow
def test_a_process_is_lost_and_the_run_goes_on(whole, tmp_path):
    out = tmp_path / "out"
    processes = together(out, 2, "--chunk", "8")
    kill_after_a_mark(processes[1], out, 0.0)
    codes, printed = ended(processes)
    lost = 120 - results.rows_marked(out)
    assert codes == [130, -signal.SIGKILL] and lost > 0, printed
    assert f"the same command goes on from {120 - lost} rows" in printed[0]
    # The rest by one process alone.
    finished = subprocess.run(command(out, "--chunk", "8"), capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr
    xr.testing.assert_equal(stored(out), whole)


def test_impossible_temperatures_are_failures():
    """Below 0 K, or past what any radiator bears, a row has failed, whatever the search for its orbit says."""
    rows = 4
    good = {name: jnp.zeros(rows) for name in ("heat_residual", "bus_residual", "array_available_kw")}
    good |= {"panel_max_c": jnp.full(rows, 40.0), "panel_min_c": jnp.array([-273.15, -273.2, 20.0, 20.0])}
    good |= {"payload_power_kw": jnp.zeros(rows), "node_max_c": jnp.full((2, rows), 30.0)}
    good |= {"node_min_c": jnp.full((2, rows), 10.0).at[1, 2].set(-280.0)}

    def judged(q, hottest=(313.0,) * rows):
        record = SimpleNamespace(panel_max=jnp.asarray([hottest]), nodes=jnp.full((1, 2, rows), 303.0))
        return quantities._judged(q, record, None)["status"].tolist()

    assert judged(good) == [0, 2, 2, 0]
    assert judged(good | {"status": jnp.array([1, 0, 0, 1])}) == [1, 2, 2, 1]
    assert judged(good, (313.0, 313.0, 313.0, 1e14)) == [0, 2, 2, 2]
