"""Many designs of one case at once: solved chunk by chunk into a directory, and there as a dataset.

The directory is that of a run (results.py), with designs in place of rows: a study that is stopped keeps the chunks
that it has finished, and the same command goes on.
"""

import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from pydantic import ValidationError

from ..kernels.constants import NOT_CONVERGED
from . import case as cases
from . import devices, differentiable, results, summary
from .case import CaseError
from .differentiable import Condition, Differentiable, Figure
from .keys import Key, changed, put, resolved
from .limits import Limit
from .schema import Case

SOLVES = "study"  # as the plan and the dataset say it
ROWS = 1 << 13  # solved between two marks, about: a few seconds' work is lost at most
LEAST_MARGIN = "least_margin"
# What the temperature margins are of; of a set point, which is met or not, there is none to have.
_EXTREMES = ("hottest", "coldest")
_PEAK = re.compile("(peak|coldest)_(.*)_temperature")
_JUDGED = {
    "min_state_of_charge": "state of charge",
    "power_shed": "power shed",
    "energy_balance": "energy balance",
}
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Designs:
    """What is solved.

    Attributes:
        keys: That differ from design to design.
        x: (N, k) their values, in the units of the case file.
        scheme: "grid", "latin" or "sobol".
        seed: Of the last two.
        axes: Of a grid each key's values, whose combinations, the last fastest, are the designs; else empty.
        log: Keys gone through evenly in the logarithm.
        dimension: What one is called, "design" or "sample".
    """

    keys: tuple[Key, ...]
    x: np.ndarray
    scheme: str
    seed: int = 0
    axes: tuple[np.ndarray, ...] = ()
    log: tuple[str, ...] = ()
    dimension: str = "design"

    @property
    def names(self) -> tuple[str, ...]:
        """Of the keys."""
        return tuple(key.name for key in self.keys)

    def said(self, k: int) -> str:
        """The values of one."""
        return ", ".join(f"{name} = {value:.6g}" for name, value in zip(self.names, self.x[k]))

    def digest(self, conditions: Sequence[Condition]) -> str:
        """First digits of SHA-256 over what is solved under which conditions."""
        text = repr((self.names, self.scheme, self.x.shape, [tuple(one) for one in conditions]))
        return hashlib.sha256(text.encode() + self.x.tobytes()).hexdigest()[: cases.HASH_DIGITS]


@dataclass
class Outcome:
    """A study and what it knows.

    Attributes:
        figures: What there is of each design, by name; LEAST_MARGIN among it.
        values: (N,) of each figure; nan where there is none.
        status: (N,) as `quantities.STATUS`, of each design's worst row; NOT_RUN of what was not reached.
    """

    path: Path
    case: Any
    designs: Designs
    conditions: tuple[Condition, ...]
    model: Differentiable
    figures: Mapping[str, Figure]
    values: dict[str, np.ndarray]
    status: np.ndarray
    precision: str
    solved_now: int = 0
    wall_s: float = 0.0
    interrupted: bool = False
    devices: dict[str, Any] = field(default_factory=dict)

    @property
    def solved(self) -> np.ndarray:
        """(N,) designs that were reached and have numbers."""
        return (self.status != results.NOT_RUN) & ~self.failed

    @property
    def failed(self) -> np.ndarray:
        """(N,) designs that were reached and have none."""
        return self.status == results.FAILED


def check(case: Any, designs: Designs, progress: Progress = lambda done, all: None) -> None:
    """Raise CaseError for the first design that the case cannot have."""
    count, whole = len(designs.x), resolved(case)
    for key, values in zip(designs.keys, designs.x.T.tolist()):
        for value in values:
            if not key.holds(value):
                raise CaseError(f"{case.source}: {key.name}: got {cases.show(value)}; must be {key.range}")
    for k, row in enumerate(designs.x.tolist()):
        values = dict(zip(designs.names, row))
        try:
            Case.model_validate(put(whole, values).model_dump(by_alias=True, exclude_none=True))
        except ValidationError:
            try:
                changed(case, values)  # says in one line what is wrong
            except CaseError as error:
                place = f"{designs.dimension} {k + 1} of {count:,}, {designs.said(k)}"
                raise CaseError(*(f"{line}; {place}" for line in error.lines)) from None
        progress(k + 1, count)


