"""A case as a pure function: from some of its keys to figures of merit and margins, for jit, vmap and grad.

    model = Differentiable(case, ["radiator.area_m2", "payload.power_kw"])
    figures = model(model.start)
    slopes = jax.jacfwd(lambda x: model(x)["peak_chip_temperature"])(model.start)

Design variables have the units of their keys, figures those of `figures`. A design is solved at every place: each
distinct satellite, at each epoch, under each condition. An extreme is taken over time and over all places, exactly or
smoothly with a stated bound; a mean over fleet and season is that of the worst condition.
"""

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from ..kernels import march, revolution
from ..kernels.constants import NOT_FINITE
from ..kernels.panel import pipe_transport
from . import build, devices
from . import case as cases
from . import keys as key_names
from .case import CaseError
from .limits import Limit, difference, limits_of
from .quantities import celsius
from .run import orbit_mean

HOURS_A_YEAR = 8766.0
# On the distance to the periodic orbit [K]: what a difference quotient, or a line search, cannot see.
TOLERANCE = {"float32": 5e-3, "float64": 1e-5}
# Of a reverse pass for one figure over a forward one for one key: 4.7 and 3.6 solutions (bench/bench_gradient.py).
REVERSE_COST = 1.3
# Keys whose value may be another at each epoch: what is asked of a satellite, not what it is.
BY_EPOCH = ("payload.power_kw", "payload.demand", "payload.eclipse_demand", "payload.windows.")


class Condition(NamedTuple):
    """What a design is looked at under; None: as the case has it."""

    environment: str | None = None
    life: str | None = None

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.environment, self.life and f"{self.life} of life"))) or "as given"


class Figure(NamedTuple):
    """A figure of merit, or a margin.

    Attributes:
        better: 1 if more is better, -1 if less is, 0 if neither.
        limit: Whose margin it is, with the case's own limit, or None.
        of_rows: Whether it is the worst of what its rows have.
    """

    name: str
    unit: str
    better: int
    meaning: str
    limit: Limit | None = None
    of_rows: bool = True


class Place(NamedTuple):
    """Where, when and under what a row of a design is solved."""

    satellite: str
    epoch: datetime
    condition: Condition

    @property
    def plain(self) -> dict[str, str]:
        """As text by name."""
        epoch = f"{self.epoch:%Y-%m-%dT%H:%MZ}"
        return {"satellite": str(self.satellite), "epoch": epoch, "condition": str(self.condition)}


class _Extreme(NamedTuple):
    """The largest (side 1) or smallest (-1) of a series over time, (steps, b), or of one value a row, (b,)."""

    series: Any
    side: int


# Of extremes by name: unit, side, meaning.
_TEMPERATURES = {
    "chip": "chip junctions",
    "coolant": "coolant",
    "panel": "panel, edges included",
    "battery": "battery",
    "array": "solar array",
    "structure": "structure",
}
_EXTREMES = {
    f"{word}_{part}_temperature": ("C", side, f"{extreme} of the {text}")
    for part, text in _TEMPERATURES.items()
    for word, side, extreme in (("peak", 1, "highest temperature"), ("coldest", -1, "lowest temperature"))
} | {
    "min_state_of_charge": ("%", -1, "smallest state of charge"),
    "depth_of_discharge": ("%", 1, "largest less smallest state of charge of a revolution"),
    "energy_balance": ("kWh", -1, "energy left over a revolution with nothing shed"),
    "power_shed": ("kW", 1, "power that the bus lacks, mean over the revolution"),
}
_DESIGN = {
    "delivered_compute": ("kW", 1, "compute power delivered, mean over fleet and season"),
    "compute_percent": ("%", 1, "compute delivered, of that asked, mean over fleet and season"),
    "mass": ("kg", -1, "mass of a satellite"),
    "radiator_area": ("m2", -1, "area of one side of the radiator"),
    "array_area": ("m2", -1, "area of the solar array"),
    "battery_capacity": ("kWh", -1, "capacity of the battery when new"),
    "kg_per_kw": ("kg/kW", -1, "mass per compute power delivered"),
    "compute_per_kg": ("W/kg", 1, "compute power delivered per mass"),
    "launch_price_of_power": ("USD/kW/year", -1, "launch price per power made and year of life"),
    "price_per_kwh": ("USD/kWh", -1, "launch price per energy delivered to compute over life"),
}
_MARGIN = "margin of "


