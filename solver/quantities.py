"""What a run keeps of each row: extremes, means, totals, panel maps and time series, in named units.

A row is one distinct revolution. `VARIABLES` lists all that the dataset holds; `quantities` fills it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..kernels.constants import NOT_FINITE
from ..kernels.march import RUNAWAY
from ..kernels.panel import pipe_transport

SOURCES = ("solar", "albedo", "infrared")
FACES = ("radiator_0", "radiator_1", "array_front")
_ZERO_CELSIUS = 273.15  # K
_MINUTE = 60.0
_HOUR = 3600.0
_KWH = 3.6e6  # J


class Variable(NamedTuple):
    """Dimensions after the row, unit and meaning; of a flag what each of its numbers says."""

    dims: tuple[str, ...]
    unit: str
    meaning: str
    flags: Mapping[int, str] = MappingProxyType({})


def _powers() -> dict[str, str]:
    return {
        "array_available": "electrical power the array could make",
        "array_taken": "array power taken by the bus",
        "payload_asked": "payload power asked",
        "payload_throttled": "payload power cut because the chips run hot",
        "payload_curtailed": "payload power cut because the bus lacks it",
        "payload_power": "payload power delivered",
        "heater_power": "heater power",
        "pump_power": "coolant pump power",
        "base_power": "bus base load",
        "transmitted": "power that leaves by radio or laser",
        "unmet": "base load that the bus could not serve",
        "battery_charge": "bus power taken by the battery",
        "battery_discharge": "bus power given by the battery",
    }


POWERS = _powers()
_TEMPERATURES = {
    "panel_max": "hottest place of the panel, edges included",
    "panel_min": "coldest place of the panel, edges included",
    "panel_mean": "panel, mean over its area",
    "fluid_supply": "coolant supplied to the payload",
    "fluid_radiator_in": "coolant into the radiator",
    "fluid_radiator_out": "coolant out of the radiator",
}

STATUS = {-1: "not run", 0: "converged", 1: "not converged", 2: "failed"}
# Why a row has failed or has not converged. Where several hold, the largest.
NO_REASON, OPEN, LOST, HOT, DECAYED, UNKNOWN_INPUT = range(6)
REASONS = {
    NO_REASON: "none",
    OPEN: "periodic state not reached",
    LOST: "not finite",
    HOT: "thermal runaway",
    DECAYED: "decayed orbit",
    UNKNOWN_INPUT: "input not finite",
}

# One value a row. Temperatures are extremes over the revolution unless the name says mean.
SCALARS = {
    "status": Variable((), "1", "whether the row was solved", STATUS),
    "reason": Variable((), "1", "why the row has failed or has not converged", REASONS),
    "iterations": Variable((), "1", "iterations of the periodic solve"),
    "closure_k": Variable((), "K", "largest |T(P) - T(0)| over cells and nodes"),
    "distance_k": Variable((), "K", "distance to the periodic state that the closure implies"),
    "slowest_h": Variable((), "h", "slowest thermal time constant"),
    "power_deficit": Variable((), "1", "1 where the revolution's energy does not balance with nothing shed"),
    "neutral_charge": Variable((), "1", "1 where the initial charge of the case is kept: exactly balanced"),
    "period_min": Variable((), "min", "orbital period"),
    "beta_deg": Variable((), "degree", "angle of the Sun above the orbit plane"),
    "eclipse_min": Variable(
        (), "min", "eclipse a revolution: time integral of the shadowed share of the Sun"
    ),
    "eclipse_fraction": Variable((), "1", "eclipse as a fraction of the revolution"),
    "umbra_min": Variable((), "min", "full shadow a revolution"),
    "penumbra_min": Variable((), "min", "partial shadow a revolution"),
    "node_max_c": Variable(("node",), "degC", "hottest temperature of the node"),
    "node_min_c": Variable(("node",), "degC", "coldest temperature of the node"),
    "node_mean_c": Variable(("node",), "degC", "mean temperature of the node"),
    "panel_max_c": Variable((), "degC", "hottest place of the panel, edges included"),
    "panel_min_c": Variable((), "degC", "coldest place of the panel, edges included"),
    "panel_mean_c": Variable((), "degC", "panel, mean over area and time"),
    "pipe_transport_max_w_m": Variable(
        (),
        "W m",
        "heat flow integrated along one pipe or tube wall, at the panel's hottest or coldest instant",
    ),
    "coolant_max_c": Variable((), "degC", "hottest coolant"),
    "coolant_min_c": Variable((), "degC", "coldest coolant"),
    "supply_max_c": Variable((), "degC", "hottest coolant supplied to the payload"),
    "supply_min_c": Variable((), "degC", "coldest coolant supplied to the payload"),
    "bypass_min": Variable((), "1", "smallest share of the flow that bypasses the radiator"),
    "bypass_max": Variable((), "1", "largest share of the flow that bypasses the radiator"),
    "soc_min": Variable((), "1", "smallest state of charge"),
    "soc_max": Variable((), "1", "largest state of charge"),
    "depth_of_discharge": Variable((), "1", "largest minus smallest state of charge"),
    "energy_balance_kwh": Variable(
        (), "kW h", "energy left over a revolution with nothing shed and no limits of charge"
    ),
    "revolutions_to_floor": Variable(
        (), "1", "revolutions from full to the floor of charge, where it drifts down"
    ),
    "compute_kwh_day": Variable((), "kW h", "payload energy delivered a day"),
    "compute_percent": Variable((), "percent", "payload energy delivered, of that asked"),
    "payload_peak_kw": Variable((), "kW", "largest payload power delivered"),
    "absorbed_kw": Variable((), "kW", "heat absorbed from the environment, mean"),
    "radiated_kw": Variable((), "kW", "heat radiated to space and to surfaces of known temperature, mean"),
    "stored_kw": Variable((), "kW", "heat stored over the revolution, as a mean power"),
    "heat_residual": Variable((), "1", "heat balance of the revolution that does not close, relative"),
    "bus_residual": Variable((), "1", "bus energy balance of the revolution that does not close, relative"),
    "incident_w_m2": Variable(("source", "face"), "W m-2", "incident flux, mean over the revolution"),
} | {f"{name}_kw": Variable((), "kW", f"{text}, mean") for name, text in POWERS.items()}

MAPS = {
    "panel_hottest_c": Variable(("cell",), "degC", "panel cells at the hottest instant"),
    "panel_coldest_c": Variable(("cell",), "degC", "panel cells at the coldest instant"),
}

SERIES = (
    {
        "time_s": Variable(("time",), "s", "middle of the step, from the first orbit noon"),
        "step_s": Variable(("time",), "s", "length of the step"),
        "sunlit": Variable(("time",), "1", "share of the Sun's disc in view"),
        "incident_series_w_m2": Variable(("time", "source", "face"), "W m-2", "incident flux"),
        "node_c": Variable(("time", "node"), "degC", "node temperature"),
        "state_of_charge": Variable(("time",), "1", "state of charge of the battery"),
        "bypass": Variable(("time",), "1", "share of the flow that bypasses the radiator"),
    }
    | {f"{name}_series_c": Variable(("time",), "degC", text) for name, text in _TEMPERATURES.items()}
    | {f"{name}_series_kw": Variable(("time",), "kW", text) for name, text in POWERS.items()}
)
CELL_SERIES = {"cell_c": Variable(("time", "cell"), "degC", "panel cell temperature")}
STORED = MAPS | SERIES | CELL_SERIES  # row by row
VARIABLES = SCALARS | STORED


# What only some runs have: with a loop, a battery, a payload, of a search for the periodic orbit.
_LOOP = (
    "coolant_max_c",
    "coolant_min_c",
    "supply_max_c",
    "supply_min_c",
    "bypass_min",
    "bypass_max",
    "bypass",
)
_LOOP += tuple(f"{name}_series_c" for name in _TEMPERATURES if name.startswith("fluid"))
_BATTERY = ("soc_min", "soc_max", "depth_of_discharge", "revolutions_to_floor", "state_of_charge")
_PAYLOAD = ("compute_kwh_day", "compute_percent", "payload_peak_kw")
_CYCLE = ("iterations", "closure_k", "distance_k", "slowest_h", "power_deficit", "neutral_charge")


def kept(case: Any) -> tuple[str, ...]:
    """The variables that a run of a case keeps."""
    parts = ((case.loop, _LOOP), (case.battery, _BATTERY), (case.payload, _PAYLOAD))
    lacking = {name for part, names in parts if part is None for name in names}
    if case.run.mode == "transient":
        lacking |= set(_CYCLE)
    series = {"summary": {}, "nodes": SERIES, "cells": SERIES | CELL_SERIES}[case.run.save]
    return tuple(name for name in SCALARS | MAPS | series if name not in lacking)


def celsius(kelvin: Any) -> Any:
    """Degrees Celsius of a temperature in kelvin."""
    return kelvin - _ZERO_CELSIUS


def fault(revolution) -> Any:
    """What no march can mend of one `kernels.revolution.Revolution`: NO_REASON, DECAYED or UNKNOWN_INPUT.

    A perigee below the ground is a decayed orbit; elements, Sun or surfaces that are not finite are unknown.
    """
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(revolution)]))
    orbit = revolution.orbit
    above = orbit.semi_major_axis * (1 - orbit.eccentricity) > revolution.earth_radius
    return jnp.where(finite, jnp.where(above, NO_REASON, DECAYED), UNKNOWN_INPUT)


def design_fault(params) -> Any:
    """The same of designs, `kernels.satellite.Params`, rows last: UNKNOWN_INPUT where one has no number.

    Infinity is one: a bond without resistance.
    """
    unknown = [jnp.any(jnp.isnan(leaf), tuple(range(leaf.ndim - 1))) for leaf in jax.tree.leaves(params)]
    return jnp.where(jnp.any(jnp.stack(unknown), 0), UNKNOWN_INPUT, NO_REASON)


def quantities(params, beta, loads, cycle, record, cells=None, faults=None) -> dict[str, Any]:
    """Everything of `VARIABLES` that a row has, rows on the last axis.

    Args:
        params: `kernels.satellite.Params` of the rows.
        beta: Angle of the Sun above the orbit plane [rad].
        loads: `kernels.revolution.Loads`, steps first.
        cycle: `kernels.march.Cycle`, or None in a transient run.
        record: `kernels.march.Record`, steps first.
        cells: (steps, nx, ny, B) panel temperatures [K], where they are to be kept.
        faults: Reasons known from the input, as `fault` gives them; None where it is known to be good.

    What the satellite lacks (payload, loop, battery) is left out.
    """
    duration = jnp.sum(loads.dt, 0)
    weight = loads.dt / duration[None]
    partial = (loads.sunlit > 0) & (loads.sunlit < 1)
    real = loads.dt > 0  # a step of no length has no power; it is there to keep one shape for all rows
    has_loop, has_battery, has_payload = (
        params.coolant is not None,
        params.battery is not None,
        params.payload is not None,
    )

    def mean(series):
        return jnp.sum(
            series * weight.reshape(weight.shape[:1] + (1,) * (series.ndim - 2) + weight.shape[1:]), 0
        )

    q = {
        "period_min": duration / _MINUTE,
        "beta_deg": jnp.rad2deg(beta),
        "eclipse_fraction": mean(1 - loads.sunlit),
        # No step straddles an edge of the shadow: the steps' own lengths add up to its parts.
        "umbra_min": jnp.sum(jnp.where(loads.sunlit <= 0, loads.dt, 0), 0) / _MINUTE,
        "penumbra_min": jnp.sum(jnp.where(partial, loads.dt, 0), 0) / _MINUTE,
        "node_max_c": celsius(jnp.max(record.nodes, 0)),
        "node_min_c": celsius(jnp.min(record.nodes, 0)),
        "node_mean_c": celsius(mean(record.nodes)),
        "panel_max_c": celsius(jnp.max(record.panel_max, 0)),
        "panel_min_c": celsius(jnp.min(record.panel_min, 0)),
        "panel_mean_c": celsius(mean(record.panel_mean)),
        "pipe_transport_max_w_m": jnp.maximum(
            pipe_transport(params.panel, record.panel_hottest),
            pipe_transport(params.panel, record.panel_coldest),
        ),
        "incident_w_m2": mean(loads.incident),
        "heat_residual": record.heat_residual,
        "bus_residual": record.bus_residual,
        "energy_balance_kwh": record.battery_drift / _KWH,
        "panel_hottest_c": celsius(_cells_last(record.panel_hottest)),
        "panel_coldest_c": celsius(_cells_last(record.panel_coldest)),
    }
    q["eclipse_min"] = q["eclipse_fraction"] * q["period_min"]
    for name, total in (
        ("absorbed", "heat_absorbed"),
        ("radiated", "heat_radiated"),
        ("stored", "heat_stored"),
    ):
        q[f"{name}_kw"] = getattr(record, total) / duration / 1e3
    # All at once: a loop of its own for each takes long to compile.
    powers = mean(jnp.stack([getattr(record, name) for name in POWERS], 1)) / 1e3
    q |= {f"{name}_kw": power for name, power in zip(POWERS, powers)}
    if cycle is not None:
        q |= {
            "iterations": jnp.broadcast_to(cycle.iterations, duration.shape),
            "closure_k": cycle.closure,
            "distance_k": cycle.distance,
            "slowest_h": cycle.slowest / _HOUR,
            "status": cycle.status,
            "power_deficit": cycle.power_deficit,
            "neutral_charge": cycle.neutral_charge,
        }
    if has_loop:
        fluid = jnp.stack([record.fluid_supply, record.fluid_radiator_in, record.fluid_radiator_out])
        q |= {
            "coolant_max_c": celsius(jnp.max(fluid, (0, 1))),
            "coolant_min_c": celsius(jnp.min(fluid, (0, 1))),
            "supply_max_c": celsius(jnp.max(record.fluid_supply, 0)),
            "supply_min_c": celsius(jnp.min(record.fluid_supply, 0)),
            "bypass_min": jnp.min(record.bypass, 0),
            "bypass_max": jnp.max(record.bypass, 0),
        }
    if has_battery:
        charge = record.energy / params.battery.capacity[None]
        low, high = jnp.min(charge, 0), jnp.max(charge, 0)
        usable = params.battery.capacity * (params.battery.soc_max - params.battery.soc_min)
        # A battery that does not drift down never reaches the floor: 0 says "does not apply".
        falling = record.battery_drift < 0
        to_floor = jnp.where(falling, usable / jnp.where(falling, -record.battery_drift, 1), 0)
        q |= {
            "soc_min": low,
            "soc_max": high,
            "depth_of_discharge": high - low,
            "revolutions_to_floor": to_floor,
        }
    if has_payload:
        asked = q["payload_asked_kw"]
        wants = asked > 0
        q |= {
            "compute_kwh_day": q["payload_power_kw"] * 24,
            "compute_percent": jnp.where(
                wants, 100 * q["payload_power_kw"] / jnp.where(wants, asked, 1), 100
            ),
            "payload_peak_kw": jnp.max(jnp.where(real, record.payload_power, 0), 0) / 1e3,
        }
    q |= _judged(q, record, faults)
    q |= _series(loads, record, has_loop)
    if has_battery:
        q["state_of_charge"] = charge
    if cells is not None:
        q["cell_c"] = celsius(_cells_last(cells))
    return q


def _series(loads, record, has_loop: bool) -> dict[str, Any]:
    q = {
        "time_s": jnp.cumsum(loads.dt, 0) - loads.dt / 2,
        "step_s": loads.dt,
        "sunlit": loads.sunlit,
        "incident_series_w_m2": loads.incident,
        "node_c": celsius(record.nodes),
    }
    for name in _TEMPERATURES:
        if has_loop or not name.startswith("fluid"):
            q[f"{name}_series_c"] = celsius(getattr(record, name))
    for name in POWERS:
        q[f"{name}_series_kw"] = getattr(record, name) / 1e3
    if has_loop:
        q["bypass"] = record.bypass
    return q


def _judged(q: dict[str, Any], record, faults) -> dict[str, Any]:
    """Status and reason: the solver's, and failed for every reason but OPEN."""
    # Whatever is not finite anywhere shows in one of these: extremes and totals pass it on.
    names = ("node_max_c", "node_min_c")
    alone = (
        "panel_max_c",
        "panel_min_c",
        "heat_residual",
        "bus_residual",
        "array_available_kw",
        "payload_power_kw",
    )
    checked = jnp.concatenate([*(q[name] for name in names), jnp.stack([q[name] for name in alone])])
    # Below 0 K no number means anything, finite as it may be.
    coldest = jnp.minimum(q["panel_min_c"], jnp.min(q["node_min_c"], 0))
    finite = jnp.all(jnp.isfinite(checked), 0) & (coldest >= celsius(0.0))
    solved = q.get("status", jnp.zeros(finite.shape, jnp.int32))
    # Step by step: what is not a number any more has run away before.
    hot = jnp.any(record.panel_max > RUNAWAY, 0) | jnp.any(record.nodes > RUNAWAY, (0, 1))
    if "distance_k" in q:
        # The search gives up what heads so far.
        hot = hot | (q["distance_k"] > RUNAWAY)
    reason = jnp.where(finite, solved, LOST)
    reason = jnp.where(hot, HOT, reason)
    if faults is not None:
        reason = jnp.where(faults > NO_REASON, faults, reason)
    reason = reason.astype(jnp.int32)
    return {"reason": reason, "status": jnp.where(reason > OPEN, NOT_FINITE, reason)}


def _cells_last(panel: Any) -> Any:
    """(..., nx, ny, B) -> (..., nx * ny, B)"""
    return panel.reshape((*panel.shape[:-3], panel.shape[-3] * panel.shape[-2], panel.shape[-1]))
