"""Pictures of a run of fluxes: what each satellite absorbs and how long it is eclipsed, day by day."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import results
from .drawing import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, dates_across, save

MOST_LINES = 1000  # of a picture; more satellites share one
FEW = 6  # satellites or planes that are drawn as curves, with a legend
MANY = 60  # that are drawn as curves at all
BETA_BINS = np.arange(-90, 92, 2)  # degree


def is_flux_run(run_dir: Path) -> bool:
    """Whether a run directory holds a finished run of fluxes."""
    return results.attributes(run_dir).get("solves") == "fluxes"


def plot(run_dir: Path) -> list[Path]:
    """Pictures of a finished run; none of a single epoch."""
    season = read(run_dir)
    if len(season.epochs) < 2:
        return []
    return [draw_fluxes(season, run_dir / "fluxes.png"), draw_season(season, run_dir / "season.png")]


@dataclass(frozen=True)
class Season:
    """A run as its pictures show it: lines are planes or satellites with rows of their own, or several in one.

    Attributes:
        title: Of the case.
        satellites: In all.
        names: Of the lines, where each is one satellite or plane.
        what: That a line is.
        share: Satellites or planes in a line.
        epochs: (epochs,).
        radiator: Absorbed by both faces, the most of each line, (lines, epochs) [W/m2].
        eclipse: The longest of each line, (lines, epochs) [min].
        beta: Least of each line, (lines, epochs) [degree].
        beta_share: Of the satellites in each bin of beta, (bins, epochs).
        eclipse_mean, eclipsed: Mean eclipse [min], and share of the satellites with one, (epochs,).
    """

    title: str
    satellites: int
    names: list[str]
    what: str
    share: int
    epochs: np.ndarray
    radiator: np.ndarray
    eclipse: np.ndarray
    beta: np.ndarray
    beta_share: np.ndarray
    eclipse_mean: np.ndarray
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
    groups = len(members)
    share = -(-groups // MOST_LINES)
    lines = -(-groups // share)
    radiator, eclipse, beta = np.full((3, lines * count), np.nan, np.float32)
    bins = np.zeros((len(BETA_BINS) - 1) * count)
    weight, minutes, dark = np.zeros((3, count))
    sides = [k for k, face in enumerate(faces) if face.startswith("radiator")]
    for start, values in results.read_chunks(run_dir, ("absorbed_w_m2", "eclipse_min", "beta_deg")):
        rows = start + np.flatnonzero(values["beta_deg"] < results.FILL)
        kept = rows - start
        group, epoch = np.divmod(rows, count)
        place, satellites = group // share * count + epoch, members[group]
        angle, shadow = values["beta_deg"][kept], values["eclipse_min"][kept]
        np.fmax.at(radiator, place, values["absorbed_w_m2"][kept][:, sides].sum(axis=1))
        np.fmax.at(eclipse, place, shadow)
        np.fmin.at(beta, place, angle)
        row = np.clip(np.digitize(angle, BETA_BINS) - 1, 0, len(BETA_BINS) - 2)
        bins += np.bincount(row * count + epoch, satellites, len(bins))
        weight += np.bincount(epoch, satellites, count)
        minutes += np.bincount(epoch, satellites * shadow, count)
        dark += np.bincount(epoch, satellites * (shadow > 1e-3), count)
    with np.errstate(invalid="ignore"):
        means = [x / weight for x in (bins.reshape(-1, count), minutes, dark)]
    alone = groups == len(names)
    return Season(
        title,
        len(names),
        [names[k] if alone else f"plane {i + 1}" for i, k in enumerate(first)] if share == 1 else [],
        "satellite" if alone else "plane",
        share,
        epochs,
        *(x.reshape(lines, count) for x in (radiator, eclipse, beta)),
        *means,
    )


def draw_fluxes(season: Season, path: Path) -> Path:
    """What the radiator absorbs, and eclipses: line by line down, epochs across."""
    import matplotlib.pyplot as plt

    parts = (
        (season.radiator, "inferno", "absorbed by the radiator,\nboth faces [W/m$^2$]"),
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
            axis.set_ylabel(season.what if season.share == 1 else f"{season.what}, {season.share} in a line")
    if few:
        axes[1].set_ylim(bottom=0)
        if len(season.names) > 1:
            axes[0].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    most = "" if season.share == 1 else f", each line the most of {season.share}"
    axes[0].set_title(f"{_head(season)}, means over a revolution{most}")
    dates_across(axes[-1])
    figure.align_ylabels(axes)
    return save(figure, path)


def draw_season(season: Season, path: Path) -> Path:
    """Beta, eclipses, and the share of the fleet that has them, over the epochs."""
    import matplotlib.pyplot as plt

    lines, epochs = len(season.beta), season.epochs
    curves = season.share == 1 and lines <= MANY
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
        figure.colorbar(image, ax=axes[0], label="satellites in\n2 deg of beta [%]", pad=0.02)
        seen = np.flatnonzero(share.any(axis=1))
        axes[0].set_ylim(BETA_BINS[seen[0]], BETA_BINS[seen[-1] + 1])
        low, high = np.nanmin(season.eclipse, axis=0), np.nanmax(season.eclipse, axis=0)
        axes[1].plot(epochs, high, color=RED, label="longest")
        axes[1].plot(epochs, season.eclipse_mean, color=GREY, label="mean of the fleet")
        if season.share == 1:
            axes[1].fill_between(epochs, low, high, color=GREY, alpha=0.2, lw=0, label="fleet")
        axes[1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
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
        extent=(edges[0], edges[-1], len(values) * season.share + 0.5, 0.5),
    )


def _edges(epochs: np.ndarray) -> np.ndarray:
    """Between the epochs, and half a step beyond them."""
    step = (epochs[1:] - epochs[:-1]) / 2
    return np.concatenate([epochs[:1] - step[:1], epochs[:-1] + step, epochs[-1:] + step[-1:]])
