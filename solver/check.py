"""What `dawndusk check` shows: the installation, or a case and what follows from it before any march."""

import math
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import jax
import numpy as np

from ..kernels import coolant as loop
from ..kernels import eclipse, revolution
from ..kernels.constants import SIGMA
from ..kernels.panel import weighted_fourth
from . import build, devices
from . import case as cases
from . import constellation as constellations
from .arithmetic import host_float64
from .quantities import FACES, SCALARS, SOURCES, VARIABLES, celsius, kept
from .run import Solver, Walls, row_count
from .schema import INLINED, Section

YEAR_DAYS = 366
SAMPLE = 4096  # revolutions whose loads are computed
MEASURED = 3  # chunks whose time is taken
# Unit in a case file -> (SI unit, factor, offset)
_SI = {
    "km": ("m", 1e3, 0.0),
    "mm": ("m", 1e-3, 0.0),
    "deg": ("rad", np.pi / 180, 0.0),
    "h": ("s", 3600.0, 0.0),
    "day": ("s", 86400.0, 0.0),
    "kW": ("W", 1e3, 0.0),
    "kWh": ("J", 3.6e6, 0.0),
    "kPa": ("Pa", 1e3, 0.0),
    "kJ/K": ("J/K", 1e3, 0.0),
    "C": ("K", 1.0, 273.15),
}


_LAYOUTS = {
    "straight": "straight tubes",
    "u": "U tubes without bends",
    "serpentine": "serpentines without bends",
}


def show_installation(console: Any) -> None:
    """The shipped cases, each validated, and the devices that a run would use."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("case", "title", "satellites x epochs"):
        table.add_column(name)
    for name, file in cases.shipped().items():
        try:
            case = cases.load(file)
            size = f"{len(constellations.constellation(case).names):,} x {case.epoch.count}"
            table.add_row(name, case.title, size)
        except cases.CaseError as error:
            table.add_row(name, Text(error.lines[0], style="red"), "")
    console.print(table)
    cache = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    console.print(
        f"\ndevices: {_devices()}; chunks of {devices.chunk_rows(10**9):,} rows\ncompiled programs: {cache}"
    )


def _devices() -> str:
    found = devices.describe()
    return f"{found['count']} x {found['kind']} ({found['platform']}), {found['memory_gib']:.1f} GiB each"


def show_case(case: Any, precision: str, console: Any, measure: bool = False) -> None:
    """Every key in its own unit and in SI, the derived quantities, and what a run takes; `measure`: see `planned`."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("key", "value", "unit", "SI"):
        table.add_column(name, justify="right" if name in ("value", "SI") else "left")
    for key, value, unit in keys(case):
        table.add_row(key, _text(value), unit, _si(value, unit))
    console.print(table)
    console.print()
    table = Table(box=None, show_header=False, pad_edge=False)
    fleet = build.build(case, np.dtype(devices.PRECISIONS[precision]))
    for name, text in (derived(case, fleet) | planned(case, fleet, measure)).items():
        table.add_row(name, text)
    console.print(table)
    console.print("\nvalid", style="bold green", end=" ")
    console.print(f"case {cases.case_hash(case)}")


