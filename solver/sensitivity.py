"""What a figure of a case depends on: its exact derivative with respect to every continuous key, ranked by effect.

    found, = sensitivities(case, ["peak_chip_temperature"])
    found.effects[0]      # of the key that matters most

All derivatives of a figure come from one forward and one reverse pass through the periodic orbit, whatever the number
of keys. Keys have units of their own, so that derivatives alone do not compare: they are ranked by what one sigma of
the key does to the figure, where the case's [uncertainty] has the key, else by what 1 % of its value does. 1 % of a
temperature is 1 % of what it is in kelvin. Effects are linear: slope times change. Where the extreme is at the same
time that of two rows, the slope is the mean of theirs and right to neither side; that is said.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..kernels.constants import NOT_FINITE, ZERO_CELSIUS
from . import case as cases
from .case import CaseError
from .differentiable import TOLERANCE, Condition, Differentiable, Figure, Place
from .drawing import BLUE, GREY, ORANGE, drawing, save
from .keys import OF_LEVEL, Key, continuous
from .limits import difference
from .results import taken, write_text
from .study import figure_named
from .uncertainty import distributions

JSON, PICTURE = "sensitivity.json", "sensitivity.png"
PERCENT = 0.01
# Of the largest effect: below it, what is left is rounding.
NOTHING = 1e-10
NAMED = 12  # keys without influence that are named before it says how many more
BARS, LEAST_BAR = 20, 2e-3  # of a picture: how many at most, and the least of the largest's length


class Effect(NamedTuple):
    """Of one key on a figure.

    Attributes:
        slope: Derivative, in the figure's unit for one of the key's.
        change: What the key is changed by, in its unit; None where its value is 0 and it has no sigma.
        sigma: Whether that is its sigma, or 1 %.
    """

    key: Key
    slope: float
    change: float | None
    sigma: bool

    @property
    def effect(self) -> float | None:
        """In the figure's unit."""
        return None if self.change is None else self.slope * self.change


class Sensitivity(NamedTuple):
    """Of one figure.

    Attributes:
        value: At the case's own keys.
        place: Where and when its extreme is; None of what has none: a mean, a mass.
        ties: Rows that share the extreme, to the accuracy of the periodic orbit.
        effects: One for each key, the largest first; then those of keys that are 0 by slope.
    """

    figure: Figure
    value: float
    place: Place | None
    ties: tuple[Place, ...]
    effects: tuple[Effect, ...]

    @property
    def largest(self) -> float:
        """Size of the largest effect."""
        return max((abs(one.effect) for one in self.effects if one.effect is not None), default=0.0)

    def matters(self, effect: Effect) -> bool:
        """Whether a key has an influence, beyond rounding."""
        size = abs(effect.slope if effect.effect is None else effect.effect)
        return size > NOTHING * self.largest

    @property
    def ranked(self) -> tuple[Effect, ...]:
        """Of keys with an influence that can be ranked, the largest effect first."""
        return tuple(one for one in self.effects if one.effect is not None and self.matters(one))

    @property
    def unranked(self) -> tuple[Effect, ...]:
        """Of keys with an influence whose value is 0."""
        return tuple(one for one in self.effects if one.effect is None and self.matters(one))

    @property
    def idle(self) -> tuple[Effect, ...]:
        """Of keys without influence."""
        return tuple(one for one in self.effects if not self.matters(one))


