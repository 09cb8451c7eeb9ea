"""What a gradient of the periodic orbit costs, beside the orbit itself.

    pytest bench/bench_gradient.py
    python bench/bench_gradient.py [REVOLUTIONS [STEPS]] [--single]
    python bench/bench_gradient.py --case       the whole case by all its keys, hot and cold, both ends of life

The Suncatcher case's satellite at the epochs of a year, on one device: the hottest place of its panel in each
revolution, summed, in reverse mode by every leaf of design, loads, orbit and surfaces, and in forward mode along six
design variables. Times are the least of several, in CPU time, the modes one after the other in one process.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np
from dawndusk.solver import devices

devices.configure("cpu")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from dawndusk.kernels import march, revolution  # noqa: E402
from dawndusk.solver import build, case, keys  # noqa: E402
from dawndusk.solver.differentiable import Differentiable, conditions  # noqa: E402

CASE = Path(__file__).parents[1] / "cases" / "suncatcher.toml"
VARIABLES = 6


def figures(revolutions: int, steps: int, dtype: str):
    """The figure, its gradient and its tangents along the variables, compiled, and what they are of."""
    overrides = [f"epoch.count={revolutions}", "orbit.satellites=1", f"run.steps={steps}"]
    fleet = build.build(case.load(str(CASE), overrides), np.dtype(dtype))
    params, state = (jax.tree.map(jnp.asarray, tree) for tree in (fleet.params, fleet.state))
    orbits = jax.tree.map(jnp.asarray, fleet.revolutions)
    exact, whole = (
        [
            leaf if jnp.issubdtype(leaf.dtype, jnp.inexact) == kind else None
            for leaf in jax.tree.leaves(orbits)
        ]
        for kind in (True, False)
    )
    loads_of = jax.vmap(partial(revolution.revolution_loads, n_steps=steps), out_axes=-1)

    def hottest(params, exact):
        leaves = [b if a is None else a for a, b in zip(exact, whole)]
        loads = loads_of(jax.tree.unflatten(jax.tree.structure(orbits), leaves))
        return jnp.sum(jnp.max(march.cyclic(params, loads, state)[2].panel_max, axis=0))

    def scaled(x):
        """Every leaf of the design in one of six groups, each with a factor of its own."""
        leaves, tree = jax.tree.flatten(params)
        return hottest(
            jax.tree.unflatten(tree, [leaf * x[k % VARIABLES] for k, leaf in enumerate(leaves)]), exact
        )

    ones = jnp.ones(VARIABLES, dtype)
    return {
        "forward": (jax.jit(hottest), (params, exact)),
        "reverse": (jax.jit(jax.grad(hottest, (0, 1))), (params, exact)),
        f"{VARIABLES} tangents": (jax.jit(jax.jacfwd(scaled)), (ones,)),
    }


def whole_case(dtype: str):
    """All figures of the case at twelve epochs under four conditions; and one with its slopes by every key."""
    found = case.load(str(CASE), ["orbit.satellites=1"])
    names = [name for name in keys.continuous(found) if name not in keys.OF_LEVEL]
    under = conditions(("hot", "cold"), ("beginning", "end"))
    model = Differentiable(found, names, under, dtype=np.dtype(dtype))
    slopes = jax.value_and_grad(lambda x: model(x)["peak_chip_temperature"])
    start = (jnp.asarray(model.start),)
    return {"figures": (jax.jit(model.__call__), start), f"{len(names)} keys": (jax.jit(slopes), start)}


def seconds(f, args, rounds: int = 5) -> float:
    """Least CPU time of a call [s]."""
    jax.block_until_ready(f(*args))
    times = []
    for _ in range(rounds):
        start = time.process_time()
        jax.block_until_ready(f(*args))
        times.append(time.process_time() - start)
    return min(times)


def test_reverse_gradient(benchmark):
    made = figures(48, 128, "float32")
    forward, (gradient, args) = seconds(*made["forward"]), made["reverse"]
    jax.block_until_ready(gradient(*args))
    benchmark(lambda: jax.block_until_ready(gradient(*args)))
    benchmark.extra_info |= {
        "device": jax.devices()[0].device_kind,
        "dtype": "float32",
        "size": "48 revolutions x 32 x 16 cells x 128 steps",
        "times_forward": round(seconds(gradient, args) / forward, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("revolutions", nargs="?", type=int, default=48)
    parser.add_argument("steps", nargs="?", type=int, default=128)
    parser.add_argument("--case", action="store_true", help="figures of the whole case by all its keys")
    parser.add_argument("--single", action="store_true", help="float32 in place of float64")
    asked = parser.parse_args()
    dtype = "float32" if asked.single else "float64"
    if not asked.single:
        jax.config.update("jax_enable_x64", True)
    device = jax.devices()[0].device_kind
    print(
        f"{asked.revolutions} revolutions x 32 x 16 cells x {asked.steps} steps, {dtype}, one {device} device"
    )
    forward = None
    made = whole_case(dtype) if asked.case else figures(asked.revolutions, asked.steps, dtype)
    for name, (f, args) in made.items():
        spent = seconds(f, args)
        forward = spent if forward is None else forward
        print(f"{name:>12}: {spent * 1e3:8.1f} ms, {spent / forward:5.2f} times forward", flush=True)


if __name__ == "__main__":
    main()
