"""What is not known exactly: samples of a case through its distributions, and the same to first order.

Sampled: percentiles, mean and sigma of every figure, and how often each limit holds. To first order, from the
gradient at the case's own values,

    sigma_g^2 = sum_i (dg/dx_i sigma_i)^2,    mean_g = g + sum_i dg/dx_i (mean_i - x_i),

whose terms are each key's share of the variance; right for figures that are linear over the distributions, as a
normal figure for many keys of like effect. The uncertainty margin that a limit needs is what its margin loses from
the case's own values to what SHARE per cent of the samples keep.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import differentiable, sampling, study
from .case import CaseError
from .differentiable import Differentiable, Figure
from .keys import Key, changed, find
from .sampling import Distribution
from .study import LEAST_MARGIN, Designs, Outcome
from .summary import number

PERCENTILES = (1, 5, 50, 95, 99)
SHARE = 95  # per cent of the samples for which a margin is enough
CONFIDENCE = 0.95  # of the intervals of what is sampled


def distributions(case: Any) -> list[tuple[Key, Distribution]]:
    """The keys of a case's [uncertainty], and what each is drawn from.

    Raises:
        CaseError: it has none, a key cannot vary, or a distribution leaves what its key may be.
    """
    if case.uncertainty is None:
        raise CaseError(
            f"{case.source}: uncertainty: missing; --samples draws from tables [[uncertainty.of]]"
        )
    found = []
    for i, one in enumerate(case.uncertainty.of):
        place = f"{case.source}: uncertainty.of.{i}"
        try:
            key = find(case, one.name)
        except CaseError as error:
            raise CaseError(*(f"{line} (from uncertainty.of.{i}.key)" for line in error.lines)) from None
        law = sampling.distribution(one, key.value, place)
        reaches = f"{place}: {key.name}: {one.distribution} distribution from {law.low:.6g} to {law.high:.6g}"
        if not (key.holds(law.low) and key.holds(law.high)):
            raise CaseError(f"{reaches}; must be {key.range}")
        for end in (law.low, law.high):
            try:
                changed(case, {key.name: end})
            except CaseError as error:
                raise CaseError(f"{reaches}; at {end:.6g} {error.lines[0]}") from None
        found.append((key, law))
    return found


def designs(case: Any, samples: int, scheme: str = "latin", seed: int | None = None) -> Designs:
    """Samples of the case's [uncertainty], by its own seed if none is given.

    Raises:
        CaseError: see `distributions`; or they are too many.
    """
    drawn = distributions(case)
    seed = case.uncertainty.seed if seed is None else seed
    cube = sampling.cube(scheme, samples, len(drawn), seed)
    x = np.stack([law.inverse(u) for (_, law), u in zip(drawn, cube.T)], axis=1)
    return Designs(tuple(key for key, _ in drawn), x, scheme, seed, dimension="sample")


class FirstOrder(NamedTuple):
    """Of one figure, from its gradient: value at the case's own keys, mean, (k,) effect of a sigma of each key."""

    value: float
    mean: float
    effects: np.ndarray

    @property
    def sigma(self) -> float:
        return float(np.linalg.norm(self.effects))


def first_order(model: Differentiable, drawn: Sequence[tuple[Key, Distribution]]) -> dict[str, FirstOrder]:
    """Every figure to first order.

    Args:
        model: Of the keys that are drawn.
    """
    names = list(model.figures)
    values, slopes = differentiable.jacobian(model, model.start, names)
    shifts = np.array([law.mean - key.value for key, law in drawn])
    sigmas = np.array([law.sigma for _, law in drawn])
    return {
        name: FirstOrder(float(values[name]), float(values[name] + slope @ shifts), slope * sigmas)
        for name, slope in zip(names, np.asarray(slopes, float))
    }


def summarise(outcome: Outcome, of: str | None = None) -> dict[str, Any]:
    """What the samples and the gradient say, as plain numbers and text; of an interrupted study its beginning only.

    Args:
        of: Name of the figure whose variance is shared out among the keys, and which is drawn; the margin that most
            probably is not met, if None or LEAST_MARGIN.

    Raises:
        CaseError: there is no such figure.
    """
    chosen = study.figure_named(outcome.model, of or LEAST_MARGIN)
    found = study.header(outcome) | {"of": None, "figures": [], "limits": [], "keys": []}
    if outcome.interrupted or not outcome.solved.any():
        return found
    drawn = distributions(outcome.case)
    linear = first_order(outcome.model, drawn)
    own = study.margins(outcome.model.figures)
    sampled = {name: value[np.isfinite(value)] for name, value in outcome.values.items()}
    found["figures"] = [
        _figure(figure, sampled[name], linear[name])
        for name, figure in outcome.model.figures.items()
        if name not in own and len(sampled[name])
    ]
    found["limits"] = [
        _limit(figure, sampled[name], len(outcome.designs.x), linear[name]) for name, figure in own.items()
    ]
    if chosen is None:
        chosen = min(zip(own.values(), found["limits"]), key=lambda pair: _reliability(pair[1]))[0]
    one = linear[chosen.name]
    shares = one.effects**2 / max(one.sigma**2, np.finfo(float).tiny)
    linearly = {"value": one.value, "mean": one.mean, "sigma": one.sigma}
    found |= {"of": chosen.name, "of_first_order": {name: study.plain(x) for name, x in linearly.items()}}
    found["keys"] = [
        {
            "key": key.name,
            "unit": key.unit,
            "case": key.value,
            "low": law.low,
            "high": law.high,
            "mean": law.mean,
            "sigma": law.sigma,
            "effect": study.plain(effect),
            "share_percent": study.plain(100 * share),
        }
        for (key, law), effect, share in zip(drawn, one.effects, shares)
    ]
    return found


