"""Least mass of many Suncatcher-class satellites at once: how many calls, how long, how many converge.

    python bench/sizing.py 1000

Altitudes, battery energies per mass and emissivities are drawn between bounds; 8 x 6 cells, 48 steps, one epoch near
the solstice, hot and cold, beginning and end of life and as given: five revolutions a design, in float64.
"""

import sys

import numpy as np
from dawndusk.solver import case, devices, sizing_batch

GRID = ("run.cells=[8,6]", "run.steps=48", "epoch.count=1")
BETWEEN = {
    "orbit.altitude_km": (500.0, 1300.0),
    "battery.specific_energy_wh_kg": (100.0, 250.0),
    "radiator.emissivity": (0.8, 0.92),
}


def main(count: int) -> None:
    devices.configure(None, "double")
    rng = np.random.default_rng(0)
    fixed = {name: rng.uniform(*bounds, count) for name, bounds in BETWEEN.items()}
    found = sizing_batch.size_batch(case.load("suncatcher_altitude", GRID), fixed)
    calls, wall = found.solutions.calls, found.wall
    mass = found.objective
    print(f"{count} designs: {found.feasible.sum()} feasible, {found.converged.sum()} converged")
    print(f"mass {mass.min():.0f} to {mass.max():.0f} kg; calls: mean {calls.mean():.1f}, most {calls.max()}")
    own = wall["all"] - wall["compile"] - wall["run"]
    print(
        f"compile {wall['compile']:.0f} s, model {wall['run']:.0f} s, the search's own {own:.0f} s; float64, CPU"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
