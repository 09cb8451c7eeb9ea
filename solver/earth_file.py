"""Tables of the ground's albedo and emitted infrared by month, latitude and longitude: read and checked.

A .csv file has a heading with the names month, latitude_deg, albedo, infrared_w_m2 and, if it resolves longitudes,
longitude_deg, then one line for each cell and month, in any order; lines that begin with # are skipped. A .nc
file (NetCDF, through xarray and whichever engine is installed) has the coordinates month, latitude_deg and perhaps
longitude_deg, and the variables albedo and infrared_w_m2 on them.
"""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MONTHS = np.arange(1, 13)
WIDEST_DEG = 30.0  # between rows: a coarser table has no more than a gradient and an equatorial bulge
# Variable -> largest value, and its meaning in a message.
LARGEST = {"albedo": 1.0, "infrared_w_m2": 500.0}
AXES = ("month", "latitude_deg", "longitude_deg")


class EarthFileError(ValueError):
    """A table that cannot be used; the text says where and what is allowed."""


@dataclass(frozen=True)
class EarthGrid:
    """A table of the ground.

    Attributes:
        latitude_deg: Of the rows, ascending, (latitudes,).
        longitude_deg: Ascending in equal steps all round, (longitudes,); one entry if the file has none.
        albedo: (12, latitudes, longitudes) [-].
        infrared_w_m2: Likewise, emitted flux at the ground's radius [W/m2].
    """

    latitude_deg: np.ndarray
    longitude_deg: np.ndarray
    albedo: np.ndarray
    infrared_w_m2: np.ndarray


def read(file: Path) -> EarthGrid:
    """The table of a file.

    Raises:
        EarthFileError: the file is no such table, is incomplete, or holds what no ground is.
        OSError: it cannot be read.
    """
    match file.suffix.lower():
        case ".csv":
            axes, values = _csv(file)
        case ".nc":
            axes, values = _netcdf(file)
        case suffix:
            raise EarthFileError(f"got a file {suffix or 'without suffix'}; must be .csv or .nc")
    return _checked(axes, values)


def _csv(file: Path) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Axes and values of a text file, absent cells NaN."""
    with file.open(encoding="utf-8-sig", newline="") as stream:
        try:
            lines = [
                (number, line)
                for number, line in enumerate(stream, 1)
                if line.strip() and line.lstrip()[0] != "#"
            ]
        except UnicodeDecodeError:
            raise EarthFileError("not a text file") from None
    rows = list(csv.reader(line for _, line in lines))
    names = [name.strip() for name in rows[0]] if rows else []
    wanted = [*AXES, *LARGEST]
    for name in wanted:
        if name not in names and name != "longitude_deg":
            raise EarthFileError(f"no column {name}; the heading must name {', '.join(wanted)}")
    columns = {name: names.index(name) for name in wanted if name in names}
    table = np.zeros((len(rows) - 1, len(wanted)))
    for i, ((number, _), row) in enumerate(zip(lines[1:], rows[1:])):
        if len(row) != len(names):
            raise EarthFileError(f"line {number}: {len(row)} entries; the heading has {len(names)}")
        for name, column in columns.items():
            try:
                table[i, wanted.index(name)] = float(row[column])
            except ValueError:
                got = row[column].strip()
                raise EarthFileError(f"line {number}: {name}: got {got!r}; must be a number") from None
        if not np.all(np.isfinite(table[i, :3])):
            raise EarthFileError(f"line {number}: month and place must be finite numbers")
    axes, places = zip(*(np.unique(table[:, k], return_inverse=True) for k in range(3)))
    # Absent or doubled cells.
    shape = tuple(len(axis) for axis in axes)
    count = np.zeros(shape, int)
    np.add.at(count, places, 1)
    if rows[1:] and np.any(count != 1):
        where = np.unravel_index(np.argmax(count != 1), shape)
        times = "is missing" if count[where] == 0 else f"is given {count[where]} times"
        raise EarthFileError(f"{_place(axes, where)} {times}; every cell must be there once in every month")
    values = {}
    for k, name in enumerate(LARGEST, 3):
        values[name] = np.zeros(shape)
        values[name][places] = table[:, k]
    return list(axes), values


def _netcdf(file: Path) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Axes and values of a NetCDF file."""
    import xarray as xr

    file.open("rb").close()  # an absent file is told as any other
    try:
        data = xr.open_dataset(file, decode_times=False)
    except Exception as error:
        # What an engine raises is its own affair; ValueError is xarray's for no engine.
        hint = (
            "install netCDF4, h5netcdf or scipy, or give a .csv" if isinstance(error, ValueError) else error
        )
        raise EarthFileError(f"cannot be read as NetCDF: {hint}") from None
    with data:
        order = [name for name in AXES if name in data.dims]
        for name in (*AXES[:2], *LARGEST):
            if name not in data.variables:
                raise EarthFileError(f"no variable {name}; must have {', '.join((*AXES, *LARGEST))}")
        values = {}
        for name in LARGEST:
            if set(data[name].dims) != set(order):
                got = ", ".join(map(str, data[name].dims))
                raise EarthFileError(f"{name}: has dimensions {got}; must have {', '.join(order)}")
            values[name] = np.asarray(data[name].transpose(*order).values, np.float64)
        axes = [np.asarray(data[name].values, np.float64) for name in order]
    if len(axes) == 2:
        axes.append(np.zeros(1))
        values = {name: value[..., None] for name, value in values.items()}
    # Rows may run from north to south.
    for k, axis in enumerate(axes):
        turn = np.argsort(axis, kind="stable")
        axes[k] = axis[turn]
        values = {name: np.take(value, turn, axis=k) for name, value in values.items()}
    return axes, values


