"""What a sizing has found: as plain numbers and text, on the terminal, as files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import case as cases
from . import keys
from .drawing import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, drawing, save
from .optimise import AT_BOUND, Solution
from .results import write_text
from .sizing import SCHEDULED, Sized, Task, schedules
from .study import plain
from .summary import number

SAME_OBJECTIVE, SAME_DESIGN = 1e-3, 1e-2  # relative; share of the range between a variable's bounds
TOML, JSON, PICTURE = "sized.toml", "sizing.json", "sizing.png"
MOST_LINES = 24  # of a table before it says how many more
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY)


def report(sized: Sized) -> dict[str, Any]:
    """All of it, strict JSON: no NaN, no infinity. docs/studies.md says what is in it."""
    task, best = sized.task, sized.best
    case, model = task.case, task.model
    before, after = task.whole(task.full(task.start)), task.whole(task.full(best.x))
    held = _constraints(task, best)
    name = task.objective.figure
    out: dict[str, Any] = {
        "title": case.title,
        "case": cases.case_hash(case),
        "feasible": best.feasible,
        "converged": best.converged,
        "objective": {
            "name": name,
            "unit": task.objective.unit,
            "sought": "most" if task.objective.better > 0 else "least",
            "start": before[name],
            "optimum": after[name],
        },
        "satellites": len({place.satellite for place in model.places}),
        "epochs": len({place.epoch for place in model.places}),
        "conditions": list(dict.fromkeys(str(place.condition) for place in model.places)),
        "rows": len(model.places),
        "variables": _variables(task, best),
        "constraints": held,
        "stationarity": best.optimality.residual if best.feasible else None,
        "starts": [_search(task, *pair) for pair in zip(sized.starts, sized.solutions)],
        "agreement": _agreement(sized),
        "figures": [
            {"name": name, "unit": one.unit, "start": plain(before[name]), "optimum": plain(after[name])}
            for name, one in model.figures.items()
            if one.limit is None
        ],
        "infeasible": [] if best.feasible else [_infeasible(held)],
        "calls": task.slopes.calls,
        "wall_s": {name: round(seconds, 3) for name, seconds in sized.wall.items()},
    }
    if schedules(task.keys):
        out["flat_out"] = _flat_out(task, best)
    return out


def _where(place: Any) -> dict[str, str | None]:
    return dict.fromkeys(("satellite", "epoch", "condition")) if place is None else place.plain


def _variables(task: Task, best: Solution) -> list[dict[str, Any]]:
    span = task.high - task.low
    out = []
    for i, (name, key) in enumerate(zip(task.names, task.keys)):
        low, high = (
            bool(distance <= AT_BOUND * span[i])
            for distance in (best.x[i] - task.low[i], task.high[i] - best.x[i])
        )
        worth = (best.optimality.low if low else best.optimality.high)[i] if low or high else None
        out.append(
            {
                "key": name,
                "unit": keys.find(task.case, key).unit,
                "start": float(task.start[i]),
                "optimum": float(best.x[i]),
                "min": float(task.low[i]),
                "max": float(task.high[i]),
                "at": "min" if low else "max" if high else None,
                # Of one unit by which the bound would give way.
                "worth": float(worth) if worth is not None and best.feasible else None,
            }
        )
    return out


def _constraints(task: Task, best: Solution) -> list[dict[str, Any]]:
    """Each with its least margin, where it is, and what one unit of it is worth; the active ones first."""
    out = []
    for group, one in enumerate(task.constraints):
        rows = np.flatnonzero(task.groups == group)
        margins, worth = best.found.margins[rows], best.optimality.rows[rows]
        # Of several that bind alike, the one that weighs most.
        k = int(worth.argmax() if best.feasible and worth.max() > 0 else margins.argmin())
        out.append(
            {
                "name": one.name,
                "unit": one.unit,
                "margin": float(margins.min()),
                "met": bool(best.violations[rows].max() == 0 or best.feasible),
                "active": bool(best.active[rows].any()),
                "active_rows": int(best.active[rows].sum()),
                "worth": float(worth.sum()) if best.feasible else None,
                "violation": float(best.violations[rows].max()),
                **_where(task.places[rows[k]]),
            }
        )
    return sorted(out, key=lambda one: (not one["active"], -(one["worth"] or 0.0)))


def _search(task: Task, start: np.ndarray, solution: Solution | None) -> dict[str, Any]:
    """Where one search began and ended."""
    begin = dict(zip(task.names, start.tolist()))
    if solution is None:
        return {"start": begin, "optimum": None, "said": "no periodic state at the start"}
    said = (
        "converged"
        if solution.converged
        else f"stalled, {100 * solution.optimality.residual:.2g} % of the slope unbalanced"
        if solution.feasible
        else "no feasible point found"
    )
    return {
        "start": begin,
        "optimum": dict(zip(task.names, solution.x.tolist())),
        "objective": float(-task.objective.better * solution.found.objective),
        "feasible": solution.feasible,
        "converged": solution.converged,
        "stationarity": solution.optimality.residual if solution.feasible else None,
        "calls": len(solution.history),
        "said": said,
    }


def _agreement(sized: Sized) -> dict[str, Any]:
    """Whether the searches have found the same, in words."""
    task, best = sized.task, sized.best
    feasible = [one for one in sized.solutions if one is not None and one.feasible]
    tolerance = SAME_OBJECTIVE * abs(best.found.objective)
    alike = [one for one in feasible if abs(one.found.objective - best.found.objective) <= tolerance]
    span = task.high - task.low
    same = [one for one in alike if np.all(np.abs(one.x - best.x) <= SAME_DESIGN * span)]
    all_, many = len(sized.solutions), len(feasible)
    within = f"objective within {100 * SAME_OBJECTIVE:g} %, variables within {100 * SAME_DESIGN:g} % of their ranges"
    if not feasible:
        text = f"none of {all_} searches has found a feasible point"
    elif all_ == 1:
        text = "one search only: no other start to compare with"
    elif len(same) == all_:
        text = f"all {all_} searches agree: {within}"
    elif len(alike) == all_:
        text = f"all {all_} searches reach the same objective, by different designs: {len(same)} by this one"
    else:
        text = (
            f"the searches do not agree: {len(alike)} of {all_} reach this objective to {100 * SAME_OBJECTIVE:g} %, "
            f"{many - len(alike)} a worse one, {all_ - many} no feasible point"
        )
    return {
        "starts": all_,
        "feasible": many,
        "same_objective": len(alike),
        "same_design": len(same),
        "objective_tolerance": SAME_OBJECTIVE,
        "design_tolerance": SAME_DESIGN,
        "said": text,
    }


def _infeasible(held: list[dict[str, Any]]) -> str:
    """What is violated where the worst violation is least, the worst first."""
    broken = sorted((one for one in held if one["violation"] > 0), key=lambda one: -one["violation"])
    said = [f"{one['name']} by {-one['margin']:.4g} {one['unit']}" + _at(one) for one in broken]
    return f"no design between the bounds meets all limits; where the worst is least: {', '.join(said)}"


def _at(one: Mapping[str, Any]) -> str:
    if one["epoch"] is None:
        return ""
    return f" ({one['satellite']}, {one['epoch']}, {one['condition']})"


def _flat_out(task: Task, best: Solution) -> dict[str, Any]:
    """The sized satellite with every demand at 1, throttled and curtailed as it must be, beside its schedule."""
    full = task.full(best.x)
    flat = np.where(
        [bool(SCHEDULED.fullmatch(name.partition("@")[0])) for name in task.model.names], 1.0, full
    )
    out: dict[str, Any] = {}
    for name, entries in (("scheduled", full), ("flat_out", flat)):
        figures = task.whole(entries)
        out[name] = {
            one: plain(figures[one])
            for one in ("delivered_compute", "compute_percent", "power_shed", "peak_chip_temperature")
            if one in figures
        }
    out["broken"] = []
    for group, (one, margins) in enumerate(zip(task.constraints, task.margins(flat))):
        k = int(margins.argmin())
        if margins[k] < 0:
            place = task.places[np.flatnonzero(task.groups == group)[k]]
            broken = {"name": one.name, "unit": one.unit, "margin": float(margins[k])}
            out["broken"].append(broken | _where(place))
    return out


# ------------------------------------------------------------------------------------------------ terminal


def show(found: Mapping[str, Any], console: Any) -> None:
    """Print a report with rich."""
    head = f"{found['title'] or 'case'}: {found['satellites']:,} satellites x {found['epochs']} epochs"
    console.print(f"\n{head}", style="bold", end="")
    console.print(f", {' / '.join(found['conditions'])}: {found['rows']:,} revolutions a design")
    objective = found["objective"]
    unit = objective["unit"]
    console.print(
        f"{objective['sought']} {objective['name']}: {number(objective['start'])} {unit} in the case,"
        f" {number(objective['optimum'])} {unit} "
        + ("at the optimum" if found["feasible"] else "where the worst violation is least")
    )
    console.print(_variables_table(found, unit))
    console.print()
    console.print(_constraints_table(found, unit))
    if "flat_out" in found:
        _show_flat_out(found["flat_out"], console)
    console.print()
    for i, one in enumerate(found["starts"][:MOST_LINES]):
        value = "" if one["optimum"] is None else f"{number(one['objective'])} {unit}, {one['calls']} calls, "
        console.print(f"search {i + 1}: {value}{one['said']}")
    console.print(found["agreement"]["said"])
    if found["feasible"]:
        console.print(
            f"first-order conditions: {100 * found['stationarity']:.2g} % of the objective's slope is not balanced by"
            " what binds" + ("" if found["converged"] else "; the search has stalled, at a kink perhaps")
        )
    wall = found["wall_s"]
    console.print(
        f"wall time: compile {wall['compile']:.2f} s, run {wall['run']:.2f} s, {found['calls']} calls of"
        f" {found['rows']:,} revolutions with slopes; all {wall['all']:.2f} s"
    )


def _table(*columns: str) -> Any:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        right = name in ("start", "optimum", "min", "max", "margin", "one unit is worth")
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    return table


def _variables_table(found: Mapping[str, Any], unit: str) -> Any:
    table = _table("variable", "start", "optimum", "min", "max", "unit", "at", "one unit is worth")
    for one in found["variables"][:MOST_LINES]:
        worth = "" if one["worth"] is None else f"{number(one['worth'])} {unit}"
        numbers = (number(one[name]) for name in ("start", "optimum", "min", "max"))
        table.add_row(one["key"], *numbers, one["unit"], one["at"] or "", worth)
    more = len(found["variables"]) - MOST_LINES
    if more > 0:
        table.add_row(f"and {more} more in {JSON}")
    return table


def _constraints_table(found: Mapping[str, Any], unit: str) -> Any:
    table = _table("limit", "margin", "", "one unit is worth", "satellite", "epoch", "condition")
    for one in found["constraints"]:
        worth = f"{number(one['worth'])} {unit}" if one["worth"] else ""
        table.add_row(
            one["name"] + (" *" if one["active"] else ""),
            f"{one['margin']:+.2f}" if abs(one["margin"]) >= 0.005 else "0.00",
            one["unit"],
            worth,
            one["satellite"] or "",
            (one["epoch"] or "")[:10],
            one["condition"] or "",
            style=None if one["met"] else "red",
        )
    table.add_row("* binding" if any(one["active"] for one in found["constraints"]) else "nothing binds")
    return table


def _show_flat_out(found: Mapping[str, Any], console: Any) -> None:
    for name, words in (("scheduled", "as scheduled"), ("flat_out", "flat out, throttled and curtailed")):
        one = found[name]
        percent = f", {number(one['compute_percent'])} % of demand" if "compute_percent" in one else ""
        console.print(f"{words}: {number(one['delivered_compute'])} kW delivered{percent}")
    broken = [f"{one['name']} by {-one['margin']:.3g} {one['unit']}" for one in found["broken"]]
    console.print(f"flat out breaks {', '.join(broken) if broken else 'no limit'}")


# --------------------------------------------------------------------------------------------------- files


def write(out: Path, sized: Sized, found: Mapping[str, Any]) -> list[str]:
    """The sized case, the report and the picture, each whole or not at all; returns their names.

    Of a problem without a feasible design there is no case, and that of an earlier sizing goes.
    """
    out.mkdir(parents=True, exist_ok=True)
    names = [JSON, PICTURE]
    if sized.case is None:
        (out / TOML).unlink(missing_ok=True)
    else:
        write_text(out / TOML, cases.to_toml(sized.case))
        names.insert(0, TOML)
    write_text(out / JSON, json.dumps(dict(found), indent=1, allow_nan=False) + "\n")
    with drawing():
        draw(sized, found, out / PICTURE)
    return names


def draw(sized: Sized, found: Mapping[str, Any], path: Path) -> Path:
    """Objective and worst margin along each search, and the designs that they began and ended with."""
    import matplotlib.pyplot as plt

    task = sized.task
    ended = [(i, one) for i, one in enumerate(sized.solutions) if one is not None]
    figure, (top, middle, bottom) = plt.subplots(
        3, 1, figsize=(8.5, 8.5), height_ratios=(1, 1, 1.4), layout="constrained"
    )
    for i, solution in ended:
        colour, calls = COLOURS[i % len(COLOURS)], np.arange(1, len(solution.history) + 1)
        top.plot(
            calls,
            -task.objective.better * solution.history[:, 0],
            ".-",
            color=colour,
            label=f"search {i + 1}",
        )
        middle.plot(calls, solution.history[:, 1], ".-", color=colour)
        for x, line, marker in ((sized.starts[i], ":", "o"), (solution.x, "-", "s")):
            share = (x - task.low) / (task.high - task.low)
            bottom.plot(
                share, line, marker=marker, color=colour, lw=1.0, ms=5, mfc="none" if line == ":" else None
            )
    top.set_ylabel(f"{found['objective']['name']}\n[{found['objective']['unit'] or '-'}]")
    top.set_title(f"{found['title'] or 'case'}\n{found['objective']['sought']} {found['objective']['name']}")
    top.legend(loc="upper right", ncols=3)
    middle.set_ylabel("worst margin, as a share\nof what variables change")
    middle.set_yscale("symlog", linthresh=1e-3)
    middle.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    middle.axhline(0.0, color="black", lw=0.8)
    middle.set_xlabel("calls")
    bottom.set_ylabel("place between the bounds\n(dotted: start, solid: end)")
    bottom.set_ylim(-0.05, 1.05)
    bottom.set_xticks(range(len(task.names)), task.names, rotation=30, ha="right")
    figure.align_ylabels((top, middle, bottom))
    return save(figure, path)