def keys(section: Section, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Key, value and unit of everything that a case holds, defaults included, None left out."""
    for name, info in type(section).model_fields.items():
        value, key = getattr(section, name), prefix + (info.alias or name)
        if value is None or name in INLINED:
            continue
        if isinstance(value, Section):
            yield from keys(value, f"{key}.")
        elif isinstance(value, dict):
            for inner, part in value.items():
                yield from keys(part, f"{key}.{inner}.")
        elif isinstance(value, tuple) and value and isinstance(value[0], Section):
            for i, part in enumerate(value):
                yield from keys(part, f"{key}.{i}.")
        else:
            unit = re.search(r"\[([^\]]+)\]$", info.description or "")
            yield key, value, "" if unit is None or unit[1] == "-" else unit[1]


def _text(value: Any) -> str:
    return cases.show(value).strip("'")


def _si(value: Any, unit: str) -> str:
    if unit not in _SI or isinstance(value, str):
        return ""
    name, scale, offset = _SI[unit]
    numbers = [f"{x * scale + offset:.7g}" for x in (value if isinstance(value, tuple) else (value,))]
    return f"{', '.join(numbers)} {name}"


def derived(case: Any, fleet: build.Fleet) -> dict[str, str]:
    """Period, inclination, beta, eclipses, fluxes and temperature of a case, as text by name."""
    found = constellations.constellation(case)
    rows = row_count(fleet)
    some = np.unique(np.linspace(0, rows - 1, min(rows, SAMPLE)).astype(int))
    loads = jax.jit(jax.vmap(partial(revolution.revolution_loads, n_steps=case.run.steps), out_axes=-1))(
        build.rows_of(fleet.revolutions, some, 0)
    )
    loads = jax.tree.map(np.asarray, loads)
    params = jax.tree.map(lambda leaf: np.moveaxis(leaf, 0, -1), build.rows_of(fleet.params, some, -1))
    period = loads.dt.sum(axis=0)
    sampled = {"below, of": f"{len(some):,} of them, evenly spread"} if len(some) < rows else {}
    out = {
        "satellites": f"{len(fleet.names):,} in {found.planes.raan.shape[0]:,} planes, {len(fleet.epochs)} epochs, "
        f"{rows:,} distinct revolutions",
        **sampled,
        "period": _range(period / 60, "min"),
        "inclination": _range(np.degrees(found.planes.inclination), "deg", 4),
        **_season(case),
        **_earth(case, fleet.revolutions),
    }
    if fleet.left_out:
        out["left out"] = "\n".join(cases.first_of(fleet.left_out))
    weight = loads.dt / period
    incident = np.sum(loads.incident * weight[:, None, None], axis=0)
    for f, face in enumerate(FACES):
        if face == "array_front" and case.array is None:
            continue
        parts = [f"{source} {_range(incident[s, f])}" for s, source in enumerate(SOURCES)]
        out[f"mean flux on {face.replace('_', ' ')}"] = ", ".join(parts) + " W/m2"
    out["equilibrium panel"] = _range(celsius(equilibrium(params, loads, weight)), "C") + (
        ", with all payload, pump and panel heat spread over it at the orbit-mean load"
    )
    coolant = params.coolant
    if coolant is not None and coolant.film is not None:
        out["tubes"] = _tubes(case, params)
    mass = getattr(fleet, "mass_kg", None)
    if mass:
        out["mass"] = f"{float(mass):,.1f} kg"
    return out


def _earth(case: Any, revolutions: Any) -> dict[str, str]:
    """An Earth that varies: its means over the globe at the epochs, how far its series is from the table."""
    e = case.environment
    if revolutions.earth is None:
        return {}
    albedo, infrared = (np.asarray(revolutions.earth.zonal[:, i, 0]) for i in range(2))
    text = f"{e.earth}: mean albedo {_range(albedo, digits=4)}, mean infrared {_range(infrared, 'W/m2')}"
    if e.earth_table is None:
        return {"Earth": text}
    z = np.sin(np.radians(e.earth_table.latitude_deg))
    months = build.earth_months(e.earth_table)
    series = np.stack([np.polynomial.legendre.legval(z, month.T) for month in months], axis=-1)
    table = np.stack([np.asarray(e.earth_table.albedo), np.asarray(e.earth_table.infrared_w_m2)])
    off = np.sqrt(np.mean((series - table) ** 2, axis=(1, 2)))
    return {
        "Earth": f"{text}; {len(z)} latitudes, averaged over longitude, as a series of degree"
        f" {months.shape[2] - 1} with rms errors {off[0]:.2g} and {off[1]:.2g} W/m2"
    }


def planned(case: Any, fleet: build.Fleet, measure: bool) -> dict[str, str]:
    """Devices, chunks and store of a run of a case, as text by name.

    With `measure` its program is compiled, as the run will need it, and solves a few chunks: what a chunk needs of a
    device's memory, and how long the rows take at that rate.
    """
    rows, wall = row_count(fleet), Walls()
    solver = Solver.new(case, fleet, None, wall, fit=measure)
    chunk = min(solver.size, rows)
    count = -(-rows // chunk)
    fitted = "" if measure else ", fewer rows if a device does not hold them"
    scalars, others = _row_bytes(case, fleet)
    places = len(fleet.names) * len(fleet.epochs)
    out = {
        "devices": _devices(),
        "chunks": f"{count:,} of {chunk:,} rows{fitted}",
        "store": f"{_bytes(scalars * (places + rows) + others * rows)} before compression: {scalars:,} bytes for"
        f" each satellite and epoch, {scalars + others:,} a revolution",
    }
    if measure:
        seconds = _seconds_a_row(solver, chunk, count)
        out["memory of a chunk"] = f"{_bytes(solver.needed())} of a device"
        out["time"] = (
            f"{_duration(rows * seconds)} at {1 / seconds:,.0f} revolutions/s, measured on {min(count, MEASURED)} "
            f"chunks; compiled in {wall.compile:.1f} s; summary, error estimate and pictures come on top"
        )
    return out


def _row_bytes(case: Any, fleet: build.Fleet) -> tuple[int, int]:
    """Bytes of a row's scalars, and of the maps and series that the case keeps of it."""
    panel, run = fleet.params.panel, case.run
    sizes = {"node": len(fleet.params.network.names), "source": len(SOURCES), "face": len(FACES)}
    sizes |= {"cell": panel.nx * panel.ny, "time": run.steps * run.revolutions}
    numbers = {name: math.prod(sizes[dim] for dim in VARIABLES[name].dims) for name in kept(case)}
    scalars = sum(count for name, count in numbers.items() if name in SCALARS)
    each = fleet.state.energy.dtype.itemsize
    return each * scalars, each * (sum(numbers.values()) - scalars)


def _seconds_a_row(solver: Solver, chunk: int, count: int) -> float:
    """Of a few chunks spread over the fleet, after one that warms up."""
    starts = chunk * np.unique(np.linspace(0, count - 1, MEASURED).astype(int))
    solver.solve(np.arange(chunk))
    begin = time.perf_counter()
    solved = sum(len(values["status"]) for _, values in solver.chunks(starts.tolist(), chunk))
    return (time.perf_counter() - begin) / solved


def _bytes(count: float) -> str:
    unit = max(0, min(4, int(np.log10(max(count, 1)) // 3)))
    return f"{count / 1000**unit:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[unit]}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"about {max(1, round(seconds))} s"
    return f"about {seconds / 60:.0f} min" if seconds < 7200 else f"about {seconds / 3600:.1f} h"


def _tubes(case: Any, params: Any) -> str:
    """Flow and film in the tubes with nothing led past the radiator; all rows have the same loop."""
    panel, coolant = (
        jax.tree.map(lambda leaf: jax.numpy.asarray(leaf[..., :1]), part)
        for part in (params.panel, params.coolant)
    )
    film = coolant.film
    density = jax.numpy.full_like(film.diameter, case.loop.property("density_kg_m3"))
    reynolds = loop.tube_reynolds(coolant, film, panel)
    numbers = {
        "Reynolds {:,.0f}": reynolds,
        "Prandtl {:.3g}": film.prandtl,
        "Nusselt {:.3g}": loop.nusselt(reynolds, film.prandtl),
        "{:.3g} W/m/K to the panel": loop.tube_conductance(coolant, panel),
        f"{_LAYOUTS[case.radiator.tube_layout]} take {{:.3g}} kPa": loop.tube_pressure_drop(
            coolant, film, panel, density
        )
        / 1e3,
    }
    count = float(panel.tubes[0])
    return ", ".join([f"{count:,.4g}", *(text.format(float(x[0])) for text, x in numbers.items())])


def equilibrium(params: Any, loads: Any, weight: np.ndarray) -> np.ndarray:
    """Uniform panel temperature of each row that radiates the orbit-mean heat to space [K].

    absorbed + heat + (payload + pump) / area = s sigma (T^4 - T_space^4), s the panel's emission to space, that at
    the temperature of each.
    What the array and the body shine onto the panel is left to the march.
    """
    panel = jax.tree.map(np.asarray, params.panel)
    area = panel.length * panel.half_pitch * panel.half_strips
    power = np.zeros_like(area)
    if params.payload is not None:
        power = power + np.asarray(params.payload.power) * np.sum(loads.demand * weight, axis=0)
    if params.coolant is not None:
        power = power + np.asarray(params.coolant.pump_power)
    heat = np.sum(loads.panel * weight, axis=0) + panel.heat + power / area

    def fourth(T):
        return np.asarray(weighted_fourth(jax.tree.map(jax.numpy.asarray, panel), jax.numpy.asarray(T)))

    sought = fourth(params.space_temperature) + heat / (panel.to_space * SIGMA)
    T = sought**0.25
    for _ in range(50 if panel.emission_slopes else 0):
        # Each turn takes the emissivity at the last temperature.
        T = (sought / (fourth(T) / T**4)) ** 0.25
    return T


def _season(case: Any) -> dict[str, str]:
    """Beta over the year of all planes, and the eclipses of the first one, day by day."""
    year = case.model_copy(
        update={"epoch": case.epoch.model_copy(update={"count": YEAR_DAYS, "span_days": float(YEAR_DAYS)})}
    )
    planes = constellations.constellation(year).planes
    sun = constellations.sun_at(*constellations.dates(constellations.epochs(year)))
    i, node = planes.inclination, planes.raan
    normal = np.stack([np.sin(i) * np.sin(node), -np.sin(i) * np.cos(node), np.cos(i)], axis=-1)
    beta = np.degrees(np.arcsin(np.clip(np.sum(normal * sun.direction, axis=-1), -1, 1)))
    first = jax.tree.map(lambda leaf: leaf[0], planes)
    with host_float64():
        times = np.asarray(jax.jit(jax.vmap(eclipse.shadow_times))(first, sun.direction, sun.distance))
    minutes = (times[:, 3] - times[:, 0]) / 60
    dark = minutes > 0
    if not dark.any():
        text = "none"
    else:
        start = case.epoch.start
        edges = np.flatnonzero(np.diff(np.concatenate([[False], dark, [False]]).astype(int)))
        spans = [
            f"{start + timedelta(days=int(a)):%d %b} to {start + timedelta(days=int(b) - 1):%d %b}"
            for a, b in zip(edges[::2], edges[1::2])
        ]
        when = "all year" if dark.all() else ", ".join(spans[:6]) + (" ..." if len(spans) > 6 else "")
        text = f"{when}; {dark.sum()} days of {YEAR_DAYS}, at most {minutes.max():.2f} min a revolution"
    return {
        "beta over a year": f"{beta.min():+.2f} to {beta.max():+.2f} deg, "
        f"|beta| at least {np.abs(beta).min():.2f} deg",
        "eclipse season, first plane": text,
    }


def _range(values: np.ndarray, unit: str = "", digits: int = 2) -> str:
    low, high = float(np.min(values)), float(np.max(values))
    one, two = f"{low:.{digits}f}", f"{high:.{digits}f}"
    return (one if one == two else f"{one} to {two}") + (f" {unit}" if unit else "")
