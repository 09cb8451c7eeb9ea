"""The run directory: the case, the dataset on Zarr, and what lets a run go on after it was stopped.

    case.toml       the resolved case
    plan.json       what the directory belongs to: case hash, precision, kind of run, rows, rows a chunk
    results.zarr    the dataset; `open_run` reads it
    rows/A-B.npz    one record a row of every scalar, rows A..B-1, and the sizes of the files of their series, after
                    which it is written: the mark of done
    process-N.lock  held by the process N that computes here
    summary.json    the summary table
    *.png           pictures

Extremes, means and totals have the dimensions (satellite, epoch). Maps and time series are stored once for
each distinct row, dimension `revolution`, since satellites that share a plane share them; `revolution_index`
(satellite, epoch) says which row is whose. The groups `hottest` and `darkest` hold the series of the
revolution with the hottest chip and of that with the longest eclipse. A run of fluxes has neither: all its variables
but the status are stored by rows.
"""

import bisect
import json
import os
import platform
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import filelock
import numpy as np

DATASET = "results.zarr"
FEATURED = HOTTEST, DARKEST = "hottest", "darkest"  # groups of the dataset
_PLAN, _ROWS = "plan.json", "rows"
_OWN = re.compile(r".*\.lock|.*\.part|case\.toml|rows|results\.zarr")
_MARK = re.compile(r"(\d+)-(\d+)\.npz")
_SEAL = ".zmetadata"  # of a dataset that is whole
_RECORDS, _FILES, _BYTES = "records", "files", "bytes"  # of a mark: scalars, files of the series, their sizes
FILL = 9.969209968386869e36  # netCDF's default fill value for floats
NOT_RUN = -1  # status of a row that an interrupted run did not reach
FAILED = 2
REGION = 1 << 15  # rows of the (satellite, epoch) arrays written at once


class RunDirectoryError(ValueError):
    """The directory belongs to another run, or to none."""


@contextmanager
def claim(path: Path, process: int = 0) -> Iterator[None]:
    """Keep other runs out of the directory, which is made if it is not there, until the block or this process ends.

    Raises:
        RunDirectoryError: another process computes there, it holds what is no run's, or cannot be written.
    """
    lock = filelock.FileLock(path / f"process-{process}.lock")
    try:
        if path.exists() and not path.is_dir():
            raise RunDirectoryError(f"{path} is a file: choose another --out")
        path.mkdir(parents=True, exist_ok=True)
        _refuse_foreign(path)
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise RunDirectoryError(
            f"{path}: another run is at work here; wait for it, or choose another --out"
        ) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RunDirectoryError(f"{path} cannot be written: {reason}; choose another --out") from None
    try:
        yield
    finally:
        lock.release()


def _refuse_foreign(path: Path) -> None:
    """Raise RunDirectoryError if a run that begins here would write among, or over, files that are not a run's."""
    if begun(path):
        return
    names = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    # What a run leaves that was killed before its plan was written; its lock tells its case.toml from a user's.
    locked = any(name.endswith(".lock") for name in names)
    foreign = [name for name in names if not (locked and _OWN.fullmatch(name))]
    if foreign:
        raise RunDirectoryError(
            f"{path} holds {foreign[0]}{' and more' if len(foreign) > 1 else ''} but no run to go on with:"
            " choose another --out"
        )


@contextmanager
def taken(path: Path, own: str) -> Iterator[None]:
    """A directory for results that are written at once: made, or found as the same command has left it.

    What is made goes again if nothing is written into it.

    Raises:
        RunDirectoryError: it is a file, cannot be written, or holds files and no `own` among them.
    """
    if path.exists() and not path.is_dir():
        raise RunDirectoryError(f"{path} is a file: choose another --out")
    made = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        names = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RunDirectoryError(f"{path} cannot be written: {reason}; choose another --out") from None
    if names and own not in names:
        more = " and more" if len(names) > 1 else ""
        raise RunDirectoryError(f"{path} holds {names[0]}{more} but no {own}: choose another --out")
    try:
        yield
    finally:
        if made and not any(path.iterdir()):
            path.rmdir()


def begun(path: Path) -> bool:
    """Whether a run has begun in the directory and can go on."""
    return (path / _PLAN).exists()


