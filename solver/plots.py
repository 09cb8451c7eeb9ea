"""Pictures of a run directory: one revolution, the panel at its hottest, the fleet over the year."""

from pathlib import Path
from typing import Any

from . import flux_plots, results, study_plots
from .drawing import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, dates_across, drawing, save

LEAST_FLUX = 1.0  # W/m2; less is not drawn


def plot(run_dir: Path) -> list[Path]:
    """Draw every picture that the run has data for; returns their paths."""
    if study_plots.is_study(run_dir):
        return study_plots.plot(run_dir)
    with drawing():
        if flux_plots.is_flux_run(run_dir):
            return flux_plots.plot(run_dir)
        darkest = results.open_featured(run_dir, results.DARKEST)
        made = [draw_revolution(darkest, run_dir / "revolution.png")]
        hottest = results.open_featured(run_dir, results.HOTTEST)
        made.append(draw_panel(hottest, run_dir / "panel.png"))
        dataset = results.open_run(run_dir)
        if dataset.sizes["epoch"] > 1:
            made.append(draw_fleet(dataset, run_dir / "fleet.png"))
    return made


def draw_revolution(data: Any, path: Path) -> Path:
    """Fluxes, power, state of charge and temperatures over one revolution, the eclipse shaded."""
    import matplotlib.pyplot as plt

    minutes = data["time_s"].values / 60
    panels = [_radiator_flux, _temperatures]
    if "state_of_charge" in data:
        panels.insert(1, _charge)
    if float(data["array_available_series_kw"].max()) > 0 or float(data["payload_asked_series_kw"].max()) > 0:
        panels.insert(1, _power)
    heights = [2.0 if draw is _temperatures else 1.0 if draw is _charge else 1.5 for draw in panels]
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(8.5, 1.6 * sum(heights)),
        sharex=True,
        height_ratios=heights,
        layout="constrained",
    )
    for axis, draw in zip(axes, panels):
        _shade(axis, data, minutes)
        draw(axis, data, minutes)
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    which = "longest eclipse" if float(data["sunlit"].min()) < 0.5 else "no eclipse"
    axes[0].set_title(f"{data.attrs['title']}\n{data.attrs['satellite']}, {data.attrs['epoch']}, {which}")
    axes[-1].set_xlabel("minutes from orbit noon")
    axes[-1].set_xlim(minutes[0], minutes[-1])
    figure.align_ylabels(axes)
    return save(figure, path)


def _shade(axis: Any, data: Any, minutes: Any) -> None:
    """Grey where less than half of the Sun is seen."""
    import numpy as np

    dark = np.concatenate([[False], data["sunlit"].values < 0.5, [False]])
    half = data["step_s"].values / 120
    edges = np.flatnonzero(np.diff(dark.astype(int)))
    for first, last in zip(edges[::2], edges[1::2] - 1):
        axis.axvspan(
            minutes[first] - half[first], minutes[last] + half[last], color="black", alpha=0.08, lw=0
        )


def _radiator_flux(axis: Any, data: Any, minutes: Any) -> None:
    flux = data["incident_series_w_m2"]
    sources = (("infrared", "Earth infrared", RED), ("albedo", "albedo", BLUE), ("solar", "Sun", ORANGE))
    for source, label, color in sources:
        for face, line in (("radiator_0", "-"), ("radiator_1", "--")):
            one = flux.sel(face=face, source=source)
            if float(one.max()) > LEAST_FLUX:
                axis.plot(minutes, one, line, color=color, label=f"{label}, face {face[-1]}")
    axis.set_ylabel("on the radiator\n[W/m²]")
    axis.set_ylim(bottom=0)


def _power(axis: Any, data: Any, minutes: Any) -> None:
    lines = (
        ("array_available", "array, available", ORANGE, "-"),
        ("array_taken", "array, taken", ORANGE, ":"),
        ("payload_asked", "compute, asked", BLUE, ":"),
        ("payload_power", "compute, delivered", BLUE, "-"),
        ("heater_power", "heaters", RED, "-"),
    )
    for name, label, color, style in lines:
        series = data[f"{name}_series_kw"]
        if float(series.max()) > 0:
            axis.plot(minutes, series, style, color=color, label=label, drawstyle="steps-mid")
    shed = data["payload_curtailed_series_kw"] + data["unmet_series_kw"]
    if float(shed.max()) > 1e-6:
        axis.fill_between(minutes, 0, shed, color=RED, alpha=0.35, lw=0, step="mid", label="shed")
    axis.set_ylabel("power [kW]")
    axis.set_ylim(bottom=0)


def _charge(axis: Any, data: Any, minutes: Any) -> None:
    ends = _ends(data)
    axis.plot(ends, 100 * data["state_of_charge"], color=GREEN, label="battery")
    axis.set_ylabel("state of\ncharge [%]")
    axis.margins(y=0.15)


def _ends(data: Any) -> Any:
    """Ends of the steps [min]: what is carried from step to step is known there."""
    return (data["time_s"].values + data["step_s"].values / 2) / 60


