"""Figures of designs and their slopes, of every row of every figure, in one compiled call.

Forward mode: one tangent for each key, carried by all rows of all designs at once, so that the slopes of all rows
come out together. A key with an entry for each epoch takes one tangent too, since a row knows only the entry of its
own epoch: which entry a row's slope belongs to is sorted out afterwards, before rows become figures of a design.
"""

import time
from collections.abc import Collection
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..kernels.constants import NOT_FINITE

KEPT = 8  # answers, each of one design


class Sloped(NamedTuple):
    """Figures of designs, with slopes by k entries.

    Attributes:
        figures: By name, (designs,) and (designs, k).
        rows: By name, of those asked for, (designs, rows) and (designs, rows, k).
        uncurtailed: As `figures`, with the compute that would be delivered if power curtailed none. It is the same
            where the limits of power hold; what is delivered has a kink just there.
        failed: (designs,) whether a row has no finite answer; its numbers mean nothing.
    """

    figures: dict[str, tuple[np.ndarray, np.ndarray]]
    rows: dict[str, tuple[np.ndarray, np.ndarray]]
    uncurtailed: dict[str, tuple[np.ndarray, np.ndarray]]
    failed: np.ndarray


class Slopes:
    """Values and slopes of a `differentiable.Differentiable`, by some of its entries.

    Attributes:
        size: Designs solved at once.
        calls: Designs solved so far.
        wall: Seconds: compile, run.
    """

    def __init__(self, model: Any, entries: np.ndarray, rows: Collection[str] = (), size: int = 1):
        """
        Args:
            entries: (k,) of the model.
            rows: Figures that are wanted row by row too.
        """
        self.model, self.size, self.calls = model, size, 0
        self.wall = {"compile": 0.0, "run": 0.0}
        self._entries, self._rows = np.asarray(entries), tuple(rows)
        self._program: Any = None
        self._kept: dict[bytes, Sloped] = {}

    def __call__(self, x: np.ndarray) -> Sloped:
        """At designs x, (designs, all entries of the model); the last few answers for a single one are kept."""
        x = np.asarray(x, self.model.dtype)
        asked = x.tobytes()
        if asked in self._kept:
            return self._kept[asked]
        if self._program is None:
            begin = time.perf_counter()
            shape = jax.ShapeDtypeStruct((self.size, x.shape[1]), x.dtype)
            self._program = jax.jit(self._sloped).lower(shape).compile()
            self.wall["compile"] += time.perf_counter() - begin
        begin = time.perf_counter()
        parts = []
        for first in range(0, len(x), self.size):
            some = x[first : first + self.size]
            padded = np.concatenate([some, np.repeat(some[-1:], self.size - len(some), axis=0)])
            found = jax.tree.map(np.asarray, self._program(padded))
            parts.append(jax.tree.map(itemgetter(slice(len(some))), found))
        found = Sloped(*jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts))
        self.wall["run"] += time.perf_counter() - begin
        self.calls += len(x)
        if len(x) == 1:
            if len(self._kept) == KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[asked] = found
        return found

    def _sloped(self, x: jax.Array) -> Any:
        model, entries = self.model, self._entries
        tangents, belongs = _tangents(model, entries)

        def solved(*columns):
            found = model.solved(x, dict(zip(entries.tolist(), columns)))
            return {name: value for name, value in found.items() if name != "status"}, found["status"]

        def along(tangent):
            columns = tuple(x[:, i] for i in entries)
            dots = tuple(jnp.full_like(column, 1) * tangent[i] for i, column in zip(entries, columns))
            return jax.jvp(solved, columns, dots, has_aux=True)

        found, by_key, status = jax.vmap(along, out_axes=(None, 0, None))(jnp.asarray(tangents, x.dtype))
        key, rows = belongs
        by_entry = {name: value[key] * jnp.asarray(rows, x.dtype)[:, None] for name, value in by_key.items()}
        unit = jnp.eye(x.shape[1], dtype=x.dtype)[entries]

        def figures(x, found):
            found = found | {"status": status}
            uncurtailed = found | {"delivered": found["uncurtailed"]} if "uncurtailed" in found else found
            return *model.figured(x, found), model.figured(x, uncurtailed)[0]

        def with_slope(tangent, of_rows):
            direction = (jnp.broadcast_to(tangent[None], x.shape), of_rows)
            return jax.jvp(figures, (x, found), direction)

        values, slopes = jax.vmap(with_slope, out_axes=(None, -1))(unit, by_entry)
        wanted = model.figures, [name for name in self._rows if name in values[1]], model.figures
        pairs = (
            {name: (value[name], slope[name]) for name in names}
            for names, value, slope in zip(wanted, values, slopes)
        )
        return *pairs, jnp.any(status == NOT_FINITE, axis=1)


def _tangents(model: Any, entries: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Directions (keys, all entries), one for each key; of each entry its direction (k,) and its rows (k, rows)."""
    names = [model.names[i].partition("@") for i in entries]
    keys = list(dict.fromkeys(key for key, _, _ in names))
    tangents = np.zeros((len(keys), len(model.names)))
    belongs = np.array([keys.index(key) for key, _, _ in names])
    tangents[belongs, entries] = 1
    epochs = sorted({place.epoch for place in model.places})
    of = np.array([epochs.index(place.epoch) for place in model.places])
    rows = np.array([of == int(epoch) if epoch else np.ones(len(of), bool) for _, _, epoch in names])
    return tangents, (belongs, rows)