def sensitivities(
    case: Any,
    of: Sequence[str] = (),
    conditions: Sequence[Condition] = (Condition(),),
    dtype: Any = np.float64,
    progress: Callable[[int, int], None] = lambda done, all: None,
) -> list[Sensitivity]:
    """The sensitivity of each of some figures to every continuous key.

    Args:
        case: `schema.Case`.
        of: Names of figures; LEAST_MARGIN, or nothing, is the least margin of a temperature limit, or of a limit of
            another kind that is not met.
        conditions: The worst of them counts. Where they set the environment, its own keys do not vary.
        progress: Called with revolutions differentiated and in all.

    Raises:
        CaseError: no figure of a name, no periodic state, a figure or a derivative that is not finite.
    """
    known = continuous(case)
    if any(one.environment is not None for one in conditions):
        known = {name: key for name, key in known.items() if name not in OF_LEVEL}
    model = Differentiable(case, list(known), conditions, dtype=dtype)
    asked = [figure_named(model, name) for name in of] or [None]  # None: the least margin
    margins = [] if None not in asked else [one for one in model.figures.values() if one.limit is not None]
    figures = {one.name: one for one in (*asked, *margins) if one is not None}
    names = list(figures)

    @jax.jit
    def pulled(x, cotangent):
        """Figures of one design, their rows, and the derivative of cotangent . figures."""

        def values(x):
            designs, rows = model.both(x[None])
            return jnp.stack([designs[name][0] for name in names]), jax.tree.map(lambda leaf: leaf[0], rows)

        found, back, rows = jax.vjp(values, x, has_aux=True)
        return found, rows, back(cotangent)[0]

    x = np.asarray(model.start)
    count = len(model.places)
    progress(0, count)
    changes = _changes(case, known)

    @cache
    def passed(i: int):
        """Of a forward and a reverse pass, the latter for one of the figures."""
        return jax.tree.map(np.asarray, pulled(x, np.eye(len(figures), dtype=model.dtype)[i]))

    values, rows, _ = passed(0)
    failed = np.flatnonzero(rows["status"] == NOT_FINITE)
    if len(failed):
        raise CaseError(f"{case.source}: no periodic state: {_told(model.places[failed[0]])}")
    nearest = _nearest(margins, dict(zip(names, values))) if margins else None
    wanted = dict.fromkeys(one.name for one in (one or nearest for one in asked) if one is not None)
    out = []
    for k, name in enumerate(wanted):
        i, figure = names.index(name), figures[name]
        value = float(values[i])
        if not math.isfinite(value):
            raise CaseError(f"{case.source}: {figure.name} is not finite; it has no derivative")
        slopes = passed(i)[2].astype(float)
        unknown = [name for name, slope in zip(known, slopes) if not math.isfinite(slope)]
        if unknown:
            raise CaseError(f"{case.source}: {figure.name} has no finite derivative to {', '.join(unknown)}")
        effects = [
            Effect(key, float(slope), *changes[name]) for (name, key), slope in zip(known.items(), slopes)
        ]
        out.append(
            Sensitivity(figure, value, *_where(model, figure, rows), tuple(sorted(effects, key=_rank)))
        )
        progress((k + 1) * count, len(wanted) * count)
    return out


def _nearest(margins: Sequence[Figure], values: Mapping[str, float]) -> Figure:
    """The least margin: of temperatures, unless one of another kind, which has another unit, is negative."""
    heat = [one for one in margins if one.name.endswith(("hottest", "coldest"))]
    unmet = [one for one in margins if one not in heat and values[one.name] < 0]
    return unmet[0] if unmet else min(heat, key=lambda one: values[one.name])


def _changes(case: Any, known: dict[str, Key]) -> dict[str, tuple[float | None, bool]]:
    """What each key is changed by, and whether that is its sigma."""
    drawn = [] if case.uncertainty is None else distributions(case)
    sigmas = {key.name: law.sigma for key, law in drawn}
    out = {}
    for name, key in known.items():
        size = abs(key.value + ZERO_CELSIUS if key.unit == "C" else key.value)
        out[name] = (sigmas[name], True) if name in sigmas else (PERCENT * size if size > 0 else None, False)
    return out


def _rank(effect: Effect) -> tuple[bool, float, str]:
    size = effect.slope if effect.effect is None else effect.effect
    return effect.effect is None, -abs(size), effect.key.name


def _where(model: Differentiable, figure: Figure, rows: Any) -> tuple[Place | None, tuple[Place, ...]]:
    """Where the extreme of a figure is, and the other rows that share it."""
    if not figure.of_rows:
        return None, ()
    badness = -figure.better * np.asarray(rows[figure.name], float)
    worst = int(np.argmax(badness))
    near = badness >= badness[worst] - TOLERANCE[model.dtype.name]
    near[worst] = False
    return model.places[worst], tuple(model.places[i] for i in np.flatnonzero(near))


# ------------------------------------------------------------------------------------------------ the report


def report(case: Any, found: Sequence[Sensitivity]) -> dict[str, Any]:
    """Sensitivities as plain numbers and text: strict JSON, every key."""
    return {
        "title": case.title,
        "case_hash": cases.case_hash(case),
        "figures": [
            {
                "name": one.figure.name,
                "meaning": one.figure.meaning,
                "unit": one.figure.unit,
                "value": one.value,
                "at": None if one.place is None else one.place.plain,
                "shared_with": [place.plain for place in one.ties],
                "keys": [
                    {
                        "key": effect.key.name,
                        "value": effect.key.value,
                        "unit": effect.key.unit,
                        "derivative": effect.slope,
                        "derivative_unit": _slope_unit(one.figure, effect.key),
                        "change": effect.change,
                        "change_is": _change_is(effect),
                        "effect": effect.effect,
                        "influence": one.matters(effect),
                    }
                    for effect in one.effects
                ],
            }
            for one in found
        ],
    }


