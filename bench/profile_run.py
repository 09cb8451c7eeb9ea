"""Where a run's time goes: loads, search, recorded revolution, quantities, transfer, writing, summary.

    python bench/profile_run.py [SATELLITES [TRACE_DIR]]

Project Sunrise, every satellite its own. The phases on the device are programs of growing length, timed one after the
other on one chunk, of which each is what it adds; transfer and writing are the run's own functions, and so is the
summary, which is over the whole fleet. With TRACE_DIR a JAX profiler trace of one warm pass, for TensorBoard or
Perfetto.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from bench_run import one_pass, solver
from dawndusk.kernels import march, revolution
from dawndusk.solver import build, devices, results, run, summary

REPEATS = 5


def seconds(call: Callable[[], object]) -> tuple[float, float]:
    """Least of a few calls after one that warms up: wall clock, CPU."""
    call()
    times = []
    for _ in range(REPEATS):
        start, cpu = time.perf_counter(), time.process_time()
        call()
        times.append((time.perf_counter() - start, time.process_time() - cpu))
    return min(wall for wall, _ in times), min(cpu for _, cpu in times)


def stages(made: run.Solver) -> dict[str, Callable]:
    """Programs of the leaves of a chunk, each with one phase more than the one before."""
    fleet = made.fleet
    structures = [jax.tree.structure(tree) for tree in (fleet.revolutions, fleet.params, fleet.state)]

    def inputs(revolutions, params, state):
        params, state = (
            jax.tree.unflatten(structure, [jnp.moveaxis(leaf, 0, -1) for leaf in leaves])
            for structure, leaves in zip(structures[1:], (params, state))
        )
        of_row = partial(revolution.revolution_loads, n_steps=made.case.run.steps)
        rows = jax.tree.unflatten(structures[0], revolutions)
        return params, jax.vmap(of_row, out_axes=-1)(rows), state

    def totals(tree):
        # One number a row and array: what is not used would not be computed.
        leaves = [leaf.reshape(-1, leaf.shape[-1]) for leaf in jax.tree.leaves(tree)]
        return jnp.stack([jnp.sum(leaf.astype(jnp.float32), axis=0) for leaf in leaves], axis=-1)

    def loads(*leaves):
        return totals(inputs(*leaves)[1])

    def search(*leaves):
        # The periodic state alone: XLA leaves the recorded revolution out.
        return totals(march.cyclic(*inputs(*leaves))[0])

    def recorded(*leaves):
        return totals(march.cyclic(*inputs(*leaves)))

    return {"loads": loads, "search for the periodic orbit": search, "recorded revolution": recorded}


def table(made: run.Solver) -> list[tuple[str, float, float]]:
    """Phases of the whole fleet: name, wall clock and CPU [s]."""
    rows, fleet = np.arange(made.size), made.fleet
    chunks = made.rows / made.size
    leaves = [
        jax.tree.leaves(build.rows_of(tree, rows, axis))
        for tree, axis in ((fleet.revolutions, 0), (fleet.params, -1), (fleet.state, -1))
    ]
    out, before = [], np.zeros(2)
    for name, stage in stages(made).items():
        program = devices.sharded(stage)
        spent = np.array(seconds(lambda program=program: jax.block_until_ready(program(*leaves))))
        out.append((name, *(chunks * (spent - before))))
        before = spent
    change = (np.ones(made.size, np.float32), np.ones(made.size, bool))
    program = made._compiled()
    spent = np.array(seconds(lambda: jax.block_until_ready(program(*leaves, change))))
    out.append(("quantities", *(chunks * (spent - before))))

    # A fetched array stays on the host: each call fetches a new one.
    def fetched():
        start, cpu = time.perf_counter(), time.process_time()
        run._host(jax.block_until_ready(program(*leaves, change))[1], made.size, False)
        return time.perf_counter() - start, time.process_time() - cpu

    whole = np.min([fetched() for _ in range(REPEATS)], axis=0)
    out.append(("transfer", *(chunks * np.maximum(whole - spent, 0))))
    gathering = seconds(
        lambda: [build.rows_of(t, rows, a) for t, a in ((fleet.params, -1), (fleet.state, -1))]
    )
    out.append(("rows gathered", *(chunks * np.array(gathering))))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        values = made.solve(rows)
        plan = {"case_hash": "", "precision": "single", "version": "", "rows": made.rows, "chunk": made.size}
        results.begin(path, fleet, plan, "")
        writing = seconds(lambda: results.write_rows(path, 0, values, made.rows, made.size))
        out.append(("writing", *(chunks * np.array(writing))))
        for first in range(made.size, made.rows, made.size):
            some = {name: value[: made.rows - first] for name, value in values.items()}
            results.write_rows(path, first, some, made.rows, made.size)
        scalars = results.Scalars(path, made.rows)
        outcome = run.Outcome(path, made.case, fleet, made, scalars, made.wall, made.rows)

        def concluded():
            summary.summarise(outcome, headroom=False)
            results.finish(path, fleet, scalars, {})

        out.append(("summary and dataset", *seconds(concluded)))
    return out


def main() -> None:
    made = solver(int(sys.argv[1]) if len(sys.argv) > 1 else 2560, 128)
    found = table(made)
    walls, cpus = (sum(row[k] for row in found) for k in (1, 2))
    where = f"{jax.local_device_count()} x {jax.devices()[0].device_kind}"
    print(f"{made.rows:,} satellites, {where}, chunks of {made.size}")
    print(f"{'phase':<32} {'wall s':>8} {'share':>7} {'CPU s':>8} {'share':>7}")
    for name, wall, cpu in found:
        print(f"{name:<32} {wall:>8.3f} {100 * wall / walls:>5.1f} % {cpu:>8.3f} {100 * cpu / cpus:>5.1f} %")
    if len(sys.argv) > 2:
        folder = Path(sys.argv[2])
        with jax.profiler.trace(str(folder)):
            one_pass(made)
        traces = sorted(folder.rglob("*.xplane.pb"), key=lambda f: f.stat().st_mtime)
        print(f"{traces[-1]} ({traces[-1].stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
