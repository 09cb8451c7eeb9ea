"""A thousand fins through one orbit, beside what a user would take instead, all in one run.

    python bench/bench_fin.py [--peers numba,diffrax,scipy]

Fins of 64 cells, heated at the root, both faces radiating, 3,700 s of sun and 2,100 s of shadow in 580 steps of 10 s.
Inputs, and the end temperatures of the first 50 fins by Radau at 1e-10 on the same cells, are in
`tests/reference/bench/fin1000.npz`. A peer that is slow takes the first fins only, and its time is scaled up; one
that chooses its steps itself is given the same cell-steps for it. Each line gives the error beside the speed. Needs
the `bench` extra for the peers.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
from bench_panel import timed
from dawndusk.solver import devices

DATA = Path(__file__).parents[1] / "tests" / "reference" / "bench" / "fin1000.npz"
SIGMA = 5.670374419e-8
CHUNK = 125  # fins at once on one device: their arrays stay in the cache of one core


def problem():
    """Arrays and numbers of the file, and what follows from them."""
    given = dict(np.load(DATA))
    given["n"] = int(given["ncell"])
    given["steps"], given["sun_steps"] = round(given["P"] / given["dt"]), round(given["t_sun"] / given["dt"])
    given["dx"] = given["L"] / given["n"]
    return given


def ours(given, dtype, gradient=False):
    """A function that marches all fins, spread over all devices, and gives their ends (fins, cells).

    With `gradient`: their derivatives of the hottest end temperature by every number of a fin, (numbers, fins).
    """
    import jax
    import jax.numpy as jnp
    from dawndusk.kernels.fin import Face, Fin, Loads, fin_transient

    in_sun = (np.arange(given["steps"]) < given["sun_steps"])[:, None]

    def one_chunk(length, kt, capacity, emissivity, root, sun, shadow):
        fins = Fin(
            length, jnp.ones_like(kt), kt, (Face(emissivity),), capacity, root="flux", n_cells=given["n"]
        )
        absorbed = jnp.where(in_sun, sun[None], shadow[None])
        loads = Loads((absorbed,), jnp.broadcast_to(root[None], absorbed.shape))
        start = jnp.full((given["n"], length.size), given["T0"], dtype)
        return fin_transient(start, loads, jnp.full_like(absorbed, given["dt"]), fins)

    def hottest(row):
        return jnp.sum(jnp.max(one_chunk(*row), axis=0))

    def run(*rows):
        def one(row):
            return jnp.stack(jax.grad(hottest)(row)) if gradient else one_chunk(*row)

        return jax.lax.map(one, rows)

    args = [
        given[name].astype(dtype).reshape(-1, CHUNK) for name in ("L", "kt", "C", "eps", "qb", "qs", "qe")
    ]
    even = len(args[0]) % len(jax.local_devices()) == 0
    compiled = devices.sharded(run) if even else jax.jit(run)
    args = jax.device_put(args)

    def march():
        ends = np.asarray(jax.block_until_ready(compiled(*args)))
        return np.moveaxis(ends, 1, 2).reshape(-1, ends.shape[1])

    return march


def numba_peer(given, fins):
    """Crank-Nicolson with one Newton correction, one fin after another, all threads, float64."""
    import numba

    n, steps, sun_steps = given["n"], given["steps"], given["sun_steps"]
    dt, T0 = float(given["dt"]), float(given["T0"])

    @numba.njit(parallel=True, fastmath=True)
    def march(g, C, eps, root, qs, qe):
        ends = np.empty((g.size, n))
        for p in numba.prange(g.size):
            T, d, c = np.full(n, T0), np.empty(n), np.empty(n)
            held = 2 * C[p] / dt
            for k in range(steps):
                load = qs[p] if k < sun_steps else qe[p]
                for i in range(n):
                    cube = eps[p] * SIGMA * T[i] ** 3
                    low = g[p] * (T[i - 1] - T[i]) if i else root[p]
                    high = g[p] * (T[i + 1] - T[i]) if i < n - 1 else 0.0
                    q = 2 * (low + high + load - cube * T[i])
                    diagonal = held + 4 * cube + g[p] * ((i > 0) + (i < n - 1))
                    if i:
                        diagonal -= g[p] * c[i - 1]
                        q += g[p] * d[i - 1]
                    c[i], d[i] = g[p] / diagonal, q / diagonal
                x = d[n - 1]
                T[n - 1] += x
                for i in range(n - 2, -1, -1):
                    x = d[i] + c[i] * x
                    T[i] += x
            ends[p] = T
        return ends

    arguments = [x[:fins] for x in (given["kt"] / given["dx"] ** 2, given["C"], given["eps"])]
    arguments += [x[:fins] for x in (given["qb"] / given["dx"], given["qs"], given["qe"])]
    return lambda: march(*arguments)


def _rate(xp, T, g, C, eps, root, load):
    """dT/dt of one fin's cells [K/s]."""
    flow = xp.concatenate([xp.reshape(root, 1), -g * xp.diff(T), xp.zeros(1)])
    return (-xp.diff(flow) + load - eps * SIGMA * T**4) / C


