"""From a case to the pytrees that the kernels take: the one place where units convert.

    fleet = build(case, np.float32)
    some = rows_of(roster(case, np.float32).revolutions, rows, 0)

Rows are distinct revolutions: plane x epoch, or satellite x epoch where [spread] makes every satellite its
own, epochs fastest. Leaves are host arrays, constant ones without copies. Those that are not constant are `Gathered`
from what satellites, planes and epochs have, in a roster and in a fleet with [spread]: one of twenty million rows
costs little before it runs. `rows_of` takes some.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, TypeVar

import jax
import numpy as np

from ..kernels import earth, timescale, view_factor
from ..kernels.attitude import Attitude
from ..kernels.battery import Battery, faded_capacity
from ..kernels.constants import AU, SIGMA, ZERO_CELSIUS
from ..kernels.coolant import Coolant, Film
from ..kernels.network import Network
from ..kernels.orbit import Orbit, period, propagate
from ..kernels.panel import Panel
from ..kernels.payload import Payload
from ..kernels.revolution import Revolution, Surfaces
from ..kernels.satellite import Bus, Params, State
from ..kernels.solar_array import SolarArray, degraded_efficiency
from . import constellation as constellations
from .arithmetic import HOST, Traced, host_float64
from .case import CaseError
from .schema import LEVELS, Case, EarthTable, Structure, TleOrbit, polynomial
from .schema import Battery as BatterySection
from .schema import Bus as BusSection
from .schema import Spread as SpreadSection

KILO = 1e3
KILOWATT_HOUR = 3.6e6  # J
MILLI = 1e-3
SPREAD_CUT = 3.0  # draws of [spread] stay within so many sigma
BATTERY_WH_PER_KG = 150.0  # Li-ion cells with packaging, where a case gives no mass
DEGREE = math.pi / 180
EARTH_DEGREE = 16  # of a gridded Earth's series, from 24 rows on
# No throttling: the factor stays 1 whatever the temperature (floor 1), between finite points.
UNTHROTTLED = (1000.0, 2000.0, 1.0)

AXES = {
    sign + name: tuple(float(f"{sign}1") * (i == j) for j in range(3))
    for i, name in enumerate("xyz")
    for sign in "+-"
}

T = TypeVar("T")


@dataclass(frozen=True)
class Roster:
    """The distinct revolutions of a case, and the satellites and epochs that they stand for.

    Attributes:
        revolutions: kernels.revolution.Revolution, rows on the first axis of every leaf.
        group: Which satellites share their rows: those with the same number, (n_satellites,). Row
            group x epochs + epoch is that of all of a group.
        names: Of the satellites.
        plane: Of each satellite, (n_satellites,).
        epochs: Instants, UTC: the middle of each revolution.
        case: Where it came from.
        orbits: Mean elements of each row at its epoch, float64, leaves (rows,).
        dates: Two-part Julian dates TT of the epochs.
        left_out: Of a TLE file, the sets that are not in the fleet, and why: one message for each.
    """

    revolutions: Revolution
    group: np.ndarray
    names: tuple[str, ...]
    plane: np.ndarray
    epochs: tuple[datetime, ...]
    case: Case
    orbits: Orbit
    dates: tuple[np.ndarray, np.ndarray]
    left_out: tuple[str, ...]

    @property
    def row(self) -> np.ndarray:
        """Row that holds each satellite at each epoch, (n_satellites, n_epochs)."""
        epochs = np.arange(len(self.epochs), dtype=np.int32)
        return self.group.astype(np.int32)[:, None] * len(epochs) + epochs

    @property
    def dtype(self) -> np.dtype:
        """Of every leaf of a revolution."""
        return self.revolutions.sun_distance.dtype


@dataclass(frozen=True)
class Fleet(Roster):
    """A case as arrays in SI, ready for the kernels.

    Attributes:
        params: kernels.satellite.Params, rows on the last axis.
        state: kernels.satellite.State at the start, rows on the last axis.
        mass_kg: Of one satellite.
    """

    params: Params
    state: State
    mass_kg: float


@dataclass(frozen=True)
class Design:
    """What [spread] varies, one entry for each distinct design: one, or as many as satellites."""

    absorptance: np.ndarray  # radiator faces, (designs, 2)
    emissivity: np.ndarray  # radiator faces, (designs, 2)
    efficiency: np.ndarray  # of the cells, (designs,)
    power: np.ndarray  # of the payload [W], (designs,)


class Gathered(np.lib.mixins.NDArrayOperatorsMixin):
    """A leaf with one entry a row, of entries that rows share; numpy takes it for the array that it stands for.

    Attributes:
        entries: What there is, one on the first axis.
        index: From numbers of rows to entries.
        rows: How many there are.
        axis: Of the rows, 0 or -1.
    """

    def __init__(self, entries: np.ndarray, index: Callable[[np.ndarray], np.ndarray], rows: int, axis: int):
        self.entries, self.index, self.rows, self.axis = entries, index, rows, axis

    @property
    def dtype(self) -> np.dtype:
        return self.entries.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        rest = self.entries.shape[1:]
        return (self.rows, *rest) if self.axis == 0 else (*rest, self.rows)

    @property
    def ndim(self) -> int:
        return self.entries.ndim

    def __len__(self) -> int:
        return self.shape[0]

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Some rows, on the first axis."""
        return self.entries[self.index(rows)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.moveaxis(self.of(np.arange(self.rows)), 0, self.axis).astype(dtype or self.dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        arrays = (np.asarray(x) if isinstance(x, Gathered) else x for x in inputs)
        return getattr(ufunc, method)(*arrays, **options)

    def __getitem__(self, key: Any) -> np.ndarray:
        return np.asarray(self)[key]


def rows_of(tree: Any, rows: np.ndarray, axis: int) -> Any:
    """Some rows of a fleet's pytree, whose rows are on `axis` 0 or -1; in what is returned they are on the first."""

    def of(leaf):
        return leaf.of(rows) if isinstance(leaf, Gathered) else np.moveaxis(leaf, axis, 0)[rows]

    return jax.tree.map(of, tree)


class _Rows:
    """Leaves with one entry a row, in the run's precision."""

    numbers = HOST

    def __init__(self, plane: np.ndarray, n_epochs: int, dtype: Any, distinct: bool):
        """`plane` of each group of rows; `distinct`: every group is one satellite, of its own design."""
        self.n, self.dtype = len(plane) * n_epochs, np.dtype(dtype)
        self.plane, self.n_epochs, self.distinct = plane, n_epochs, distinct

    def last(self, value: Any) -> np.ndarray:
        """A constant, rows last; no copies."""
        value = np.asarray(value, self.dtype)
        return np.broadcast_to(value[..., None], (*value.shape, self.n))

    def first(self, value: Any) -> np.ndarray:
        """A constant, rows first; no copies."""
        value = np.asarray(value, self.dtype)
        return np.broadcast_to(value, (self.n, *value.shape))

    def designs_last(self, value: np.ndarray) -> Any:
        """One entry for each design on the first axis, to rows on the last."""
        value = np.asarray(value, self.dtype)
        return Gathered(value, self._satellite, self.n, -1) if self.distinct else self.last(value[0])

    def designs_first(self, value: np.ndarray) -> Any:
        """One entry for each design on the first axis, to rows on the first."""
        value = np.asarray(value, self.dtype)
        return Gathered(value, self._satellite, self.n, 0) if self.distinct else self.first(value[0])

    def _satellite(self, row: np.ndarray) -> np.ndarray:
        return row // self.n_epochs

    def epochs_first(self, value: np.ndarray) -> Any:
        """One entry for each epoch on the first axis, to rows on the first."""
        return Gathered(value.astype(self.dtype), lambda row: row % self.n_epochs, self.n, 0)

    def planes_first(self, value: np.ndarray, dtype: Any = None) -> Any:
        """One for each plane at each epoch, to rows on the first axis; in float64 where the run's is not wanted."""

        def entry(row):
            return self.plane[row // self.n_epochs] * self.n_epochs + row % self.n_epochs

        return Gathered(value.reshape(-1).astype(dtype or self.dtype, copy=False), entry, self.n, 0)


class _Row:
    """Leaves of one row, in a given precision, of numbers some of which are traced."""

    def __init__(self, dtype: Any):
        self.numbers = Traced(dtype)

    def last(self, value: Any) -> jax.Array:
        return self.numbers.array(value)

    first = last

    def designs_last(self, value: jax.Array) -> jax.Array:
        return self.numbers.array(value)[0]

    designs_first = designs_last


@dataclass(frozen=True)
class Occasion:
    """What distinguishes a row besides its design: where and when. Leaves for one row, or rows first.

    Attributes:
        plane: Number of its plane.
        seconds: From the first epoch [s].
        sun_hat: Unit vector to the Sun.
        sun_distance: [m].
        zonal: Of an Earth that varies, at its date, see `_zonal`; None where it is uniform.
        draws: Standard normal draws of [spread], cut, (4,); zeros without it.
        orbit: Mean elements at its epoch where they come from a TLE file, else None.
    """

    plane: Any
    seconds: Any
    sun_hat: Any
    sun_distance: Any
    zonal: Any
    draws: Any
    orbit: Orbit | None


jax.tree_util.register_dataclass(Occasion)


def occasions(case: Case) -> tuple[Occasion, Roster]:
    """The occasions of all rows of a case, float64, rows first, and its roster."""
    listed = roster(case, np.float64)
    rows = np.arange(len(listed.revolutions.sun_distance))
    group, epoch = np.divmod(rows, len(listed.epochs))
    groups, first = np.unique(listed.group, return_index=True)
    plane = np.zeros(len(groups), int)
    plane[groups] = listed.plane[first]
    seconds = np.array([(when - case.epoch.start).total_seconds() for when in listed.epochs])
    sun = constellations.sun_at(*listed.dates)
    draws = np.zeros((len(groups), 4)) if case.spread is None else _draws(case.spread, len(groups))
    occasion = Occasion(
        plane=plane[group],
        seconds=seconds[epoch],
        sun_hat=sun.direction[epoch],
        sun_distance=sun.distance[epoch],
        zonal=None if case.environment.earth == "uniform" else _zonal(case, sum(listed.dates))[epoch],
        draws=draws[group],
        orbit=jax.tree.map(np.asarray, listed.orbits) if isinstance(case.orbit, TleOrbit) else None,
    )
    return occasion, listed


def build_row(case: Case, occasion: Occasion, dtype: Any) -> tuple[Revolution, Params, State]:
    """One row of a case some of whose numbers are traced: what `build` makes of all, with no batch axis.

    Args:
        case: With traced numbers in place of some; nothing about it is checked any more.
        occasion: Of the row, traced too.
        dtype: Of every leaf.
    """
    row = _Row(dtype)
    orbits = occasion.orbit
    if orbits is None:
        orbits = propagate(constellations.first_elements(case, occasion.plane, row.numbers), occasion.seconds)
    design = _design(case, occasion.draws[None], row.numbers)
    sky = _sky(case, orbits, occasion, row.numbers)
    revolution = _revolution(case, design, row, jax.tree.map(row.numbers.array, sky))
    params = _params(case, design, row)
    return revolution, params, _state(case, params, row)


def build(case: Case, dtype: Any = np.float32) -> Fleet:
    """The fleet of a case.

    Args:
        case: Validated case.
        dtype: np.float32 or np.float64, of every leaf. Dates, angles and the Sun are float64 until then.

    Raises:
        CaseError: the orbit cannot be met (a beta angle out of reach, no element set that SGP4 can carry).
    """
    listed, design, rows = _listed(case, dtype)
    if not rows.distinct:
        # Planes are few: only rows of satellites are worth the gathering.
        revolutions, orbits = jax.tree.map(np.asarray, (listed.revolutions, listed.orbits))
        listed = replace(listed, revolutions=revolutions, orbits=orbits)
    params = _params(case, design, rows)
    state = _state(case, params, rows)
    return Fleet(**vars(listed), params=params, state=state, mass_kg=masses(case)["total"])


def roster(case: Case, dtype: Any = np.float32) -> Roster:
    """The revolutions of a case without design and state: what orbits, Sun and fluxes need.

    Arguments and errors are those of `build`.
    """
    return _listed(case, dtype)[0]


def _listed(case: Case, dtype: Any) -> tuple[Roster, Design, _Rows]:
    """The roster of a case, and the designs and rows that it was made with."""
    found = constellations.constellation(case)
    instants = constellations.epochs(case)
    dates = constellations.dates(instants)
    distinct = case.spread is not None
    plane = found.plane if distinct else np.arange(found.planes.raan.shape[0])
    rows = _Rows(plane, len(instants), dtype, distinct)
    draws = np.zeros((1, 4)) if case.spread is None else _draws(case.spread, len(plane))
    design = _design(case, draws, HOST)
    listed = Roster(
        revolutions=_revolutions(case, design, rows, found.planes, dates),
        group=np.arange(len(found.names)) if distinct else found.plane,
        names=found.names,
        plane=found.plane,
        epochs=instants,
        case=case,
        orbits=jax.tree.map(lambda leaf: rows.planes_first(leaf, np.float64), found.planes),
        dates=dates,
        left_out=found.left_out,
    )
    return listed, design, rows


def advance(fleet: Fleet, k: int, rows: np.ndarray) -> Revolution:
    """Some revolutions of a fleet, and what has become of them k periods later: Sun, node and perigee moved on.

    Elements drift by the secular J2 rates, those of a TLE file too. Rows on the first axis.
    """
    now = rows_of(fleet.revolutions, rows, 0)
    if k == 0:
        return now
    orbits = rows_of(fleet.orbits, rows, 0)
    with host_float64():
        seconds = k * np.asarray(period(jax.numpy.asarray(orbits.semi_major_axis)))
    epoch = rows % len(fleet.epochs)
    day, fraction = fleet.dates
    dates = timescale.shift_date(day[epoch], fraction[epoch], seconds)
    sky = _sky_at(fleet.case, constellations.drift(orbits, seconds), dates)
    return replace(now, **jax.tree.map(lambda leaf: leaf.astype(fleet.dtype), sky))


def _sky_at(case: Case, orbits: Orbit, dates: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    """What a revolution has of its orbit and of its date, by name: orbits of any shape, dates of any."""
    sun = constellations.sun_at(*dates)
    zonal = None if case.environment.earth == "uniform" else _zonal(case, sum(dates))
    occasion = Occasion(None, None, sun.direction, sun.distance, zonal, None, None)
    return _sky(case, orbits, occasion, HOST)


def _sky(case: Case, orbits: Orbit, occasion: Occasion, numbers: Any) -> dict[str, Any]:
    """What a revolution has of its orbit and of its date, by name."""
    e = case.environment
    flux, given = LEVELS[e.level][0], e.solar_flux_w_m2
    flux = flux if given is None else given
    scaled = e.scale_with_distance
    if scaled is None:
        scaled = e.level == "nominal" and given is None
    dated_flux = flux * ((AU / occasion.sun_distance) ** 2 if scaled else 0 * occasion.sun_distance + 1)
    return {
        "orbit": _wrapped(orbits, numbers.xp),
        "sun_hat": occasion.sun_hat,
        "sun_distance": occasion.sun_distance,
        "solar_flux": dated_flux,
        "earth": _earth(case, occasion.zonal, flux, dated_flux, numbers),
    }


def _unchecked(cls: type[T], **leaves: Any) -> T:
    """A kernel dataclass of host arrays.

    The kernels' fields are declared as JAX arrays of one row; the tests check that. Here they hold numpy
    arrays with all rows.
    """
    names = {field.name for field in fields(cls)}
    if names != set(leaves):
        raise TypeError(f"{cls.__name__} takes {sorted(names)}, not {sorted(leaves)}")
    made = object.__new__(cls)
    for name, leaf in leaves.items():
        object.__setattr__(made, name, leaf)
    return made


def _draws(spread: SpreadSection, n: int) -> np.ndarray:
    """Standard normal draws of n satellites, cut: of what [spread] varies, in the order of `Design`, (n, 4)."""
    drawn = np.random.default_rng(spread.seed).standard_normal((n, 4))
    return np.clip(drawn, -SPREAD_CUT, SPREAD_CUT)


def _design(case: Case, draws: Any, numbers: Any) -> Design:
    """The case's own numbers, or around them what is drawn: (n, 4)."""
    xp, r, s = numbers.xp, case.radiator, case.spread
    ends = case.environment.life == "end"
    factors = [draws[:, k] * 0 + 1 for k in range(4)]
    if s is not None:
        sigma = (s.radiator_absorptance, s.radiator_emissivity, s.array_efficiency, s.payload_power)
        factors = [1 + each * draws[:, k] for k, each in enumerate(sigma)]
    # Drawn emissivities, too, stay within 1 at any temperature.
    slopes = r.emissivity_slopes_per_k
    hottest = xp.max(polynomial(slopes, numbers.array(np.arange(100.0, 601.0)))) if slopes else 1.0
    most = 1 / xp.maximum(hottest, 1.0)

    def faces(pair, factor, low, high):
        own = [xp.clip(value * factor, low, high) for value in pair]
        return xp.stack([one if face < r.sides else 0 * one for face, one in enumerate(own)], axis=1)

    efficiency, top, power = 0.0, 1.0, 0.0
    if case.array is not None:
        efficiency, top = case.array.efficiency, case.array.solar_absorptance
        if ends:
            loss, years = case.array.annual_degradation, case.mass.life_years
            efficiency = numbers.of(degraded_efficiency, efficiency, loss, years)
    if case.payload is not None:
        power = KILO * case.payload.power_kw
    return Design(
        absorptance=faces(
            r.solar_absorptance_end if ends else r.solar_absorptance_begin, factors[0], 0.0, 1.0
        ),
        emissivity=faces(r.emissivity, factors[1], 0.01, most),
        efficiency=xp.clip(efficiency * factors[2], 0.0, top),
        power=power * xp.maximum(factors[3], 0.0),
    )


# -------------------------------------------------------------------------------------------- revolutions


def _revolutions(
    case: Case, design: Design, rows: _Rows, planes: Orbit, dates: tuple[np.ndarray, np.ndarray]
) -> Revolution:
    """All rows' revolutions, of planes at epochs of two-part Julian dates TT."""
    sky = _sky_at(case, planes, dates)
    sky = {
        "orbit": jax.tree.map(rows.planes_first, sky.pop("orbit")),
        **{name: jax.tree.map(rows.epochs_first, leaf) for name, leaf in sky.items()},
    }
    return _revolution(case, design, rows, sky)


def _revolution(case: Case, design: Design, rows: Any, sky: dict[str, Any]) -> Revolution:
    """Revolutions under their sky."""
    e = case.environment
    _, albedo, infrared = LEVELS[e.level]
    edges, levels, eclipse_demand = _demand(case, rows.numbers)
    incident = None
    if e.incident is not None:
        i = e.incident
        incident = rows.first([i.solar_w_m2, i.albedo_w_m2, i.infrared_w_m2])
    drive = "fixed" if case.array is None else case.array.drive
    axis = None if case.array is None else case.array.axis
    return _unchecked(
        Revolution,
        **sky,
        albedo=rows.first(albedo if e.albedo is None else e.albedo),
        earth_infrared=rows.first(infrared if e.earth_infrared_w_m2 is None else e.earth_infrared_w_m2),
        earth_radius=rows.first(KILO * e.earth_radius_km),
        attitude=_attitude(case, rows),
        radiator_normal_body=rows.first(AXES[case.radiator.normal]),
        array_axis_body=rows.first(AXES[axis or ("+y" if drive == "one_axis" else "+z")]),
        surfaces=_surfaces(case, design, rows),
        demand_edges=rows.first(edges),
        demand_levels=rows.first(levels),
        eclipse_demand=rows.first(eclipse_demand),
        incident=incident,
        array_drive=drive,
    )


def _earth(case: Case, zonal: Any, flux: Any, dated_flux: Any, numbers: Any) -> earth.Earth | None:
    """The Earth, scaled as the case says, None where it is uniform.

    Args:
        zonal: `_zonal` of each date, dates first.
        flux: Solar flux before it follows the distance [W/m2].
        dated_flux: Solar flux of each date [W/m2].

    Raises:
        CaseError: scaled to the case's mean albedo, some ground reflects more than all.
    """
    e = case.environment
    if e.earth == "uniform":
        return None
    months = _months(case)
    own = months[:, :, 0].mean(axis=0)
    sunlight, yearly = (dated_flux, flux) if e.earth == "knocke" else (1.0, 1.0)
    albedo, infrared = e.albedo, e.earth_infrared_w_m2
    reflecting = 1.0 if albedo is None else albedo / own[0]
    emitting = sunlight * (1.0 if infrared is None else infrared / (own[1] * yearly))
    if e.albedo is not None and not numbers.traced:
        z = np.sin(np.linspace(-math.pi / 2, math.pi / 2, 181))
        brightest = np.max(np.polynomial.legendre.legval(z, months[:, 0].T)) * reflecting
        if brightest > 1:
            raise CaseError(
                f"{case.source}: environment.albedo: got {e.albedo:g} with earth = '{e.earth}', which then reflects"
                f" {brightest:.3g} somewhere; must be <= {e.albedo / brightest:.4g}"
            )
    both = numbers.xp.stack([reflecting + 0 * emitting, emitting + 0 * reflecting], axis=-1)
    return _unchecked(earth.Earth, zonal=both[..., None] * zonal, tesseral=None, rotation=None)


def _zonal(case: Case, days: np.ndarray) -> np.ndarray:
    """`Earth.zonal` at some Julian dates before the case scales it; infrared of Knocke's per W/m2 of sunlight."""
    if case.environment.earth == "knocke":
        return earth.knocke(days, np.ones_like(days))
    return earth.in_season(days, _months(case))


def _months(case: Case) -> np.ndarray:
    """The same of twelve months, (12, 2, degrees)."""
    if case.environment.earth == "knocke":
        # From the northern winter on, in which a pole is at its brightest.
        days = earth.KNOCKE_EPOCH + earth.KNOCKE_YEAR / 12 * np.arange(12)
        return earth.knocke(days, np.ones(12))
    return earth_months(case.environment.earth_table)


def earth_months(table: EarthTable) -> np.ndarray:
    """`Earth.zonal` of each month of a table, (12, 2, degrees)."""
    latitude = np.radians(table.latitude_deg)
    values = np.stack([np.asarray(table.albedo), np.asarray(table.infrared_w_m2)])
    degree = min(EARTH_DEGREE, 2 * len(latitude) // 3)
    return np.stack([earth.grid_harmonics(latitude, month, degree)[0] for month in np.moveaxis(values, 2, 0)])


def _wrapped(orbits: Orbit, xp: Any) -> Orbit:
    """Angles within a turn, so that float32 keeps their digits."""
    angles = {
        name: xp.mod(getattr(orbits, name), 2 * math.pi) for name in ("raan", "arg_perigee", "mean_anomaly")
    }
    return Orbit(orbits.semi_major_axis, orbits.eccentricity, orbits.inclination, **angles)


def _demand(case: Case, numbers: Any) -> tuple[Any, Any, Any]:
    """Edges, levels between them, and the factor in eclipse."""
    p, xp = case.payload, numbers.xp
    if p is None:
        return [], [0.0], 1.0
    if not p.windows:
        return [], [p.demand], p.eclipse_demand
    windows = numbers.array([[w.start, w.end, w.demand, p.demand] for w in p.windows])
    windows = windows[xp.argsort(windows[:, 0])]
    levels = xp.concatenate([numbers.array([p.demand]), windows[:, 2:].reshape(-1)])
    return windows[:, :2].reshape(-1), levels, p.eclipse_demand


def _attitude(case: Case, rows: Any) -> Attitude:
    a, xp = case.attitude, rows.numbers.xp
    axes: Any = np.eye(3).tolist()
    if a.ra_deg is not None and a.dec_deg is not None:
        ra, dec, roll = (x * DEGREE for x in (a.ra_deg, a.dec_deg, 0.0 if a.roll_deg is None else a.roll_deg))
        towards = xp.cos(dec) * xp.cos(ra), xp.cos(dec) * xp.sin(ra), xp.sin(dec)
        north = -xp.sin(dec) * xp.cos(ra), -xp.sin(dec) * xp.sin(ra), xp.cos(dec)
        across = _cross(towards, north)
        if a.pointing == "inertial":
            x = [xp.cos(roll) * n + xp.sin(roll) * c for n, c in zip(north, across)]
            axes = [x, _cross(towards, x), list(towards)]
        else:  # roll = "inertial": +x is the direction
            axes = [list(towards), list(north), across]
    return _unchecked(
        Attitude,
        inertial_axes=rows.first(axes),
        pointing=a.pointing,
        roll=a.roll or "along_track",
        yaw_steering=bool(a.yaw_steering),
    )


def _cross(a: Any, b: Any) -> list[Any]:
    return [a[i] * b[j] - a[j] * b[i] for i, j in ((1, 2), (2, 0), (0, 1))]


def _views(case: Case, numbers: Any) -> tuple[list[Any], list[Any]]:
    """View factors of the two radiator faces to the array's back and to the body."""
    r = case.radiator
    to_array: list[Any] = [0.0, 0.0]
    if r.array_view == "perpendicular":
        sizes = r.shared_edge_m, r.area_m2 / r.shared_edge_m, r.array_depth_m
        seen = numbers.of(view_factor.perpendicular_plates, *sizes)
        to_array = [seen if face < r.sides else 0.0 for face in range(2)]
    elif r.array_view != "none":
        to_array = list(r.array_view)
    return to_array, list(r.body_view)


def _to_neighbours(case: Case, numbers: Any) -> tuple[list[list[Any]], list[Any]]:
    """View factors of the two radiator faces to each surface of known temperature, 2 x n, and their areas [m2].

    Raises:
        CaseError: a face would see more than a half space.
    """
    r = case.radiator
    views: list[list[Any]] = [[0.0] * len(r.neighbours) for _ in range(2)]
    areas: list[Any] = []
    for k, one in enumerate(r.neighbours):
        if one.geometry == "parallel":
            sizes = r.length_m, r.area_m2 / r.length_m, one.gap_m
            view, area = numbers.of(view_factor.parallel_plates, *sizes), r.area_m2
        elif one.geometry == "perpendicular":
            sizes = one.shared_edge_m, r.area_m2 / one.shared_edge_m, one.depth_m
            view = numbers.of(view_factor.perpendicular_plates, *sizes)
            area = one.shared_edge_m * one.depth_m
        else:
            view, area = one.view_factor, one.area_m2
        views[one.face][k] = view
        areas.append(area)
    to_array, to_body = _views(case, numbers)
    for face in range(0 if numbers.traced else 2):
        total = to_array[face] + to_body[face] + sum(views[face])
        if total > 1 + 1e-9:
            raise CaseError(
                f"{case.source}: radiator: face {face} sees array, body and neighbours with view factors that add"
                f" up to {total:.3g}; must be <= 1"
            )
    return views, areas


def _insulation(structure: Structure) -> float:
    """Part of the heat absorbed by the outer surface that reaches the structure.

    The outer layer of a blanket, emissivity e_o, passes e_eff sigma (T_o^4 - T^4) on and has no heat
    capacity: with f = e_eff/(e_o + e_eff) the structure gets f q_absorbed and loses f e_o sigma T^4.
    """
    effective = structure.mli_effective_emittance
    return 1.0 if effective is None else effective / (structure.emissivity + effective)


def _surfaces(case: Case, design: Design, rows: Any) -> Surfaces:
    to_array, to_body = _views(case, rows.numbers)
    to_neighbours, _ = _to_neighbours(case, rows.numbers)
    body, passed = case.structure, _insulation(case.structure)
    array = case.array
    return _unchecked(
        Surfaces,
        radiator_solar_absorptance=rows.designs_first(design.absorptance),
        radiator_emissivity=rows.designs_first(design.emissivity),
        radiator_open=rows.first([1 - a - b - sum(n) for a, b, n in zip(to_array, to_body, to_neighbours)]),
        array_solar_absorptance=rows.first(
            (0.0, 0.0) if array is None else (array.solar_absorptance, array.back_solar_absorptance)
        ),
        array_emissivity=rows.first(
            (0.0, 0.0) if array is None else (array.emissivity_front, array.emissivity_back)
        ),
        array_area=rows.first(0.0 if array is None else array.area_m2),
        body_area=rows.first(body.faces),
        body_solar_absorptance=rows.first(passed * body.solar_absorptance),
        body_emissivity=rows.first(passed * body.emissivity),
    )


# ------------------------------------------------------------------------------------------------- design


def _params(case: Case, design: Design, rows: Any) -> Params:
    exchange = _exchange(case, design, rows.numbers)
    return _unchecked(
        Params,
        panel=_panel(case, exchange, rows),
        network=_network(case, exchange, rows),
        bus=_bus(case, rows),
        coolant=_coolant(case, rows),
        array=_array(case, design, rows),
        battery=_battery(case, rows),
        payload=_payload(case, design, rows),
        chip_fraction=rows.last(_chip_fraction(case)),
        space_temperature=rows.last(case.environment.space_temperature_k),
    )


@dataclass(frozen=True)
class _Exchange:
    """Radiative exchange [m2], leaves (designs,): of the panel, of the array's back and of the body.

    Surfaces of known temperature count as space; what they send more than that stands beside it, `sent` [W].
    """

    panel_space: np.ndarray
    panel_array: np.ndarray
    panel_body: np.ndarray
    array_space: np.ndarray
    array_body: np.ndarray
    body_space: np.ndarray
    panel_sent: np.ndarray
    array_sent: np.ndarray
    body_sent: np.ndarray


def _exchange(case: Case, design: Design, numbers: Any) -> _Exchange:
    """Enclosure of radiator faces 0 and 1, the array's back, the body and the faces' neighbours, with space around.

    What one face sends to the other by reflection stays in the panel. The array's front sees space alone. An
    insulated body reflects (and its outer layer sends back) all but its reduced emissivity.
    """
    r, body = case.radiator, case.structure
    to_array, to_body = _views(case, numbers)
    to_neighbours, neighbour_area = _to_neighbours(case, numbers)
    back_area = 1.0 if case.array is None else case.array.area_m2
    back = 0.0 if case.array is None else case.array.emissivity_back
    area = [r.area_m2, r.area_m2, back_area, sum(body.faces), *neighbour_area]
    seen = list(zip(to_array, to_body, *zip(*to_neighbours)))  # by each face, of the others
    F = [[0.0, 0.0, *seen[face]] for face in range(2)]
    for k, own in enumerate(area[2:]):
        F.append([seen[face][k] * r.area_m2 / own for face in range(2)] + [0.0] * (len(area) - 2))
    others = [back, _insulation(body) * body.emissivity, *(one.emissivity for one in r.neighbours)]
    same = 0 * design.emissivity[:, 0]
    emissivity = numbers.xp.stack(
        [design.emissivity[:, 0], design.emissivity[:, 1], *(one + same for one in others)], axis=1
    )
    R, space = numbers.of(_exchange_areas, numbers.array(F), emissivity, numbers.array(area))
    known = [one.temperature_c + ZERO_CELSIUS for one in r.neighbours]
    cold = case.environment.space_temperature_k
    slopes = (r.emissivity_slopes_per_k,) * 2 + ((),) * 2

    def fourth(T):
        """T^4 as each surface absorbs it, over its absorptance at 300 K."""
        return numbers.array([polynomial(c, T) * T**4 for c in slopes])[None]

    # What a surface of known temperature takes and sends is as with space but for the difference of their T^4.
    sent: Any = SIGMA * sum(
        (R[:, :4, 4 + k] * (fourth(T) - fourth(cold)) for k, T in enumerate(known)), 0 * space[:, :4]
    )
    space = space[:, :4] + R[:, :4, 4:].sum(axis=2)
    return _Exchange(
        panel_space=space[:, 0] + space[:, 1],
        panel_array=R[:, 0, 2] + R[:, 1, 2],
        panel_body=R[:, 0, 3] + R[:, 1, 3],
        array_space=space[:, 2],
        array_body=R[:, 2, 3],
        body_space=space[:, 3],
        panel_sent=sent[:, 0] + sent[:, 1],
        array_sent=sent[:, 2],
        body_sent=sent[:, 3],
    )


_exchange_areas = jax.jit(jax.vmap(view_factor.exchange_areas, in_axes=(None, 0, None)))


def _panel(case: Case, exchange: _Exchange, rows: Any) -> Panel:
    r = case.radiator
    thickness = MILLI * r.thickness_mm
    across = r.conductivity_w_m_k if r.conductivity_across_w_m_k is None else r.conductivity_across_w_m_k
    half_pitch = r.tube_pitch_m / 2
    linked = sum(
        link.radiative_m2 for link in case.links if link.to == "panel" and link.radiative_m2 is not None
    )
    space = exchange.panel_space / r.area_m2
    nx, ny = grid(r.passes, case.run.cells)
    return _unchecked(
        Panel,
        heat_capacity=rows.last(
            r.density_kg_m3 * r.specific_heat_j_kg_k * thickness + r.areal_heat_capacity_j_m2_k
        ),
        kt_x=rows.last(r.conductivity_w_m_k * thickness),
        kt_y=rows.last(across * thickness),
        strip_conductance=rows.last(r.strip_conductance_w_m),
        length=rows.last(r.length_m),
        half_pitch=rows.last(half_pitch),
        half_strips=rows.last(r.area_m2 / (r.length_m * half_pitch)),
        emission=rows.designs_last(space + (exchange.panel_array + exchange.panel_body + linked) / r.area_m2),
        to_space=rows.designs_last(space),
        heat=rows.designs_last(r.heat_w_m2 + exchange.panel_sent / r.area_m2),
        nx=nx,
        ny=ny,
        passes=r.passes,
        conductivity_slopes=tuple(rows.last(c) for c in r.conductivity_slopes_per_k),
        emission_slopes=tuple(rows.last(c) for c in r.emissivity_slopes_per_k),
    )


def grid(passes: int, cells: tuple[int, int]) -> tuple[int, int]:
    """Cells of the panel's grid, along and across, from those of `run.cells`.

    A tube that goes forth and back has a row of cells of its own for every pass, and as many as asked on each side.
    """
    along, across = cells
    return (along, across) if passes == 1 else (along, passes * (2 * across + 1))


def _network(case: Case, exchange: _Exchange, rows: Any) -> Network:
    names, xp = case.node_names, rows.numbers.xp
    index = {name: k for k, name in enumerate(names)}
    n = len(names)
    zero = 0 * exchange.panel_space  # one for each design

    def zeros(*shape, of: Any = 0.0) -> list[Any]:
        return [of if len(shape) == 1 else zeros(*shape[1:], of=of) for _ in range(shape[0])]

    capacity, conductance = zeros(n), zeros(n, n)
    radiative, space, panel_radiative, heat = (zeros(*shape, of=zero) for shape in ((n, n), (n,), (n,), (n,)))
    panel_conductance, loop_conductance = zeros(n), zeros(n)
    heater = {name: zeros(n) for name in ("gain", "setpoint", "max")}

    def join(matrix: list[Any], a: str, b: str, value: Any) -> None:
        for i, j in ((index[a], index[b]), (index[b], index[a])):
            matrix[i][j] = matrix[i][j] + value

    body = index["structure"]
    capacity[body] = KILO * case.structure.heat_capacity_kj_k
    space[body], heat[body] = exchange.body_space, exchange.body_sent
    panel_radiative[body] = exchange.panel_body
    if case.payload is not None:
        p = case.payload
        capacity[index["cold_plate"]] = KILO * p.cold_plate_heat_capacity_kj_k
        if p.chip:
            capacity[index["chip"]] = p.packages * p.chip_heat_capacity_j_k
            join(conductance, "chip", "cold_plate", p.packages / p.junction_resistance_k_w)
        if case.loop is not None:
            loop_conductance[index["cold_plate"]] = case.loop.cold_plate_conductance_w_k
    if case.battery is not None:
        capacity[index["battery"]] = KILO * case.battery.heat_capacity_kj_k
        join(conductance, "battery", "structure", case.battery.to_structure_w_k)
    if case.array is not None:
        a, k = case.array, index["array"]
        capacity[k] = a.area_m2 * a.areal_heat_capacity_j_m2_k
        space[k] = exchange.array_space + a.area_m2 * a.emissivity_front
        heat[k] = exchange.array_sent
        panel_radiative[k] = exchange.panel_array
        join(radiative, "array", "structure", exchange.array_body)
    for name, node in case.nodes.items():
        k = index[name]
        capacity[k] = KILO * node.heat_capacity_kj_k
        space[k], heat[k] = zero + node.radiating_area_m2, zero + node.heat_w
    for link in case.links:
        k = index[link.source]
        if link.to == "panel":
            panel_conductance[k] += 0.0 if link.conductance_w_k is None else link.conductance_w_k
            panel_radiative[k] = panel_radiative[k] + (
                0.0 if link.radiative_m2 is None else link.radiative_m2
            )
        elif link.to == "loop":
            loop_conductance[k] += link.conductance_w_k
        elif link.to == "space":
            space[k] = space[k] + link.radiative_m2
        elif link.conductance_w_k is not None:
            join(conductance, link.source, link.to, link.conductance_w_k)
        else:
            join(radiative, link.source, link.to, link.radiative_m2)
    for h in case.heaters.values():
        heater["gain"][index[h.node]] = h.gain_w_k
        heater["setpoint"][index[h.node]] = h.setpoint_c + ZERO_CELSIUS
        heater["max"][index[h.node]] = KILO * h.max_kw

    def designs(matrix: list[Any]) -> Any:
        """Designs first."""
        return xp.moveaxis(rows.numbers.array(matrix), -1, 0)

    return _unchecked(
        Network,
        heat_capacity=rows.last(capacity),
        conductance=rows.last(conductance),
        radiative=rows.designs_last(designs(radiative)),
        to_space=rows.designs_last(designs(space)),
        panel_radiative=rows.designs_last(designs(panel_radiative)),
        panel_conductance=rows.last(panel_conductance),
        loop_conductance=rows.last(loop_conductance),
        heater_gain=rows.last(heater["gain"]),
        heater_setpoint=rows.last(heater["setpoint"]),
        heater_max=rows.last(heater["max"]),
        heat=rows.designs_last(designs(heat)),
        names=names,
    )


def _bus(case: Case, rows: Any) -> Bus:
    b = case.bus or BusSection()
    return _unchecked(
        Bus,
        base_load=rows.last(KILO * b.base_load_kw),
        transmitted=rows.last(KILO * b.transmitted_kw),
        conversion_efficiency=rows.last(b.conversion_efficiency),
    )


def _coolant(case: Case, rows: Any) -> Coolant | None:
    if case.loop is None:
        return None
    loop = case.loop
    setpoint = 0.0 if loop.bypass_setpoint_c is None else loop.bypass_setpoint_c
    film, in_series = None, loop.wall_conductance_w_m_k
    if loop.tube_diameter_mm is not None:
        in_series = math.inf if loop.bond_conductance_w_m_k is None else loop.bond_conductance_w_m_k
        film = _unchecked(
            Film,
            diameter=rows.last(MILLI * loop.tube_diameter_mm),
            viscosity=rows.last(loop.property("viscosity_pa_s")),
            conductivity=rows.last(loop.property("conductivity_w_m_k")),
            specific_heat=rows.last(loop.property("specific_heat_j_kg_k")),
        )
    return _unchecked(
        Coolant,
        capacity_rate=rows.last(loop.mass_flow_kg_s * loop.property("specific_heat_j_kg_k")),
        wall_conductance=rows.last(in_series),
        evaporator_fraction=rows.last(1.0 if loop.evaporator_fraction is None else loop.evaporator_fraction),
        pump_power=rows.last(KILO * loop.pump_kw()),
        setpoint=rows.last(setpoint + ZERO_CELSIUS),
        bypass=loop.bypass_setpoint_c is not None,
        film=film,
    )


def _array(case: Case, design: Design, rows: Any) -> SolarArray | None:
    if case.array is None:
        return None
    return _unchecked(
        SolarArray,
        area=rows.last(case.array.area_m2),
        efficiency=rows.designs_last(design.efficiency),
        temperature_coefficient=rows.last(case.array.temperature_coefficient_per_k),
        reference_temperature=rows.last(case.array.reference_temperature_c + ZERO_CELSIUS),
    )


def _capacity(case: Case, numbers: Any) -> Any:
    """Capacity of the battery at the case's age [J]."""
    b = case.battery
    if b is None:
        return 0.0
    fresh = KILOWATT_HOUR * b.capacity_kwh
    if case.environment.life == "beginning":
        return fresh
    years = case.mass.life_years
    cycles = b.cycles_per_year * years
    return numbers.of(faded_capacity, fresh, b.calendar_fade_per_year, b.cycle_fade, years, cycles)


def _battery(case: Case, rows: Any) -> Battery | None:
    b = case.battery
    if b is None:
        return None
    return _unchecked(
        Battery,
        capacity=rows.last(_capacity(case, rows.numbers)),
        soc_min=rows.last(b.min_soc),
        soc_max=rows.last(b.max_soc),
        charge_efficiency=rows.last(b.charge_efficiency),
        discharge_efficiency=rows.last(b.discharge_efficiency),
        charge_power_max=rows.last(KILO * b.power_limit_kw("charge")),
        discharge_power_max=rows.last(KILO * b.power_limit_kw("discharge")),
    )


def _payload(case: Case, design: Design, rows: Any) -> Payload | None:
    p = case.payload
    if p is None:
        return None
    start, end, floor = UNTHROTTLED
    if p.throttle_start_c is not None and p.throttle_end_c is not None:
        start, end = p.throttle_start_c + ZERO_CELSIUS, p.throttle_end_c + ZERO_CELSIUS
        floor = 0.0 if p.throttle_floor is None else p.throttle_floor
    return _unchecked(
        Payload,
        power=rows.designs_last(design.power),
        throttle_start=rows.last(start),
        throttle_end=rows.last(end),
        throttle_floor=rows.last(floor),
    )


def _chip_fraction(case: Case) -> float:
    if case.payload is None or not case.payload.chip:
        return 0.0
    return 1.0 if case.payload.chip_fraction is None else case.payload.chip_fraction


def _state(case: Case, params: Params, rows: Any) -> State:
    """Everything at the start temperature, the battery at its initial charge."""
    everywhere = case.run.start_temperature_c + ZERO_CELSIUS
    own = [case.nodes[name].start_temperature_c if name in case.nodes else None for name in case.node_names]
    nodes = [everywhere if one is None else one + ZERO_CELSIUS for one in own]
    charge = 0.0 if case.battery is None else case.battery.initial_soc * _capacity(case, rows.numbers)
    return _unchecked(
        State,
        panel=rows.last(rows.numbers.xp.full((params.panel.nx, params.panel.ny), everywhere)),
        nodes=rows.last(nodes),
        energy=rows.last(charge),
    )


# --------------------------------------------------------------------------------------------------- mass


def masses(case: Case) -> dict[str, float]:
    """Masses of one satellite [kg]: radiator, array, battery, payload, loop, the structure with them, and total.

    The total is the sum, or mass.total_kg where the case gives it.
    """
    own = case.mass
    out = {
        "radiator": case.radiator.area_m2 * case.radiator.areal_mass,
        "array": 0.0 if case.array is None else case.array.area_m2 * case.array.areal_mass_kg_m2,
        "battery": 0.0 if case.battery is None else _battery_mass(case.battery),
        "payload": own.payload_kg
        + (0.0 if case.payload is None else own.payload_kg_kw * case.payload.power_kw),
        "loop": own.loop_kg + (0.0 if case.loop is None else own.loop_kg_kw * case.loop.pump_kw()),
    }
    out["structure"] = case.structure.mass_kg + case.structure.mass_share * sum(out.values())
    return out | {"total": sum(out.values()) if own.total_kg is None else own.total_kg}


def _battery_mass(battery: BatterySection) -> float:
    if battery.mass_kg is not None:
        return battery.mass_kg
    specific = battery.specific_energy_wh_kg
    return KILO * battery.capacity_kwh / (BATTERY_WH_PER_KG if specific is None else specific)