def _reliability(limit: Mapping[str, Any]) -> tuple[float, float]:
    """What sorts limits by how probably they are met: the share of the samples, then sigmas of margin."""
    margin, sigma = limit["margin"], limit["first_order_sigma"]
    return limit["probability"], margin / sigma if margin is not None and sigma else math.inf


def _figure(figure: Figure, sampled: np.ndarray, linear: FirstOrder) -> dict[str, Any]:
    return {
        "name": figure.name,
        "unit": figure.unit,
        "case": study.plain(linear.value),
        "mean": float(sampled.mean()),
        "sigma": float(sampled.std()),
        "percentiles": dict(zip(map(str, PERCENTILES), np.percentile(sampled, PERCENTILES).tolist())),
        "first_order_mean": study.plain(linear.mean),
        "first_order_sigma": study.plain(linear.sigma),
    }


def _limit(figure: Figure, margins: np.ndarray, count: int, linear: FirstOrder) -> dict[str, Any]:
    """How often a limit itself holds, nothing taken off its margin, and what would have to be.

    Args:
        margins: Of the samples that have numbers.
        count: Of all samples.
    """
    from scipy import stats

    said = study.of_limit(figure)
    given, sigma = said["uncertainty"], linear.sigma
    met = int(np.sum(margins + given >= 0))
    interval = stats.binomtest(met, count).proportion_ci(CONFIDENCE, method="wilson")
    mean = linear.mean + given
    kept, share = np.sort(margins), 1 - SHARE / 100
    # Ranks between which the percentile lies, by the binomial distribution of the draws below it.
    middle, spread = len(kept) * share, math.sqrt(len(kept) * share * (1 - share))
    ranks = middle + _z(0.5 + CONFIDENCE / 2) * spread * np.array([-1, 1])
    low, high = kept[np.clip([math.floor(ranks[0]), math.ceil(ranks[1])], 0, len(kept) - 1)]
    found = {
        "margin": linear.value + given,
        "probability": met / count,
        "probability_low": interval.low,
        "probability_high": interval.high,
        "needed": linear.value - np.quantile(kept, share),
        "needed_low": linear.value - high,
        "needed_high": linear.value - low,
        "first_order_probability": float(mean >= 0) if sigma == 0 else stats.norm.cdf(mean / sigma),
        "first_order_sigma": sigma,
        "first_order_needed": linear.value - linear.mean + _z(SHARE / 100) * sigma,
    }
    return said | {name: study.plain(value) for name, value in found.items()}


def _z(probability: float) -> float:
    """Of the standard normal distribution, what is not exceeded with a probability."""
    from scipy import stats

    return float(stats.norm.ppf(probability))


def show(found: Mapping[str, Any], console: Any) -> None:
    """The summary on a terminal."""
    study.show_header(found, console)
    if not found["figures"]:
        return
    columns = ("case", "mean", "sigma", "1st order", *(f"{p} %" for p in PERCENTILES), "")
    table, same = study.table("figure", *columns), []
    for one in found["figures"]:
        first, *_, last = percentiles = [f"{value:.5g}" for value in one["percentiles"].values()]
        if first == last:
            same.append(f"{one['name']} {first} {one['unit']}")
            continue
        names = ("case", "mean", "sigma", "first_order_sigma")
        numbers = (
            study.shown(one[name], digits) for name, digits in zip(names, (".5g", ".5g", ".3g", ".3g"))
        )
        table.add_row(one["name"], *numbers, *percentiles, one["unit"])
    console.print()
    console.print(table)
    study.show_same(same, f"{found['what']} from {PERCENTILES[0]} to {PERCENTILES[-1]} %", console)
    interval = f"{100 * CONFIDENCE:g} % interval"
    table = study.table("limit itself", "allowed", "margin", "", "met %", interval, "1st order")
    for one in found["limits"]:
        sampled, low, high, linear = (
            _percent(one[name])
            for name in ("probability", "probability_low", "probability_high", "first_order_probability")
        )
        allowed = f"{'<' if one['side'] == 'max' else '>'} {number(one['allowed'])}"
        margin = study.shown(one["margin"], "+.2f")
        table.add_row(one["name"], allowed, margin, one["unit"], sampled, f"{low} to {high}", linear)
    console.print()
    console.print(table)
    table = study.table(f"margin that {SHARE} % need", "sampled", interval, "1st order", "given", "")
    for one in found["limits"]:
        names = ("needed", "needed_low", "needed_high", "first_order_needed")
        sampled, low, high, linear = (study.shown(one[name], ".2f") for name in names)
        style = "red" if (one["needed"] or 0) > one["uncertainty"] > 0 else None
        given = f"{one['uncertainty']:g}"
        table.add_row(one["name"], sampled, f"{low} to {high}", linear, given, one["unit"], style=style)
    console.print()
    console.print(table)
    table = study.table(
        "key", "case", "from", "to", "sigma", "unit", "effect of 1 sigma", "share of variance %"
    )
    for one in sorted(found["keys"], key=lambda one: -abs(one["effect"] or 0)):
        values = (f"{one[name]:.4g}" for name in ("case", "low", "high", "sigma"))
        effect, share = study.shown(one["effect"], "+.3g"), study.shown(one["share_percent"], ".1f")
        table.add_row(one["key"], *values, one["unit"], effect, share)
    console.print(f"\n{found['of']} to first order:")
    console.print(table)


def _percent(share: float | None) -> str:
    return study.shown(None if share is None else 100 * share, ".2f")
