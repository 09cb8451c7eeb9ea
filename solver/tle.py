"""Two-line element sets: read, the bad ones named and left out, and averaged elements at any instant by SGP4.

Format: Hoots and Roehrich, Spacetrack Report No. 3 (1980); SGP4 as revised by Vallado et al. (AIAA
2006-6753), through the `sgp4` package.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..kernels.constants import MU_EARTH, R_EARTH
from .schema import LOWEST_PERIGEE_KM

SAMPLES = 24  # states averaged over a revolution; 48 move the shadow's edges by less than 0.1 s
# Below this eccentricity half as many will do: they move the edges by less than 1 ms.
NEARLY_CIRCULAR = 0.1
BLOCK = 20_000  # states handled at once: their numbers stay in a core's cache


class TleError(ValueError):
    """A file that cannot be taken for one of element sets; `lines` holds one message for each bad line."""

    def __init__(self, *lines: str):
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True)
class Tle:
    """One element set: name (or catalogue number), its two lines, and where the first stands in the file."""

    name: str
    line1: str
    line2: str
    number: int


_REAL = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_POWER = r"[ +-]\d{5}[+-]\d"  # mantissa with its point assumed, exponent of ten
_ANGLE = r"\d{1,3}\.\d+"
# Columns (from 0), meaning, form and range of what SGP4 reads, by the line's number.
_COLUMNS = {
    "1": (
        (2, 7, "catalogue number", r"[A-HJ-NP-Z]?\d+", None),
        (18, 20, "epoch year", r"\d\d", None),
        (20, 32, "epoch day", _ANGLE, (1, 367)),
        (33, 43, "first derivative of the mean motion", _REAL, None),
        (44, 52, "second derivative of the mean motion", _POWER, None),
        (53, 61, "drag term", _POWER, None),
    ),
    "2": (
        (2, 7, "catalogue number", r"[A-HJ-NP-Z]?\d+", None),
        (8, 16, "inclination", _ANGLE, (0, 180)),
        (17, 25, "right ascension of the node", _ANGLE, (0, 360)),
        (26, 33, "eccentricity", r"\d{7}", None),
        (34, 42, "argument of perigee", _ANGLE, (0, 360)),
        (43, 51, "mean anomaly", _ANGLE, (0, 360)),
        (52, 63, "mean motion", r"\d{1,2}\.\d+", (0, 20)),
    ),
}
_BLANKS = {"1": (8, 17, 32, 43, 52, 61, 63), "2": (7, 16, 25, 33, 42, 51)}  # columns between the fields
_FIELDS = {
    kind: [
        (start, end, meaning, re.compile(form, re.ASCII), limits)
        for start, end, meaning, form, limits in rows
    ]
    for kind, rows in _COLUMNS.items()
}


def parse(lines: Sequence[str]) -> tuple[list[Tle], list[str]]:
    """Element sets of a file, with or without a line of the name before each, and what is wrong with the others.

    Sets with a bad line are left out, with one message each: "line 12: checksum is 3; the digits add up to 7".

    Raises:
        TleError: no set is good, or more are bad than good.
    """
    numbered = ((number, raw.rstrip()) for number, raw in enumerate(lines, 1))
    left = [(number, line) for number, line in numbered if line and not line.startswith("#")][::-1]
    sets: list[Tle] = []
    bad: list[str] = []
    name = ""
    while left:
        number, line = left.pop()
        if line[:2] not in ("1 ", "2 "):
            name = line[2:].strip() if line.startswith("0 ") else line.strip()
            name = "".join(c if c.isprintable() else "?" for c in name)
            continue
        if line[0] == "2":
            bad.append(f"line {number}: a line 2 without its line 1 before it")
        elif not left or left[-1][1][:2] != "2 ":
            bad.append(f"line {number}: is not followed by its line 2")
        else:
            second, line2 = left.pop()
            if problem := _problem(line):
                bad.append(f"line {number}: {problem}")
            elif problem := _problem(line2):
                bad.append(f"line {second}: {problem}")
            elif line[2:7] != line2[2:7]:
                bad.append(
                    f"line {second}: catalogue number {line2[2:7].strip()}; line {number} has {line[2:7].strip()}"
                )
            else:
                sets.append(Tle(name or line2[2:7].strip(), line, line2, number))
        name = ""
    if not sets and not bad:
        bad.append("no element set in the file")
    if len(bad) > len(sets):
        raise TleError(*bad)
    return sets, bad


def checksum(line: str) -> int:
    """Sum of the first 68 characters modulo 10: digits count as they are, a minus sign as one."""
    return (sum(k * line.count(str(k), 0, 68) for k in range(1, 10)) + line.count("-", 0, 68)) % 10


def _problem(line: str) -> str:
    """What is wrong with one line, or nothing."""
    if not (line.isascii() and line.isprintable()):
        return "has a character that is not printable ASCII"
    if len(line) != 69:
        return f"{len(line)} characters long; must be 69"
    if line[68] != str(checksum(line)):
        return f"checksum is {line[68]}; the digits add up to {checksum(line)}"
    for column in _BLANKS[line[0]]:
        if line[column] != " ":
            return f"got {line[column]!r} in column {column + 1}; must be blank"
    for start, end, meaning, form, limits in _FIELDS[line[0]]:
        text = line[start:end]
        if not form.fullmatch(text if form.pattern == _POWER else text.strip()):
            return f"{meaning}: got {text.strip()!r} in columns {start + 1}-{end}; must be a number"
        if limits is not None and not limits[0] <= float(text) <= limits[1]:
            return f"{meaning}: got {text.strip()}; must lie between {limits[0]} and {limits[1]}"
        if meaning == "mean motion" and float(text) <= 0:
            return f"mean motion: got {text.strip()}; must be > 0"
    return ""


def elements(
    sets: Sequence[Tle], day: np.ndarray, fraction: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[int, str]]:
    """Elements of the Kepler ellipse that stands for the revolution around each instant; TEME, SI, radians.

    SGP4's states at equal steps over one revolution are taken to osculating equinoctial elements, which are
    averaged: J2's short periods drop out, its long ones stay. Neither the osculating elements of one state
    nor the set's own mean elements would do as well: at 650 km the shadow's edges are met within 2.4 s with
    these, 6.5 s with SGP4's mean elements, 26 s with one osculating ellipse (eclipse_tle.json of the tests).

    Args:
        sets: Element sets.
        day, fraction: Julian dates UTC in two parts, (instants,).

    Returns:
        Arrays (sets, instants) by the names of kernels.orbit.Orbit; and by the index of the set why those have no
        elements that SGP4 cannot carry to an instant (decayed, elements out of range), or whose perigee is below
        `LOWEST_PERIGEE_KM` there.
    """
    from sgp4.api import Satrec

    records = [Satrec.twoline2rv(item.line1, item.line2) for item in sets]
    circular = np.array([record.ecco < NEARLY_CIRCULAR for record in records])
    out = np.empty((6, len(sets), len(day)))
    lost: dict[int, str] = {}
    for samples, alike in ((SAMPLES // 2, np.flatnonzero(circular)), (SAMPLES, np.flatnonzero(~circular))):
        shift = (np.arange(samples) + 0.5) / samples - 0.5
        size = max(1, BLOCK // (len(day) * samples))
        for first in range(0, len(alike), size):
            block = alike[first : first + size].tolist()
            states = np.full((len(block), len(day), samples, 6), np.nan)
            for into, k in zip(states, block):
                problem = _states(records[k], day, fraction, shift, into)
                if problem:
                    lost[k] = problem
            with np.errstate(invalid="ignore"):
                found = _averaged(states[..., :3], states[..., 3:], 2 * math.pi * shift)
            out[:, block] = found
            perigee = (found[0] * (1 - found[1]) - R_EARTH) / 1000
            for at in np.flatnonzero(~(perigee >= LOWEST_PERIGEE_KM).all(axis=1)).tolist():
                j, k = int(np.argmin(perigee[at])), block[at]
                lost.setdefault(
                    k,
                    f"perigee at {perigee[at, j]:.0f} km, must stay above {LOWEST_PERIGEE_KM:g} km"
                    + _away(records[k], day, fraction, j),
                )
    names = ("semi_major_axis", "eccentricity", "inclination", "raan", "arg_perigee", "mean_anomaly")
    return dict(zip(names, out)), lost


def _away(record: Any, day: np.ndarray, fraction: np.ndarray, j: int) -> str:
    """How far the j-th instant is from a set's epoch, in words."""
    return f", {day[j] + fraction[j] - record.jdsatepoch - record.jdsatepochF:+.1f} days from its epoch"


