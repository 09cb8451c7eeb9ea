"""Two-line element sets: read with every bad line named, and averaged elements at any instant by SGP4.

Format: Hoots and Roehrich, Spacetrack Report No. 3 (1980); SGP4 as revised by Vallado et al. (AIAA
2006-6753), through the `sgp4` package.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..kernels.constants import MU_EARTH

SAMPLES = 24  # states averaged over a revolution; 48 move the shadow's edges by less than 0.1 s
# Below this eccentricity half as many will do: they move the edges by less than 1 ms.
NEARLY_CIRCULAR = 0.1
BLOCK = 20_000  # states handled at once: their numbers stay in a core's cache


class TleError(ValueError):
    """A file of element sets with errors; `lines` holds one message for each."""

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


# Columns (from 0), meaning and the numbers' form, of what SGP4 reads.
_FIELDS = {
    "1": ((18, 20, "epoch year"), (20, 32, "epoch day"), (33, 43, "first derivative of the mean motion")),
    "2": (
        (8, 16, "inclination"),
        (17, 25, "right ascension of the node"),
        (26, 33, "eccentricity"),
        (34, 42, "argument of perigee"),
        (43, 51, "mean anomaly"),
        (52, 63, "mean motion"),
    ),
}


def parse(lines: Sequence[str]) -> list[Tle]:
    """Element sets of a file, with or without a line of the name before each.

    Raises:
        TleError: one message for each bad line, "line 12: checksum is 3; the digits add up to 7".
    """
    sets: list[Tle] = []
    errors: list[str] = []
    name, first, first_number = "", "", 0
    for number, raw in enumerate(lines, 1):
        line = raw.rstrip()
        if not line or line.startswith("#"):
            continue
        if line[:2] not in ("1 ", "2 "):
            if first:
                errors.append(
                    f"line {number}: line 2 of the set that starts on line {first_number} is expected here"
                )
                first = ""
            name = line[2:].strip() if line.startswith("0 ") else line.strip()
            continue
        problem = _problem(line)
        if problem:
            errors.append(f"line {number}: {problem}")
        if line[0] == "1":
            if first:
                errors.append(f"line {first_number}: is not followed by its line 2")
            first, first_number = line, number
            continue
        if not first:
            errors.append(f"line {number}: a line 2 without its line 1 before it")
        elif line[2:7] != first[2:7]:
            errors.append(
                f"line {number}: catalogue number {line[2:7].strip()}; line"
                f" {first_number} has {first[2:7].strip()}"
            )
        elif not errors:
            sets.append(Tle(name or line[2:7].strip(), first, line, first_number))
        name, first = "", ""
    if first:
        errors.append(f"line {first_number}: is not followed by its line 2")
    if not sets and not errors:
        errors.append("no element set in the file")
    if errors:
        raise TleError(*errors)
    return sets


def checksum(line: str) -> int:
    """Sum of the first 68 characters modulo 10: digits count as they are, a minus sign as one."""
    return sum(int(c) if c.isdecimal() else c == "-" for c in line[:68]) % 10


def _problem(line: str) -> str:
    """What is wrong with one line, or nothing."""
    if len(line) != 69:
        return f"{len(line)} characters long; must be 69"
    if not line[68].isdecimal() or int(line[68]) != checksum(line):
        return f"checksum is {line[68]}; the digits add up to {checksum(line)}"
    for start, end, meaning in _FIELDS[line[0]]:
        text = line[start:end].strip()
        try:
            value = float(f".{text}" if meaning == "eccentricity" else text)
        except ValueError:
            return f"{meaning}: got {text!r} in columns {start + 1}-{end}; must be a number"
        if meaning == "mean motion" and value <= 0:
            return f"mean motion: got {text!r}; must be > 0"
    return ""


def elements(sets: Sequence[Tle], day: np.ndarray, fraction: np.ndarray) -> dict[str, np.ndarray]:
    """Elements of the Kepler ellipse that stands for the revolution around each instant; TEME, SI, radians.

    SGP4's states at equal steps over one revolution are taken to osculating equinoctial elements, which are
    averaged: J2's short periods drop out, its long ones stay. Neither the osculating elements of one state
    nor the set's own mean elements would do as well: at 650 km the shadow's edges are met within 2.4 s with
    these, 6.5 s with SGP4's mean elements, 26 s with one osculating ellipse (eclipse_tle.json of the tests).

    Args:
        sets: Element sets.
        day, fraction: Julian dates UTC in two parts, (instants,).

    Returns:
        Arrays (sets, instants) by the names of kernels.orbit.Orbit.

    Raises:
        TleError: SGP4 cannot carry a set to an instant: decayed, or elements out of range.
    """
    from sgp4.api import Satrec

    records = [Satrec.twoline2rv(item.line1, item.line2) for item in sets]
    circular = np.array([record.ecco < NEARLY_CIRCULAR for record in records])
    out = np.empty((6, len(sets), len(day)))
    errors = {}
    for samples, alike in ((SAMPLES // 2, np.flatnonzero(circular)), (SAMPLES, np.flatnonzero(~circular))):
        shift = (np.arange(samples) + 0.5) / samples - 0.5
        size = max(1, BLOCK // (len(day) * samples))
        for first in range(0, len(alike), size):
            block = alike[first : first + size]
            states = np.empty((len(block), len(day), samples, 6))
            for into, k in zip(states, block.tolist()):
                problem = _states(records[k], day, fraction, shift, into)
                if problem:
                    errors[k] = f"line {sets[k].number}: {sets[k].name}: {problem}"
            if not errors:
                out[:, block] = _averaged(states[..., :3], states[..., 3:], 2 * math.pi * shift)
    if errors:
        raise TleError(*(errors[k] for k in sorted(errors)))
    names = ("semi_major_axis", "eccentricity", "inclination", "raan", "arg_perigee", "mean_anomaly")
    return dict(zip(names, out))


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
        away = day[at] + fraction[at] - record.jdsatepoch - record.jdsatepochF
        return f"{SGP4_ERRORS[error[j]]}, {away:+.1f} days from its epoch"
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
    mean = [np.mean(x, axis=-1) for x in (a, k, h, q, p, longitude)]
    raan, turned = np.arctan2(mean[4], mean[3]), np.arctan2(mean[2], mean[1])
    return np.stack(
        [
            mean[0],
            np.hypot(mean[1], mean[2]),
            2 * np.arctan(np.hypot(mean[3], mean[4])),
            raan,
            (turned - raan) % (2 * math.pi),
            (mean[5] - turned) % (2 * math.pi),
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