def _temperatures(axis: Any, data: Any, minutes: Any) -> None:
    ends = _ends(data)
    nodes = data["node"].values.tolist()
    for node, label, color in (("chip", "chip", RED), ("cold_plate", "cold plate", PURPLE)):
        if node in nodes:
            axis.plot(ends, data["node_c"].sel(node=node), color=color, label=label)
    if "fluid_radiator_in_series_c" in data:
        axis.plot(ends, data["fluid_radiator_in_series_c"], color=BLUE, label="loop, to radiator")
        axis.plot(ends, data["fluid_supply_series_c"], color=SKY, label="loop, supply")
    axis.fill_between(
        ends,
        data["panel_min_series_c"],
        data["panel_max_series_c"],
        color=GREY,
        alpha=0.25,
        lw=0,
        label="panel, coldest to hottest",
    )
    for node, label, color in (("battery", "battery", GREEN), ("array", "array", ORANGE)):
        if node in nodes:
            axis.plot(ends, data["node_c"].sel(node=node), color=color, lw=1.0, label=label)
    axis.set_ylabel("temperature [C]")


def draw_panel(data: Any, path: Path) -> Path:
    """Temperature of one strip of the radiator at its hottest instant: around a tube, or across all its passes."""
    import matplotlib.pyplot as plt
    import numpy as np

    (nx, ny), passes = data.attrs["cells"], data.attrs["passes"]
    strip = data["panel_hottest_c"].values.reshape(nx, ny).T
    x = data["cell_x_m"].values.reshape(nx, ny)[:, 0]
    y = 1e3 * data["cell_y_m"].values.reshape(nx, ny)[0]
    low, high, tubes = 0.0, y[-1] + y[0], [0.0]
    if passes == 1:
        # The grid covers half a pitch from the tube at y = 0; its mirror image is the other half.
        strip, y, low = np.concatenate([strip[::-1], strip]), np.concatenate([-y[::-1], y]), -high
    else:
        tubes = [(k + 0.5) / passes * high for k in range(passes)]
    figure, axis = plt.subplots(figsize=(8, 3.4), layout="constrained")
    image = axis.imshow(
        strip,
        origin="lower",
        aspect="auto",
        extent=(0, x[-1] + x[0], low, high),
        cmap="inferno",
        interpolation="nearest",
    )
    if np.ptp(strip) > 0.05:
        lines = axis.contour(x, y, strip, levels=7, colors="white", linewidths=0.6, alpha=0.8)
        axis.clabel(lines, fmt="%.1f", fontsize=7)
    for tube in tubes:
        axis.axhline(tube, color="white", lw=0.8, ls="--", alpha=0.6)
    axis.grid(False)
    axis.set_xlabel("along the tube, from its inlet [m]")
    axis.set_ylabel(
        "across, from the tube [mm]" if passes == 1 else "across, from the first pass's edge [mm]"
    )
    axis.set_title(
        f"{data.attrs['title']}\n{data.attrs['satellite']}, {data.attrs['epoch']}: "
        f"one strip of the radiator at its hottest, {strip.min():.1f} to {strip.max():.1f} C"
    )
    figure.colorbar(image, ax=axis, label="temperature [C]", pad=0.02)
    return save(figure, path)


def draw_fleet(data: Any, path: Path) -> Path:
    """Eclipse, peak chip temperature and delivered compute over the epochs: median and range of the fleet."""
    import matplotlib.pyplot as plt

    nodes = data["node"].values.tolist()
    rows = [(data["eclipse_min"], "eclipse\n[min a revolution]", GREY)]
    if "chip" in nodes:
        rows.append((data["node_max_c"].sel(node="chip"), "peak chip\ntemperature [C]", RED))
    else:
        rows.append((data["panel_max_c"], "peak panel\ntemperature [C]", RED))
    if "compute_kwh_day" in data and float(data["compute_kwh_day"].max()) > 0:
        rows.append((data["compute_kwh_day"], "compute\n[kWh a day]", BLUE))
    figure, axes = plt.subplots(
        len(rows), 1, figsize=(8, 2.0 * len(rows) + 0.6), sharex=True, layout="constrained"
    )
    epochs = data["epoch"].values
    for axis, (values, label, color) in zip(axes, rows):
        values = values.load()
        axis.plot(epochs, values.median("satellite"), "-", color=color, marker="o", ms=3, label="median")
        if data.sizes["satellite"] > 1:
            axis.fill_between(
                epochs,
                values.min("satellite"),
                values.max("satellite"),
                color=color,
                alpha=0.2,
                lw=0,
                label="fleet",
            )
        axis.set_ylabel(label)
        axis.margins(y=0.15)
    axes[0].set_ylim(bottom=0)
    axes[0].set_title(
        f"{data.attrs['title']}\n{data.sizes['satellite']:,} satellites over {len(epochs)} epochs"
    )
    if data.sizes["satellite"] > 1:
        axes[0].legend(loc="upper right", ncols=2)
    dates_across(axes[-1])
    figure.align_ylabels(axes)
    return save(figure, path)