def solve(
    case: Any,
    designs: Designs,
    out: Path,
    *,
    of: str | None = None,
    conditions: Sequence[Condition] = (Condition(),),
    precision: str = "single",
    progress: Progress = lambda done, all: None,
) -> Outcome:
    """Every figure of every design, into the directory `out`, going on from what it already holds.

    The designs must be good: see `check`.

    Args:
        case: `schema.Case`.
        out: Made if it is not there.
        of: A figure that the case must have.
        conditions: Over which the figures are the worst.
        precision: "single" or "double".
        progress: Called with designs done and designs in all.

    Raises:
        RunDirectoryError: `out` belongs to another study or to none, cannot be written, or one is at work there.
        CaseError: the case is none that can be studied, or has no such figure.
    """
    from dawndusk import __version__

    if precision == "double":
        jax.config.update("jax_enable_x64", True)
    began, count = time.perf_counter(), len(designs.x)
    dtype = np.dtype(devices.PRECISIONS[precision])
    model = differentiable.Differentiable(case, designs.names, conditions, dtype=dtype)
    if of is not None:
        figure_named(model, of)
    at_once = differentiable.chunk_size(model, count)
    rows = at_once * len(model.places)
    plan = {
        "case_hash": cases.case_hash(case),
        "precision": precision,
        "version": __version__,
        "solves": SOLVES,
        "designs": designs.digest(conditions),
        "rows": count,
        "chunk": at_once * max(1, ROWS // rows),
    }
    with results.claim(out):
        chunk = (results.kept_plan(out, plan) or plan)["chunk"]
        results.begin_with(out, plan, cases.to_toml(case))
        left = results.unfinished(out, count, chunk)
        done = results.rows_marked(out)
        solved_now, interrupted = 0, False
        progress(done, count)
        try:
            for first in left:
                x = designs.x[first : first + chunk]
                some = len(x)
                # One size, one program.
                padded = np.concatenate([x, np.repeat(x[-1:], -some % at_once, axis=0)])

                def part(now, _, done=done, some=some):
                    progress(done + min(now, some), count)

                found = differentiable.evaluate(model, padded, part)
                values = {"status": found.status, **found.figures}
                own = {name: value[:some] for name, value in values.items()}
                results.write_rows(out, first, own, count, chunk, {})
                solved_now += some
                done += some
                progress(done, count)
        except KeyboardInterrupt:
            interrupted = True
    found = _found(results.Scalars(out, count), model.figures, count)
    return Outcome(
        path=out,
        case=case,
        designs=designs,
        conditions=tuple(conditions),
        model=model,
        precision=precision,
        solved_now=solved_now,
        wall_s=time.perf_counter() - began,
        interrupted=interrupted,
        devices=devices.describe(),
        **found,
    )


def _found(scalars: results.Scalars, figures: Mapping[str, Figure], count: int) -> dict[str, Any]:
    """What `Outcome` has of the marks."""
    status = scalars["status"] if len(scalars) else np.full(count, results.NOT_RUN)
    solved = (status != results.NOT_RUN) & (status != results.FAILED)
    values = {}
    for name in figures:
        value = scalars[name].astype(float) if len(scalars) else np.full(count, np.nan)
        values[name] = np.where(solved & np.isfinite(value), value, np.nan)
    heat = [values[name] for name in margins(figures) if name.endswith(_EXTREMES)]
    least = Figure(LEAST_MARGIN, "K", 1, "least margin of all temperatures, after their uncertainty", None)
    return {
        "figures": {**figures, LEAST_MARGIN: least},
        "values": {**values, LEAST_MARGIN: np.min(heat, axis=0)},
        "status": status,
    }


def margins(figures: Mapping[str, Figure]) -> dict[str, Figure]:
    """Those that are the margin of a limit."""
    return {name: figure for name, figure in figures.items() if figure.limit is not None}


def limits_met(outcome: Outcome) -> np.ndarray:
    """(N,) designs that meet every limit."""
    return outcome.solved & np.all([outcome.values[name] >= 0 for name in margins(outcome.figures)], axis=0)


def figure_named(model: Differentiable, name: str) -> Figure | None:
    """A figure by its name, in which a space may be an underscore; None of LEAST_MARGIN, which is no model's own.

    Raises:
        CaseError: there is none.
    """
    if variable(name) == LEAST_MARGIN:
        return None
    return model.figure({variable(one): one for one in model.figures}.get(variable(name), name))


def limit_of(figures: Mapping[str, Figure], name: str) -> Limit | None:
    """The limit that a figure is judged by: its own, or that on the same extreme."""
    if figures[name].limit is not None:
        return figures[name].limit
    found = _PEAK.fullmatch(name)
    judged = f"{found[2]} {_EXTREMES[found[1] == 'coldest']}" if found else _JUDGED.get(name, "")
    margin = figures.get(f"margin of {judged}")
    return None if margin is None else margin.limit


def variable(name: str) -> str:
    """What a figure is called in the dataset, and on the command line."""
    return name.strip().replace(" ", "_")


def dataset(outcome: Outcome) -> Any:
    """The figures on the designs, with the keys as coordinates: of a grid its dimensions, else on `design` or
    `sample`."""
    import xarray as xr

    designs = outcome.designs
    described = {
        key.name: {
            "units": key.unit or "1",
            "long_name": key.meaning,
            "case_value": key.value,
            "scale": "log" if key.name in designs.log else "linear",
        }
        for key in designs.keys
    }
    if designs.axes:
        dims = designs.names
        coordinates = {name: (name, axis, described[name]) for name, axis in zip(dims, designs.axes)}
    else:
        dims = (designs.dimension,)
        coordinates = {name: (dims, designs.x[:, i], described[name]) for i, name in enumerate(designs.names)}
        coordinates[designs.dimension] = np.arange(len(designs.x))
    shape = tuple(len(axis) for axis in designs.axes) or (len(designs.x),)
    data = {
        variable(name): (dims, outcome.values[name].reshape(shape), _described(outcome.figures, name))
        for name in outcome.figures
    }
    met = np.where(outcome.status == results.NOT_RUN, results.NOT_RUN, limits_met(outcome))
    flags = {
        "units": "1",
        "long_name": "whether every limit is met",
        "flag_values": [results.NOT_RUN, 0, 1],
        "flag_meanings": "not_run no yes",
    }
    data["limits_met"] = (dims, met.astype(np.int8).reshape(shape), flags)
    return xr.Dataset(data, coordinates, _attributes(outcome))


def _described(figures: Mapping[str, Figure], name: str) -> dict[str, Any]:
    figure, limit = figures[name], limit_of(figures, name)
    out: dict[str, Any] = {
        "units": {"C": "degC"}.get(figure.unit, figure.unit),
        "long_name": figure.meaning,
    }
    if limit is not None:
        out |= {"limit": limit.name, "allowed": limit.allowed, "side": limit.side}
        out |= {"uncertainty": limit.uncertainty}
    return out


def _attributes(outcome: Outcome) -> dict[str, Any]:
    designs = outcome.designs
    return {
        "title": outcome.case.title or "dawndusk study",
        "Conventions": "CF-1.11",
        "case_hash": cases.case_hash(outcome.case),
        "solves": SOLVES,
        "mode": outcome.case.run.mode,
        "keys": list(designs.names),
        "scheme": designs.scheme,
        "seed": designs.seed,
        "conditions": [str(one) for one in outcome.conditions],
        "precision": devices.PRECISIONS[outcome.precision],
        "device": outcome.devices.get("kind", ""),
        **results.versions(),
    }


def header(outcome: Outcome) -> dict[str, Any]:
    """What the summary of any study begins with."""
    designs = outcome.designs
    return {
        "title": outcome.case.title,
        "case": outcome.case.source,
        "case_hash": cases.case_hash(outcome.case),
        "mode": outcome.case.run.mode,
        "conditions": [str(one) for one in outcome.conditions],
        "precision": outcome.precision,
        "scheme": designs.scheme,
        "seed": designs.seed,
        "what": f"{designs.dimension}s",
        "designs": len(designs.x),
        "solved": int(outcome.solved.sum()),
        "failed": int(outcome.failed.sum()),
        "not_converged": int(np.sum(outcome.status == NOT_CONVERGED)),
        "complete": not outcome.interrupted,
        "solved_now": outcome.solved_now,
        "wall_s": outcome.wall_s,
        "device": outcome.devices,
    }


def of_limit(figure: Figure) -> dict[str, Any]:
    """What a summary says of the limit of a margin."""
    limit = figure.limit
    assert limit is not None
    return {
        "name": limit.name,
        "unit": figure.unit,
        "side": limit.side,
        "allowed": limit.allowed,
        "uncertainty": limit.uncertainty,
    }


def plain(value: float) -> float | None:
    """A number as JSON has it: None where there is none."""
    return float(value) if np.isfinite(value) else None


def shown(value: float | None, how: str = "") -> str:
    """A number of a table, formatted as `how` says."""
    if value is None:
        return "-"
    return f"{value:{how}}" if how else summary.number(value)


def show_header(found: Mapping[str, Any], console: Any) -> None:
    """The beginning of a study on a terminal."""
    scheme = {"grid": "on a grid", "latin": "of a Latin hypercube", "sobol": "of a Sobol sequence"}
    line = f"{found['designs']:,} {found['what']} {scheme[found['scheme']]}"
    if found["scheme"] != "grid":
        line += f", seed {found['seed']}"
    console.print(found["title"] or found["case"])
    console.print(
        f"{line}; conditions: {'; '.join(found['conditions'])}; mode {found['mode']}, {found['precision']}"
    )
    if found["solved_now"]:
        console.print(f"{found['solved_now']:,} solved in {found['wall_s']:.1f} s, compilation included")
    if found["failed"]:
        console.print(
            f"{found['failed']:,} have no numbers: they meet no limit, and count nowhere else", style="red"
        )
    if found["not_converged"]:
        console.print(
            f"{found['not_converged']:,} have not reached their periodic state everywhere", style="red"
        )


def show_same(figures: Sequence[str], where: str, console: Any) -> None:
    """Figures that do not vary, in few words."""
    if figures:
        console.print(f"the same in all {where}: {', '.join(figures)}")


def table(*columns: str) -> Any:
    """A table whose numbers stand right, of which the first column and those without a name or of words are not."""
    from rich.table import Table

    made = Table(box=None, header_style="bold", pad_edge=False)
    for i, name in enumerate(columns):
        made.add_column(name, justify="right" if i and name else "left", no_wrap=True)
    return made


def write(outcome: Outcome, found: Mapping[str, Any]) -> None:
    """The dataset and the summary, into the directory; what was not reached, or failed, is masked in the dataset."""
    drawn = {"of": variable(found["of"] or ""), "designs": len(outcome.designs.x)}
    if found.get("best"):
        drawn["best"] = list(found["best"]["keys"].values())
    made = dataset(outcome).assign_attrs(drawn)
    floats = (name for name, value in made.data_vars.items() if value.dtype.kind == "f")
    encoding = {name: {"_FillValue": results.FILL} for name in floats}
    store = outcome.path / results.DATASET
    with results.claim(outcome.path):
        made.to_zarr(store, mode="w", zarr_format=2, consolidated=True, encoding=encoding)
        summary.write(outcome.path, found)


def open_study(path: Path) -> Any:
    """The dataset of a study's directory."""
    if results.attributes(path).get("solves") != SOLVES:
        raise results.RunDirectoryError(f"{path} is not the directory of a study that came to its end")
    return results.open_store(Path(path) / results.DATASET)