def _states(record: Any, day: np.ndarray, fraction: np.ndarray, shift: np.ndarray, into: np.ndarray) -> str:
    """Fill in the states (instants, samples, 6) [m], [m/s] around each instant; what is wrong, or nothing.

    Args:
        shift: Of the samples from the instant, in revolutions.
    """
    from sgp4.api import SGP4_ERRORS

    period = 2 * math.pi / record.no_kozai / 1440  # days; no_kozai is in rad/min
    times = (fraction[:, None] + shift * period).ravel()
    error, position, velocity = record.sgp4_array(np.repeat(day, len(shift)), times)
    if error.any():
        j = int(np.argmax(error != 0))
        at = j // len(shift)
        return SGP4_ERRORS[error[j]] + _away(record, day, fraction, at)
    into[..., :3] = 1000 * position.reshape(*into.shape[:2], 3)
    into[..., 3:] = 1000 * velocity.reshape(*into.shape[:2], 3)
    return ""


def _averaged(r: np.ndarray, v: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Averages of osculating elements, (6, ...), from states (..., samples, 3) [m], [m/s].

    Equinoctial elements (Broucke and Cefola, Celest. Mech. 5 (1972) 303) have averages at zero eccentricity
    and zero inclination too; they fail at 180 deg of inclination only.

    Args:
        phase: Mean longitude of each sample relative to the middle one, whose advance is taken out [rad].
    """
    a, k, h, q, p, longitude = _equinoctial(r, v)
    # Around the middle sample, whose longitude nothing else comes near by half a turn.
    middle = (longitude - phase)[..., longitude.shape[-1] // 2, None]
    away = longitude - phase - middle
    longitude = middle + away - 2 * math.pi * np.round(away / (2 * math.pi))
    a, k, h, q, p, longitude = (np.mean(x, axis=-1) for x in (a, k, h, q, p, longitude))
    raan, turned = np.arctan2(p, q), np.arctan2(h, k)
    return np.stack(
        [
            a,
            np.hypot(h, k),
            2 * np.arctan(np.hypot(p, q)),
            raan,
            (turned - raan) % (2 * math.pi),
            (longitude - turned) % (2 * math.pi),
        ]
    )


def _equinoctial(r: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, ...]:
    """Osculating a, e cos w, e sin w, tan(i/2) cos O, tan(i/2) sin O and mean longitude of states (..., 3).

    w is the longitude of perigee, O the node. With f and g the axes that the node turns onto the plane, X, Y and
    X', Y' position and velocity along them, b = 1/(1 + sqrt(1 - e^2)), and F the eccentric longitude:

        e = (Y' h/mu - X/r, -X' h/mu - Y/r) = (k, h)
        cos F = k + [(1 - k^2 b) X - k h b Y]/(a sqrt(1 - e^2)),  sin F likewise
        mean longitude = F - k sin F + h cos F

    No angle on the way: a catalogue over a year has 1e8 states.
    """
    x, y, z = np.moveaxis(r, -1, 0)
    u, v, w = np.moveaxis(v, -1, 0)
    cx, cy, cz = y * w - z * v, z * u - x * w, x * v - y * u
    c, distance = np.sqrt(cx**2 + cy**2 + cz**2), np.sqrt(x**2 + y**2 + z**2)
    a = 1 / (2 / distance - (u**2 + v**2 + w**2) / MU_EARTH)
    p, q = cx / (c + cz), -cy / (c + cz)
    scale = 1 / (1 + p**2 + q**2)
    fx, fy, fz = scale * (1 - p**2 + q**2), scale * 2 * p * q, -2 * scale * p
    gx, gy, gz = fy, scale * (1 + p**2 - q**2), 2 * scale * q
    X, Y = x * fx + y * fy + z * fz, x * gx + y * gy + z * gz
    k = (u * gx + v * gy + w * gz) * c / MU_EARTH - X / distance
    h = -(u * fx + v * fy + w * fz) * c / MU_EARTH - Y / distance
    eta = np.sqrt(1 - k**2 - h**2)
    b = 1 / (1 + eta)
    cos_F = k + ((1 - k**2 * b) * X - k * h * b * Y) / (a * eta)
    sin_F = h + ((1 - h**2 * b) * Y - k * h * b * X) / (a * eta)
    return a, k, h, q, p, np.arctan2(sin_F, cos_F) - k * sin_F + h * cos_F