def diffrax_peer(given, fins):
    """Kvaerno3 under vmap, adaptive, float64, sun and shadow each on their own."""
    import diffrax
    import jax
    import jax.numpy as jnp

    controller = diffrax.PIDController(rtol=1e-5, atol=1e-4)

    def part(T, seconds, arguments):
        field = diffrax.ODETerm(lambda t, T, arguments: _rate(jnp, T, *arguments))
        found = diffrax.diffeqsolve(
            field, diffrax.Kvaerno3(), 0.0, seconds, 1.0, T, arguments, stepsize_controller=controller
        )
        return found.ys[-1]

    @jax.jit
    @jax.vmap
    def march(g, C, eps, root, qs, qe):
        T = part(jnp.full(given["n"], float(given["T0"])), float(given["t_sun"]), (g, C, eps, root, qs))
        return part(T, float(given["P"] - given["t_sun"]), (g, C, eps, root, qe))

    arguments = [given["kt"] / given["dx"] ** 2, given["C"], given["eps"], given["qb"] / given["dx"]]
    arguments = [jnp.asarray(x[:fins]) for x in (*arguments, given["qs"], given["qe"])]
    return lambda: np.asarray(march(*arguments))


def scipy_peer(given, fins):
    """LSODA with a banded Jacobian, fin by fin, sun and shadow each on their own."""
    from scipy.integrate import solve_ivp

    spans = float(given["t_sun"]), float(given["P"] - given["t_sun"])
    how = {"method": "LSODA", "rtol": 1e-5, "atol": 1e-4, "lband": 1, "uband": 1}

    def run():
        ends = np.empty((fins, given["n"]))
        for i in range(fins):
            T = np.full(given["n"], given["T0"])
            fixed = given["kt"][i] / given["dx"][i] ** 2, given["C"][i], given["eps"][i]
            for load, span in zip((given["qs"][i], given["qe"][i]), spans):
                numbers = (*fixed, given["qb"][i] / given["dx"][i], load)
                found = solve_ivp(lambda t, T, numbers=numbers: _rate(np, T, *numbers), (0, span), T, **how)
                T = found.y[:, -1]
            ends[i] = T
        return ends

    return run


# Fins that each peer marches in some seconds.
PEERS = {"numba": (numba_peer, 1000), "diffrax": (diffrax_peer, 50), "scipy": (scipy_peer, 50)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default="numba,diffrax,scipy", help="comma-separated; empty for none")
    parser.add_argument("--repeats", type=int, default=6)
    options = parser.parse_args()
    devices.configure(precision="double")

    import jax

    given = problem()
    count = len(given["L"])
    rows = [
        (f"dawndusk, {dtype}", count, *timed(ours(given, np.dtype(dtype)), options.repeats))
        for dtype in ("float32", "float64")
    ]
    for name in filter(None, options.peers.split(",")):
        make, fins = PEERS[name]
        try:
            rows.append((name, fins, *timed(make(given, fins), 1)))
        except ImportError as missing:
            print(f"{name}: left out, {missing.name} is not installed", file=sys.stderr)

    exact = given["T_end_first50"]
    print(
        f"{count} fins x {given['n']} cells x {given['steps']} steps; "
        f"{len(jax.local_devices())} x {jax.local_devices()[0].device_kind}; load average {os.getloadavg()[0]:.2f}"
    )
    print(f"{'':20}{'fins':>6}{'1000 fins [s]':>15}{'M cell-steps/s':>16}{'error [K]':>11}")
    for name, fins, spent, ends in rows:
        whole = spent * count / fins
        speed = count * given["n"] * given["steps"] / whole / 1e6
        error = np.abs(ends[: len(exact)] - exact).max()
        print(f"{name:20}{fins:>6}{whole:>15.3f}{speed:>16.1f}{error:>11.1e}")
    spent, _ = timed(ours(given, np.dtype("float32"), gradient=True), 2)
    print(
        f"reverse gradient by every number of a fin, float32: {spent:.3f} s, {spent / rows[0][2]:.1f} marches"
    )


if __name__ == "__main__":
    main()
