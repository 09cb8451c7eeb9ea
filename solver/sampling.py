"""What a study solves: the keys' ranges and distributions, and the designs and samples drawn from them.

Points of the unit cube come from `scipy.stats.qmc`, and go through the inverse of each key's distribution.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from .case import CaseError, show
from .schema import Uncertain

MOST_POINTS = 1_000_000  # designs of one study: all are checked, and held, on the host
CUT = 3.0  # sigma within which normal draws stay
Scheme = Literal["latin", "sobol"]
_FORM = (
    "must be key=low:high:count, key=low:high:count:log or key=value,value, such as radiator.area_m2=20:40:9"
)
_RANGE = "must be key=low:high or key=low:high:log: how many designs there are, --points says"


@dataclass(frozen=True)
class Axis:
    """A key of a sweep and what it goes through.

    Attributes:
        key: As in the case file.
        low, high: Ends of the range, in the unit of the key.
        log: Whether it is gone through evenly in the logarithm.
        values: Of a grid, rising; empty where only the range is given.
    """

    key: str
    low: float
    high: float
    log: bool
    values: tuple[float, ...]

    def at(self, u: np.ndarray) -> np.ndarray:
        """Values at shares `u` of the range, 0..1."""
        if self.log:
            return self.low * (self.high / self.low) ** u
        return self.low + (self.high - self.low) * u


def axes(texts: Sequence[str], of_grid: bool = True) -> tuple[Axis, ...]:
    """What each `key=low:high:count`, `key=low:high:count:log` or `key=value,value` says, of a grid; without a
    grid, `key=low:high` and `key=low:high:log`.

    Raises:
        CaseError: one cannot be read, or a key is there twice.
    """
    found = tuple(_axis(text, of_grid) for text in texts)
    names = [one.key for one in found]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise CaseError(f"--vary {texts[i]}: {name} varies already")
    return found


def _axis(text: str, of_grid: bool) -> Axis:
    key, equals, said = (part.strip() for part in text.partition("="))
    wrong = CaseError(f"--vary {text}: {_FORM if of_grid else _RANGE}")
    if not key or not equals:
        raise wrong
    parts = said.split(":")
    log = len(parts) > 2 and parts[-1] == "log"
    numbers = parts[:-1] if log else parts
    if len(numbers) == 1 and of_grid:
        values = sorted(_number(text, part) for part in said.split(","))
        if len(values) < 2:
            raise wrong
        if len(set(values)) < len(values):
            raise CaseError(f"--vary {text}: a value is there twice")
        return Axis(key, values[0], values[-1], False, tuple(values))
    if len(numbers) != (3 if of_grid else 2):
        raise wrong
    low, high = (_number(text, part) for part in numbers[:2])
    if low >= high:
        raise CaseError(f"--vary {text}: got {low:g}; must be < {high:g}, the end of the range")
    if log and low <= 0:
        raise CaseError(f"--vary {text}: got {low:g}; must be > 0 to go through it by its logarithm")
    axis = Axis(key, low, high, log, ())
    if not of_grid:
        return axis
    count = numbers[2].strip()
    if not count.isdecimal() or not 2 <= int(count) <= MOST_POINTS:
        raise CaseError(
            f"--vary {text}: got {count!r} values; must be a whole number from 2 to {MOST_POINTS:,}"
        )
    values = axis.at(np.linspace(0, 1, int(count)))
    values[-1] = high  # not short of it by rounding
    return Axis(key, low, high, log, tuple(values.tolist()))


def _number(text: str, part: str) -> float:
    try:
        value = float(part)
    except ValueError:
        raise CaseError(f"--vary {text}: got {show(part.strip())}; must be a number") from None
    if not math.isfinite(value):
        raise CaseError(f"--vary {text}: got {value:g}; must be a finite number")
    return value


def grid(through: Sequence[Axis]) -> np.ndarray:
    """(N, k) every combination of the axes' values, the last axis fastest.

    Raises:
        CaseError: they are too many.
    """
    counts = [len(axis.values) for axis in through]
    _refuse_many("--vary", math.prod(counts), " x ".join(f"{count:,}" for count in counts))
    meshes = np.meshgrid(*(axis.values for axis in through), indexing="ij")
    return np.stack([mesh.ravel() for mesh in meshes], axis=1)


def cube(scheme: Scheme, points: int, dimensions: int, seed: int) -> np.ndarray:
    """(points, dimensions) points of the unit cube, the same for the same seed.

    `latin`: a Latin hypercube (McKay, Beckman and Conover 1979): one point in each of `points` slices of every axis.
    `sobol`: the first points of a scrambled Sobol sequence (Owen 1998), most even where their number is a power of 2.

    Raises:
        CaseError: they are too many.
    """
    from scipy.stats import qmc

    _refuse_many("points", points, f"{points:,}")
    if scheme == "latin":
        return qmc.LatinHypercube(dimensions, rng=seed).random(points)
    return qmc.Sobol(dimensions, rng=seed).random_base2((points - 1).bit_length())[:points]


def _refuse_many(key: str, points: int, said: str) -> None:
    if points > MOST_POINTS:
        raise CaseError(f"{key}: got {said} designs; must be at most {MOST_POINTS:,}")


class Distribution(NamedTuple):
    """What a key is drawn from, in its unit.

    Attributes:
        low, high: What it reaches.
        mean, sigma: Of what is drawn, after the cut.
        inverse: From shares of the draws, 0..1, to values.
    """

    low: float
    high: float
    mean: float
    sigma: float
    inverse: Callable[[np.ndarray], np.ndarray]


def distribution(given: Uncertain, value: float, place: str) -> Distribution:
    """The distribution of a key whose value in the case is `value`.

    Args:
        place: Names the table in messages.

    Raises:
        CaseError: the case's value is none that it can have.
    """
    from scipy import stats

    low, high = given.low, given.high
    if low is None or high is None:
        return _around(given, value, place)
    if not low <= value <= high:
        raise CaseError(
            f"{place}: got low = {low:g}, high = {high:g}; must reach around the case's {given.name} = {value:g}"
        )
    width = high - low
    if given.distribution == "uniform":
        law = stats.uniform(low, width)
    else:
        law = stats.triang((value - low) / width, low, width)
    return Distribution(low, high, float(law.mean()), float(law.std()), law.ppf)


def _around(given: Uncertain, value: float, place: str) -> Distribution:
    """A normal or lognormal distribution."""
    from scipy import stats

    percent = given.sigma_percent
    sigma = (percent or 0) / 100 * abs(value) if given.sigma is None else given.sigma
    if sigma == 0:
        raise CaseError(f"{place}.sigma_percent: got {percent:g} of {given.name} = {value:g}; give sigma")
    cut = stats.truncnorm(-CUT, CUT)
    if given.distribution == "normal":
        low, high = value - CUT * sigma, value + CUT * sigma
        return Distribution(low, high, value, sigma * float(cut.std()), lambda u: value + sigma * cut.ppf(u))
    if value <= 0:
        raise CaseError(f"{place}.distribution: got 'lognormal' with {given.name} = {value:g}; must be > 0")
    return _lognormal(value, math.sqrt(math.log1p((sigma / value) ** 2)), cut)


def _lognormal(median: float, s: float, cut) -> Distribution:
    """exp of a normal of sigma `s`, cut at CUT sigma.

    E x^n = median^n exp(n^2 s^2 / 2) (Phi(CUT - n s) - Phi(-CUT - n s)) / (Phi(CUT) - Phi(-CUT)).
    """
    from scipy.stats import norm

    def moment(n: int) -> float:
        inside = norm.cdf(CUT - n * s) - norm.cdf(-CUT - n * s)
        return median**n * math.exp((n * s) ** 2 / 2) * float(inside / (norm.cdf(CUT) - norm.cdf(-CUT)))

    mean = moment(1)
    return Distribution(
        median * math.exp(-CUT * s),
        median * math.exp(CUT * s),
        mean,
        math.sqrt(moment(2) - mean**2),
        lambda u: median * np.exp(s * cut.ppf(u)),
    )
