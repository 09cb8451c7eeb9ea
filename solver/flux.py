"""A run of fluxes alone: orbit means and extremes of every row, without any march."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..kernels import orbit_average
from ..kernels.orbit_average import FACES
from . import build, devices, results
from .quantities import SOURCES, Variable
from .results import FAILED
from .run import Clock, Outcome, Program, described, shapes

RADIATOR, ARRAY = ("radiator_0", "radiator_1"), ("array_front", "array_back")
# Rows per device and chunk: no state is carried, a row takes a few kilobytes while it computes.
ROWS_PER_DEVICE = {"cpu": 8192, "gpu": 131072, "tpu": 32768}
CPU_BLOCK = 1024  # rows that a core takes at once: what they need stays in its second-level cache

# Of each row, float32: 261 bytes, 213 without an array.
VARIABLES = {
    "period_min": Variable((), "min", "orbital period"),
    "beta_deg": Variable((), "degree", "angle of the Sun above the orbit plane"),
    "eclipse_min": Variable(
        (), "min", "eclipse a revolution: time integral of the shadowed share of the Sun"
    ),
    "umbra_min": Variable((), "min", "full shadow a revolution"),
    "penumbra_min": Variable((), "min", "partial shadow a revolution"),
    "incident_w_m2": Variable(("source", "face"), "W m-2", "incident flux, mean over the revolution"),
    "absorbed_w_m2": Variable(("face",), "W m-2", "absorbed flux, mean over the revolution"),
    "absorbed_max_w_m2": Variable(("face",), "W m-2", "absorbed flux, greatest of the revolution"),
    "absorbed_min_w_m2": Variable(("face",), "W m-2", "absorbed flux, least of the revolution"),
}


class FluxSolver(Program):
    """Fluxes of a roster's rows."""

    solves = "fluxes"
    smallest = 256
    per_device = ROWS_PER_DEVICE
    stored = VARIABLES

    @staticmethod
    def fleet_of(case: Any, dtype: np.dtype) -> build.Roster:
        return build.roster(case, dtype)

    @staticmethod
    def coordinates(fleet: build.Roster) -> dict[str, Any]:
        return {
            "face": results.labels("face", faces(fleet.case), "face"),
            "source": results.labels("source", SOURCES, "source of incident flux"),
        }

    def started(self, rows: np.ndarray) -> Iterator[Any]:
        program = self._compiled()
        with Clock(self.wall, "run"):
            values = program(jax.tree.leaves(self._revolutions(self.padded(rows))))
        yield None
        with Clock(self.wall, "run"):
            yield {name: np.asarray(value)[: len(rows)] for name, value in values.items()}

    def _lowered(self) -> Any:
        one = self._revolutions(np.zeros(1, int))
        solve = partial(
            solve_rows,
            structure=jax.tree.structure(one),
            count=len(faces(self.case)),
            along=known_axes(self.case),
            block=CPU_BLOCK if jax.default_backend() == "cpu" else None,
        )
        return devices.sharded(solve).lower(shapes(one, self.size))

    def _revolutions(self, rows: np.ndarray) -> Any:
        return build.rows_of(self.fleet.revolutions, rows, 0)


def faces(case: Any) -> tuple[str, ...]:
    """Faces of a case's satellites."""
    return FACES if case.array is not None else FACES[: -len(ARRAY)]


def known_axes(case: Any) -> tuple[str, str | None]:
    """Body axes along which the radiator's face 0 and the array's front look; None for an array that turns."""
    array = case.array
    if array is None or array.drive == "fixed":
        return case.radiator.normal, (array and array.axis) or "+z"
    facing = array.drive == "two_axis" and case.attitude.pointing == "sun"
    return case.radiator.normal, "+z" if facing else None


def solve_rows(
    leaves: list[Any], *, structure: Any, count: int, along: tuple[str, str | None], block: int | None
) -> dict[str, Any]:
    """`VARIABLES` and status of a batch of rows, the first `count` faces; every leaf has the rows first."""
    revolutions = jax.tree.unflatten(structure, leaves)
    found = orbit_average.fleet_fluxes(revolutions, along=along, block=block)
    values = {
        "period_min": found.period / 60,
        "beta_deg": jnp.rad2deg(found.beta),
        "eclipse_min": found.eclipse_fraction * found.period / 60,
        "umbra_min": found.umbra_seconds / 60,
        "penumbra_min": found.penumbra_seconds / 60,
        "incident_w_m2": found.incident[:, :count],
        "absorbed_w_m2": found.absorbed[:count],
        "absorbed_max_w_m2": found.absorbed_peak[:count],
        "absorbed_min_w_m2": found.absorbed_least[:count],
    }
    first = {name: jnp.moveaxis(value, -1, 0).astype(jnp.float32) for name, value in values.items()}
    # Whatever is not finite shows in one of these.
    finite = jnp.isfinite(first["eclipse_min"]) & jnp.all(jnp.isfinite(first["absorbed_w_m2"]), axis=1)
    return first | {"status": jnp.where(finite, 0, FAILED).astype(jnp.int8)}


def conclude(outcome: Outcome) -> None:
    """Complete the dataset: what has satellites and epochs, and the attributes."""
    if not outcome.scalars:
        return
    attributes = described(outcome) | {
        "fluxes": "on dimension revolution; revolution_index gives it for satellite and epoch",
    }
    results.finish(outcome.path, outcome.fleet, outcome.scalars, attributes)