def kept_plan(path: Path, plan: Mapping[str, Any]) -> dict[str, Any] | None:
    """The plan that the directory was begun with, None if it was not.

    Raises:
        RunDirectoryError: it holds a run of another case, precision, version, kind or designs than `plan`.
    """
    if not begun(path):
        return None
    try:
        old = json.loads((path / _PLAN).read_text(encoding="utf-8"))
        sound = all(isinstance(old[key], int) for key in ("rows", "chunk"))
    except (ValueError, TypeError, KeyError):
        sound = False
    if not sound:
        raise RunDirectoryError(f"{path / _PLAN} is not the plan of a run: choose another --out")
    for key, said in (
        ("case_hash", "another case"),
        ("precision", "another precision"),
        ("version", "another dawndusk"),
        ("solves", "another kind"),
        ("designs", "other designs or conditions"),
    ):
        if old.get(key) != plan.get(key):
            raise RunDirectoryError(
                f"{path} holds a run of {said} ({key} {old.get(key)}, now {plan[key]}): "
                "choose another --out, or delete the directory"
            )
    return old


def begin(
    path: Path,
    fleet: Any,
    plan: Mapping[str, Any],
    resolved: str,
    coordinates: Mapping[str, Any] | None = None,
) -> None:
    """Make the directory ready for a run of `plan`, or for the rest of one, so that its dataset can be read from
    the first rows on. Besides satellites and epochs it has `coordinates`, those of `design_coordinates` if None."""

    def write_places():
        places = _places(fleet, coordinates)
        places.to_zarr(path / DATASET, mode="w", zarr_format=2, consolidated=False, encoding=_EPOCH)

    begin_with(path, plan, resolved, write_places)


def begin_with(
    path: Path, plan: Mapping[str, Any], resolved: str, prepare: Callable[[], None] = lambda: None
) -> None:
    """Make the directory ready for what is planned, or for the rest of it.

    Args:
        path, plan, resolved: Of the directory; what it belongs to; the case as TOML.
        prepare: What else a directory needs that is new.
    """
    (path / _ROWS).mkdir(parents=True, exist_ok=True)
    write_text(path / "case.toml", resolved)
    if begun(path):
        (path / DATASET / _SEAL).unlink(missing_ok=True)
        return
    prepare()
    # Last: only a directory that is complete up to here counts as begun.
    write_text(path / _PLAN, json.dumps(dict(plan), indent=1))


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def _marks(path: Path) -> list[tuple[int, int, Path]]:
    found = ((_MARK.fullmatch(mark.name), mark) for mark in (path / _ROWS).glob("*.npz"))
    return sorted((int(span[1]), int(span[2]), mark) for span, mark in found if span)


def rows_marked(path: Path) -> int:
    """Rows that any process has finished."""
    return sum(last - first for first, last, _ in _marks(path))


def unfinished(path: Path, rows: int, chunk: int, process: int = 0, processes: int = 1) -> list[int]:
    """First rows of the chunks that are still to be solved, of every `processes`-th chunk from `process` on.

    A mark that cannot be read, or whose series' files have another size than they were written with, is taken away:
    its rows are solved again.
    """
    done = set()
    for first, _, mark in _marks(path):
        if first // chunk % processes != process:
            continue
        if _whole(path, mark):
            done.add(first)
        else:
            mark.unlink()
    return [first for first in range(process * chunk, rows, processes * chunk) if first not in done]


def _whole(path: Path, mark: Path) -> bool:
    try:
        with np.load(mark) as part:
            files = dict(zip(part[_FILES].tolist(), part[_BYTES].tolist()))
            part[_RECORDS]
            intact = part.zip is None or part.zip.testzip() is None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return False
    return intact and all(_size(path / DATASET / name) == size for name, size in files.items())


def _size(path: Path) -> int:
    # What is all fill value has no file.
    return path.stat().st_size if path.exists() else 0


def write_rows(
    path: Path,
    first: int,
    values: Mapping[str, np.ndarray],
    rows: int,
    chunk: int,
    stored: Mapping[str, Any] | None = None,
) -> None:
    """Store a chunk of a run of `rows`, from `first` on: row by row what is `stored`, then the rest as the mark.

    Processes may write different chunks of one store at once. A kill before the mark loses these rows only: they are
    solved and written again.

    Args:
        stored: `quantities.Variable` by name; `quantities.STORED` if None.

    Raises:
        RunDirectoryError: the disk is full, or does not take it for another reason.
    """
    from .quantities import STORED

    try:
        _write_rows(path, first, values, rows, chunk, STORED if stored is None else stored)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RunDirectoryError(
            f"{path}: {reason}; what is finished is kept, and the same command goes on"
        ) from None


