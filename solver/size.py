"""What a case takes of memory and of disk at the least, found before any of it is made.

Lower bounds: a case that is refused cannot run on this machine, one that passes may still be too large for it.
"""

import math
import shutil
from pathlib import Path

from . import devices
from .case import CaseError
from .quantities import CELL_SERIES, FACES, MAPS, SCALARS, SERIES, SOURCES, Variable
from .schema import Case, ClusterOrbit, SunSynchronousOrbit, TleOrbit, WalkerOrbit

# Bytes that a fleet holds for each, as measured and rounded down.
PER_SATELLITE = 150  # its name and mean elements
PER_PLACE = 4  # which row is a satellite's at an epoch
PER_ORBIT = 48  # elements of a plane at an epoch
MOST_ROWS = 2**31 - 1  # that the dataset's revolution_index can name
# Panel maps and series on disk are compressed, to a half where they are smooth; this is left of them at the least.
COMPRESSED = 0.1
NOT_ALWAYS = ("fluid", "bypass", "state_of_charge")  # series that a satellite may be without


def counts(case: Case) -> dict[str, int]:
    """How many satellites and epochs: by the keys that say so, the numbers whose product it is."""
    orbit = case.orbit
    match orbit:
        case SunSynchronousOrbit() | WalkerOrbit():
            satellites = {"planes": orbit.planes, "satellites_per_plane": orbit.satellites_per_plane}
        case ClusterOrbit():
            satellites = {"satellites": orbit.satellites}
        case TleOrbit():
            satellites = {"file": sum(line.startswith("1 ") for line in orbit.lines or ())}
        case _:
            satellites = {}
    return {f"orbit.{name}": count for name, count in satellites.items()} | {"epoch.count": case.epoch.count}


def rows(case: Case) -> int:
    """Distinct revolutions: planes at epochs, or satellites at epochs where every one differs."""
    return orbits(case) if case.spread is None else math.prod(counts(case).values())


def orbits(case: Case) -> int:
    """Planes at epochs."""
    shared = "orbit.satellites_per_plane", "orbit.satellites"
    return math.prod(count for key, count in counts(case).items() if key not in shared)


def refuse_run(case: Case, itemsize: int, at_once: int, out: Path | None) -> None:
    """Raise CaseError if a run cannot be held by the memory, or by the disk, that there is.

    Args:
        case: What is run.
        itemsize: Bytes of a number.
        at_once: The fewest rows that are solved at once.
        out: Where results are written; None where most of them are there already.
    """
    refuse_fleet(case)
    refuse_chunk(case, itemsize, at_once)
    if out is not None:
        refuse_results(case, itemsize, out)


def refuse_fleet(case: Case) -> None:
    """Raise CaseError if the fleet does not fit the machine's memory, or the dataset's numbering."""
    several = {key: count for key, count in counts(case).items() if count > 1}
    places = math.prod(several.values())
    said = (
        f"{case.source}: {' x '.join(several)}: got {' x '.join(f'{count:,}' for count in several.values())}"
    )
    needed = PER_PLACE * places + PER_SATELLITE * (places // case.epoch.count) + PER_ORBIT * orbits(case)
    have = devices.machine_memory()
    if needed > have:
        raise CaseError(
            f"{said}, {places:,} satellites at epochs, which take at least {_bytes(needed)} of memory;"
            f" this machine has {_bytes(have)}"
        )
    if rows(case) > MOST_ROWS:
        raise CaseError(f"{said}, {rows(case):,} distinct revolutions; a dataset holds {MOST_ROWS:,}")


def refuse_chunk(case: Case, itemsize: int, at_once: int) -> None:
    """Raise CaseError if the results of the fewest rows that are solved at once do not fit the memory there is."""
    run = case.run
    kept = _numbers(case, SERIES) + _numbers(case, CELL_SERIES if run.save == "cells" else {})
    solved = at_once * itemsize * kept
    # A transient run's revolutions are joined on the host.
    joined = 0 if run.save == "summary" else solved * run.revolutions
    for needed, have, whose in (
        (solved, devices.all_memory(), "devices"),
        (joined, devices.machine_memory(), "machine"),
    ):
        if needed > have:
            raise CaseError(
                f"{case.source}: run.steps: got {run.steps:,} with run.cells = {list(run.cells)}, run.revolutions ="
                f" {run.revolutions:,} and run.save = '{run.save}': {at_once} rows at once take at least"
                f" {_bytes(needed)} of the {whose}'s memory; there are {_bytes(have)}"
            )


def refuse_results(case: Case, itemsize: int, out: Path) -> None:
    """Raise CaseError if the results do not fit the disk on which `out` lies."""
    run = case.run
    series = {"summary": {}, "nodes": SERIES, "cells": SERIES | CELL_SERIES}[run.save]
    compressed = _numbers(case, MAPS) + run.revolutions * _numbers(case, series)
    needed = rows(case) * itemsize * (_numbers(case, SCALARS) / 2 + COMPRESSED * compressed)
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    total, _, free = shutil.disk_usage(there)
    # Some file systems do not say what they have.
    if total > 0 and needed > free:
        raise CaseError(
            f"{case.source}: run.save: got '{run.save}' with {rows(case):,} distinct revolutions, run.steps ="
            f" {run.steps:,} and run.cells = {list(run.cells)}: results take at least {_bytes(needed)};"
            f" {_bytes(free)} are free in {there}"
        )


def _numbers(case: Case, variables: dict[str, Variable]) -> int:
    """Numbers that a revolution has of some quantities, left out what not every satellite has."""
    sizes = {
        "time": case.run.steps,
        "node": len(case.node_names),
        "cell": math.prod(case.run.cells),
        "face": len(FACES),
        "source": len(SOURCES),
    }
    return sum(
        math.prod(sizes[name] for name in variable.dims)
        for key, variable in variables.items()
        if not key.startswith(NOT_ALWAYS)
    )


def _bytes(count: float) -> str:
    """Bytes in the unit that leaves one to three digits before the point."""
    units = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
    k = min(int(math.log10(max(count, 1))) // 3, len(units) - 1)
    return f"{count / 1000**k:,.1f} {units[k]}"
