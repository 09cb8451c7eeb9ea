"""Pictures of a run of fluxes: what each satellite absorbs and how long it is eclipsed, day by day."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import results
from .drawing import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, dates_across, save
from .flux import RADIATOR, FluxSolver
from .flux_summary import ECLIPSE

MOST_LINES = 1000  # of a picture; of more satellites every second, third ... is shown
FEW = 6  # satellites or planes that are drawn as curves, with a legend
MANY = 60  # that are drawn as curves at all
BETA_BINS = np.arange(-90, 92, 2)  # degree


def is_flux_run(run_dir: Path) -> bool:
    """Whether a run directory holds a finished run of fluxes."""
    return results.attributes(run_dir).get("solves") == FluxSolver.solves


def plot(run_dir: Path) -> list[Path]:
    """Pictures of a finished run; none of a single epoch."""
    season = read(run_dir)
    if len(season.epochs) < 2:
        return []
    return [draw_fluxes(season, run_dir / "fluxes.png"), draw_season(season, run_dir / "season.png")]


@dataclass(frozen=True)
class Season:
    """A run as its pictures show it. Lines are planes, or satellites where each has rows of its own.

    Attributes:
        title: Of the case.
        satellites: In all.
        names: Of the lines.
        what: That a line is.
        every: Lines are every so-manieth of them, from the hottest radiator down; 1: all, as the fleet has them.
        epochs: (epochs,).
        radiator: Absorbed by both faces, (lines, epochs) [W/m2].
        eclipse: Of a revolution, (lines, epochs) [min].
        beta: Angle of the Sun above the orbit plane, (lines, epochs) [degree].
        beta_share: Of all satellites, in each bin of beta, (bins, epochs).
        longest, mean: Eclipse of all satellites, (epochs,) [min].
        eclipsed: Share of all satellites with an eclipse, (epochs,).
    """

    title: str
    satellites: int
    names: list[str]
    what: str
    every: int
    epochs: np.ndarray
    radiator: np.ndarray
    eclipse: np.ndarray
    beta: np.ndarray
    beta_share: np.ndarray
    longest: np.ndarray
    mean: np.ndarray
    eclipsed: np.ndarray


def read(run_dir: Path) -> Season:
    """Gather a run's pictures from its dataset, chunk by chunk."""
    import xarray as xr

    with xr.open_zarr(run_dir / results.DATASET) as data:
        index, epochs = data["revolution_index"].values, data["epoch"].values
        names, faces = data["satellite"].values.tolist(), data["face"].values.tolist()
        title = data.attrs["title"]
    count = len(epochs)
    _, first, members = np.unique(index[:, 0] // count, return_index=True, return_counts=True)
    alone = len(members) == len(names)
    every = -(-len(members) // MOST_LINES)
    shown = np.arange(len(members)) if every == 1 else _hottest_first(run_dir, faces, count)[::every]
    line = np.full(len(members), -1)
    line[shown] = np.arange(len(shown))
    lines = np.full((3, len(shown) * count), np.nan, np.float32)
    bins = np.zeros((len(BETA_BINS) - 1) * count)
    weight, minutes, dark, longest = np.zeros((4, count))
    for rows, values in _good(run_dir, ("absorbed_w_m2", "eclipse_min", "beta_deg")):
        group, epoch = np.divmod(rows, count)
        satellites, angle, shadow = members[group], values["beta_deg"], values["eclipse_min"]
        there = line[group] >= 0
        place = (line[group] * count + epoch)[there]
        for into, value in zip(lines, (_radiator(values, faces), shadow, angle)):
            into[place] = value[there]
        row = np.clip(np.digitize(angle, BETA_BINS) - 1, 0, len(BETA_BINS) - 2)
        bins += np.bincount(row * count + epoch, satellites, len(bins))
        weight += np.bincount(epoch, satellites, count)
        minutes += np.bincount(epoch, satellites * shadow, count)
        dark += np.bincount(epoch, satellites * (shadow > ECLIPSE), count)
        np.maximum.at(longest, epoch, shadow)
    with np.errstate(invalid="ignore"):
        share, mean, eclipsed = (x / weight for x in (bins.reshape(-1, count), minutes, dark))
    radiator, eclipse, beta = lines.reshape(3, -1, count)
    return Season(
        title=title,
        satellites=len(names),
        names=[names[first[k]] if alone else f"plane {k + 1}" for k in shown.tolist()],
        what="satellite" if alone else "plane",
        every=every,
        epochs=epochs,
        radiator=radiator,
        eclipse=eclipse,
        beta=beta,
        beta_share=share,
        longest=longest,
        mean=mean,
        eclipsed=eclipsed,
    )


def _good(run_dir: Path, names: Sequence[str]) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Rows that have numbers, and these."""
    for start, values in results.read_chunks(run_dir, names):
        rows = np.flatnonzero(values[names[-1]] < results.FILL)
        yield start + rows, {name: value[rows] for name, value in values.items()}


def _radiator(values: dict[str, np.ndarray], faces: list[str]) -> np.ndarray:
    return values["absorbed_w_m2"][:, [faces.index(face) for face in RADIATOR]].sum(axis=1)


def _hottest_first(run_dir: Path, faces: list[str], count: int) -> np.ndarray:
    """Groups of rows by what their radiators absorb over all epochs."""
    total = np.zeros(0)
    for rows, values in _good(run_dir, ("absorbed_w_m2", "beta_deg")):
        found = np.bincount(rows // count, _radiator(values, faces), len(total))
        total = found + np.pad(total, (0, len(found) - len(total)))
    return np.argsort(-total, kind="stable")


def draw_fluxes(season: Season, path: Path) -> Path:
    """What the radiator absorbs, and eclipses: line by line down, epochs across."""
    import matplotlib.pyplot as plt

    parts = (
        (season.radiator, "inferno", "absorbed by the radiator,\nboth faces [W/m²]"),
        (season.eclipse, "cividis", "eclipse\n[min a revolution]"),
    )
    few = len(season.radiator) <= FEW
    figure, axes = plt.subplots(2, 1, figsize=(8, 5 if few else 7), sharex=True, layout="constrained")
    for axis, (values, colours, label) in zip(axes, parts):
        if few:
            _curves(axis, season, values)
            axis.set_ylabel(label)
            axis.margins(y=0.15)
        else:
            image = _heat(axis, season, values, colours)
            figure.colorbar(image, ax=axis, label=label, pad=0.02)
            axis.set_ylabel(season.what if season.every == 1 else f"{season.what}s, hottest radiator first")
    if few:
        axes[1].set_xlim(season.epochs[0], season.epochs[-1])
        axes[1].set_ylim(bottom=0)
        if len(season.names) > 1:
            axes[0].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    which = "" if season.every == 1 else f"; one {season.what} of {season.every} is shown"
    axes[0].set_title(f"{_head(season)}, means over a revolution{which}")
    dates_across(axes[-1])
    figure.align_ylabels(axes)
    return save(figure, path)


def draw_season(season: Season, path: Path) -> Path:
    """Beta, eclipses, and the share of the fleet that has them, over the epochs."""
    import matplotlib.pyplot as plt

    lines, epochs = len(season.beta), season.epochs
    curves = season.every == 1 and lines <= MANY
    figure, axes = plt.subplots(
        3,
        1,
        figsize=(8, 6.5),
        sharex=True,
        layout="constrained",
        gridspec_kw={"height_ratios": [2, 1.6, 1]},
    )
    if curves:
        for axis, values in zip(axes, (season.beta, season.eclipse)):
            _curves(axis, season, values)
        if 1 < lines <= FEW:
            axes[0].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        elif lines > FEW:
            figure.colorbar(_scale(lines), ax=axes[:2], label=season.what, pad=0.02)
    else:
        import matplotlib.colors as colors

        share = np.ma.masked_equal(100 * season.beta_share, 0)
        edges = _edges(epochs)
        image = axes[0].pcolormesh(
            edges, BETA_BINS, share, cmap="viridis", norm=colors.LogNorm(), rasterized=True
        )
        marks = figure.colorbar(image, ax=axes[0], label="satellites in\n2 deg of beta [%]", pad=0.02)
        marks.ax.yaxis.set_major_formatter("{x:g}")
        marks.ax.yaxis.set_minor_formatter("{x:g}")
        seen = np.flatnonzero(share.any(axis=1))
        axes[0].set_ylim(BETA_BINS[seen[0]], BETA_BINS[seen[-1] + 1])
        axes[1].plot(epochs, season.longest, color=RED, label="longest")
        axes[1].plot(epochs, season.mean, color=GREY, label="mean of all satellites")
        axes[1].legend(loc="lower left", ncols=2)
    if np.nanmin(season.beta) < 0 < np.nanmax(season.beta):
        axes[0].axhline(0, color=GREY, lw=0.8)
    axes[0].set_ylabel("beta [deg]")
    axes[1].set_ylabel("eclipse\n[min a revolution]")
    axes[1].set_ylim(bottom=0)
    axes[2].fill_between(epochs, 0, 100 * season.eclipsed, color=ORANGE, alpha=0.5, lw=0, step="mid")
    axes[2].set_ylim(0, 105)
    axes[2].set_ylabel("satellites with\neclipses [%]")
    axes[2].set_xlim(epochs[0], epochs[-1])
    axes[0].set_title(f"{_head(season)}: Sun above the orbit plane, and eclipses")
    dates_across(axes[-1])
    figure.align_ylabels(axes)
    return save(figure, path)


def _head(season: Season) -> str:
    return f"{season.title}\n{season.satellites:,} satellites x {len(season.epochs)} epochs"


def _scale(lines: int) -> Any:
    """Colours of numbered lines."""
    import matplotlib.cm as cm
    import matplotlib.colors as colors

    return cm.ScalarMappable(colors.Normalize(1, max(lines, 2)), "viridis")


def _curves(axis: Any, season: Season, values: np.ndarray) -> None:
    scale, few = _scale(len(values)), len(values) <= FEW
    palette = (RED, ORANGE, BLUE, GREEN, PURPLE, GREY)
    for k, (name, line) in enumerate(zip(season.names, values)):
        colour = palette[k] if few else scale.to_rgba(k + 1)
        axis.plot(season.epochs, line, color=colour, lw=1.5 if few else 0.8, label=name)


def _heat(axis: Any, season: Season, values: np.ndarray, colours: str) -> Any:
    import matplotlib.dates as mdates

    edges = mdates.date2num(_edges(season.epochs))
    axis.grid(False)
    axis.xaxis_date()
    return axis.imshow(
        np.ma.masked_invalid(values),
        aspect="auto",
        cmap=colours,
        interpolation="nearest",
        extent=(edges[0], edges[-1], len(values) * season.every + 0.5, 0.5),
    )


def _edges(epochs: np.ndarray) -> np.ndarray:
    """Between the epochs, and half a step beyond them."""
    step = (epochs[1:] - epochs[:-1]) / 2
    return np.concatenate([epochs[:1] - step[:1], epochs[:-1] + step, epochs[-1:] + step[-1:]])