def _write_rows(
    path: Path,
    first: int,
    values: Mapping[str, np.ndarray],
    rows: int,
    chunk: int,
    stored: Mapping[str, Any],
) -> None:
    status = values["status"]
    count = len(status)
    failed = status == FAILED
    series = {name: value for name, value in values.items() if name in stored}
    with filelock.FileLock(path / "arrays.lock"):
        group = _group(path)
        arrays = {
            name: _array(group, name, stored[name], ("revolution",), (rows,), (chunk,), value)
            for name, value in series.items()
        }
    files = {}
    for name, value in series.items():
        arrays[name][first : first + count] = _masked(value, failed)
        file = f"{name}/{'.'.join([str(first // chunk), *['0'] * (value.ndim - 1)])}"
        files[file] = _size(path / DATASET / file)
    scalars = {name: _masked(value, failed) for name, value in values.items() if name not in stored}
    records = np.empty(count, [(name, value.dtype, value.shape[1:]) for name, value in scalars.items()])
    for name, value in scalars.items():
        records[name] = value
    mark = path / _ROWS / f"{first:09d}-{first + count:09d}.npz"
    part = mark.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(
            file,
            **{
                _RECORDS: records,
                _FILES: np.array(list(files), str),
                _BYTES: np.array(list(files.values()), int),
            },
        )
    os.replace(part, mark)


def _masked(value: np.ndarray, failed: np.ndarray) -> np.ndarray:
    if not np.issubdtype(value.dtype, np.floating):
        return value
    return np.where(failed.reshape((-1,) + (1,) * (value.ndim - 1)), value.dtype.type(FILL), value)


def _group(path: Path) -> Any:
    import zarr

    # Format 2: format 3 has no specification yet for strings and for metadata in one file.
    return zarr.open_group(str(path / DATASET), mode="a", zarr_format=2)


def _array(
    group: Any, name: str, variable: Any, places: tuple, shape: tuple, chunks: tuple, value: np.ndarray
) -> Any:
    """The array of a quantity on the dimensions `places`, of which `value` has some entries on one axis."""
    if name in group:
        return group[name]
    floating = np.issubdtype(value.dtype, np.floating)
    return group.create_array(
        name,
        shape=(*shape, *value.shape[1:]),
        chunks=(*chunks, *value.shape[1:]),
        dtype=value.dtype,
        fill_value=FILL if floating else None,
        attributes={"_ARRAY_DIMENSIONS": [*places, *variable.dims], **_described(variable)},
    )


def _described(variable: Any) -> dict[str, Any]:
    """Unit, meaning, and what the numbers of a flag say, as the CF conventions want it."""
    out = {"units": variable.unit, "long_name": variable.meaning}
    if variable.flags:
        values, meanings = zip(*variable.flags.items())
        out |= {"flag_values": list(values), "flag_meanings": " ".join(m.replace(" ", "_") for m in meanings)}
    return out


