"""The chunked run: distinct rows through one compiled program, over all devices, into the run directory."""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np

from ..kernels import march, orbit, revolution, satellite, sun
from . import build, devices, results, size
from . import case as cases
from .processes import ALONE, Processes, together, wait_for_others
from .quantities import MAPS, SCALARS, STORED, Variable, design_fault, fault, quantities
from .reductions import Extreme, reduce

# A headroom search solves 13 factors of payload power for each limit: no chunk is smaller than this.
SMALLEST_CHUNK = 32
# Attributes of the dataset besides the kind of device, and where `Outcome.devices` has them.
MACHINE = {
    "device_platform": "platform",
    "devices": "count",
    "processes": "processes",
    "device_memory_gib": "memory_gib",
    "peak_memory_gib": "peak_memory_gib",
    "chunk": "chunk",
}
_UNTHROTTLED = 1e4  # K above any chip
RECOUNT = 10.0  # s after which the other processes' rows are counted again: there may be many thousand marks


@dataclass
class Walls:
    """Wall time by phase [s]."""

    build: float = 0.0
    compile: float = 0.0
    run: float = 0.0
    headroom: float = 0.0
    accuracy: float = 0.0


@dataclass
class Outcome:
    """A run and what it knows about its rows.

    Attributes:
        scalars: One value a row of each quantity, `results.Scalars` or a dictionary; empty while there is none.
        accuracy: What `accuracy.estimate` says of it, or None.
    """

    path: Path
    case: Any
    fleet: Any
    solver: Any
    scalars: Mapping[str, np.ndarray]
    wall: Walls
    solved_now: int
    interrupted: bool = False
    devices: dict[str, Any] = field(default_factory=dict)
    accuracy: dict[str, Any] | None = None

    @property
    def rows(self) -> int:
        """Distinct rows of the run."""
        return row_count(self.fleet)

    @property
    def rate(self) -> float:
        """Rows a second that this process has solved and written, compilation left out; 0 if there were none."""
        return self.solved_now / self.wall.run if self.wall.run > 0 else 0.0


def row_count(fleet: Any) -> int:
    """Distinct rows of a fleet."""
    return int(jax.tree.leaves(fleet.revolutions)[0].shape[0])


def first_place(fleet: Any, row: int) -> tuple[int, int]:
    """First satellite and epoch that a row stands for."""
    group, epoch = divmod(row, len(fleet.epochs))
    return int(np.argmax(fleet.group == group)), epoch


def run(
    case: Any,
    out: Path,
    *,
    kind: type["Program"] | None = None,
    precision: str = "single",
    chunk: int | None = None,
    progress: Callable[[int, int], None] = lambda done, rows: None,
    warn: Callable[[str], None] = lambda message: None,
    processes: Processes = ALONE,
) -> Outcome:
    """Solve every row of a case into the directory `out`, going on from what it already holds.

    Args:
        case: `schema.Case`.
        out: Run directory; made if it is not there.
        kind: What is solved for; `Solver`, if not given.
        precision: "single" or "double".
        chunk: Rows per device solved at once, of a run that begins; as many as `devices` says and memory holds.
        progress: Called with rows done and rows in all, after each chunk.
        warn: Called with each thing that is left out of the run, before it begins.
        processes: Which of the processes of the run this one is; the first waits for the others' rows.

    Raises:
        RunDirectoryError: `out` belongs to another run or to none, cannot be written, or a run is at work there.
        CaseError: the case cannot be built, or is too large for the memory or the disk that there is.
    """
    wall = Walls()
    kind = Solver if kind is None else kind
    if precision == "double":
        jax.config.update("jax_enable_x64", True)
    plan = {
        "case_hash": cases.case_hash(case),
        "precision": precision,
        "version": _version(),
        "solves": kind.solves,
    }
    with ExitStack() as held:
        with together(processes):
            size.refuse_run(
                case,
                np.dtype(devices.PRECISIONS[precision]).itemsize,
                SMALLEST_CHUNK if chunk is None else 1,
                None if results.begun(out) else out,
            )
            held.enter_context(results.claim(out, processes.index))
            kept = results.kept_plan(out, plan)
            with Clock(wall, "build"):
                fleet = kind.fleet_of(case, np.dtype(devices.PRECISIONS[precision]))
        for message in cases.first_of(fleet.left_out):
            warn(f"left out: {message}")
        rows = row_count(fleet)
        if kept is None:
            solver = kind.new(case, fleet, chunk, wall)
            kept = plan | {"rows": rows, "chunk": min(solver.size, rows)}
        else:
            solver = kind(case, fleet, devices.even(kept["chunk"]), wall)
        with together(processes):
            if processes.first:
                results.begin(out, fleet, kept, cases.to_toml(case), kind.coordinates(fleet))
        theirs = results.kept_plan(out, plan)
        if theirs != kept:
            raise devices.DeviceError("the processes of the run have devices unlike each other: give --chunk")
        left = results.unfinished(out, rows, kept["chunk"], processes.index, processes.count)
        solved, interrupted = 0, False
        marked = results.rows_marked(out)
        counted = time.monotonic()
        progress(marked, rows)
        try:
            for start, values in solver.chunks(left, kept["chunk"]):
                with Clock(wall, "run"):
                    results.write_rows(out, start, values, rows, kept["chunk"], kind.stored)
                solved += len(values["status"])
                marked += len(values["status"])
                if processes.count > 1 and time.monotonic() - counted > RECOUNT:
                    marked, counted = results.rows_marked(out), time.monotonic()
                progress(marked, rows)
            if processes.first:
                wait_for_others(out, rows, processes, progress)
        except KeyboardInterrupt:
            interrupted = True
    scalars = results.Scalars(out, rows) if processes.first else {}
    return Outcome(
        out,
        case,
        fleet,
        solver,
        scalars,
        wall,
        solved,
        interrupted or (processes.first and results.rows_marked(out) < rows),
        devices.describe() | {"processes": processes.count, "chunk": kept["chunk"]},
    )