class Differentiable:
    """A case as a pure function of some of its keys.

    Attributes:
        case: As given.
        names: Entries of x: keys, and for one that is another at each epoch `key@0`, `key@1` ...
        start: The case's own values, (k,).
        figures: What there is by name, in the order in which they are returned.
        places: Of the rows of a design.
        conditions: Under which a design is looked at.
    """

    def __init__(
        self,
        case: Any,
        keys: Sequence[str],
        conditions: Sequence[Condition] = (Condition(),),
        per_epoch: Collection[str] = (),
        dtype: Any = np.float64,
        smooth: float = 0.0,
        tolerance: float | None = None,
    ):
        """
        Args:
            case: `schema.Case`; mode orbit or steady.
            keys: Names of the continuous keys that are design variables, see `keys.continuous`.
            conditions: Every design is solved under all of them.
            per_epoch: Those of the keys that have a value for each epoch; of the payload's power and demand only.
            dtype: np.float64 or np.float32, of all numbers.
            smooth: Width of the smooth extremes, in the unit of each figure; 0: exact ones. A smooth maximum of n
                numbers lies above the exact one, by less than smooth ln n; a minimum below.
            tolerance: On the distance to the periodic orbit [K]; by the precision if None.

        Raises:
            CaseError: a key that cannot vary, a condition that the case does not have, a transient run.
        """
        if case.run.mode == "transient":
            raise CaseError(
                f"{case.source}: run.mode: got 'transient'; figures of merit are those of 'orbit' or 'steady'"
            )
        self.case, self.conditions = case, tuple(conditions)
        self.dtype, self.smooth = np.dtype(dtype), float(smooth)
        self._tolerance = TOLERANCE[self.dtype.name] if tolerance is None else tolerance
        found = [key_names.find(case, name) for name in keys]
        self._keys = tuple(key.name for key in found)
        self._cases = [_under(case, condition, self._keys) for condition in self.conditions]
        self._entries(found, per_epoch)
        self._rows(case)
        nodes = case.node_names
        self._nodes = nodes
        self.figures = {one.name: one for one in self._known()}
        self._solve = jax.jit(_over_devices(partial(self._solved, steps=case.run.steps)))
        self.compiled: dict[Any, Callable] = {}

    def _entries(self, found: list[key_names.Key], per_epoch: Collection[str]) -> None:
        """Names, start, and at which entry each epoch finds each key."""
        epochs = self.case.epoch.count
        for name in per_epoch:
            if name not in self._keys:
                raise CaseError(f"{self.case.source}: {name}: by epoch, but not among the keys that vary")
            if not name.startswith(BY_EPOCH):
                raise CaseError(
                    f"{self.case.source}: {name}: cannot be another at each epoch; the payload's power and demand can"
                )
        names, start, column = [], [], []
        for key in found:
            first, count = len(names), epochs if key.name in per_epoch else 1
            names += [key.name] if count == 1 else [f"{key.name}@{k}" for k in range(count)]
            start += [key.value] * count
            column.append([first + (k if count > 1 else 0) for k in range(epochs)])
        self.names = tuple(names)
        self.start = np.asarray(start, self.dtype)
        self._column = np.array(column, int).reshape(len(found), epochs)

    def _rows(self, case: Any) -> None:
        """Where, when and under what the rows of a design are, and what they weigh in a mean."""
        self._occasions, places, epoch = [], [], []
        for condition, own in zip(self.conditions, self._cases):
            occasions, listed = build.occasions(own)
            self._occasions.append(jax.tree.map(lambda leaf: np.asarray(leaf, self.dtype), occasions))
            group, when = np.divmod(np.arange(len(occasions.seconds)), len(listed.epochs))
            first = np.unique(listed.group, return_index=True)[1]
            places += [
                Place(listed.names[first[g]], listed.epochs[e], condition)
                for g, e in zip(group.tolist(), when.tolist())
            ]
            epoch.append(when)
            members = np.bincount(listed.group)[group]
        self.places = tuple(places)
        self._epoch = epoch
        # Conditions have the same satellites and epochs.
        self._weight = np.asarray(members / members.sum(), self.dtype)

    def __call__(self, x: Any) -> dict[str, jax.Array]:
        """Figures of one design, scalars; x (k,) in the order of `names`."""
        return {name: value[0] for name, value in self.batch(jnp.asarray(x, self.dtype)[None]).items()}

    def batch(self, x: Any) -> dict[str, jax.Array]:
        """Figures of many designs, (designs,); x (designs, k)."""
        return self.both(x)[0]

    def rows(self, x: Any) -> dict[str, jax.Array]:
        """Figures of rows, status (as `quantities.STATUS`) and distance to the periodic orbit [K], (designs, rows).

        An extreme is that of the row; a margin is against the design's limit. x (designs, k).
        """
        return self.both(x)[1]

    def both(self, x: Any) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """`batch` and `rows`, solved once."""
        x = jnp.asarray(x, self.dtype)
        return self.figured(x, self.solved(x))

    def solved(self, x: jax.Array, varied: Mapping[int, jax.Array] | None = None) -> dict[str, jax.Array]:
        """What `figured` needs of each row, (designs, rows); a row knows only the entries of its own epoch.

        Args:
            x: (designs, k).
            varied: Entries, (designs,) each, in place of those of x. A derivative by these alone does not look at
                what follows from the others, such as an orbit's loads.
        """
        count = x.shape[0]
        found = self._solve(self._built(x, varied))
        return {name: value[: count * len(self.places)].reshape(count, -1) for name, value in found.items()}

    # -------------------------------------------------------------------------------------------- designs

    def _built(self, x: jax.Array, varied: Mapping[int, jax.Array] | None = None) -> list[Any]:
        """Revolutions, parameters and start of all rows of all designs, rows first."""
        columns = {i: x[:, i] for i in range(x.shape[1])} | dict(varied or {})
        by_epoch = [jnp.stack([columns[i] for i in entries], 1) for entries in self._column.tolist()]
        parts = []
        for case, occasions, epoch in zip(self._cases, self._occasions, self._epoch):

            def one(_, values, occasion, case=case):
                changed = key_names.put(case, dict(zip(self._keys, values)))
                return build.build_row(changed, occasion, self.dtype)

            # (designs, rows) of each key.
            values = [value[:, epoch] for value in by_epoch]
            parts.append(jax.vmap(jax.vmap(one, (None, 0, 0)), (0, 0, None))(x, values, occasions))
        rows = x.shape[0] * len(self.places)
        short = -rows % jax.local_device_count()

        def joined(*leaves):
            every = jnp.concatenate(leaves, 1)
            every = every.reshape(rows, *every.shape[2:])
            return jnp.concatenate([every, *([every[-1:]] * short)])

        return jax.tree.map(joined, *parts)

    def _solved(self, rows: Any, steps: int) -> dict[str, jax.Array]:
        """What the figures need of each row; every leaf has the rows first."""
        revolutions, *lumped = rows
        params, state = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -1), lumped)
        loads = jax.vmap(partial(revolution.revolution_loads, n_steps=steps), out_axes=-1)(revolutions)
        if self.case.run.mode == "steady":
            loads = orbit_mean(loads)
        _, cycle, record = march.cyclic(params, loads, state, tolerance=self._tolerance)
        extremes, means = _of_rows(params, loads, record)
        out = {name: self._over_time(one) for name, one in extremes.items()}
        return out | means | {"status": cycle.status, "distance": cycle.distance}

    def _over_time(self, one: _Extreme) -> jax.Array:
        if one.series.ndim == 1:
            return one.series
        return self._extreme(one.series, one.side, 0)

    def _extreme(self, values: jax.Array, side: int, axis: int) -> jax.Array:
        """Largest or smallest along an axis, or a smooth bound of it."""
        if not self.smooth:
            return jnp.max(values, axis) if side > 0 else jnp.min(values, axis)
        scale = side / self.smooth
        return jax.scipy.special.logsumexp(scale * values, axis) / scale

    # -------------------------------------------------------------------------------------------- figures

    def figured(self, x: jax.Array, found: Mapping[str, jax.Array]) -> tuple[dict, dict]:
        """Figures of designs and of rows, of designs x and what is `solved` there."""
        of_design = jax.vmap(self._of_design)(x)
        rows: dict[str, jax.Array] = {"status": found["status"], "distance": found["distance"]}
        out: dict[str, jax.Array] = {}
        for name, (_, side, _) in _EXTREMES.items():
            if name in self.figures:
                rows[name] = found[name]
                out[name] = self._extreme(found[name], side, 1)
        for name, one in self.figures.items():
            if one.limit is not None:
                sign = 1.0 if one.limit.side == "max" else -1.0
                allowed = of_design[f"{name}: allowed"]
                rows[name] = sign * (allowed[:, None] - found[one.limit.name])
                rows[name] = rows[name] - of_design[f"{name}: uncertainty"][:, None]
                out[name] = self._extreme(rows[name], -1, 1)
        if self.case.payload is not None:
            rows["delivered_compute"] = found["delivered"]
            rows["compute_percent"] = _percent(found["delivered"], found["asked"])
            delivered, asked = self._means(found["delivered"]), self._means(found["asked"])
            out["delivered_compute"] = self._extreme(delivered, -1, 1)
            out["compute_percent"] = self._extreme(_percent(delivered, asked), -1, 1)
        for name in ("mass", "radiator_area", "array_area", "battery_capacity"):
            if name in self.figures:
                out[name] = of_design[name]
        price = of_design["mass"] * of_design["launch_price"]
        if self.case.payload is not None:
            compute = out["delivered_compute"]
            runs = compute > 0
            power = jnp.where(runs, compute, 1.0)
            out["kg_per_kw"] = jnp.where(runs, of_design["mass"] / power, jnp.inf)
            out["compute_per_kg"] = 1e3 * compute / of_design["mass"]
            energy = power * HOURS_A_YEAR * of_design["life"]
            out["price_per_kwh"] = jnp.where(runs, price / energy, jnp.inf)
        if self.case.array is not None:
            made = self._extreme(self._means(found["made"]), -1, 1)
            lit = made > 0
            out["launch_price_of_power"] = jnp.where(
                lit, price / (jnp.where(lit, made, 1.0) * of_design["life"]), jnp.inf
            )
        return {name: out[name] for name in self.figures}, {
            name: rows[name] for name in (*(n for n in self.figures if n in rows), "status", "distance")
        }

    def _means(self, values: jax.Array) -> jax.Array:
        """Means over fleet and season under each condition, (designs, conditions), of (designs, rows)."""
        by_condition = values.reshape(len(values), len(self.conditions), -1)
        return jnp.sum(by_condition * self._weight[None, None], axis=2)

    def _of_design(self, x: jax.Array) -> dict[str, jax.Array]:
        """What follows from the design alone, its limits among it, of x (k,)."""
        case = key_names.put(self._cases[0], dict(zip(self._keys, x[self._column[:, 0]])))
        out = {
            "mass": build.masses(case)["total"],
            "radiator_area": case.radiator.area_m2,
            "array_area": 0.0 if case.array is None else case.array.area_m2,
            "battery_capacity": 0.0 if case.battery is None else case.battery.capacity_kwh,
            "launch_price": case.mass.launch_price_usd_kg,
            "life": case.mass.life_years,
        }
        for limit in _limits(case, self._nodes):
            name = f"{_MARGIN}{limit.name}"
            out |= {f"{name}: allowed": limit.allowed, f"{name}: uncertainty": limit.uncertainty}
        return {name: jnp.asarray(value, self.dtype) for name, value in out.items()}

    def _known(self) -> list[Figure]:
        """The figures that the case has."""
        case, nodes = self._cases[0], self._nodes
        there = {
            "chip": "chip" in nodes,
            "coolant": case.loop is not None,
            "panel": True,
            "battery": case.battery is not None,
            "array": case.array is not None,
            "structure": True,
        }
        out = []
        for name, (unit, side, meaning) in _EXTREMES.items():
            part = name.split("_")[1]
            if name in ("min_state_of_charge", "depth_of_discharge"):
                part = "battery"
            elif name in ("energy_balance", "power_shed"):
                part = "array"
            if there[part]:
                out.append(Figure(name, unit, -side, meaning))
        for name, (unit, better, meaning) in _DESIGN.items():
            needs = {
                "mass": True,
                "radiator_area": True,
                "array_area": case.array is not None,
                "battery_capacity": case.battery is not None,
                "launch_price_of_power": case.array is not None,
            }
            if needs.get(name, case.payload is not None):
                out.append(Figure(name, unit, better, meaning, None, of_rows=False))
        for limit in _limits(case, nodes):
            unit = difference(limit.unit)
            meaning = f"margin to the limit of {limit.name}, after its uncertainty; >= 0: met"
            out.append(Figure(f"{_MARGIN}{limit.name}", unit, 1, meaning, limit))
        return out

    def figure(self, name: str) -> Figure:
        """A figure by its name.

        Raises:
            CaseError: the case has none of that name.
        """
        if name in self.figures:
            return self.figures[name]
        near = difflib.get_close_matches(name, self.figures, 1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(self.figures)}"
        raise CaseError(f"{self.case.source}: no figure '{name}'; {hint}")


