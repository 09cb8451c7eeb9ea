"""Constellations: from [orbit] to mean elements of every plane at every epoch, and named satellites.

Host side, numpy float64. Satellites of one plane differ in phase only, and share the plane's revolution.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any

import jax
import numpy as np

from ..kernels import orbit as orbits
from ..kernels import sun, timescale
from ..kernels.constants import DAY, R_EARTH
from ..kernels.orbit import Orbit
from . import size, tle
from .arithmetic import HOST, host_float64
from .case import CaseError, first_of
from .schema import Case, ClusterOrbit, ElementsOrbit, SunSynchronousOrbit, TleOrbit, WalkerOrbit

ELEMENTS = tuple(field.name for field in fields(Orbit))
DEGREE = math.pi / 180


@dataclass(frozen=True)
class Sun:
    """The Sun at some instants.

    Attributes:
        direction: Unit vectors, mean equator and equinox of date, (..., 3).
        distance: [m].
        mean_right_ascension: Of the mean Sun [rad].
    """

    direction: np.ndarray
    distance: np.ndarray
    mean_right_ascension: np.ndarray


@dataclass(frozen=True)
class Constellation:
    """Planes at all epochs, and the satellites in them.

    Attributes:
        names: One for each satellite.
        plane: Plane of each satellite, (n_satellites,).
        planes: Mean elements of each plane at each epoch, leaves (n_planes, n_epochs); the mean anomaly is
            that of the plane's first satellite.
        satellites: Mean elements of each satellite at the first epoch, leaves (n_satellites,).
        left_out: Element sets of the TLE file that have no satellite here, and why: one message for each.
    """

    names: tuple[str, ...]
    plane: np.ndarray
    planes: Orbit
    satellites: Orbit
    left_out: tuple[str, ...] = ()


def epochs(case: Case) -> tuple[datetime, ...]:
    """Instants start + k span/count, UTC."""
    step = case.epoch.span_days / case.epoch.count
    return tuple(case.epoch.start + timedelta(days=k * step) for k in range(case.epoch.count))


def dates(instants: Sequence[datetime]) -> tuple[np.ndarray, np.ndarray]:
    """Two-part Julian dates TT."""
    pairs = np.array([timescale.utc_to_tt(when) for when in instants], np.float64)
    return pairs[:, 0], pairs[:, 1]


def sun_at(day: np.ndarray, fraction: np.ndarray) -> Sun:
    """The Sun at two-part Julian dates TT of any shape."""
    shape = np.shape(day)
    with host_float64():
        direction, distance, mean = _sun(np.ravel(day), np.ravel(fraction))
    return Sun(
        np.asarray(direction).reshape(*shape, 3),
        np.asarray(distance).reshape(shape),
        np.asarray(mean).reshape(shape),
    )


@jax.jit
@jax.vmap
def _sun(day, fraction):
    return *sun.sun_position(day, fraction), sun.mean_sun_right_ascension(day, fraction)


def drift(orbit: Orbit, seconds: np.ndarray) -> Orbit:
    """Mean elements `seconds` later by the secular J2 rates; leaves and seconds of one shape."""
    shape = np.shape(seconds)
    flat = jax.tree.map(lambda leaf: np.ravel(np.broadcast_to(leaf, shape)), orbit)
    with host_float64():
        moved = _drift(flat, np.ravel(np.asarray(seconds, np.float64)))
    return jax.tree.map(lambda leaf: np.asarray(leaf).reshape(shape), moved)


_drift = jax.jit(jax.vmap(orbits.propagate))


def constellation(case: Case) -> Constellation:
    """Planes and satellites of a case.

    Raises:
        CaseError: a beta angle out of reach, no element set that SGP4 can carry to every epoch, or more satellites
            and epochs than memory holds.
    """
    size.refuse_fleet(case)
    match case.orbit:
        case SunSynchronousOrbit():
            return _planes(case, case.orbit, np.zeros(case.orbit.planes))
        case WalkerOrbit():
            return _planes(case, case.orbit, _phases(case.orbit))
        case ClusterOrbit():
            return _cluster(case, case.orbit)
        case ElementsOrbit():
            return _elements(case)
        case TleOrbit():
            return _from_tle(case, case.orbit)


# --------------------------------------------------------------------------------- planes of satellites


def _planes(case: Case, orbit: SunSynchronousOrbit | WalkerOrbit, offset: np.ndarray) -> Constellation:
    """Planes of evenly spaced satellites, with the mean anomaly of each plane's first satellite [rad]."""
    n, per_plane = len(offset), orbit.satellites_per_plane
    first = first_elements(case, np.arange(n))
    plane = np.repeat(np.arange(n), per_plane)
    slot = np.tile(np.arange(per_plane), n)
    satellites = _take(first, plane)
    anomaly = offset[plane] + 2 * math.pi * slot / per_plane
    wide, deep = len(str(n)), len(str(per_plane))
    names = tuple(f"p{p + 1:0{wide}d}-s{s + 1:0{deep}d}" for p, s in zip(plane.tolist(), slot.tolist()))
    return Constellation(
        names,
        plane,
        _over_epochs(case, _replace(first, offset)),
        _replace(satellites, anomaly % (2 * math.pi)),
    )