def write(out: Path, case: Any, found: Sequence[Sensitivity]) -> list[str]:
    """The report and the picture in a directory, each whole or not at all; returns their names."""
    with taken(out, JSON):
        write_text(out / JSON, json.dumps(report(case, found), indent=1, allow_nan=False) + "\n")
        draw(found, out / PICTURE)
    return [JSON, PICTURE]


def show(found: Sequence[Sensitivity], console: Any, top: int) -> None:
    """A table for each figure, `top` keys of it."""
    for one in found:
        _show(one, console, top)


def _show(one: Sensitivity, console: Any, top: int) -> None:
    from rich.table import Table

    figure = one.figure
    console.print()
    console.print(f"{figure.name}: {_number(one.value)} {figure.unit}", style="bold", end="")
    console.print(f"  {figure.meaning}")
    if one.place is not None:
        console.print(f"at {_told(one.place)}")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("key", "value", "unit", "derivative", "", "effect", "of"):
        table.add_column(name, justify="right" if name in ("value", "derivative", "effect") else "left")
    ranked, unranked = one.ranked, one.unranked
    shown = (*ranked[:top], *unranked[: max(0, top - len(ranked))])
    unit = difference(figure.unit)
    for effect in shown:
        key = effect.key
        table.add_row(
            key.name,
            _number(key.value),
            key.unit,
            f"{effect.slope:+.4g}",
            _slope_unit(figure, key),
            "" if effect.effect is None else f"{effect.effect:+.4g} {unit}",
            _change_is(effect) or "is 0",
        )
    console.print(table)
    left = len(ranked) + len(unranked) - len(shown)
    if left:
        console.print(f"and {left} more with an influence, all in {JSON}")
    if any(key.unit == "C" for key in (effect.key for effect in shown)):
        console.print("1 % of a temperature in C is 1 % of what it is in kelvin")
    if one.ties:
        others = "; ".join(_told(place) for place in one.ties[:3]) + ("; ..." if len(one.ties) > 3 else "")
        console.print(
            f"the extreme is also reached at {others}: derivatives are a mean of theirs, and right to neither side"
        )
    if one.idle:
        names = [effect.key.name for effect in one.idle]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        console.print(f"without influence: {', '.join(names[:NAMED])}{more}")


def draw(found: Sequence[Sensitivity], path: Path) -> Path:
    """Tornado of each figure: what a key does to it, up and down, the largest on top."""
    import matplotlib.pyplot as plt

    with drawing():
        bars = [
            [effect for effect in one.ranked[:BARS] if abs(effect.effect) >= LEAST_BAR * one.largest]
            for one in found
        ]
        heights = [0.9 + 0.24 * max(1, len(some)) for some in bars]
        figure, axes = plt.subplots(
            len(found),
            1,
            figsize=(8, sum(heights)),
            height_ratios=heights,
            squeeze=False,
            layout="constrained",
        )
        for one, some, axis in zip(found, bars, axes[:, 0]):
            unit = difference(one.figure.unit)
            names = [f"{effect.key.name}, {_change_is(effect)}" for effect in some][::-1]
            effects = np.array([effect.effect for effect in some])[::-1]
            axis.barh(names, effects, color=BLUE, label="key up")
            axis.barh(names, -effects, color=ORANGE, label="key down")
            axis.axvline(0, color=GREY, lw=0.8)
            axis.set_xlabel(f"change [{unit}]" if unit else "change")
            axis.set_title(f"{one.figure.name}: {_number(one.value)} {one.figure.unit}")
            axis.grid(axis="y", visible=False)
            if some:
                axis.legend(loc="lower right")
        return save(figure, path)


def _told(place: Place) -> str:
    under = "" if place.condition == Condition() else f", {place.condition}"
    return f"{place.satellite}, {place.epoch:%Y-%m-%d}{under}"


def _slope_unit(figure: Figure, key: Key) -> str:
    of, by = difference(figure.unit), difference(key.unit)
    if not by:
        return of
    return f"{of or '1'}/({by})" if "/" in by or " " in by else f"{of or '1'}/{by}"


def _change_is(effect: Effect) -> str | None:
    if effect.sigma:
        return "1 sigma"
    return None if effect.change is None else "1 %"


def _number(value: float) -> str:
    return f"{value:,.6g}"