def conditions(environments: Iterable[str] = (), lives: Iterable[str] = ()) -> tuple[Condition, ...]:
    """Every combination; of what is not given, as the case has it."""
    return tuple(
        Condition(environment, life)
        for environment in dict.fromkeys(environments) or (None,)
        for life in dict.fromkeys(lives) or (None,)
    )


def _under(case: Any, condition: Condition, keys: Collection[str]) -> Any:
    """The case under a condition, with what its environment stands for written out."""
    data = case.model_dump(by_alias=True, exclude_none=True)
    environment = data["environment"]
    if condition.environment is not None:
        for name in key_names.OF_LEVEL:
            if name in keys:
                raise CaseError(
                    f"{case.source}: {name}: cannot vary where the environment is set ('{condition.environment}')"
                )
            environment.pop(name.partition(".")[2], None)
        environment.pop("scale_with_distance", None)
        environment["level"] = condition.environment
    if condition.life is not None:
        environment["life"] = condition.life
    return key_names.resolved(cases.validate(data, case.source))


def _limits(case: Any, nodes: tuple[str, ...]) -> list[Limit]:
    """The limits of a case, and of a battery recharge and discharge power, all of them with a value on both sides.

    Of charge and of power this is what would be, if nothing were shed: a floor that holds back what runs shows no
    derivative.
    """
    limits = limits_of(case, nodes)
    if case.battery is not None:
        for name, unit, allowed, side in (
            ("recharge", "kWh", 0.0, "min"),
            ("discharge power", "kW", case.battery.power_limit_kw("discharge"), "max"),
        ):
            limits.append(Limit(name, unit, allowed, 0.0, lambda scalars: scalars[""], side, of_power=True))
    return limits


