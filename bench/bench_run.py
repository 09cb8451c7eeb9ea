"""The main job: distinct satellites of Project Sunrise to their periodic orbits, on every core.

    pytest bench/bench_run.py
    python bench/bench_run.py [SATELLITES [STEPS]]

Time is a whole `Solver` pass after compilation: loads, cyclic march, recorded revolution, quantities back on the
host. The peer in the same run is what the cyclic solve replaces: the same satellites marched from the same start
until they close as well. The script also times reverse gradients, and runs a few satellites at eight times the steps
and prints what the hot spot moved by.
"""

import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
from dawndusk.solver import devices

devices.configure("cpu")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from dawndusk.kernels import march, revolution  # noqa: E402
from dawndusk.solver import build, case  # noqa: E402
from dawndusk.solver.run import Solver, Walls  # noqa: E402

CASE = Path(__file__).parents[1] / "cases" / "project_sunrise.toml"


def solver(satellites: int, steps: int) -> Solver:
    """A compiled pass over `satellites` rows in 20 planes."""
    overrides = [f"orbit.satellites_per_plane={satellites // 20}", f"run.steps={steps}", "run.save=summary"]
    loaded = case.load(str(CASE), overrides)
    fleet = build.build(loaded, np.dtype("float32"))
    made = Solver(loaded, fleet, devices.chunk_rows(satellites), Walls())
    made.solve(np.arange(1))
    return made


def one_pass(made: Solver) -> dict[str, list[np.ndarray]]:
    """All rows once, as a run solves them."""
    found: dict[str, list[np.ndarray]] = {}
    for _, values in made.chunks(range(0, made.rows, made.size), made.size):
        for name in ("status", "iterations", "panel_max_c"):
            found.setdefault(name, []).append(values[name])
    return found


def first_rows(made: Solver, rows: int):
    """Parameters, loads of a revolution and starts of the first rows, satellites last."""
    fleet = made.fleet
    params, state = (
        jax.tree.map(lambda x: jnp.asarray(x[..., :rows]), t) for t in (fleet.params, fleet.state)
    )
    some = jax.tree.map(lambda x: jnp.asarray(x[:rows]), fleet.revolutions)
    of_row = partial(revolution.revolution_loads, n_steps=made.case.run.steps)
    return params, jax.jit(jax.vmap(of_row, out_axes=-1))(some), state


def plain_seconds(made: Solver, rows: int = 128, most: int = 60) -> tuple[float, float]:
    """Seconds a satellite of marching `rows` satellites until 99 % close to 5 mK, and the marches that took."""
    params, loads, state = first_rows(made, rows)
    orbit = jax.jit(march.transient)
    jax.block_until_ready(orbit(params, loads, state))
    start = time.perf_counter()
    marches = 0
    for _ in range(most):
        marches += 1
        end, _ = orbit(params, loads, state)
        closed = jnp.abs(end.nodes - state.nodes).max(axis=0) < 5e-3
        state = end
        if float(closed.mean()) > 0.99:
            break
    return (time.perf_counter() - start) / rows, marches


def gradient_seconds(made: Solver, rows: int = 128) -> dict[str, tuple[float, float]]:
    """Seconds a satellite on one device, a solve and its reverse gradient by every parameter, by what is solved.

    Of the panel's hottest place: after a revolution, and over the periodic one.
    """
    params, loads, state = first_rows(made, rows)

    def after_one(params):
        return jnp.sum(march.transient(params, loads, state)[0].panel.max(axis=(0, 1)))

    def over_the_cycle(params):
        return jnp.sum(march.cyclic(params, loads, state)[2].panel_max.max(axis=0))

    def seconds(f):
        jax.block_until_ready(f(params))
        times = []
        for _ in range(3):
            start = time.perf_counter()
            jax.block_until_ready(f(params))
            times.append(time.perf_counter() - start)
        return min(times) / rows

    figures = {"one revolution": after_one, "periodic orbit": over_the_cycle}
    return {name: (seconds(jax.jit(f)), seconds(jax.jit(jax.grad(f)))) for name, f in figures.items()}


def test_main_job(benchmark):
    made = solver(1000, 128)
    found = benchmark.pedantic(one_pass, (made,), rounds=3, warmup_rounds=1)
    assert (np.concatenate(found["status"]) == march.CONVERGED).mean() > 0.99
    seconds = benchmark.stats.stats.min
    benchmark.extra_info |= {
        "device": jax.devices()[0].device_kind,
        "devices": jax.local_device_count(),
        "dtype": "float32",
        "size": "1000 satellites x 32 x 16 cells x 128 steps",
        "ms_per_satellite": round(seconds, 3),
    }


def main() -> None:
    satellites = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 128
    made = solver(satellites, steps)
    one_pass(made)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        found = one_pass(made)
        times.append(time.perf_counter() - start)
    iterations = np.concatenate(found["iterations"])
    converged = np.mean(np.concatenate(found["status"]) == march.CONVERGED)
    per_satellite = 1e3 * min(times) / satellites
    # What the march does for a chunk is what its slowest satellite needs.
    print(
        f"{satellites} satellites, 32 x 16 cells, {steps} steps, float32, {jax.local_device_count()} x "
        f"{jax.devices()[0].device_kind}, chunks of {made.size}: {per_satellite:.2f} ms a satellite-revolution "
        f"(best of 3: {', '.join(f'{t:.2f}' for t in times)} s); {100 * converged:.1f} % converged, "
        f"marches median {np.median(iterations):.0f}, most {iterations.max()}; compiled in {made.wall.compile:.1f} s"
    )
    seconds, marches = plain_seconds(made)
    print(f"plain march to 5 mK closure on one device: {1e3 * seconds:.1f} ms a satellite, {marches} marches")
    for name, (solve, gradient) in gradient_seconds(made).items():
        print(
            f"{name}, one device: {1e3 * solve:.2f} ms a satellite; reverse gradient by all parameters "
            f"{1e3 * gradient:.2f} ms, {gradient / solve:.1f} times as long"
        )
    fine = solver(20, 8 * steps)
    some = solver(20, steps)
    shift = fine.solve(np.arange(20))["panel_max_c"] - some.solve(np.arange(20))["panel_max_c"]
    print(f"hot spot against {8 * steps} steps: at most {np.abs(shift).max():.3f} K over 20 satellites")


if __name__ == "__main__":
    main()
