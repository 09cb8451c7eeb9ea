"""The summary of a run: fleet and worst satellite, limits and headroom, energy closure, wall time, scale."""

import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..kernels.constants import NOT_CONVERGED
from . import limits as bounds
from .figures import FIGURES, SHARE, Breakdown, Spread, worst_satellites
from .limits import LARGEST_FACTOR, Limit
from .quantities import OPEN, REASONS
from .reductions import Count, Extreme, Largest, Of, Reached, Scalars, names, reduce
from .results import FAILED, write_text
from .run import Clock, first_place

MOST_LINES = 12  # of a table by epoch or by plane
UNCLOSED_HEAT = 0.05  # relative; the time step's own error is far below it in all but the thinnest panels
UNCLOSED_BUS = 1e-3  # relative; rounding alone, far below it in single precision for any sensible battery
NAMED = 20  # satellites named in a list before it says how many more
US_DATA_CENTRES_TWH_2023 = 176.0  # 4.4 % of US electricity; Shehabi et al., LBNL 2024
TERRESTRIAL_POWER_USD_KW_YEAR = (570, 3000)  # arXiv 2511.19468, section on launch cost
DAY_H = 24.0
# Phases of a run, in the order in which they are told.
PHASES = {
    "compile": "compile",
    "run": "run",
    "headroom": "headroom",
    "accuracy": "error estimate",
    "build": "build",
}
# Largest of each over the fleet, by the name that the summary gives it.
ENERGY = {
    "heat_residual": "heat_residual",
    "bus_residual": "bus_residual",
    "closure_k": "closure_k_largest",
    "distance_k": "distance_k_largest",
    "iterations": "iterations_largest",
    "slowest_h": "slowest_h_largest",
}


def summarise(outcome: Any, headroom: bool = True) -> dict[str, Any]:
    """The summary of a finished or interrupted `run.Outcome`, as plain numbers and text: strict JSON.

    Failed rows count nowhere but in `failed`; rows that were not reached, in `rows_solved`.
    """
    case, fleet = outcome.case, outcome.fleet
    nodes, known = tuple(fleet.params.network.names), names(outcome)
    reached = Reached()
    failed, open_ended = (Count(_of("status", status), NAMED) for status in (FAILED, NOT_CONVERGED))
    reasons = {text: Count(_of("reason", code), NAMED) for code, text in REASONS.items() if code > 0}
    spreads = [Spread(one, nodes) for one in FIGURES if one.there(known, nodes)]
    limits = bounds.limits_of(case, nodes)
    # A limit that is broken without a negative margin is worst where it is broken.
    worst = [Extreme(partial(_badness, limit)) for limit in limits]
    fleetwide = Breakdown(fleet, known, nodes)
    energy = {key: Largest(partial(_size_of, key)) for key in ENERGY if key in known}
    feasible = _Feasibility(case)
    neutral = Largest(lambda scalars: scalars["neutral_charge"])
    extras = [neutral] if "neutral_charge" in known else []
    unclosed = Count(_unclosed)
    counts = (reached, failed, open_ended, unclosed, *reasons.values())
    reduce(outcome, *counts, *spreads, *worst, fleetwide, *energy.values(), feasible, *extras)
    found: dict[str, Any] = {
        "title": case.title,
        "mode": case.run.mode,
        "satellites": len(fleet.names),
        "epochs": len(fleet.epochs),
        "rows": outcome.rows,
        "rows_solved": reached.count,
        "complete": reached.count == outcome.rows,
        "failed": who(failed, fleet),
        "not_converged": who(open_ended, fleet),
        "reasons": [{"reason": text} | who(seen, fleet) for text, seen in reasons.items() if seen.count],
        "left_out": list(fleet.left_out),
    }
    warnings, infeasible = [], []
    if reached.good:
        found["quantities"] = _quantities(spreads, fleet)
        if outcome.accuracy is not None:
            found["accuracy"] = outcome.accuracy
        found["limits"] = _limits(limits, worst, outcome, headroom and found["complete"])
        found["binding"] = _binding(found["limits"])
        found["fleet"] = fleetwide.found()
        nearest = _nearest(found)
        if nearest is not None:
            limit = next(one for one in limits if one.name == nearest)
            found["fleet"]["nearest_limit"] = nearest
            found["fleet"]["worst_satellites"] = worst_satellites(limit, outcome)
        found["energy"] = {label: energy[key].value for key, label in ENERGY.items() if key in known}
        found["design"] = _design(case, fleet, {one.figure.key: one.mean.value for one in spreads})
        infeasible = feasible.said(fleet)
        warnings = _warnings(found, case, neutral.value > 0)
        if unclosed.count:
            warnings.append(
                f"energy does not close for {unclosed.count:,} satellites and epochs: heat by up to"
                f" {found['energy']['heat_residual']:.1e}, bus by up to {found['energy']['bus_residual']:.1e};"
                " more run.steps, or --precision double"
            )
    elif found["rows_solved"]:
        infeasible = [f"no periodic state: {_failures(found)}; no row of the case has a finite solution"]
    if fleet.left_out:
        warnings.append(
            f"element sets left out: {len(fleet.left_out):,}, {fleet.left_out[0]}"
            + (" and others, all in summary.json" if len(fleet.left_out) > 1 else "")
        )
    found["warnings"], found["infeasible"] = warnings, infeasible
    found["wall_s"] = {name: round(value, 4) for name, value in vars(outcome.wall).items()}
    found["wall_s"]["rows_solved_now"] = outcome.solved_now
    found["rows_per_s"] = round(outcome.rate, 3)
    found["device"] = outcome.devices
    return found