def _percent(part: jax.Array, whole: jax.Array) -> jax.Array:
    wanted = whole > 0
    return jnp.where(wanted, 100 * part / jnp.where(wanted, whole, 1.0), 100.0)


def _of_rows(params, loads, record) -> tuple[dict[str, _Extreme], dict[str, jax.Array]]:
    """Extremes by figure and by limit, and means over the revolution, of a march's record; rows last."""
    nodes, names = celsius(record.nodes), params.network.names
    real = loads.dt > 0  # a step of no length has no power
    weight = loads.dt / jnp.sum(loads.dt, 0)[None]
    kw = {
        name: getattr(record, name) / 1e3
        for name in (
            "array_available",
            "payload_asked",
            "payload_throttled",
            "payload_power",
            "payload_curtailed",
            "unmet",
        )
    }

    def mean(series):
        return jnp.sum(series * weight, 0)

    extremes: dict[str, _Extreme] = {}

    def extreme(part, limit, high, low):
        extremes[f"peak_{part}_temperature"] = extremes[f"{limit} hottest"] = _Extreme(high, 1)
        extremes[f"coldest_{part}_temperature"] = extremes[f"{limit} coldest"] = _Extreme(low, -1)

    for part in ("chip", "battery", "array", "structure"):
        if part in names:
            series = nodes[:, names.index(part)]
            extreme(part, part, series, series)
    extreme("panel", "panel", celsius(record.panel_max), celsius(record.panel_min))
    if params.coolant is not None:
        parts = record.fluid_supply, record.fluid_radiator_in, record.fluid_radiator_out
        fluid = celsius(jnp.concatenate(parts))
        extreme("coolant", "coolant", fluid, fluid)
        extremes["supply set point"] = _Extreme(celsius(record.fluid_supply), 1)
    maps = record.panel_hottest, record.panel_coldest
    transport = [pipe_transport(params.panel, one) for one in maps]
    extremes["heat pipe transport"] = _Extreme(jnp.maximum(*transport), 1)
    shed = mean(kw["payload_curtailed"] + kw["unmet"])
    balance = record.battery_drift / build.KILOWATT_HOUR
    extremes |= {"power_shed": _Extreme(shed, 1), "energy_balance": _Extreme(balance, -1)}
    extremes["energy balance"] = _Extreme(balance, -1)
    net = _net_power(params, record)
    extremes["power shed"] = _Extreme(jnp.where(real, -net / 1e3, -jnp.inf), 1)
    if params.battery is not None:
        cell = params.battery
        charge = 100 * record.energy / cell.capacity[None]
        # Within a revolution: the extremes of the record, exact even where those over rows are smooth.
        extremes["min_state_of_charge"] = _Extreme(charge, -1)
        extremes["depth_of_discharge"] = _Extreme(jnp.max(charge, 0) - jnp.min(charge, 0), 1)
        depth, recharge = _depth(net, loads.dt, cell)
        extremes["state of charge"] = _Extreme(100 * (cell.soc_max[None] - depth / cell.capacity[None]), -1)
        extremes["recharge"] = _Extreme(recharge / build.KILOWATT_HOUR, -1)
        extremes["discharge power"] = extremes["power shed"]
    means = {
        "delivered": mean(kw["payload_power"]),
        "uncurtailed": mean(kw["payload_asked"] - kw["payload_throttled"]),
        "asked": mean(kw["payload_asked"]),
        "made": mean(kw["array_available"]),
    }
    return extremes, means


