"""How the panel march grows with satellites and with cells: time per cell-step, and its picture.

    python bench/growth.py [PICTURE]

Strips with a heat pipe, one orbit of 256 steps, float32: the march of `bench_panel.ours`, 128 panels at a time on
each device, as `dawndusk run` does on a CPU.
"""

import os
import sys

import numpy as np
from bench_panel import STEPS, ours, timed
from dawndusk.solver import devices

SATELLITES = tuple(((32, 16), count) for count in (1, 256, 2048, 16384))
CELLS = tuple((cells, 256) for cells in ((8, 4), (32, 16), (128, 64)))
PIPE = 1.0  # k A of the heat pipe [W m/K]


def measure(cells, satellites):
    """Nanoseconds a cell-step, of the quickest run."""
    cell_steps = satellites * cells[0] * cells[1] * STEPS
    repeats = int(np.clip(2e9 / cell_steps, 4, 20))
    spent, end = timed(ours(satellites, np.float32, cells=cells, pipe=PIPE), repeats)
    if not np.all(np.isfinite(end)):
        raise RuntimeError(f"{satellites} x {cells}: not finite")
    return 1e9 * spent / cell_steps


def draw(found, path):
    """Both series, cost against satellites and against cells."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "growth"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(6, 2.6), sharey=True, layout="constrained")
    by_count = [(count, found[cells, count]) for cells, count in SATELLITES]
    by_cells = [(cells[0] * cells[1], found[cells, count]) for cells, count in CELLS]
    for axis, points, label in (
        (axes[0], by_count, "satellites of 32 x 16 cells"),
        (axes[1], by_cells, "cells of each of 256 satellites"),
    ):
        axis.semilogx(*zip(*points), "o-")
        axis.set_ylim(bottom=0)
        axis.set_xlabel(label)
        axis.grid(True, which="both", alpha=0.3)
    axes[0].set_ylabel("time per cell-step [ns]")
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None)


def main():
    devices.configure()

    import jax

    print(
        f"{len(jax.local_devices())} x {jax.local_devices()[0].device_kind}; load average "
        f"{os.getloadavg()[0]:.2f}; {STEPS} steps, float32"
    )
    print(f"{'satellites':>10}{'cells':>10}{'ns/cell-step':>14}{'/ 256 of 32 x 16':>20}")
    found = {case: measure(*case) for case in dict.fromkeys(SATELLITES + CELLS)}
    reference = found[(32, 16), 256]
    for (cells, count), spent in found.items():
        size = f"{cells[0]} x {cells[1]}"
        print(f"{count:>10}{size:>10}{spent:>14.3f}{spent / reference:>20.2f}")
    print(f"load average at the end {os.getloadavg()[0]:.2f}")
    if len(sys.argv) > 1:
        draw(found, sys.argv[1])


if __name__ == "__main__":
    main()
