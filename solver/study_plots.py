"""Pictures of studies: a figure over one key, over two with the limits' edges, over many; samples of it."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from . import results, study
from .drawing import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, drawing, save

MARGIN = "margin_of_"
EDGES = (RED, BLUE, GREEN, PURPLE, SKY, ORANGE)
BINS = 60  # of a histogram, at most


def is_study(run_dir: Path) -> bool:
    """Whether a directory holds a study."""
    return results.attributes(run_dir).get("solves") == study.SOLVES


def plot(run_dir: Path) -> list[Path]:
    """The picture of a finished study; none where it has nothing to show."""
    data = study.open_study(run_dir).load()
    with drawing():
        if "sample" in data.dims:
            found = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
            return [draw_samples(data, found, run_dir / "samples.png")] if found["figures"] else []
        if not (data["limits_met"] != results.NOT_RUN).any():
            return []
        path = run_dir / "sweep.png"
        match len(data.attrs["keys"]), data.attrs["scheme"]:
            case 1, _:
                return [draw_line(data, path)]
            case (2, _) | (_, "grid"):
                return [draw_map(data, path)]
            case _:
                return [draw_scatter(data, path)]


def draw_line(data: Any, path: Path) -> Path:
    """The figure over one key, with its limit; designs that break any limit are hollow."""
    import matplotlib.pyplot as plt

    (key,) = data.attrs["keys"]
    data = data.sortby(key)
    figure, axis = plt.subplots(figsize=(8, 4.2), layout="constrained")
    x, y, met = data[key].values, data[data.attrs["of"]].values, data["limits_met"].values == 1
    axis.plot(x, y, "-", color=BLUE)
    for which, fill, label in ((met, BLUE, "all limits met"), (~met, "white", "not all limits met")):
        if which.any():
            axis.plot(x[which], y[which], "o", color=BLUE, mfc=fill, ms=4, label=label)
    _limit_lines(data, axis.axhline)
    _case_line(data[key], axis.axvline)
    _key_axis(data[key], axis, "x")
    axis.set_ylabel(_label(data))
    axis.margins(y=0.15)
    axis.legend()
    axis.set_title(_title(data, f"{len(x)} designs"))
    return save(figure, path)


def draw_map(data: Any, path: Path) -> Path:
    """The figure over two keys as colours, and lines on which a limit is just met.

    Of a grid of more keys the two that the figure depends on most, the others as in the best design.
    """
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    first, second = _telling_pair(data)
    others = [key for key in data.attrs["keys"] if key not in (first, second)]
    note = ""
    if others:
        at = data.attrs["best"]
        data = data.sel({key: at[data.attrs["keys"].index(key)] for key in others}, method="nearest")
        note = ", " + ", ".join(f"{key} = {float(data[key]):.4g}" for key in others)
    figure, axis = plt.subplots(figsize=(8, 5.6), layout="constrained")
    values = data[data.attrs["of"]]
    gridded = data.attrs["scheme"] == "grid"
    if gridded:
        x, y = data[first].values, data[second].values
        image = axis.pcolormesh(x, y, values.transpose(second, first), cmap="viridis", shading="nearest")
        broken = (data["limits_met"] != 1).transpose(second, first).values
        shade = np.where(broken, 1.0, np.nan)
        axis.pcolormesh(x, y, shade, cmap="Greys", vmin=0, vmax=1, alpha=0.45, lw=0, shading="nearest")
        handles = [Patch(color="black", alpha=0.45, label="not all limits met")]
    else:
        good = np.isfinite(values.values)
        data = data.isel(design=good)
        x, y = data[first].values, data[second].values
        image = axis.tricontourf(x, y, values.values[good], levels=24, cmap="viridis")
        met = data["limits_met"].values == 1
        handles = axis.plot(x[met], y[met], ".", color="white", ms=4, label="all limits met")
        handles += axis.plot(x[~met], y[~met], "x", color="black", ms=3, mew=0.7, label="not all limits met")
    edges = [name for name in data.data_vars if name.startswith(MARGIN) and _crosses_zero(data[name].values)]
    for name, color in zip(edges, itertools.cycle(EDGES)):
        one = data[name]
        draw, z = (axis.contour, one.transpose(second, first)) if gridded else (axis.tricontour, one.values)
        draw(x, y, z, levels=[0.0], colors=[color], linewidths=1.8)
        handles.append(Line2D([], [], color=color, lw=1.8, label=f"{one.attrs['limit']} just met"))
    best = data.attrs["best"]
    place = [best[data.attrs["keys"].index(key)] for key in (first, second)]
    handles += axis.plot(*place, "*", color="white", mec="black", ms=12, label="best design")
    _key_axis(data[first], axis, "x")
    _key_axis(data[second], axis, "y")
    axis.grid(False)
    figure.colorbar(image, ax=axis, label=_label(data), pad=0.02)
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    axis.set_title(_title(data, f"{data.attrs['designs']:,} designs{note}"))
    return save(figure, path)


def draw_scatter(data: Any, path: Path) -> Path:
    """Designs over the two keys that the figure depends on most, and how much it depends on each."""
    import matplotlib.pyplot as plt

    figure, (axis, bars) = plt.subplots(1, 2, figsize=(10.5, 4.6), width_ratios=(3, 2), layout="constrained")
    first, second = _telling_pair(data)
    values, met = data[data.attrs["of"]].values, data["limits_met"].values == 1
    scale = {"vmin": np.nanmin(values), "vmax": np.nanmax(values), "cmap": "viridis"}
    image = None
    for which, marker, label in ((~met, "x", "not all limits met"), (met, "o", "all limits met")):
        if not which.any():
            continue
        x, y = data[first].values[which], data[second].values[which]
        image = axis.scatter(x, y, c=values[which], marker=marker, s=22, linewidths=1, label=label, **scale)
    figure.colorbar(image, ax=axis, label=_label(data), pad=0.02)
    _key_axis(data[first], axis, "x")
    _key_axis(data[second], axis, "y")
    axis.set_title(_title(data, f"{len(values):,} designs"))
    figure.legend(loc="outside lower left", ncols=2)
    ranks = _rank_correlations(data)
    order = sorted(ranks, key=lambda key: abs(ranks[key]))
    bars.barh(order, [ranks[key] for key in order], color=[BLUE if ranks[key] >= 0 else RED for key in order])
    bars.axvline(0, color=GREY, lw=0.8)
    bars.set_xlim(-1, 1)
    bars.set_xlabel("rank correlation with it")
    return save(figure, path)


def draw_samples(data: Any, found: dict[str, Any], path: Path) -> Path:
    """Histogram and cumulative share of the samples of a figure, beside the normal of first order."""
    import matplotlib.pyplot as plt
    from scipy.stats import norm

    values = data[data.attrs["of"]].values
    values = np.sort(values[np.isfinite(values)])
    linear = found["of_first_order"]
    figure, (density, share) = plt.subplots(
        2, 1, figsize=(8, 6.2), sharex=True, height_ratios=(3, 2), layout="constrained"
    )
    bins = min(BINS, max(10, round(len(values) ** 0.5)))
    density.hist(values, bins=bins, density=True, color=SKY, label=f"{len(values):,} samples")
    share.plot(values, 100 * (np.arange(len(values)) + 0.5) / len(values), color=BLUE, label="sampled")
    if linear["sigma"]:
        mean, sigma = linear["mean"], linear["sigma"]
        x = np.linspace(min(values[0], mean - 3 * sigma), max(values[-1], mean + 3 * sigma), 300)
        density.plot(x, norm.pdf(x, mean, sigma), color=ORANGE, label="first order")
        share.plot(x, 100 * norm.cdf(x, mean, sigma), color=ORANGE, label="first order")
    for axis in (density, share):
        if linear["value"] is not None:
            axis.axvline(linear["value"], color=GREY, lw=1, label="case")
        _limit_lines(data, axis.axvline)
    density.set_ylabel("density")
    share.set_ylabel("samples below [%]")
    share.set_xlabel(_label(data))
    density.legend()
    density.set_title(_title(data, f"{len(values):,} samples"))
    return save(figure, path)


def _title(data: Any, text: str) -> str:
    return f"{data.attrs['title']}\n{text}; {'; '.join(data.attrs['conditions'])}"


def _label(data: Any) -> str:
    name = data.attrs["of"]
    unit = data[name].attrs["units"]
    return f"{name.replace('_', ' ')} [{'C' if unit == 'degC' else unit}]"


def _key_axis(key: Any, axes: Any, direction: str) -> None:
    """The name of a key along its axis; its unit is in the name."""
    from matplotlib.ticker import FuncFormatter

    axes.set(**{f"{direction}label": key.name})
    if key.attrs["scale"] == "log":
        axes.set(**{f"{direction}scale": "log"})
        # Powers of ten would be written in mathematical type, which pictures do without.
        axis = getattr(axes, f"{direction}axis")
        for set_formatter in (axis.set_major_formatter, axis.set_minor_formatter):
            set_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _case_line(key: Any, draw: Any) -> None:
    """Where the case itself is, if the range has it."""
    value = key.attrs["case_value"]
    if float(key.min()) <= value <= float(key.max()):
        draw(value, color=GREY, lw=1, ls=":", label="case")


def _limit_lines(data: Any, draw: Any) -> None:
    """The limit of the figure, and where its uncertainty is used up."""
    name, attributes = data.attrs["of"], data[data.attrs["of"]].attrs
    if name == study.LEAST_MARGIN:
        draw(0.0, color=RED, lw=1.2, label="limit, less the uncertainty")
        return
    if "limit" not in attributes:
        return
    allowed, given = attributes["allowed"], attributes["uncertainty"]
    inner = allowed - given if attributes["side"] == "max" else allowed + given
    if name.startswith(MARGIN):
        allowed, inner = -given, 0.0
    draw(allowed, color=RED, lw=1.2, label=f"limit, {attributes['limit']}")
    if given:
        draw(inner, color=RED, lw=1.2, ls="--", label=f"less {given:g} K of uncertainty")


def _crosses_zero(values: np.ndarray) -> bool:
    return bool(np.nanmin(values) < 0 < np.nanmax(values))


def _telling_pair(data: Any) -> tuple[str, str]:
    """The two keys that the figure depends on most, by rank, in the order of the study."""
    keys = data.attrs["keys"]
    if len(keys) == 2:
        return keys[0], keys[1]
    ranks = _rank_correlations(data)
    most = sorted(keys, key=lambda key: -abs(ranks[key]))[:2]
    return tuple(key for key in keys if key in most)


def _rank_correlations(data: Any) -> dict[str, float]:
    """Spearman's, of the figure with each key; 0 where either is constant."""
    from scipy.stats import rankdata

    def ranked(values):
        ranks = rankdata(values)
        return ranks - ranks.mean()

    of = data[data.attrs["of"]]
    good = np.isfinite(of.values.ravel())
    figure = ranked(of.values.ravel()[good])
    out = {}
    for key in data.attrs["keys"]:
        x = ranked(data[key].broadcast_like(of).transpose(*of.dims).values.ravel()[good])
        norms = np.linalg.norm(x) * np.linalg.norm(figure)
        out[key] = float(x @ figure / norms) if norms > 0 else 0.0
    return out