def _net_power(params, record) -> jax.Array:
    """What the bus would have left if nothing were curtailed, at each step, (steps, b) [W]."""
    essential = sum(
        getattr(record, name) for name in ("heater_power", "pump_power", "base_power", "transmitted", "unmet")
    )
    offered = params.bus.conversion_efficiency[None] * record.array_available
    return offered - essential - (record.payload_asked - record.payload_throttled)


def _depth(net: jax.Array, dt: jax.Array, cell: Any) -> tuple[jax.Array, jax.Array]:
    """How far below full a battery without a floor would be, (2 steps, b) [J], and what a revolution adds, (b,) [J].

    Of a revolution that follows another, the first of which counts by what it leaves. What is added is what charging
    stores within its power less what is drawn, were the battery never full; below zero it is not recharged, and the
    depth is that of one revolution all the same: what it would be in the next ones is no number of a satellite that
    goes on, and would bend the depth's slope just where the least array and the least battery meet.
    """
    stored = jnp.minimum(
        cell.charge_efficiency[None] * net, (cell.charge_efficiency * cell.charge_power_max)[None]
    )
    drift = jnp.where(net > 0, stored, net / cell.discharge_efficiency[None]) * dt
    once = jnp.cumsum(drift, 0)
    store = jnp.concatenate([once, once + jnp.maximum(once[-1:], 0)])
    fullest = jnp.maximum(lax.cummax(store, axis=0), 0)
    return fullest - store, once[-1]