def _checked(axes: list[np.ndarray], values: dict[str, np.ndarray]) -> EarthGrid:
    month, latitude, longitude = axes
    if not np.array_equal(month, MONTHS):
        got = ", ".join(f"{m:g}" for m in month[:13])
        raise EarthFileError(f"month: got {got or 'none'}; must be all of 1 to 12")
    if np.any(np.abs(latitude) > 90):
        worst = latitude[np.argmax(np.abs(latitude))]
        raise EarthFileError(f"latitude_deg: got {worst:g}; must be from -90 to 90")
    # Half a step stands between the outermost rows and the poles.
    steps = np.concatenate([[2 * (latitude[0] + 90)], np.diff(latitude), [2 * (90 - latitude[-1])]])
    if steps.max() > WIDEST_DEG * (1 + 1e-6):
        k = int(np.argmax(steps))
        where = f"after {latitude[k - 1]:g}" if k else f"before {latitude[0]:g}"
        gap = steps[k] if 0 < k < len(latitude) else steps[k] / 2
        raise EarthFileError(
            f"latitude_deg: no row for {gap:g} deg {where}; rows must be at most {WIDEST_DEG:g} deg apart,"
            " and half of that from the poles"
        )
    if np.any(np.diff(latitude) <= 0):
        raise EarthFileError("latitude_deg: a row is given twice")
    if len(longitude) > 1:
        round_steps = np.diff(longitude, append=longitude[0] + 360)
        if np.ptp(round_steps) > 1e-3 * 360 / len(longitude):
            raise EarthFileError(
                f"longitude_deg: steps of {round_steps.min():g} to {round_steps.max():g} deg;"
                " must be equal all round, 0 and 360 given once"
            )
    for name, most in LARGEST.items():
        bad = ~((values[name] >= 0) & (values[name] <= most))
        if bad.any():
            where = np.unravel_index(np.argmax(bad), bad.shape)
            hint = ""
            if math.isnan(values[name][where]):
                hint = "; give the polar night the albedo beside it" if name == "albedo" else ""
            raise EarthFileError(
                f"{name}: got {values[name][where]:g} in {_place(axes, where)};"
                f" must be from 0 to {most:g}{hint}"
            )
    return EarthGrid(latitude, longitude, values["albedo"], values["infrared_w_m2"])


def _place(axes: tuple[np.ndarray, ...] | list[np.ndarray], where: tuple) -> str:
    month, latitude, longitude = (axis[k] for axis, k in zip(axes, where))
    text = f"month {month:g} at latitude {latitude:g}"
    return text if len(axes[2]) == 1 else f"{text}, longitude {longitude:g}"
