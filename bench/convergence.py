"""Hot spot and chip peak of shipped cases against cells and steps, beside the limit that they tend to.

    python bench/convergence.py [CASE ...]

For each case one satellite at the epoch with the hottest panel, its periodic orbit in float64 to 1e-6 K. The limit is
Richardson's, second order in both: over the cells from 64 x 32 and 128 x 64 at the default steps, over the steps from
the last two of the table. Tables give what each grid is off by. The default is 32 x 16 cells and 128 steps. Takes
some minutes.
"""

import sys

import numpy as np
from dawndusk.solver import devices

devices.configure("cpu", "double")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from dawndusk.kernels import march, revolution  # noqa: E402
from dawndusk.solver import build, case  # noqa: E402

CASES = ("suncatcher.toml", "starlink_ai.toml")
CELLS = ((8, 6), (16, 8), (32, 16), (64, 32))
STEPS = (64, 128, 256, 512)
FINEST = 128, 64
DEFAULT = CELLS.index((32, 16)), STEPS.index(128)
TOLERANCE = 1e-6  # K


def peaks(name, cells, steps, rows=None):
    """Highest panel and chip temperatures over the periodic orbit [K], (2, rows), and the epochs of the rows."""
    loaded = case.load(case.find(name), [f"run.cells={list(cells)}", f"run.steps={steps}"])
    fleet = build.build(loaded, np.float64)
    rows = np.arange(len(fleet.epochs)) if rows is None else rows
    params, state = (
        jax.tree.map(lambda x: jnp.asarray(x[..., rows]), t) for t in (fleet.params, fleet.state)
    )
    some = jax.tree.map(lambda x: jnp.asarray(x[rows]), fleet.revolutions)

    @jax.jit
    def solve(params, some, state):
        loads = jax.vmap(lambda row: revolution.revolution_loads(row, steps), out_axes=-1)(some)
        _, cycle, record = march.cyclic(params, loads, state, TOLERANCE, 100)
        return cycle.status, record.panel_max, record.nodes

    status, panel, nodes = solve(params, some, state)
    if np.any(np.asarray(status) != march.CONVERGED):
        raise RuntimeError(f"{name}: {cells} cells, {steps} steps: not converged")
    chip = fleet.params.network.index("chip")
    return np.stack([panel.max(axis=0), nodes[:, chip].max(axis=0)]), fleet.epochs


def table(name):
    """Peaks of the hottest epoch, (2, cells, steps), what they tend to, (2,), and that epoch."""
    hot, epochs = peaks(name, CELLS[0], STEPS[0])
    row = np.array([np.argmax(hot[0])])
    found = [[peaks(name, cells, steps, row)[0][:, 0] for steps in STEPS] for cells in CELLS]
    T = np.moveaxis(np.array(found), -1, 0)
    k = DEFAULT[1]
    fine = peaks(name, FINEST, STEPS[k], row)[0][:, 0]
    by_cells = fine + (fine - T[:, -1, k]) / 3
    by_steps = T[:, -1, -1] - T[:, -1, k] + (T[:, -1, -1] - T[:, -1, -2]) / 3
    return T, by_cells + by_steps, epochs[row[0]]


def main():
    for name in sys.argv[1:] or CASES:
        found, limits, epoch = table(name)
        for what, T, end in zip(("hot spot", "chip peak"), found, limits):
            print(f"\n{name}, {epoch:%Y-%m-%d}: {what} {end - 273.15:.3f} C; off by, in K:")
            print("cells \\ steps" + "".join(f"{steps:>10}" for steps in STEPS))
            for cells, row in zip(CELLS, T):
                print(f"{cells[0]:>3} x {cells[1]:<7}" + "".join(f"{t - end:>10.4f}" for t in row))
            print(f"default: {T[DEFAULT] - end:+.4f} K", flush=True)


if __name__ == "__main__":
    main()