def _over_devices(function: Callable) -> Callable:
    """Rows split over this process's devices where they fill registers on each; every leaf has the rows first."""
    mesh, rows = Mesh(np.array(jax.local_devices()), ("rows",)), PartitionSpec("rows")
    split = jax.shard_map(function, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)
    count = len(jax.local_devices())

    def solved(leaves):
        many = len(jax.tree.leaves(leaves)[0]) >= count * devices.LANES
        return split(leaves) if many else function(leaves)

    return solved


# ------------------------------------------------------------------------------------------------ on the host


class Evaluated(NamedTuple):
    """Figures of many designs, on the host.

    Attributes:
        figures: By name, (designs,).
        status: Of each design's worst row, as `quantities.STATUS`, (designs,).
    """

    figures: dict[str, np.ndarray]
    status: np.ndarray

    @property
    def failed(self) -> np.ndarray:
        """Designs without numbers."""
        return self.status == NOT_FINITE


def chunk_size(model: Differentiable, count: int) -> int:
    """Designs that are solved at once: as many as fill the devices with rows."""
    full = devices.ROWS_PER_DEVICE.get(jax.default_backend(), devices.ROWS_PER_DEVICE["gpu"])
    return max(1, min(count, full * jax.local_device_count() // len(model.places)))


def evaluate(
    model: Differentiable, x: np.ndarray, progress: Callable[[int, int], None] = lambda done, all: None
) -> Evaluated:
    """Many designs, (designs, k), a chunk at a time; `progress` is called with designs done and in all."""
    count = len(x)
    size = chunk_size(model, count)
    program = _program(model, "evaluate", lambda: jax.jit(lambda x: _with_status(model, x)))
    parts = []
    progress(0, count)
    for first in range(0, count, size):
        some = x[first : first + size]
        padded = np.concatenate([some, np.repeat(some[-1:], size - len(some), axis=0)])
        found = jax.tree.map(np.asarray, program(np.asarray(padded, model.dtype)))
        parts.append([found, len(some)])
        progress(first + len(some), count)
    found = [jax.tree.map(itemgetter(slice(n)), part) for part, n in parts]
    figures, status = jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)
    return Evaluated(figures, status)


def _with_status(model: Differentiable, x: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
    figures, rows = model.both(x)
    return figures, jnp.max(rows["status"], axis=1)


def jacobian(
    model: Differentiable, x: np.ndarray, names: Sequence[str]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Figures of one design, x (k,), and the derivatives of some of them, (len(names), k), on the host.

    Forward or reverse, whichever costs less; compiled once for the same names.
    """
    names = tuple(names)
    reverse = len(model.names) > REVERSE_COST * len(names)

    def compiled():
        def figures(x):
            found = model(x)
            return jnp.stack([found[name] for name in names]), found

        return jax.jit((jax.jacrev if reverse else jax.jacfwd)(figures, has_aux=True))

    slopes, found = _program(model, names, compiled)(np.asarray(x, model.dtype))
    return {name: np.asarray(value) for name, value in found.items()}, np.asarray(slopes)


def _program(model: Differentiable, name: Any, make: Callable[[], Callable]) -> Callable:
    if name not in model.compiled:
        model.compiled[name] = make()
    return model.compiled[name]
