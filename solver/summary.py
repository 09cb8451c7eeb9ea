"""The summary of a run: fleet and worst satellite, limits and headroom, energy closure, wall time, scale."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import limits as bounds
from .figures import FIGURES, SHARE, breakdown, percentile, worst_satellites
from .limits import LARGEST_FACTOR, Limit
from .results import FAILED, NOT_RUN, write_text
from .run import Clock, first_place

MOST_LINES = 12  # of a table by epoch or by plane
NAMED = 20  # satellites named in a list before it says how many more
US_DATA_CENTRES_TWH_2023 = 176.0  # 4.4 % of US electricity; Shehabi et al., LBNL 2024
TERRESTRIAL_POWER_USD_KW_YEAR = (570, 3000)  # arXiv 2511.19468, section on launch cost
DAY_H = 24.0


def summarise(outcome: Any, headroom: bool = True) -> dict[str, Any]:
    """The summary of a finished or interrupted `run.Outcome`, as plain numbers and text: strict JSON.

    Failed rows count nowhere but in `failed`; rows that were not reached, in `rows_solved`.
    """
    case, fleet, scalars = outcome.case, outcome.fleet, outcome.scalars
    row = np.asarray(fleet.row)
    nodes = tuple(fleet.params.network.names)
    status = scalars["status"] if scalars else np.full(outcome.rows, NOT_RUN)
    good = (status != FAILED) & (status != NOT_RUN)
    found: dict[str, Any] = {
        "title": case.title,
        "mode": case.run.mode,
        "satellites": int(row.shape[0]),
        "epochs": int(row.shape[1]),
        "rows": outcome.rows,
        "rows_solved": int(np.sum(status != NOT_RUN)),
        "complete": bool(np.all(status != NOT_RUN)),
        "failed": who(status == FAILED, fleet),
        "not_converged": who(status == 1, fleet),
    }
    warnings, infeasible = [], []
    if good.any():
        derived = scalars | _power(scalars)
        valid = good[row]
        found["quantities"] = _quantities(derived, nodes, fleet, valid)
        if outcome.accuracy is not None:
            found["accuracy"] = outcome.accuracy
        limits = bounds.limits_of(case, nodes)
        found["limits"] = _limits(limits, scalars, outcome, good, headroom and found["complete"])
        found["binding"] = _binding(found["limits"])
        found["fleet"] = breakdown(derived, fleet, good)
        nearest = _nearest(found)
        if nearest is not None:
            limit = next(one for one in limits if one.name == nearest)
            found["fleet"]["nearest_limit"] = nearest
            found["fleet"]["worst_satellites"] = worst_satellites(limit, scalars, fleet, good)
        found["energy"] = _energy(derived, good)
        found["design"] = _design(case, fleet, derived, valid)
        infeasible = _infeasible(case, derived, fleet, good)
        warnings = _warnings(found, case, scalars, good)
    elif found["rows_solved"]:
        infeasible = [
            f"no periodic state: {listed(found['failed'])}; no row of the case has a finite solution"
        ]
    found["warnings"], found["infeasible"] = warnings, infeasible
    wall = outcome.wall
    found["wall_s"] = {
        name: round(float(value), 4)
        for name, value in (
            ("build", wall.build),
            ("compile", wall.compile),
            ("run", wall.run),
            ("headroom", wall.headroom),
            ("accuracy", wall.accuracy),
        )
    }
    found["wall_s"]["rows_solved_now"] = outcome.solved_now
    found["device"] = outcome.devices
    return found


def write(path: Path, summary: Mapping[str, Any]) -> None:
    """summary.json, strict: no NaN, no Infinity."""
    write_text(path / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")


def _power(scalars: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    needed, shed = bounds.needed_kw(scalars), bounds.shed_kw(scalars)
    throttled = scalars["payload_throttled_kw"]
    return {"asked_kw": needed, "shed_kw": shed, "delivered_kw": needed - shed - throttled}


def _at(fleet: Any, where: tuple[int, int]) -> dict[str, str]:
    satellite, epoch = where
    return {"satellite": str(fleet.names[satellite]), "epoch": date(fleet.epochs[epoch])}


def date(epoch: Any) -> str:
    return str(np.datetime_as_string(np.datetime64(epoch.replace(tzinfo=None)), unit="m")) + "Z"


def _quantities(scalars, nodes, fleet, valid) -> list[dict[str, Any]]:
    row, out = np.asarray(fleet.row), []
    # A bare panel has no bus to speak of.
    powered = np.any(scalars["array_available_kw"] > 0) or np.any(scalars["asked_kw"] > 0)
    for figure in FIGURES:
        if not figure.there(scalars, nodes) or (figure.unit == "kW" and not powered):
            continue
        spread = np.ma.masked_array(figure.values(scalars, nodes)[row], ~valid)
        where = np.unravel_index((figure.sign * spread).argmax(), row.shape)
        out.append(
            {
                "name": figure.label,
                "unit": figure.unit,
                "fleet_mean": float(spread.mean()),
                f"percentile_{SHARE}": percentile(spread.compressed(), figure),
                "worst": float(spread[where]),
                **_at(fleet, where),
            }
        )
    return out


def _limits(limits: list[Limit], scalars, outcome, good, headroom: bool) -> list[dict[str, Any]]:
    case, fleet = outcome.case, outcome.fleet
    worst, out = [], []
    for limit in limits:
        margins = np.where(good, limit.margins(scalars), np.inf)
        met = limit.met(scalars) | ~good
        # A limit that is broken without a negative margin is worst where it is broken.
        r = int(np.argmin(np.where(met, margins, margins - 1e9)))
        worst.append(r)
        out.append(
            {
                "name": limit.name,
                "unit": limit.unit,
                "value": float(limit.values(scalars)[r]),
                "allowed": limit.allowed,
                "side": limit.side,
                "uncertainty": limit.uncertainty,
                "margin": float(margins[r]),
                "met": bool(met.all()),
                "binds": limit.binds,
                "headroom": None,
                "power_runs_out_first": False,
                **_at(fleet, first_place(fleet, r)),
            }
        )
    if headroom and case.payload is not None and limits:
        before = outcome.wall.run
        with Clock(outcome.wall, "headroom"):
            factors = bounds.headrooms(
                limits, worst, lambda rows, scale: outcome.solver.solve(rows, scale, throttle=False)
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


def _energy(scalars, good) -> dict[str, float]:
    out = {
        f"{name}_residual": float(np.max(np.abs(scalars[f"{name}_residual"][good])))
        for name in ("heat", "bus")
    }
    for key in ("closure_k", "distance_k", "iterations", "slowest_h"):
        if key in scalars:
            out[f"{key}_largest"] = float(np.max(scalars[key][good]))
    return out


def _design(case, fleet, scalars, valid) -> dict[str, float]:
    """Figures per kW, and the fleet's size on the ground's scale."""
    row = np.asarray(fleet.row)

    def mean(key):
        return float(np.ma.masked_array(scalars[key].astype(float)[row], ~valid).mean())

    out = {}
    rated = case.payload.power_kw if case.payload is not None else None
    mass = getattr(fleet, "mass_kg", None)
    if rated:
        out["radiator_m2_per_kw"] = case.radiator.area_m2 / rated
        if mass:
            out["kg_per_kw"] = float(mass) / rated
        per_satellite = mean("compute_kwh_day") * 365.25
        out["fleet_compute_twh_year"] = per_satellite * row.shape[0] / 1e9
        out["percent_of_us_data_centres_2023"] = (
            100 * out["fleet_compute_twh_year"] / US_DATA_CENTRES_TWH_2023
        )
    made = mean("array_available_kw") if case.array is not None else 0.0
    if mass:
        out["mass_kg"] = float(mass)
        if made > 0:
            out["power_made_kw"] = made
            out["launch_usd_per_kw_year"] = (
                float(mass) * case.mass.launch_price_usd_kg / made / case.mass.life_years
            )
    return out


def _infeasible(case, scalars, fleet, good) -> list[str]:
    """One message for each way in which the case cannot run: what, how much, allowed, who and when."""
    out = []

    def say(rows, values, worst, text):
        rows = rows & good
        if rows.any():
            r = int(worst(np.where(rows, values, np.nan)))
            at = _at(fleet, first_place(fleet, r))
            out.append(text.format(value=float(values[r]), r=r) + f" ({at['satellite']}, {at['epoch']})")

    balance = bounds.energy_balance_kwh(scalars)
    short = (balance < 0) & bounds.sheds(scalars)
    if case.array is not None and short.any():
        r = int(np.argmin(np.where(short & good, balance, np.inf)))
        text = (
            f"no power balance: {{value:.4g}} kWh a revolution with nothing shed; allowed >= 0; asked"
            f" {scalars['asked_kw'][r]:.4g} kW, made {scalars['array_available_kw'][r]:.4g} kW"
        )
        if case.battery is not None and scalars["revolutions_to_floor"][r] > 0:
            text += f"; floor of charge after {scalars['revolutions_to_floor'][r]:.3g} revolutions from full"
        say(short, balance, np.nanargmin, text)
    elif case.array is not None:
        unserved = scalars["unmet_kw"] > bounds.SHED_SHARE * scalars["asked_kw"]
        say(
            unserved,
            scalars["unmet_kw"],
            np.nanargmax,
            "no power balance: base load unserved {value:.4g} kW, mean; allowed 0",
        )
    if case.loop is not None:
        low, high = case.loop.property("freezing_c"), case.loop.property("boiling_c")
        cold, hot = scalars["coolant_min_c"], scalars["coolant_max_c"]
        say(cold < low, cold, np.nanargmin, f"loop freezes: coolant {{value:.2f}} C; allowed > {low:g} C")
        say(hot > high, hot, np.nanargmax, f"loop boils: coolant {{value:.2f}} C; allowed < {high:g} C")
    return out


def _warnings(found, case, scalars, good) -> list[str]:
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
        out.append(
            f"failed (not finite or thermal runaway), left out of every number: {listed(found['failed'])}"
        )
    if found["not_converged"]["count"]:
        out.append(
            f"periodic state not reached, off by up to {found['energy'].get('distance_k_largest', 0):.2g} K:"
            f" {listed(found['not_converged'])}"
        )
    if "neutral_charge" in scalars and scalars["neutral_charge"][good].any() and case.battery is not None:
        if case.array is not None or case.payload is not None:
            out.append("charge is exactly balanced in some revolutions: their initial_soc is kept (neutral)")
    return out


def who(rows: np.ndarray, fleet: Any) -> dict[str, Any]:
    """Satellites and epochs of some rows: how many, and the first of them by name."""
    places = np.argwhere(rows[np.asarray(fleet.row)]) if rows.any() else np.empty((0, 2), int)
    return {"count": len(places), "first": [_at(fleet, tuple(place)) for place in places[:NAMED]]}


def listed(who: Mapping[str, Any]) -> str:
    text = ", ".join(f"{one['satellite']} at {one['epoch']}" for one in who["first"])
    more = who["count"] - len(who["first"])
    return text + (f" and {more} more" if more > 0 else "")


# ------------------------------------------------------------------------------------------------ terminal


def show(summary: Mapping[str, Any], console: Any) -> None:
    """Print the summary with rich."""
    from rich.table import Table

    device = summary["device"]
    head = f"{summary['title'] or 'case'}: {summary['satellites']:,} satellites x {summary['epochs']} epochs"
    console.print(f"\n[bold]{head}[/bold], {summary['rows']:,} distinct revolutions, mode {summary['mode']}")
    if not summary["complete"]:
        console.print(
            f"[yellow]interrupted: {summary['rows_solved']:,} of {summary['rows']:,} revolutions solved[/]"
        )
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
    wall = summary["wall_s"]
    solved = wall["rows_solved_now"]
    rate = f", {solved / wall['run']:.3g} revolutions/s" if solved and wall["run"] > 0 else ""
    console.print(
        f"wall time: compile {wall['compile']:.2f} s, run {wall['run']:.2f} s{rate},"
        f" headroom {wall['headroom']:.2f} s, error estimate {wall['accuracy']:.2f} s, build {wall['build']:.2f} s;"
        f" {device.get('count', '?')} x {device.get('kind', '?')}, chunks of {device.get('chunk', '?')}"
    )
    for text in summary["warnings"]:
        console.print(f"[yellow]warning:[/] {text}", highlight=False)


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
        listed = ", ".join(f"{one['satellite']} {one['margin']:+.2f} {one['unit']}" for one in worst)
        console.print(f"\nnearest to the limit of {fleet['nearest_limit']}: {listed}")


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
