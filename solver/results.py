"""The run directory: the case, the dataset on Zarr, and what lets a run go on after it was stopped.

    case.toml       the resolved case
    plan.json       what the directory belongs to: case hash, precision, rows
    results.zarr    the dataset; `open_run` reads it
    rows/A-B.npz    one value a row and quantity, rows A..B-1; written after their series: the mark of done
    summary.json    the summary table
    *.png           pictures

Extremes, means and totals have the dimensions (satellite, epoch). Maps and time series are stored once for
each distinct row, dimension `revolution`, since satellites that share a plane share them; `revolution_index`
(satellite, epoch) says which row is whose. The groups `hottest` and `darkest` hold the series of the
revolution with the hottest chip and of that with the longest eclipse.
"""

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

DATASET = "results.zarr"
FEATURED = HOTTEST, DARKEST = "hottest", "darkest"  # groups of the dataset
_PLAN, _ROWS = "plan.json", "rows"
FILL = 9.969209968386869e36  # netCDF's default fill value for floats
NOT_RUN = -1  # status of a row that an interrupted run did not reach
FAILED = 2


class RunDirectoryError(ValueError):
    """The directory belongs to another run, or to none."""


def prepare(path: Path, plan: Mapping[str, Any], resolved: str) -> int:
    """Make the directory ready and return the first row that is still to be solved.

    Raises:
        RunDirectoryError: it holds a run of another case, precision or version.
    """
    kept = path / _PLAN
    if kept.exists():
        old = json.loads(kept.read_text())
        for key, said in (
            ("case_hash", "another case"),
            ("precision", "another precision"),
            ("version", "another dawndusk"),
        ):
            if old.get(key) != plan[key]:
                raise RunDirectoryError(
                    f"{path} holds a run of {said} ({key} {old.get(key)}, now {plan[key]}): "
                    "choose another --out, or delete the directory"
                )
        return _done(path)
    if path.exists() and not path.is_dir():
        raise RunDirectoryError(f"{path} is a file: choose another --out")
    path.mkdir(parents=True, exist_ok=True)
    (path / _ROWS).mkdir(exist_ok=True)
    (path / "case.toml").write_text(resolved)
    # Last: only a directory that is complete up to here counts as begun.
    write_text(kept, json.dumps(dict(plan), indent=1))
    return 0


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)


def _marks(path: Path) -> list[tuple[int, int, Path]]:
    spans = ([*mark.stem.split("-"), mark] for mark in (path / _ROWS).glob("*-*.npz"))
    return sorted((int(first), int(last), mark) for first, last, mark in spans)


def _done(path: Path) -> int:
    marks = _marks(path)
    return marks[-1][1] if marks else 0


def write_rows(path: Path, first: int, values: Mapping[str, np.ndarray], rows: int) -> None:
    """Store rows `first`.. of a run of `rows`: maps and series, then the scalars as the mark.

    A kill before the mark loses these rows only: they are solved and written again.
    """
    from .quantities import SCALARS

    status = values["status"]
    count = len(status)
    failed = status == FAILED
    group = _group(path)
    for name, value in values.items():
        if name not in SCALARS:
            _array(group, name, rows, value)[first : first + count] = _masked(value, failed)
    scalars = {name: value for name, value in values.items() if name in SCALARS}
    mark = path / _ROWS / f"{first:09d}-{first + count:09d}.npz"
    part = mark.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(file, **scalars)
    os.replace(part, mark)


def _masked(value: np.ndarray, failed: np.ndarray) -> np.ndarray:
    if not np.issubdtype(value.dtype, np.floating):
        return value
    return np.where(failed.reshape((-1,) + (1,) * (value.ndim - 1)), value.dtype.type(FILL), value)


def _group(path: Path) -> Any:
    import zarr

    # Format 2: format 3 has no specification yet for strings and for metadata in one file.
    return zarr.open_group(str(path / DATASET), mode="a", zarr_format=2)


def _array(group: Any, name: str, rows: int, value: np.ndarray) -> Any:
    from .quantities import VARIABLES

    if name in group:
        return group[name]
    variable = VARIABLES[name]
    return group.create_array(
        name,
        shape=(rows, *value.shape[1:]),
        chunks=value.shape,
        dtype=value.dtype,
        fill_value=FILL,
        attributes={
            "_ARRAY_DIMENSIONS": ["revolution", *variable.dims],
            "units": variable.unit,
            "long_name": variable.meaning,
        },
    )


