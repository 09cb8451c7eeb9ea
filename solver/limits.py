"""Limits of a case: value, allowed, margin after the stated uncertainty, and headroom in payload power."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from .results import FAILED
from .schema import DEFAULT_CHIP_LIMIT_C

# 13 factors 0..4 hold 1 among them; two refinements leave 4 / 12^3 = 0.0023.
FACTORS, REFINEMENTS, LARGEST_FACTOR = 13, 2, 4.0
SHED_SHARE = 1e-5  # share of the power asked that may be shed by rounding alone
SET_POINT_TOLERANCE_K = 0.1
BALANCE_SHARE = 1e-5  # of the energy asked a revolution


@dataclass(frozen=True)
class Limit:
    """One thing that must hold.

    Attributes:
        name: What is limited.
        unit: Of value, allowed and margin.
        allowed: The limit itself.
        uncertainty: Taken off the margin before it is judged.
        values: From the run's scalars to one value a row.
        side: "max": the value must stay below; "min": above.
        binds: Whether more payload power works against it ("less" power does otherwise).
        of_power: Whether it is a limit of power, not of heat.
        broken: Rows where it is broken whatever the margin, or None.
    """

    name: str
    unit: str
    allowed: float
    uncertainty: float
    values: Callable[[Mapping[str, np.ndarray]], np.ndarray]
    side: Literal["max", "min"]
    binds: Literal["more", "less"] = "more"
    of_power: bool = False
    broken: Callable[[Mapping[str, np.ndarray]], np.ndarray] | None = None

    def margins(self, scalars: Mapping[str, np.ndarray]) -> np.ndarray:
        """Margin of each row after the uncertainty; negative: not met."""
        sign = 1.0 if self.side == "max" else -1.0
        return sign * (self.allowed - self.values(scalars).astype(float)) - self.uncertainty

    def met(self, scalars: Mapping[str, np.ndarray]) -> np.ndarray:
        """Whether each row meets it."""
        good = self.margins(scalars) >= 0
        return good if self.broken is None else good & ~self.broken(scalars)


def difference(unit: str) -> str:
    """Unit of a difference."""
    return "K" if unit == "C" else unit


def limits_of(case: Any, nodes: tuple[str, ...]) -> list[Limit]:
    """The limits that a case has, temperatures first."""
    give = case.limits.uncertainty_k
    out = []

    def hottest(name, allowed, values):
        out.append(Limit(name, "C", allowed, give, values, "max"))

    def coldest(name, allowed, values):
        out.append(Limit(name, "C", allowed, give, values, "min", binds="less"))

    def node(name, extreme):
        index = nodes.index(name)
        return lambda s: s[f"node_{extreme}_c"][:, index]

    if "chip" in nodes:
        allowed = case.payload.max_chip_temperature_c
        hottest("chip hottest", DEFAULT_CHIP_LIMIT_C if allowed is None else allowed, node("chip", "max"))
    if case.loop is not None:
        loop = case.loop
        top = loop.property("boiling_c") if loop.max_temperature_c is None else loop.max_temperature_c
        bottom = loop.property("freezing_c") if loop.min_temperature_c is None else loop.min_temperature_c
        hottest("coolant hottest", top, lambda s: s["coolant_max_c"])
        coldest("coolant coldest", bottom, lambda s: s["coolant_min_c"])
        if loop.bypass_setpoint_c is not None:
            point = loop.bypass_setpoint_c
            out.append(
                Limit(
                    "supply set point",
                    "C",
                    point + SET_POINT_TOLERANCE_K,
                    0.0,
                    lambda s: s["supply_max_c"],
                    "max",
                )
            )
    hottest("panel hottest", case.radiator.max_temperature_c, lambda s: s["panel_max_c"])
    capability = case.radiator.heat_pipe_capability_w_m
    if capability is not None:
        out.append(
            Limit(
                "heat pipe transport",
                "W m",
                capability,
                0.0,
                lambda s: s["pipe_transport_max_w_m"],
                "max",
            )
        )
    if case.battery is not None:
        hottest("battery hottest", case.battery.max_temperature_c, node("battery", "max"))
        coldest("battery coldest", case.battery.min_temperature_c, node("battery", "min"))
        out.append(
            # The floor is touched before anything is shed; rounding may show the charge a little below it.
            Limit(
                "state of charge",
                "%",
                100 * case.battery.min_soc,
                0.0,
                lambda s: 100 * np.maximum(s["soc_min"], case.battery.min_soc),
                "min",
                of_power=True,
                broken=sheds,
            )
        )
    if case.battery is None and case.array is not None:
        out.append(
            Limit(
                "power shed",
                "kW",
                0.0,
                0.0,
                lambda s: np.where(sheds(s), shed_kw(s), 0.0),
                "max",
                of_power=True,
                broken=sheds,
            )
        )
    if case.array is not None:
        out.append(Limit("energy balance", "kWh", 0.0, 0.0, energy_balance_kwh, "min", of_power=True))
    return out


def shed_kw(scalars: Mapping[str, np.ndarray]) -> np.ndarray:
    """Power that the bus lacked, mean [kW]."""
    return scalars["payload_curtailed_kw"] + scalars["unmet_kw"]


def needed_kw(scalars: Mapping[str, np.ndarray]) -> np.ndarray:
    """Power asked of the bus by everything, mean [kW]."""
    names = (
        "payload_asked_kw",
        "base_power_kw",
        "heater_power_kw",
        "pump_power_kw",
        "transmitted_kw",
        "unmet_kw",
    )
    return np.sum([scalars[name] for name in names], axis=0)


POWERS = ("asked_kw", "shed_kw", "delivered_kw")


def powers(scalars: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """POWERS: what the bus was asked for, lacked, and gave."""
    needed, shed = needed_kw(scalars), shed_kw(scalars)
    return dict(zip(POWERS, (needed, shed, needed - shed - scalars["payload_throttled_kw"])))


def sheds(scalars: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rows whose bus lacks power at some time."""
    return shed_kw(scalars) > SHED_SHARE * needed_kw(scalars)