class Scalars(Mapping[str, np.ndarray]):
    """One value a row of every scalar, read from the marks of a run when it is asked for.

    `take` gives some rows of all, `scalars[name]` one of all rows. Rows that were not reached have the status
    NOT_RUN; numbers of those and of failed rows are FILL.
    """

    def __init__(self, path: Path, rows: int):
        self._rows, self._marks = rows, _marks(path)
        self._last: tuple[Path | None, np.ndarray] = (None, np.empty(0))
        self._record = np.dtype([]) if not self._marks else self._read(self._marks[0][2]).dtype

    def _read(self, mark: Path) -> np.ndarray:
        # Neighbouring blocks share a mark.
        if self._last[0] != mark:
            with np.load(mark) as part:
                self._last = mark, part[_RECORDS]
        return self._last[1]

    def take(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Every scalar of some rows, in rising order."""
        return self._taken(rows, list(self))

    def _taken(self, rows: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
        out = {}
        for name in names:
            value, shape = self._record[name].base, self._record[name].shape
            empty = FILL if value.kind == "f" else NOT_RUN if name == "status" else 0
            out[name] = np.full((len(rows), *shape), empty, value)
        begin = bisect.bisect_right(self._marks, rows[0], key=lambda mark: mark[1]) if len(rows) else 0
        for first, last, mark in self._marks[begin:]:
            low, high = np.searchsorted(rows, (first, last)).tolist()
            if first > rows[-1]:
                break
            if low < high:
                part = self._read(mark)
                among: Any = rows[low:high] - first
                if among[-1] - among[0] == high - low - 1:
                    among = slice(among[0], among[-1] + 1)
                for name, value in out.items():
                    value[low:high] = part[name][among]
        return out

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in list(self):
            raise KeyError(name)
        return self._taken(np.arange(self._rows), [name])[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._record.names or ())

    def __len__(self) -> int:
        return len(self._record.names or ())


def read_chunks(path: Path, names: Sequence[str]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """First row and values of some of the quantities that are stored row by row, chunk by chunk of the files.

    Numbers of rows that failed or were not reached are FILL.
    """
    group = _group(path)
    if any(name not in group for name in names):
        return
    arrays = {name: group[name] for name in names}
    rows, size = arrays[names[0]].shape[0], arrays[names[0]].chunks[0]
    for first in range(0, rows, size):
        yield first, {name: array[first : first + size] for name, array in arrays.items()}


def finish(path: Path, fleet: Any, scalars: Scalars, attributes: Mapping[str, Any]) -> None:
    """Write what has satellites and epochs, region by region, and the attributes; then seal the dataset."""
    import zarr

    from .quantities import SCALARS

    group = _group(path)
    for name in set(group.array_keys()) & set(scalars):
        # An earlier process wrote them already, with the rows that it had.
        del group[name]
    places = fleet.row
    step = max(1, REGION // places.shape[1])
    for first in range(0, len(places), step):
        region = slice(first, first + step)
        rows, where = np.unique(places[region], return_inverse=True)
        where = where.reshape(-1, places.shape[1])
        for name, value in scalars.take(rows).items():
            chunks = (min(step, len(places)), places.shape[1])
            array = _array(group, name, SCALARS[name], ("satellite", "epoch"), places.shape, chunks, value)
            array[region] = value[where]
    group.update_attributes(dict(attributes) | versions())
    zarr.consolidate_metadata(str(path / DATASET), zarr_format=2)


_EPOCH: dict[str, Any] = {"epoch": {"units": "seconds since 1970-01-01", "dtype": "int64"}}


def _places(fleet: Any, coordinates: Mapping[str, Any] | None) -> Any:
    """Dataset of what the fleet's rows stand for, and of the coordinates."""
    import xarray as xr

    index = {
        "revolution_index": (
            ("satellite", "epoch"),
            fleet.row,
            {"units": "1", "long_name": "row of the maps and series that are this satellite's at this epoch"},
        )
    }
    places = {
        "satellite": labels("satellite", fleet.names, "satellite"),
        "epoch": ("epoch", _times(fleet.epochs), {"long_name": "epoch, UTC"}),
    }
    return xr.Dataset(index, places | dict(design_coordinates(fleet) if coordinates is None else coordinates))


def labels(dimension: str, names: Iterable[str], meaning: str) -> tuple[str, np.ndarray, dict[str, str]]:
    """A coordinate of names."""
    return dimension, np.asarray(names, dtype=object), {"long_name": meaning}


def design_coordinates(fleet: Any) -> dict[str, Any]:
    """Nodes, faces, sources of flux and panel cells of a run for temperatures."""
    from .quantities import FACES, SOURCES

    return {
        "node": labels("node", fleet.params.network.names, "thermal node"),
        "face": labels("face", FACES, "face"),
        "source": labels("source", SOURCES, "source of incident flux"),
        **_cells(fleet.params.panel),
    }


def write_featured(
    path: Path, group: str, fleet: Any, values: Mapping[str, np.ndarray], attributes: Mapping[str, Any]
) -> None:
    """Store the series and the panel map of one row, given as a batch of one, as a group of their own."""
    import xarray as xr

    from .quantities import MAPS, SERIES

    data = {
        name: (variable.dims, values[name][0], _described(variable))
        for name, variable in (SERIES | MAPS).items()
        if name in values
    }
    panel = fleet.params.panel
    dataset = xr.Dataset(
        data,
        design_coordinates(fleet),
        attrs={**attributes, "cells": [panel.nx, panel.ny], "passes": panel.passes},
    )
    dataset.to_zarr(path / DATASET, group=group, mode="w", zarr_format=2, consolidated=False)


def _times(epochs: Any) -> np.ndarray:
    return np.asarray([_utc_naive(epoch) for epoch in epochs], dtype="datetime64[ns]")


def _utc_naive(epoch: Any) -> np.datetime64:
    if hasattr(epoch, "tzinfo") and epoch.tzinfo is not None:
        from datetime import UTC

        epoch = epoch.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(epoch)


def _cells(panel: Any) -> dict[str, Any]:
    """Place of each cell centre on the strip that the grid covers, of the first row of a run."""
    x = (np.arange(panel.nx) + 0.5) / panel.nx * float(np.asarray(panel.length).flat[0])
    y = (np.arange(panel.ny) + 0.5) / panel.ny * float(np.asarray(panel.width).flat[0])
    origin = "from the tube" if panel.passes == 1 else "from the edge on the side of the first pass"
    along, across = np.meshgrid(x, y, indexing="ij")
    return {
        "cell_x_m": ("cell", along.ravel(), {"units": "m", "long_name": "cell centre along the flow"}),
        "cell_y_m": (
            "cell",
            across.ravel(),
            {"units": "m", "long_name": f"cell centre across, {origin}"},
        ),
    }


def versions() -> dict[str, str]:
    """Versions of what made the numbers."""
    out = {"python": platform.python_version()}
    for name in ("dawndusk", "jax", "jaxlib", "numpy", "xarray", "zarr"):
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            out[name] = "unknown"
    return {f"{name}_version": value for name, value in out.items()}


def open_run(path: Path) -> Any:
    """The dataset of a run directory, with maps and series on (satellite, epoch) like everything else.

    Lazy: a series is read when it is used. `xarray.open_zarr(path / "results.zarr")` gives the same with
    maps and series on `revolution`. Of a run that was stopped, or is still at work, it holds what there is: rows that
    were not reached have the status NOT_RUN and no numbers.
    """

    from .by_satellite import by_satellite

    store = Path(path) / DATASET
    if not store.exists():
        raise RunDirectoryError(f"{path} is not a run directory: it has no {DATASET}")
    sealed = (store / _SEAL).exists()
    dataset = open_store(store, consolidated=sealed)
    if "revolution_index" not in dataset:
        raise RunDirectoryError(
            f"{path} holds no run of satellites and epochs; `study.open_study` reads a study"
        )
    row = dataset["revolution_index"].values
    if not sealed:
        rows = int(row.max()) + 1
        scalars = Scalars(Path(path), rows).take(np.arange(rows))
        dataset = dataset.assign({name: _spread(name, value[row]) for name, value in scalars.items()})
    return by_satellite(dataset.drop_vars("revolution_index"), row)


def attributes(path: Path) -> dict[str, Any]:
    """Attributes of the dataset of a run directory; none yet of a run that has not been concluded."""
    store = Path(path) / DATASET
    if not store.exists():
        raise RunDirectoryError(f"{path} is not a run directory: it has no {DATASET}")
    return dict(_group(path).attrs)


def _spread(name: str, value: np.ndarray) -> tuple:
    """A scalar on satellites and epochs for xarray, without the numbers that say that there is none."""
    from .quantities import SCALARS

    if np.issubdtype(value.dtype, np.floating):
        value = np.where(value == FILL, np.nan, value)
    return ("satellite", "epoch", *SCALARS[name].dims), value, _described(SCALARS[name])


def open_featured(path: Path, group: str) -> Any:
    """Series and map of the revolution with the hottest chip (panel without one), or the longest eclipse."""

    store = Path(path) / DATASET
    if not store.exists():
        raise RunDirectoryError(f"{path} is not a run directory: it has no {DATASET}")
    if not (store / group).exists():
        raise RunDirectoryError(f"{path} is not the directory of a finished run: it has no {DATASET}/{group}")
    return open_store(store, group=group, consolidated=False)


def open_store(store: Path, **how: Any) -> Any:
    import xarray as xr

    try:
        return xr.open_zarr(store, **how)
    except (OSError, ValueError, KeyError, TypeError):
        raise RunDirectoryError(f"{store} is damaged, or is no dataset of a run") from None
