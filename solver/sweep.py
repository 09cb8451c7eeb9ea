"""A sweep: some keys of a case through their ranges, on a grid or by even points, and which design is best."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import sampling, study
from .case import CaseError
from .differentiable import Figure
from .keys import find
from .study import LEAST_MARGIN, Designs, Outcome
from .summary import number

GRID = "grid"


def designs(
    case: Any, vary: Sequence[str], scheme: str = GRID, points: int | None = None, seed: int = 0
) -> Designs:
    """The designs of a sweep.

    Args:
        case: `schema.Case`.
        vary: `key=low:high:count`, `key=low:high:count:log` or `key=value,value` of a grid; `key=low:high` or
            `key=low:high:log` of the others.
        scheme: "grid", "latin" or "sobol".
        points: Designs of the last two.
        seed: Of the last two.

    Raises:
        CaseError: a range cannot be read, a key cannot vary, or there are too many designs.
    """
    of_grid = scheme == GRID
    if of_grid and points is not None:
        raise CaseError(f"--points: got {points} with --design grid, whose ranges say it: key=low:high:count")
    if not of_grid and points is None:
        raise CaseError(f"--points: missing; --design {scheme} needs the number of designs")
    axes = sampling.axes(vary, of_grid)
    keys = tuple(find(case, axis.key) for axis in axes)
    log = tuple(axis.key for axis in axes if axis.log)
    if of_grid:
        values = tuple(np.array(axis.values) for axis in axes)
        return Designs(keys, sampling.grid(axes), GRID, axes=values, log=log)
    cube = sampling.cube(scheme, points, len(axes), seed)
    x = np.stack([axis.at(u) for axis, u in zip(axes, cube.T)], axis=1)
    return Designs(keys, x, scheme, seed, log=log)


def best(outcome: Outcome, of: Figure) -> tuple[int, str] | None:
    """The best design and the figure by which it is: by `of` among those that meet every limit; by the least margin,
    where neither more nor less of `of` is better, or no design meets every limit. None if nothing is solved."""
    good, least = study.limits_met(outcome), outcome.figures[LEAST_MARGIN]
    for among, figure in ((good, of), (good, least), (outcome.solved, least)):
        ranked = np.where(among, figure.better * outcome.values[figure.name], np.nan)
        if figure.better and np.isfinite(ranked).any():
            return int(np.nanargmax(ranked)), figure.name
    return None


def summarise(outcome: Outcome, of: str | None = None) -> dict[str, Any]:
    """What a sweep has found, as plain numbers and text.

    Args:
        of: Name of the figure by which the best design is chosen, and which is drawn; the least margin if None.

    Raises:
        CaseError: there is no such figure.
    """
    chosen = study.figure_named(outcome.model, of or LEAST_MARGIN) or outcome.figures[LEAST_MARGIN]
    designs = outcome.designs
    found = study.header(outcome) | {"of": chosen.name}
    found["keys"] = [
        {"key": key.name, "unit": key.unit, "low": float(x.min()), "high": float(x.max()), "case": key.value}
        for key, x in zip(designs.keys, designs.x.T)
    ]
    choice = best(outcome, chosen)
    if choice is None:
        return found | {"figures": [], "limits": [], "meeting_all": 0, "best": None}
    k, by = choice

    def over_designs(name: str) -> dict[str, float | None]:
        values = outcome.values[name]
        some = values[np.isfinite(values)]
        ends = (some.min(), some.max(), values[k]) if len(some) else (np.nan,) * 3
        return {what: study.plain(end) for what, end in zip(("least", "greatest", "best"), ends)}

    own, met = study.margins(outcome.figures), study.limits_met(outcome)
    found["figures"] = [
        {"name": name, "unit": figure.unit, **over_designs(name)}
        for name, figure in outcome.figures.items()
        if name not in own
    ]
    found["limits"] = [
        study.of_limit(figure) | {"met": int(np.sum(outcome.values[name] >= 0)), **over_designs(name)}
        for name, figure in own.items()
    ]
    found["meeting_all"] = int(met.sum())
    found["best"] = {
        "design": k,
        "keys": dict(zip(designs.names, designs.x[k].tolist())),
        "meets_all": bool(met[k]),
        "by": by,
    }
    return found


def show(found: Mapping[str, Any], console: Any) -> None:
    """The summary on a terminal."""
    study.show_header(found, console)
    if found["best"] is None:
        return
    table, same = study.table("figure", "least", "greatest", "best design", ""), []
    for one in found["figures"]:
        least, greatest, best = (study.shown(one[name]) for name in ("least", "greatest", "best"))
        if least == greatest:
            same.append(f"{one['name']} {least} {one['unit']}")
        else:
            table.add_row(one["name"], least, greatest, best, one["unit"])
    console.print()
    console.print(table)
    study.show_same(same, found["what"], console)
    table = study.table("margin of limit", "allowed", "least", "greatest", "best design", "", "met by")
    for one in found["limits"]:
        sign = "<" if one["side"] == "max" else ">"
        margins = (study.shown(one[name], "+.2f") for name in ("least", "greatest", "best"))
        style = None if one["met"] else "red"
        met = f"{one['met']:,} of {found['solved']:,}"
        table.add_row(
            one["name"], f"{sign} {number(one['allowed'])}", *margins, one["unit"], met, style=style
        )
    console.print()
    console.print(table)
    best = found["best"]
    where = ", ".join(f"{name} = {value:.6g}" for name, value in best["keys"].items())
    all_met = "all limits met" if best["meets_all"] else "not all limits met, as in no design"
    console.print(f"\n{found['meeting_all']:,} of {found['solved']:,} designs meet every limit")
    console.print(f"best by {best['by']}: {where} ({all_met})")