def read_rows(path: Path, rows: int) -> dict[str, np.ndarray]:
    """One value a row of every scalar; rows that were not reached have the status NOT_RUN, numbers of
    those and of failed rows are FILL."""
    out: dict[str, np.ndarray] = {}
    for first, last, mark in _marks(path):
        with np.load(mark) as part:
            for name in part.files:
                value = part[name]
                if name not in out:
                    empty = (
                        FILL
                        if np.issubdtype(value.dtype, np.floating)
                        else NOT_RUN
                        if name == "status"
                        else 0
                    )
                    out[name] = np.full((rows, *value.shape[1:]), empty, value.dtype)
                out[name][first:last] = value
    if out:
        failed = out["status"] == FAILED
        out = {name: _masked(value, failed) for name, value in out.items()}
    return out


def finish(path: Path, fleet: Any, scalars: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> None:
    """Write what has satellites and epochs, the coordinates and the attributes; then seal the dataset."""
    import xarray as xr
    import zarr

    from .quantities import FACES, SCALARS, SOURCES

    row = np.asarray(fleet.row)
    data = {
        "revolution_index": (
            ("satellite", "epoch"),
            row.astype(np.int32),
            {"units": "1", "long_name": "row of the maps and series that are this satellite's at this epoch"},
        )
    }
    encoding: dict[str, Any] = {}
    for name, value in scalars.items():
        variable = SCALARS[name]
        attrs = {"units": variable.unit, "long_name": variable.meaning}
        data[name] = (("satellite", "epoch", *variable.dims), value[row], attrs)
        if np.issubdtype(value.dtype, np.floating):
            encoding[name] = {"_FillValue": FILL}
    coordinates = {
        "satellite": ("satellite", np.asarray(fleet.names, dtype=object), {"long_name": "satellite"}),
        "epoch": ("epoch", _times(fleet.epochs), {"long_name": "epoch, UTC"}),
        "node": ("node", np.asarray(fleet.params.network.names, dtype=object), {"long_name": "thermal node"}),
        "face": ("face", np.asarray(FACES, dtype=object), {"long_name": "face"}),
        "source": ("source", np.asarray(SOURCES, dtype=object), {"long_name": "source of incident flux"}),
        **_cells(fleet.params.panel),
    }
    encoding["epoch"] = {"units": "seconds since 1970-01-01", "dtype": "int64"}
    dataset = xr.Dataset(data, coordinates, attrs=dict(attributes) | versions())
    group = _group(path)
    for name in set(group.array_keys()) & set(dataset.variables):
        # An interrupted run wrote them already, with the rows that it had.
        del group[name]
    dataset.to_zarr(path / DATASET, mode="a", zarr_format=2, consolidated=False, encoding=encoding)
    zarr.consolidate_metadata(str(path / DATASET), zarr_format=2)


def write_featured(
    path: Path, group: str, fleet: Any, values: Mapping[str, np.ndarray], attributes: Mapping[str, Any]
) -> None:
    """Store the series and the panel map of one row, given as a batch of one, as a group of their own."""
    import xarray as xr

    from .quantities import FACES, MAPS, SERIES, SOURCES

    data = {
        name: (variable.dims, values[name][0], {"units": variable.unit, "long_name": variable.meaning})
        for name, variable in (SERIES | MAPS).items()
        if name in values
    }
    coordinates = {
        "node": ("node", np.asarray(fleet.params.network.names, dtype=object)),
        "face": ("face", np.asarray(FACES, dtype=object)),
        "source": ("source", np.asarray(SOURCES, dtype=object)),
        **_cells(fleet.params.panel),
    }
    panel = fleet.params.panel
    dataset = xr.Dataset(
        data, coordinates, attrs={**attributes, "cells": [panel.nx, panel.ny], "passes": panel.passes}
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
    maps and series on `revolution`.
    """
    import xarray as xr

    store = Path(path) / DATASET
    if not store.exists():
        raise RunDirectoryError(f"{path} is not a run directory: it has no {DATASET}")
    dataset = xr.open_zarr(store)
    index = dataset["revolution_index"]
    return dataset.drop_vars("revolution_index").isel(revolution=index)


def open_featured(path: Path, group: str) -> Any:
    """Series and map of the revolution with the hottest chip (panel without one), or the longest eclipse."""
    import xarray as xr

    store = Path(path) / DATASET
    if not store.exists():
        raise RunDirectoryError(f"{path} is not a run directory: it has no {DATASET}")
    if not (store / group).exists():
        raise RunDirectoryError(f"{path} is not the directory of a finished run: it has no {DATASET}/{group}")
    return xr.open_zarr(store, group=group, consolidated=False)
