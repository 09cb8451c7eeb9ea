"""The plain panel march beside what a user would take instead, all in one run.

    python bench/bench_panel.py [--panels 2048] [--peers numba,diffrax,scipy]

2,048 panels of 32 x 16 cells, two strips heated by pipes, both sides radiating, one orbit of 256 steps, float32. The
yardstick is `adi.cpp`, hand-written vector code, built and run here if there is a C++ compiler with OpenMP. Peers
take fewer panels where they are slow, and their time is scaled up; each line gives the error against the converged
answer beside the speed. Needs the `bench` extra for the peers.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from dawndusk.solver import devices

NX, NY, STEPS, PERIOD = 32, 16, 256, 5800.0
SIGMA, EMISSION = 5.670374419e-8, 1.8
KT, CAPACITY = 175 * 1.1e-3, 2.42e6 * 1.1e-3
SIZE = 1.6, 0.8  # m
DX, DY = SIZE[0] / NX, SIZE[1] / NY
STRIPS, STRIP_HEAT, START = (3, 12), 6400.0, 300.0
LOAD = 150 + 100 * np.sin(2 * np.pi * np.arange(STEPS) / STEPS)


def strips(cells=(NX, NY)):
    """Heat of the cells [W/m^2]: the same two pipes' on any grid, each in one column of cells."""
    source = np.zeros(cells)
    source[:, [(2 * j + 1) * cells[1] // (2 * NY) for j in STRIPS]] = STRIP_HEAT * cells[1] / NY
    return source


def ours(panels, dtype, steps=STEPS, chunk=128, by=(), cells=(NX, NY), pipe=0.0, steady=False):
    """A function that marches `panels` panels, spread over all devices, and its first panel's end.

    With `by`, positions among start, capacity, conductances along and across: the first panel's derivative of the
    hottest temperature, in reverse mode, by the first of them. `pipe` is k A of a heat pipe in the first row [W m/K].
    With `steady` the panels are solved at rest under the mean load instead.
    """
    import jax
    import jax.numpy as jnp
    from dawndusk.kernels import adi
    from dawndusk.kernels.sheet import Sheet
    from dawndusk.kernels.sheet import steady as at_rest

    dx, dy = (size / n for size, n in zip(SIZE, cells))

    def one_chunk(T, capacity, along, across):
        b = T.shape[-1]

        def same(x):
            return jnp.full((1, 1, b), x, dtype)

        rows_along = [along + pipe / dy / dx**2, along] if pipe else [along]
        sheet = Sheet(
            capacity[None, None],
            jnp.stack(rows_along)[None],
            across[None, None],
            (same(EMISSION),),
            same(0.0),
            (),
            (),
            (),
            (),
            *cells,
        )
        load = jnp.asarray(np.repeat(LOAD, steps // STEPS), dtype)
        rows = jnp.broadcast_to(load[:, None], (steps, b))
        source = jnp.broadcast_to(jnp.asarray(strips(cells), dtype)[..., None], T.shape)
        if steady:
            return at_rest(T, source + dtype(LOAD.mean()), sheet)[0]
        return adi.transient(T, source, rows, jnp.full_like(rows, PERIOD / steps), sheet)[0]

    chunk = min(chunk, panels)
    count = panels // chunk

    def hottest(*row):
        return jnp.sum(jnp.max(one_chunk(*row), axis=(0, 1)))

    def gradient(*row):
        return jax.grad(hottest, argnums=by)(*row)

    def run(*rows):
        return jax.lax.map(lambda row: gradient(*row) if by else one_chunk(*row), rows)

    full = [np.full((count, chunk), x, dtype) for x in (CAPACITY, KT / dx**2, KT / dy**2)]
    args = (np.full((count, *cells, chunk), START, dtype), *full)
    if count % len(jax.local_devices()):
        compiled = jax.jit(run)
    else:
        compiled = devices.sharded(run)
    args = jax.device_put(args)
    return lambda: np.asarray(jax.block_until_ready(jax.tree.leaves(compiled(*args)))[0])[0, ..., 0]


def yardstick():
    """Million cell-steps/s of the C++ program, None without a compiler."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        binary = f"{folder}/adi"
        source = str(Path(__file__).with_name("adi.cpp"))
        flags = ["-O3", "-march=native", "-ffast-math", "-fopenmp"]
        if subprocess.run([compiler, *flags, source, "-o", binary]).returncode:
            return None
        said = subprocess.run([binary], check=True, capture_output=True, text=True).stdout
    return float(re.match(r"\d+", said)[0])


def numba_peer(panels):
    """The C++ program's scheme, one panel after another, all threads, float32."""
    import numba

    fast = numba.njit(fastmath=True)
    one, loss = np.float32(1), np.float32(EMISSION * SIGMA)

    @fast
    def half(T, out, a, b, source, load, held, c, d):
        n, m = T.shape
        for j in range(m):
            for i in range(n):
                t = T[i, j]
                cube = t * t * t
                low, high = (T[i, j - 1] if j else t), (T[i, j + 1] if j < m - 1 else t)
                q = held * t + b * (low + high - t - t) + source[i, j] + load + loss * cube * t
                diagonal = held + loss * (cube + cube) + a * np.float32((i > 0) + (i < n - 1))
                if i:
                    pivot = one / (diagonal - a * c[i - 1])
                    d[i] = (q + a * d[i - 1]) * pivot
                else:
                    pivot = one / diagonal
                    d[i] = q * pivot
                c[i] = a * pivot
            x = d[n - 1]
            out[n - 1, j] = x
            for i in range(n - 2, -1, -1):
                x = d[i] + c[i] * x
                out[i, j] = x

    @numba.njit(parallel=True, fastmath=True)
    def march(T, source, turned, load, held):
        for p in numba.prange(T.shape[0]):
            panel, other = T[p], np.empty((NX, NY), np.float32)
            c, d = np.empty(NX, np.float32), np.empty(NX, np.float32)
            a, b = np.float32(KT / DX**2), np.float32(KT / DY**2)
            for k in range(load.size):
                half(panel, other, a, b, source, load[k], held, c, d)
                half(other.T, panel.T, b, a, turned, load[k], held, c, d)

    source = strips().astype(np.float32)

    def run():
        T = np.full((panels, NX, NY), START, np.float32)
        march(
            T, source, source.T.copy(), LOAD.astype(np.float32), np.float32(CAPACITY / (PERIOD / STEPS / 2))
        )
        return T[0]

    return run


def _slopes(xp):
    source = strips()

    def rate(T, load):
        T = T.reshape(NX, NY)
        x, y = xp.diff(T, axis=0) * KT / DX**2, xp.diff(T, axis=1) * KT / DY**2
        pad = xp.pad
        flow = (
            pad(x, ((0, 1), (0, 0)))
            - pad(x, ((1, 0), (0, 0)))
            + pad(y, ((0, 0), (0, 1)))
            - pad(y, ((0, 0), (1, 0)))
        )
        return ((flow + source + load - EMISSION * SIGMA * T**4) / CAPACITY).reshape(-1)

    return rate


def diffrax_peer(panels):
    """Kvaerno3 under vmap, adaptive, float64, steps stopped at the load's jumps.

    The jumps are what makes it take 256 steps: with looser tolerances it takes no fewer.
    """
    import diffrax
    import jax
    import jax.numpy as jnp

    rate = _slopes(jnp)
    load = jnp.asarray(LOAD)
    dt = PERIOD / STEPS

    def field(t, T, _):
        return rate(T, load[jnp.clip(t // dt, 0, STEPS - 1).astype(int)])

    controller = diffrax.PIDController(rtol=1e-3, atol=0.1, jump_ts=jnp.arange(1, STEPS) * dt)

    @jax.jit
    @jax.vmap
    def solve(T):
        found = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            diffrax.Kvaerno3(),
            0.0,
            PERIOD,
            dt / 4,
            T,
            stepsize_controller=controller,
            saveat=diffrax.SaveAt(t1=True),
            max_steps=100_000,
        )
        return found.ys[0]

    def run():
        return np.asarray(solve(jnp.full((panels, NX * NY), START)))[0].reshape(NX, NY)

    return run


def scipy_peer(panels):
    """LSODA on one panel, banded Jacobian, piece by piece between the load's jumps."""
    from scipy.integrate import solve_ivp

    rate = _slopes(np)
    dt = PERIOD / STEPS

    def run():
        for _ in range(panels):
            T = np.full(NX * NY, START)
            for k in range(STEPS):
                found = solve_ivp(
                    lambda t, T, k=k: rate(T, LOAD[k]),
                    (0, dt),
                    T,
                    "LSODA",
                    rtol=1e-5,
                    atol=1e-3,
                    lband=NY,
                    uband=NY,
                )
                T = found.y[:, -1]
        return T.reshape(NX, NY)

    return run


# Panels that each peer marches in some seconds.
PEERS = {"numba": (numba_peer, 2048), "diffrax": (diffrax_peer, 2), "scipy": (scipy_peer, 1)}


def timed(run, repeats):
    """Least wall time of some runs after a first one [s], and the first panel's end."""
    end = run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times), end


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--panels", type=int, default=2048)
    parser.add_argument("--peers", default="numba,diffrax,scipy", help="comma-separated; empty for none")
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--gradient", action="store_true", help="time reverse gradients instead of peers")
    options = parser.parse_args()
    if options.panels % min(128, options.panels):
        parser.error("--panels: whole chunks of 128")
    devices.configure()

    import jax

    if options.gradient:
        forward, _ = timed(ours(options.panels, np.float32), options.repeats)
        print(
            f"forward march {forward:.3f} s; {options.panels} panels of {NX} x {NY} cells x {STEPS} steps, float32"
        )
        for name, by in (
            ("start", (0,)),
            ("capacity, conductances", (1, 2, 3)),
            ("all of them", (0, 1, 2, 3)),
        ):
            spent, _ = timed(ours(options.panels, np.float32, by=by), 2)
            print(f"reverse gradient by {name}: {spent:.3f} s, {spent / forward:.1f} forward marches")
        few = min(64, options.panels)
        forward, _ = timed(ours(few, np.float32, chunk=32, steady=True), 2)
        spent, _ = timed(ours(few, np.float32, chunk=32, steady=True, by=(0, 1, 2, 3)), 2)
        print(
            f"{few} panels at rest: {forward:.3f} s; by all of them {spent:.3f} s, {spent / forward:.1f} solutions"
        )
        return
    jax.config.update("jax_enable_x64", True)
    # All panels are alike: one, in double precision with each step cut in 16, is the converged answer.
    exact = ours(1, np.float64, 16 * STEPS)()
    rows = []
    own, end = timed(ours(options.panels, np.float32), options.repeats)
    cpp = yardstick()
    again, _ = timed(ours(options.panels, np.float32), options.repeats)
    rows.append(("dawndusk, float32", options.panels, min(own, again), end))
    double, end = timed(ours(options.panels, np.float64), 2)
    rows.append(("dawndusk, float64", options.panels, double, end))
    for name in filter(None, options.peers.split(",")):
        make, panels = PEERS[name]
        try:
            spent, end = timed(make(min(panels, options.panels)), 1)
        except ImportError as missing:
            print(f"{name}: left out, {missing.name} is not installed", file=sys.stderr)
            continue
        rows.append((name, min(panels, options.panels), spent, end))

    print(
        f"{NX} x {NY} cells x {STEPS} steps; {len(jax.local_devices())} x {jax.local_devices()[0].device_kind}"
    )
    print(f"{'':24}{'panels':>8}{'time [s]':>10}{'M cell-steps/s':>16}{'/ C++':>8}{'error [K]':>11}")
    if cpp:
        spent = 2048 * NX * NY * STEPS / cpp / 1e6
        print(f"{'C++ (adi.cpp), float32':24}{2048:>8}{spent:>10.3f}{cpp:>16.0f}{1:>8.2f}{'':>11}")
    for name, panels, spent, end in rows:
        speed = panels * NX * NY * STEPS / spent / 1e6
        ratio = f"{speed / cpp:.2g}" if cpp else "-"
        print(f"{name:24}{panels:>8}{spent:>10.3f}{speed:>16.4g}{ratio:>8}{np.abs(end - exact).max():>11.2e}")


if __name__ == "__main__":
    main()