def _phases(orbit: WalkerOrbit) -> np.ndarray:
    """Plane k is ahead by k f 360 deg / t in phase [rad]."""
    p = np.arange(orbit.planes)
    return 2 * math.pi * orbit.phasing * p / (orbit.planes * orbit.satellites_per_plane)


def first_elements(case: Case, plane: Any, numbers: Any = HOST) -> Orbit:
    """Mean elements of planes at the first epoch, mean anomaly 0; of any orbit but that of a TLE file.

    Args:
        plane: Their numbers, from 0.
        numbers: `arithmetic.Host` or `Traced`, of the case's.

    Raises:
        CaseError: a beta angle out of reach.
    """
    orbit = case.orbit
    if isinstance(orbit, TleOrbit):
        raise TypeError("the elements of a TLE file are its own")
    share = numbers.array(plane)
    same = 0 * share
    eccentricity, perigee = orbit.eccentricity + same, orbit.arg_perigee_deg * DEGREE + same
    rise = 0.0
    if isinstance(orbit, SunSynchronousOrbit) and orbit.altitude_max_km is not None:
        rise = (orbit.altitude_max_km - orbit.altitude_km) / (orbit.planes - 1)
    a = R_EARTH + 1000 * (orbit.altitude_km + rise * share)
    if isinstance(orbit, SunSynchronousOrbit | ClusterOrbit):
        # Inclination from the J2 condition, node from the local time at the first epoch.
        mean_sun = sun_at(*dates([case.epoch.start])).mean_right_ascension[0]
        inclination = numbers.of(orbits.sun_synchronous_inclination, a, eccentricity)
        raan = numbers.of(orbits.raan_from_ltan, orbit.ltan_h * 3600.0, mean_sun) + same
        return Orbit(a, eccentricity, inclination, raan, perigee, same)
    inclination = orbit.inclination_deg * DEGREE + same
    if isinstance(orbit, WalkerOrbit):
        # Walker delta has its nodes over 360 deg, star over 180 deg.
        turn = 2 * math.pi if orbit.pattern == "delta" else math.pi
        raan = orbit.raan_deg * DEGREE + turn * share / orbit.planes
        return Orbit(a, eccentricity, inclination, raan, perigee, same)
    raan = 0.0 if orbit.raan_deg is None else orbit.raan_deg * DEGREE
    if orbit.beta_deg is not None:
        raan = _node_for_beta(case, orbit, orbit.beta_deg, numbers)
    anomaly = orbit.mean_anomaly_deg * DEGREE
    return Orbit(a, eccentricity, inclination, raan + same, perigee, anomaly + same)


# -------------------------------------------------------------------------------------- other kinds


def _cluster(case: Case, orbit: ClusterOrbit) -> Constellation:
    """A square lattice of relative eccentricity vectors around one orbit.

    A satellite whose eccentricity vector differs from the centre's by u/a (same period, same mean argument of
    latitude) moves around the centre by |u| along the radius and 2 |u| along the track (Clohessy and
    Wiltshire 1960), so |u| <= radius/2. The lattice keeps its order while it turns: no two satellites ever
    meet.
    """
    centre = first_elements(case, np.zeros(1))
    u = 1000 * orbit.radius_km / 2 * lattice(orbit.satellites)
    a, e, w = (float(x[0]) for x in (centre.semi_major_axis, centre.eccentricity, centre.arg_perigee))
    x, y = e * math.cos(w) + u[:, 0] / a, e * math.sin(w) + u[:, 1] / a
    perigee = np.arctan2(y, x)
    n = orbit.satellites
    same = np.zeros(n)
    satellites = Orbit(
        same + a,
        np.hypot(x, y),
        same + float(centre.inclination[0]),
        same + float(centre.raan[0]),
        perigee,
        # The centre's first satellite is at its perigee: the common mean argument of latitude is w.
        (w - perigee) % (2 * math.pi),
    )
    wide = len(str(n))
    names = tuple(f"s{k + 1:0{wide}d}" for k in range(n))
    return Constellation(names, np.zeros(n, int), _over_epochs(case, centre), satellites)