def _of(flag: str, value: int) -> Of:
    return lambda scalars: scalars[flag] == value


def _badness(limit: Limit, scalars: Scalars) -> np.ndarray:
    margins = limit.margins(scalars)
    return -np.where(limit.met(scalars), margins, margins - 1e9)


def _unclosed(scalars: Scalars) -> np.ndarray:
    heat, bus = (np.abs(scalars[f"{name}_residual"]) for name in ("heat", "bus"))
    return (scalars["status"] != FAILED) & ((heat > UNCLOSED_HEAT) | (bus > UNCLOSED_BUS))


def _size_of(key: str, scalars: Scalars) -> np.ndarray:
    return np.abs(scalars[key])


def write(path: Path, summary: Mapping[str, Any]) -> None:
    """summary.json, strict: no NaN, no Infinity."""
    write_text(path / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")


def _at(fleet: Any, where: tuple[int, int]) -> dict[str, str]:
    satellite, epoch = where
    return {"satellite": str(fleet.names[satellite]), "epoch": date(fleet.epochs[epoch])}


def date(epoch: Any) -> str:
    return str(np.datetime_as_string(np.datetime64(epoch.replace(tzinfo=None)), unit="m")) + "Z"


def _quantities(spreads: list[Spread], fleet: Any) -> list[dict[str, Any]]:
    # A bare panel has no bus to speak of.
    busy = {"array_available_kw", "asked_kw"}
    powered = any(one.mean.value > 0 for one in spreads if one.figure.key in busy)
    return [
        {
            "name": one.figure.label,
            "unit": one.figure.unit,
            "fleet_mean": one.mean.value,
            f"percentile_{SHARE}": one.percentile.value,
            "worst": one.worst.of(one.of),
            **_at(fleet, first_place(fleet, one.worst.row)),
        }
        for one in spreads
        if powered or one.figure.unit != "kW"
    ]


def _limits(limits: list[Limit], worst: list[Extreme], outcome, headroom: bool) -> list[dict[str, Any]]:
    case, fleet = outcome.case, outcome.fleet
    out = [
        {
            "name": limit.name,
            "unit": limit.unit,
            "value": seen.of(limit.values),
            "allowed": limit.allowed,
            "side": limit.side,
            "uncertainty": limit.uncertainty,
            "margin": seen.of(limit.margins),
            # Where one is not met, the worst is not.
            "met": bool(seen.of(limit.met)),
            "binds": limit.binds,
            "headroom": None,
            "power_runs_out_first": False,
            **_at(fleet, first_place(fleet, seen.row)),
        }
        for limit, seen in zip(limits, worst)
    ]
    if headroom and case.payload is not None and limits:
        before = outcome.wall.run
        with Clock(outcome.wall, "headroom"):
            factors = bounds.headrooms(
                limits,
                [seen.row for seen in worst],
                lambda rows, scale: outcome.solver.solve(rows, scale, throttle=False),
            )
        outcome.wall.run = before  # the solver adds its time to `run`; this is the headroom's
        for entry, (factor, starved) in zip(out, factors):
            entry["headroom"] = 0.0 if factor is None and entry["binds"] == "more" else factor
            entry["power_runs_out_first"] = starved
    return out


def _binding(limits: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The limit that payload power meets first; None where none is met within the range tried."""
    known = [
        limit
        for limit in limits
        if limit["binds"] == "more" and limit["headroom"] is not None and not limit["power_runs_out_first"]
    ]
    first = min(known, key=lambda limit: limit["headroom"], default=None)
    if first is None or first["headroom"] >= LARGEST_FACTOR:
        return None
    return {"name": first["name"], "headroom": first["headroom"]}


def _nearest(found: Mapping[str, Any]) -> str | None:
    """The limit that binds; where none is known to, the one with the least margin."""
    if found["binding"]:
        return found["binding"]["name"]
    least = min(found["limits"], key=lambda limit: limit["margin"], default=None)
    return None if least is None else least["name"]


def _design(case, fleet, mean: Mapping[str, float]) -> dict[str, float]:
    """Figures per kW, and the fleet's size on the ground's scale, from the fleet's means."""
    out = {}
    rated = case.payload.power_kw if case.payload is not None else None
    mass = getattr(fleet, "mass_kg", None)
    if rated:
        out["radiator_m2_per_kw"] = case.radiator.area_m2 / rated
        if mass:
            out["kg_per_kw"] = float(mass) / rated
        per_satellite = mean["compute_kwh_day"] * 365.25
        out["fleet_compute_twh_year"] = per_satellite * len(fleet.names) / 1e9
        out["percent_of_us_data_centres_2023"] = (
            100 * out["fleet_compute_twh_year"] / US_DATA_CENTRES_TWH_2023
        )
    made = mean["array_available_kw"] if case.array is not None else 0.0
    if mass:
        out["mass_kg"] = float(mass)
        if made > 0:
            out["power_made_kw"] = made
            out["launch_usd_per_kw_year"] = (
                float(mass) * case.mass.launch_price_usd_kg / made / case.mass.life_years
            )
    return out


class _Feasibility:
    """The ways in which a case cannot run, and the worst row of each."""

    def __init__(self, case: Any):
        self.case = case
        self.short = Extreme(lambda s: -bounds.energy_balance_kwh(s), _short)
        self.unserved = Extreme(lambda s: s["unmet_kw"], _unserved)
        self.parts = [self.short, self.unserved] if case.array is not None else []
        if case.loop is not None:
            low, high = case.loop.property("freezing_c"), case.loop.property("boiling_c")
            self.frozen = Extreme(lambda s: -s["coolant_min_c"], lambda s: s["coolant_min_c"] < low)
            self.boiling = Extreme(lambda s: s["coolant_max_c"], lambda s: s["coolant_max_c"] > high)
            self.parts += [self.frozen, self.boiling]

    def add(self, block: Any) -> None:
        for part in self.parts:
            part.add(block)

    def said(self, fleet: Any) -> list[str]:
        """One message for each way: what, how much, allowed, who and when."""
        case, out = self.case, []

        def say(seen: Extreme, key: Of, text: str) -> None:
            at = _at(fleet, first_place(fleet, seen.row))
            out.append(text.format(value=seen.of(key)) + f" ({at['satellite']}, {at['epoch']})")

        if self.short.row is not None:
            s = {name: float(value[0]) for name, value in self.short.scalars.items() if value.ndim == 1}
            text = (
                "no power balance: {value:.4g} kWh a revolution with nothing shed; allowed >= 0; asked"
                f" {s['asked_kw']:.4g} kW, made {s['array_available_kw']:.4g} kW"
            )
            if case.battery is not None and s["revolutions_to_floor"] > 0:
                text += f"; floor of charge after {s['revolutions_to_floor']:.3g} revolutions from full"
            say(self.short, bounds.energy_balance_kwh, text)
        elif self.unserved.row is not None:
            text = "no power balance: base load unserved {value:.4g} kW, mean; allowed 0"
            say(self.unserved, lambda s: s["unmet_kw"], text)
        if case.loop is not None:
            low, high = case.loop.property("freezing_c"), case.loop.property("boiling_c")
            if self.frozen.row is not None:
                text = f"loop freezes: coolant {{value:.2f}} C; allowed > {low:g} C"
                say(self.frozen, lambda s: s["coolant_min_c"], text)
            if self.boiling.row is not None:
                text = f"loop boils: coolant {{value:.2f}} C; allowed < {high:g} C"
                say(self.boiling, lambda s: s["coolant_max_c"], text)
        return out


def _short(scalars: Scalars) -> np.ndarray:
    return (bounds.energy_balance_kwh(scalars) < 0) & bounds.sheds(scalars)


def _unserved(scalars: Scalars) -> np.ndarray:
    return scalars["unmet_kw"] > bounds.SHED_SHARE * scalars["asked_kw"]


def _warnings(found, case, neutral: bool) -> list[str]:
    out = []
    slowest = found["energy"].get("slowest_h_largest", 0.0)
    if case.run.mode == "orbit" and found["epochs"] > 1 and slowest > DAY_H:
        out.append(
            f"the slowest time constant is {slowest:.1f} h, more than a day: over a season the satellite"
            " lags behind the periodic revolutions shown here; run.mode = 'transient' follows it"
        )
    if case.payload is not None and len(case.payload.windows) > 0 and case.run.mode == "steady":
        out.append("run.mode = 'steady' averages the demand windows over the revolution")
    if found["failed"]["count"]:
        out.append(f"failed, left out of every number: {_failures(found)}")
    if found["not_converged"]["count"]:
        out.append(
            f"periodic state not reached, off by up to {found['energy'].get('distance_k_largest', 0):.2g} K:"
            f" {listed(found['not_converged'])}"
        )
    if neutral and case.battery is not None:
        if case.array is not None or case.payload is not None:
            out.append("charge is exactly balanced in some revolutions: their initial_soc is kept (neutral)")
    return out


def who(seen: Count, fleet: Any) -> dict[str, Any]:
    """Satellites and epochs of some rows: how many, and the first of them by name."""
    places = []
    for row in seen.rows:
        group, epoch = divmod(row, len(fleet.epochs))
        places += [(int(k), epoch) for k in np.flatnonzero(fleet.group == group)[:NAMED]]
    return {"count": seen.count, "first": [_at(fleet, place) for place in sorted(places)[:NAMED]]}


def _failures(found: Mapping[str, Any]) -> str:
    """What has failed, by reason."""
    failing = [one for one in found["reasons"] if one["reason"] != REASONS[OPEN]]
    return "; ".join(f"{one['reason']} ({one['count']:,}): {listed(one)}" for one in failing)


def listed(seen: Mapping[str, Any]) -> str:
    """What `who` has found, as text."""
    text = ", ".join(f"{one['satellite']} at {one['epoch']}" for one in seen["first"])
    more = seen["count"] - len(seen["first"])
    return text + (f" and {more} more" if more > 0 else "")


# ------------------------------------------------------------------------------------------------ terminal


def show(summary: Mapping[str, Any], console: Any) -> None:
    """Print the summary with rich."""
    from rich.table import Table

    show_head(summary, f"mode {summary['mode']}", console)
    if "quantities" in summary:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name, justify in (
            ("", "left"),
            ("fleet", "right"),
            (f"{SHARE} %", "right"),
            ("worst", "right"),
            ("", "left"),
            ("satellite", "left"),
            ("epoch", "left"),
        ):
            table.add_column(name, justify=justify, no_wrap=True)
        for one in summary["quantities"]:
            table.add_row(
                one["name"],
                number(one["fleet_mean"]),
                number(one[f"percentile_{SHARE}"]),
                number(one["worst"]),
                one["unit"],
                one["satellite"],
                one["epoch"][:10],
            )
        console.print(table)
        if "accuracy" in summary:
            _show_accuracy(summary["accuracy"], console, Table)
        _show_limits(summary, console, Table)
        _show_fleet(summary["fleet"], console, Table)
        _show_lines(summary, console)
    show_foot(summary, console)


def show_head(summary: Mapping[str, Any], kind: str, console: Any) -> None:
    """Fleet and kind of run."""
    head = f"{summary['title'] or 'case'}: {summary['satellites']:,} satellites x {summary['epochs']} epochs"
    console.print(f"\n{head}", style="bold", end="")
    console.print(f", {summary['rows']:,} distinct revolutions, {kind}")
    if not summary["complete"]:
        console.print(
            f"interrupted: {summary['rows_solved']:,} of {summary['rows']:,} revolutions solved",
            style="yellow",
        )


def show_foot(summary: Mapping[str, Any], console: Any) -> None:
    """Time and machine, and what to beware of."""
    wall, device = summary["wall_s"], summary["device"]
    spent = [f"{text} {wall[name]:.2f} s" for name, text in PHASES.items() if name in wall]
    if summary["rows_per_s"] > 0:
        spent.insert(2, f"{summary['rows_per_s']:.3g} revolutions/s")
    memory = ""
    if "peak_memory_gib" in device:
        memory = f", {device['peak_memory_gib']:.3g} GiB in use at most"
    console.print(
        f"wall time: {', '.join(spent)}; {device.get('count', '?')} x {device.get('kind', '?')},"
        f" chunks of {device.get('chunk', '?')}{memory}"
    )
    for text in summary["warnings"]:
        console.print("warning:", style="yellow", end=" ")
        console.print(text, highlight=False)


def _show_accuracy(accuracy, console, Table) -> None:
    figures = accuracy["figures"]
    if figures:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name in ("", "value", "grid error", "time error", ""):
            table.add_column(name, justify="right" if name else "left", no_wrap=True)
        for one in figures:
            errors = (one["grid_error"], one["time_error"])
            said = ("-" if error is None else f"{error:+.3f}" for error in errors)
            table.add_row(one["name"], number(one["value"]), *said, one["unit"].replace("C", "K"))
        nx, ny = accuracy["cells"]
        console.print(
            f"\nerrors estimated from {nx} x {ny} cells and {accuracy['steps']} steps, by Richardson for a scheme of"
            " second order; add them to the value:"
        )
        console.print(table)
    for text in accuracy["missing"]:
        console.print(f"no estimate of the error of {text}", highlight=False)


def _show_fleet(fleet, console, Table) -> None:
    """By epoch and by plane, where there are several, and the worst satellites."""
    for what, places in (("epoch", fleet["epochs"]), ("plane", fleet["planes"])):
        if len(places) == 1:
            continue
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column(f"worst by {what}", no_wrap=True)
        for one in fleet["headlines"]:
            table.add_column(f"{one['name']} {one['unit']}", justify="right")
        for one in places[:MOST_LINES]:
            name = (
                one["epoch"][:10] if what == "epoch" else f"{one['plane']} ({one['satellites']:,} satellites)"
            )
            table.add_row(name, *("-" if value is None else number(value) for value in one["worst"]))
        console.print()
        console.print(table)
        if len(places) > MOST_LINES:
            console.print(f"and {len(places) - MOST_LINES} more in summary.json")
    worst = fleet.get("worst_satellites", [])
    if len(worst) > 1:
        nearest = ", ".join(f"{one['satellite']} {one['margin']:+.2f} {one['unit']}" for one in worst)
        console.print(f"\nnearest to the limit of {fleet['nearest_limit']}: {nearest}")


def _show_limits(summary, console, Table) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    columns = ("limit", "value", "allowed", "margin", "", "headroom", "satellite", "epoch")
    for name in columns:
        right = name in ("value", "allowed", "margin", "headroom")
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    binding = (summary["binding"] or {}).get("name")
    for one in summary["limits"]:
        sign = "<" if one["side"] == "max" else ">"
        style = None if one["met"] else "red"
        mark = " *" if one["name"] == binding else ""
        table.add_row(
            one["name"] + mark,
            number(one["value"]),
            f"{sign} {number(one['allowed'])}",
            f"{one['margin']:+.2f}" if one["met"] or one["margin"] < 0 else "broken",
            one["unit"],
            factor(one),
            one["satellite"],
            one["epoch"][:10],
            style=style,
        )
    given = max((one["uncertainty"] for one in summary["limits"]), default=0.0)
    console.print(f"\nlimits, temperature margins after {given:g} K of uncertainty:")
    console.print(table)
    if summary["binding"]:
        one = summary["binding"]
        console.print(f"* binding: {one['name']}, met up to {one['headroom']:.3f} x the payload power")
    elif any(one["headroom"] is not None for one in summary["limits"]):
        console.print(f"nothing binds up to {LARGEST_FACTOR:g} x the payload power")


def _show_lines(summary, console) -> None:
    energy, design = summary["energy"], summary["design"]
    text = f"energy closure: heat {energy['heat_residual']:.1e}, bus {energy['bus_residual']:.1e}"
    if "closure_k_largest" in energy:
        text += (
            f"; periodic to {energy['closure_k_largest']:.1e} K"
            f" (distance {energy['distance_k_largest']:.1e} K, {energy['iterations_largest']:.0f} iterations"
            f" at most, slowest time constant {energy['slowest_h_largest']:.2f} h)"
        )
    console.print()
    console.print(text, highlight=False)
    per = []
    if "radiator_m2_per_kw" in design:
        per.append(f"radiator {design['radiator_m2_per_kw']:.3g} m2/kW")
    if "kg_per_kw" in design:
        per.append(f"{design['kg_per_kw']:.3g} kg/kW of payload power")
    if per:
        console.print(", ".join(per), highlight=False)
    scale = []
    if "fleet_compute_twh_year" in design:
        scale.append(
            f"fleet compute {design['fleet_compute_twh_year']:.3g} TWh a year,"
            f" {design['percent_of_us_data_centres_2023']:.2g} % of US data centres in 2023"
            f" ({US_DATA_CENTRES_TWH_2023:g} TWh, 4.4 % of US electricity)"
        )
    if "launch_usd_per_kw_year" in design:
        low, high = TERRESTRIAL_POWER_USD_KW_YEAR
        scale.append(
            f"launched power {design['launch_usd_per_kw_year']:,.0f} $/kW/year"
            f" (on the ground {low:,}-{high:,})"
        )
    if scale:
        console.print("scale: " + "; ".join(scale), highlight=False)


def number(value: float) -> str:
    """Two decimals, or three significant figures where that would hide them."""
    if not math.isfinite(value):
        return "-"
    if value == 0 or 0.1 <= abs(value) < 1e6:
        return f"{value:,.2f}"
    return f"{value:.3g}"


def factor(limit: Mapping[str, Any]) -> str:
    """Headroom as text: the largest factor for limits that power works against, the smallest for others.

    "> 1.06": met as far as there is power to try it.
    """
    value = limit["headroom"]
    if value is None:
        return "-"
    if limit["binds"] == "less":
        return f"from {value:.3f}" if value > 0 else "any"
    if value >= LARGEST_FACTOR:
        return f"> {LARGEST_FACTOR:g}"
    return f"> {value:.3f}" if limit["power_runs_out_first"] else f"{value:.3f}"