def energy_balance_kwh(scalars: Mapping[str, np.ndarray]) -> np.ndarray:
    """Energy left over a revolution with nothing shed; rounding of a balanced one counts as zero."""
    rounding = BALANCE_SHARE * needed_kw(scalars) * scalars["period_min"] / 60
    balance = scalars["energy_balance_kwh"]
    return np.where(np.abs(balance) <= rounding, 0.0, balance)


class Headroom(NamedTuple):
    """Factor on payload power; `starved`: power ran out there before the limit was reached."""

    factor: float | None
    starved: bool


def headrooms(
    limits: list[Limit],
    rows: list[int],
    solve: Callable[[np.ndarray, np.ndarray], Mapping[str, np.ndarray]],
) -> list[Headroom]:
    """Factor on payload power at which each limit is just met, at its worst row; nothing throttled.

    The last factor that meets it before the crossing nearest to 1: upwards where it is met at 1, downwards
    where it is not, and the other way round for a limit that lack of power works against. With no crossing
    in 0..`LARGEST_FACTOR`: the end of the range where it is met, None where it is not. Where power is shed
    the payload does not get what the factor says, so a temperature limit is followed up to there only. Found
    by trying a batch of factors and then, twice, a batch inside the bracket, which needs no smoothness: a set
    point or a floor of charge has none.

    Args:
        rows: Worst row of each limit.
        solve: (rows, factors) -> scalars, both of one length. A row whose status is FAILED meets nothing.
    """
    ends = {"more": (0.0, LARGEST_FACTOR), "less": (LARGEST_FACTOR, 0.0)}  # from the met side to the unmet
    grids = {i: np.linspace(*ends[limit.binds], FACTORS) for i, limit in enumerate(limits)}
    found = [Headroom(None, False)] * len(limits)
    for _ in range(1 + REFINEMENTS):
        # Limits that share a row share its solutions.
        pairs = sorted({(rows[i], float(factor)) for i, grid in grids.items() for factor in grid})
        place = {pair: k for k, pair in enumerate(pairs)}
        if not pairs:
            break
        scalars = solve(np.array([row for row, _ in pairs]), np.array([factor for _, factor in pairs]))
        finer = {}
        for i, grid in grids.items():
            at = [place[rows[i], float(factor)] for factor in grid]
            here = {name: value[at] for name, value in scalars.items()}
            met = limits[i].met(here) & (here["status"] != FAILED)
            thermal = limits[i].binds == "more" and not limits[i].of_power
            good = met & ~sheds(here) if thermal else met
            edge = crossing(good, grid)
            if edge is None:
                continue
            lost = met[np.flatnonzero(grid == edge[-1])[0]] and len(edge) == 2
            found[i] = Headroom(float(edge[0]), bool(lost))
            if len(edge) == 2:
                finer[i] = np.linspace(*edge, FACTORS)
        grids = finer
    return found


def crossing(good: np.ndarray, grid: np.ndarray) -> tuple[float, ...] | None:
    """From the met side to the unmet: the two neighbours nearest to factor 1 between which a limit is lost.

    One number, the end of the grid, where it is met from 1 to there; None where it is met nowhere up to 1.
    """
    start = int(np.argmin(np.abs(grid - 1)))
    if good[start]:
        lost = np.flatnonzero(~good[start:])
        if len(lost) == 0:
            return (grid[-1],)
        last = start + int(lost[0]) - 1
    else:
        met = np.flatnonzero(good[:start])
        if len(met) == 0:
            return None
        last = int(met[-1])
    return grid[last], grid[last + 1]