def lattice(n: int) -> np.ndarray:
    """n points of a square lattice in the unit disc, as far apart as a square lattice allows; (n, 2).

    The lattice is centred on a point or on a square, whichever has the n nearest points in the smaller
    radius.
    """
    reach = math.ceil(math.sqrt(n)) // 2 + 2
    best = None
    for shift in (0.0, 0.5):
        line = np.arange(-reach, reach + 1) + shift
        points = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
        order = np.lexsort((points[:, 0], points[:, 1], np.round(np.hypot(points[:, 0], points[:, 1]), 9)))
        chosen = points[order[:n]]
        radius = np.hypot(chosen[:, 0], chosen[:, 1]).max()
        if best is None or radius < best[0]:
            best = (radius, chosen)
    return best[1] / best[0] if best[0] > 0 else best[1]


def _elements(case: Case) -> Constellation:
    """One satellite."""
    first = first_elements(case, np.zeros(1))
    return Constellation(("satellite",), np.zeros(1, int), _over_epochs(case, first), first)


def _node_for_beta(case: Case, orbit: ElementsOrbit, beta_deg: Any, numbers: Any) -> Any:
    """Node with sin beta = sin i cos dec sin(raan - alpha) + cos i sin dec, that is h . s, at the first epoch.

    Raises:
        CaseError: no node has that angle.
    """
    xp = numbers.xp
    sun_hat = sun_at(*dates([case.epoch.start])).direction[0]
    i, beta = orbit.inclination_deg * DEGREE, beta_deg * DEGREE
    declination = math.asin(sun_hat[2])
    alpha = math.atan2(sun_hat[1], sun_hat[0])
    constant, swing = xp.cos(i) * math.sin(declination), xp.sin(i) * math.cos(declination)
    if not numbers.traced and abs(math.sin(beta) - constant) > swing * (1 + 1e-12):
        low, high = (math.degrees(math.asin(min(1.0, max(-1.0, constant + s * swing)))) for s in (-1, 1))
        raise CaseError(
            f"{case.source}: orbit.beta_deg: got {beta_deg:g}; with"
            f" inclination_deg = {orbit.inclination_deg:g}"
            f" on {case.epoch.start:%Y-%m-%d} it must lie between {low:.2f} and {high:.2f}"
        )
    tilted = swing != 0
    sine = xp.where(tilted, (xp.sin(beta) - constant) / xp.where(tilted, swing, 1.0), 0.0)
    return alpha + xp.arcsin(xp.clip(sine, -1.0, 1.0))


def _from_tle(case: Case, orbit: TleOrbit) -> Constellation:
    """Every element set is a plane of its own, at each epoch with SGP4's mean elements.

    Sets that cannot be read, or that SGP4 cannot carry to every epoch, are left out.
    """
    sets, bad = tle.parse(orbit.lines or ())
    instants = epochs(case)
    day = np.array([when.toordinal() + 1_721_424.5 for when in instants])
    midnight = [when.replace(hour=0, minute=0, second=0, microsecond=0) for when in instants]
    fraction = np.array([(when - start).total_seconds() / DAY for when, start in zip(instants, midnight)])
    found, lost = tle.elements(sets, day, fraction)
    bad += [f"line {sets[k].number}: {sets[k].name}: {reason}" for k, reason in sorted(lost.items())]
    left_out = tuple(f"{orbit.file}: {line}" for line in bad)
    kept = np.array([k for k in range(len(sets)) if k not in lost], int)
    if not len(kept):
        raise CaseError(*first_of(left_out))
    planes = Orbit(*(found[name][kept] for name in ELEMENTS))
    return Constellation(
        _distinct([sets[k].name for k in kept]),
        np.arange(len(kept)),
        planes,
        jax.tree.map(lambda leaf: leaf[:, 0], planes),
        left_out,
    )


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Names with a number after those that occur more than once."""
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(out)


def _over_epochs(case: Case, first: Orbit) -> Orbit:
    """Elements at the first epoch, (n_planes,), carried to all epochs: (n_planes, n_epochs)."""
    seconds = np.array([(when - case.epoch.start).total_seconds() for when in epochs(case)])
    n = len(first.semi_major_axis)
    column = jax.tree.map(lambda leaf: leaf[:, None], first)
    return drift(column, np.broadcast_to(seconds, (n, len(seconds))))


def _take(orbit: Orbit, index: np.ndarray) -> Orbit:
    return jax.tree.map(lambda leaf: leaf[index], orbit)


def _replace(orbit: Orbit, mean_anomaly: np.ndarray) -> Orbit:
    return replace(orbit, mean_anomaly=mean_anomaly)