def _version() -> str:
    from dawndusk import __version__

    return __version__


class Clock:
    """Adds the time of its block to one phase."""

    def __init__(self, wall: Walls, phase: str):
        self.wall, self.phase = wall, phase

    def __enter__(self):
        self.start = time.perf_counter()

    def __exit__(self, *_):
        setattr(self.wall, self.phase, getattr(self.wall, self.phase) + time.perf_counter() - self.start)


class Program(ABC):
    """One compiled program of a fixed number of rows, and the chunks that go through it.

    Attributes:
        solves: What a run is of, as its plan says.
        smallest: Rows that a chunk has at least.
        per_device: Rows of a chunk on one device, by platform.
        stored: What goes into the dataset row by row; other quantities go into the marks.
    """

    solves: ClassVar[str]
    smallest: ClassVar[int]
    per_device: ClassVar[Mapping[str, int]]
    stored: ClassVar[Mapping[str, Variable]]

    def __init__(self, case: Any, fleet: Any, size: int, wall: Walls):
        self.case, self.fleet, self.size, self.wall = case, fleet, size, wall
        self.rows = row_count(fleet)
        self._program = None

    @classmethod
    def new(cls, case: Any, fleet: Any, chunk: int | None, wall: Walls, fit: bool = True) -> Self:
        """Of a run that begins: of `chunk` rows a device, or of as many as fill and `fit` its memory."""
        size = devices.chunk_rows(row_count(fleet), chunk, cls.smallest, cls.per_device)
        made = cls(case, fleet, size, wall)
        if chunk is None and fit:
            made.fit(devices.memory())
        return made

    @staticmethod
    @abstractmethod
    def fleet_of(case: Any, dtype: np.dtype) -> Any:
        """What is solved."""

    @staticmethod
    @abstractmethod
    def coordinates(fleet: Any) -> dict[str, Any]:
        """Of the dataset, besides satellites and epochs."""

    @abstractmethod
    def started(self, rows: np.ndarray) -> Iterator[Any]:
        """One chunk of rows at most: yields None when it is under way, then its quantities on the host."""

    @abstractmethod
    def _lowered(self) -> Any:
        """The program, lowered for `size` rows."""

    def chunks(self, starts: Iterable[int], count: int) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """First row and quantities of the chunks of `count` rows at most that begin at `starts`.

        The next chunk computes while the one before is fetched and written.
        """
        pending = None
        for start in starts:
            solution = self.started(np.arange(start, min(start + count, self.rows)))
            next(solution)
            if pending is not None:
                yield pending[0], next(pending[1])
            pending = (start, solution)
        if pending is not None:
            yield pending[0], next(pending[1])

    def padded(self, rows: np.ndarray) -> np.ndarray:
        """`size` rows, the last one repeated."""
        return np.concatenate([rows, np.full(self.size - len(rows), rows[-1])])

    def fit(self, memory: int) -> None:
        """Halve the rows solved at once until the program needs less than `memory` bytes of a device."""
        while self.needed() > memory and self.size > devices.even(self.smallest):
            self.size = devices.even(max(self.size // 2, self.smallest))
            self._program = None

    def needed(self) -> int:
        """Bytes of a device that a chunk needs. Two are on their way at once."""
        found = self._compiled().memory_analysis()
        moved = found.argument_size_in_bytes + found.output_size_in_bytes
        return 2 * moved + found.temp_size_in_bytes + found.generated_code_size_in_bytes

    def _compiled(self) -> Any:
        if self._program is None:
            with Clock(self.wall, "compile"):
                self._program = self._lowered().compile()
        return self._program


class Solver(Program):
    """Periodic orbits, or successive revolutions: loads, march and quantities.

    Pytrees cross into the program as lists of leaves with the rows first: one layout to slice and to shard.
    """

    solves = "temperatures"
    smallest = SMALLEST_CHUNK
    per_device = devices.ROWS_PER_DEVICE
    stored = STORED

    @staticmethod
    def fleet_of(case: Any, dtype: np.dtype) -> Any:
        return build.build(case, dtype)

    @staticmethod
    def coordinates(fleet: Any) -> dict[str, Any]:
        return results.design_coordinates(fleet)

    def started(self, rows: np.ndarray) -> Iterator[Any]:
        return self._solution(rows, series=self.case.run.save != "summary")

    def solve(self, rows: np.ndarray, factor: np.ndarray | None = None, throttle=True, series=False):
        """Quantities of any rows, with the payload power scaled by `factor`, chip throttling on or off.

        Returns them row by row in the order asked; time series only with `series`.
        """
        factor = np.ones(len(rows)) if factor is None else factor
        parts = []
        for start in range(0, len(rows), self.size):
            part = slice(start, start + self.size)
            solution = self._solution(rows[part], factor[part], throttle, series)
            next(solution)
            parts.append(next(solution))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _solution(self, rows, factor=None, throttle=True, series=False) -> Iterator[Any]:
        """As `started`, with what `solve` changes."""
        padded = self.padded(rows)
        with Clock(self.wall, "run"):
            params, state = (
                jax.tree.leaves(build.rows_of(tree, padded, -1))
                for tree in (self.fleet.params, self.fleet.state)
            )
        scale = np.ones(self.size, params[0].dtype)
        scale[: len(rows)] = 1 if factor is None else factor
        change = (scale, np.full(self.size, throttle))
        joined = Joined()
        values = None
        for k in range(self.case.run.revolutions):
            program = self._compiled()
            with Clock(self.wall, "run"):
                revolutions = jax.tree.leaves(build.advance(self.fleet, k, padded))
                state, started = program(revolutions, params, state, change)
                if values is not None:
                    joined.add(_host(values, len(rows), series))
            values = started
        yield None
        with Clock(self.wall, "run"):
            joined.add(_host(values, len(rows), series))
        yield joined.values()

    def _lowered(self) -> Any:
        trees = (self.fleet.revolutions, self.fleet.params, self.fleet.state)
        structures = [jax.tree.structure(tree) for tree in trees]
        run = self.case.run
        solve = partial(solve_rows, structures=structures, mode=run.mode, steps=run.steps, save=run.save)
        some = [build.rows_of(tree, np.zeros(1, int), axis) for tree, axis in zip(trees, (0, -1, -1))]
        factor = np.ones(1, self.fleet.dtype)
        change = tuple(shapes([factor, np.ones(1, bool)], self.size))
        return devices.sharded(solve).lower(*(shapes(tree, self.size) for tree in some), change)


def shapes(tree: Any, rows: int) -> list[jax.ShapeDtypeStruct]:
    """Of a tree's leaves, with that many rows."""
    return [jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype) for leaf in jax.tree.leaves(tree)]


def _host(values: dict[tuple[str, ...], Any], count: int, series: bool) -> dict[str, np.ndarray]:
    """Numbers on the host by name, padding dropped."""
    out = {}
    for names, stack in values.items():
        wanted = [name for name in names if series or name in SCALARS or name in MAPS]
        if wanted:
            host = np.asarray(stack)[:count]
            out |= {name: host[:, names.index(name)] for name in wanted}
    return out


def solve_rows(revolutions, params, state, change, *, structures, mode: str, steps: int, save: str):
    """Loads, march and quantities of a batch of rows; every leaf has the rows first.

    Args:
        revolutions, params, state: Leaves of one row each of the fleet, state at the start.
        change: (B,) factor on the payload's power and (B,) whether the chips throttle.
        structures: Of the three pytrees.
        mode, steps, save: As in the case's [run].

    Returns:
        Leaves of the state at the end of the revolution, and `quantities`.
    """

    def row_loads(leaves):
        row = jax.tree.unflatten(structures[0], leaves)
        beta = sun.beta_angle(row.sun_hat, orbit.orbit_normal(row.orbit))
        return revolution.revolution_loads(row, steps), beta, fault(row)

    params, state = (
        jax.tree.unflatten(structure, [jnp.moveaxis(leaf, 0, -1) for leaf in leaves])
        for structure, leaves in zip(structures[1:], (params, state))
    )
    params = _changed(params, *change)
    loads, beta, faults = jax.vmap(row_loads, out_axes=-1)(revolutions)
    faults = jnp.maximum(faults, design_fault(params))
    # Without a number to march with, its search ends at once and keeps no other row waiting.
    loads = replace(loads, panel=jnp.where(faults[None] > 0, jnp.nan, loads.panel))
    if mode == "steady":
        loads = orbit_mean(loads)
    if mode == "transient":
        start, cycle = state, None
        state, record = march.transient(params, loads, start)
    else:
        start, cycle, record = march.cyclic(params, loads, state)
    cells = cell_series(params, loads, start) if save == "cells" else None
    found = quantities(params, beta, loads, cycle, record, cells, faults)
    return [jnp.moveaxis(leaf, -1, 0) for leaf in jax.tree.leaves(state)], packed(found)


def packed(found: dict[str, Any]) -> dict[tuple[str, ...], Any]:
    """Quantities of one shape and type stacked, rows first, under all their names.

    A hundred small outputs would take as long to compile as the march itself.
    """
    alike: dict[Any, list[str]] = {}
    for name, value in found.items():
        alike.setdefault((value.shape, value.dtype), []).append(name)
    return {
        tuple(names): jnp.moveaxis(jnp.stack([found[name] for name in names]), -1, 0)
        for names in alike.values()
    }


def cell_series(params, loads, state):
    """(steps, nx, ny, B) panel temperatures at the steps' ends: the recorded revolution once more [K]."""

    def advance(now, load):
        now, _ = satellite.step(params, now, load)
        return now, now.state.panel

    return jax.lax.scan(advance, satellite.depart(params, state), loads)[1]


def _changed(params, factor, throttles):
    if params.payload is None:
        return params
    payload = params.payload
    rise = jnp.where(throttles, 0, jnp.asarray(_UNTHROTTLED, factor.dtype))
    return replace(
        params,
        payload=replace(
            payload,
            power=payload.power * factor,
            throttle_start=payload.throttle_start + rise,
            throttle_end=payload.throttle_end + rise,
        ),
    )


def orbit_mean(loads):
    """Loads held at their mean over the revolution: their periodic state is the steady one."""
    steps, period = len(loads.dt), jnp.sum(loads.dt, axis=0)
    weight = loads.dt / period[None]

    def held(series):
        shape = weight.shape[:1] + (1,) * (series.ndim - 2) + weight.shape[1:]
        return jnp.broadcast_to(jnp.sum(series * weight.reshape(shape), axis=0), series.shape)

    middle = (jnp.arange(steps, dtype=period.dtype) + 0.5) / steps
    dt = jnp.broadcast_to(period / steps, loads.dt.shape)
    return replace(jax.tree.map(held, loads), dt=dt, time=middle[:, None] * period[None])


_NOT_EXTREMES = ("period_min", "eclipse_min", "umbra_min", "penumbra_min")  # minutes


class Joined:
    """Successive revolutions of the same rows as one: extremes, means of means, series end to end."""

    def __init__(self):
        self._all: dict[str, np.ndarray] = {}
        self._series: dict[str, list[np.ndarray]] = {}
        self._count = 0
        self._elapsed: Any = 0.0

    def add(self, found: dict[str, np.ndarray]) -> None:
        """Append a revolution."""
        old = self._all
        hotter = colder = np.array(False)
        if old:
            hotter = (found["panel_max_c"] > old["panel_max_c"])[:, None]
            colder = (found["panel_min_c"] < old["panel_min_c"])[:, None]
        self._count += 1
        new = {}
        for name, value in found.items():
            if name == "time_s":
                value = value + self._elapsed
            if name not in SCALARS and name not in MAPS:
                self._series.setdefault(name, []).append(value)
            elif not old:
                new[name] = value
            elif name == "panel_hottest_c":
                new[name] = np.where(hotter, value, old[name])
            elif name == "panel_coldest_c":
                new[name] = np.where(colder, value, old[name])
            elif "_max" in name or name in ("status", "reason", "payload_peak_kw"):
                new[name] = np.maximum(value, old[name])
            elif "_min" in name and name not in _NOT_EXTREMES:
                new[name] = np.minimum(value, old[name])
            elif name.endswith("_residual"):
                new[name] = np.where(np.abs(value) > np.abs(old[name]), value, old[name])
            else:
                new[name] = (old[name] + (value - old[name]) / self._count).astype(value.dtype)
        self._all = new
        # Series start where the revolution before ended.
        self._elapsed = self._elapsed + 60 * found["period_min"][:, None]

    def values(self) -> dict[str, np.ndarray]:
        """All quantities of the joined revolutions."""
        out = self._all | {name: np.concatenate(parts, axis=1) for name, parts in self._series.items()}
        if self._count > 1 and "soc_min" in out:
            out["depth_of_discharge"] = out["soc_max"] - out["soc_min"]
        return out


def conclude(outcome: Outcome) -> None:
    """Complete the dataset: what has satellites and epochs, attributes, featured revolutions.

    An interrupted run gets the same, with the rows that were not reached masked.
    """
    if not outcome.scalars:
        return
    attributes = described(outcome) | {
        "mode": outcome.case.run.mode,
        "maps_and_series": "on dimension revolution; revolution_index gives it for satellite and epoch",
    }
    if outcome.accuracy is not None:
        attributes["discretisation_errors"] = json.dumps(outcome.accuracy, allow_nan=False)
    if not outcome.interrupted:
        _write_featured(outcome, attributes)
    results.finish(outcome.path, outcome.fleet, outcome.scalars, attributes)


def described(outcome: Outcome) -> dict[str, Any]:
    """Attributes of the dataset of any run: the case, what it was solved for, and what it ran on."""
    attributes = {
        "title": outcome.case.title or "dawndusk run",
        "Conventions": "CF-1.11",
        "case_hash": cases.case_hash(outcome.case),
        "solves": outcome.solver.solves,
        "precision": str(outcome.fleet.dtype),
        "device": outcome.devices.get("kind", ""),
        **{name: outcome.devices[key] for name, key in MACHINE.items() if key in outcome.devices},
    }
    if outcome.fleet.left_out:
        attributes["left_out"] = "\n".join(outcome.fleet.left_out)
    if outcome.solved_now:
        attributes |= {
            "rows_per_s": round(outcome.rate, 3),
            "compile_s": round(outcome.wall.compile, 3),
        }
    return attributes


def _write_featured(outcome: Outcome, attributes: dict[str, Any]) -> None:
    """Solve and store the revolutions of the pictures: the hottest, and that with the longest eclipse."""
    fleet, names = outcome.fleet, tuple(outcome.fleet.params.network.names)

    def peak(scalars):
        return scalars["node_max_c"][:, names.index("chip")] if "chip" in names else scalars["panel_max_c"]

    hottest, darkest = Extreme(peak), Extreme(lambda scalars: scalars["eclipse_min"])
    reduce(outcome, hottest, darkest)
    if hottest.row is None or darkest.row is None:
        return
    # Without any eclipse the hottest revolution stands for both.
    dark = darkest.row if darkest.of(lambda scalars: scalars["eclipse_min"]) > 0 else hottest.row
    chosen = np.array([hottest.row, dark])
    before = outcome.wall.run
    values = outcome.solver.solve(chosen, series=True)
    outcome.wall.run = before  # the rows' own
    for group, part, row in zip(results.FEATURED, (slice(0, 1), slice(1, 2)), chosen.tolist()):
        satellite, epoch = first_place(fleet, row)
        where = {
            "satellite": str(fleet.names[satellite]),
            "epoch": f"{fleet.epochs[epoch]:%Y-%m-%d %H:%M} UTC",
        }
        one = {name: value[part] for name, value in values.items()}
        results.write_featured(outcome.path, group, fleet, one, attributes | where)
