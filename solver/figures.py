"""The figures by which a run is judged, and the fleet seen by them: percentiles, planes, epochs, worst satellites."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .limits import Limit

WORST = 10  # satellites named
SHARE = 95  # per cent of the fleet that a percentile is reached by


class Figure(NamedTuple):
    """One figure of every row.

    Attributes:
        key: Of the run's scalars.
        node: That it is of, or None.
        label, unit: As shown.
        worst: Whether the largest ("max") or the smallest ("min") is the worst.
    """

    key: str
    node: str | None
    label: str
    unit: str
    worst: str

    @property
    def scale(self) -> float:
        """From the stored number to the shown one."""
        return 100.0 if self.unit == "%" else 1.0

    @property
    def sign(self) -> float:
        """What makes the largest the worst."""
        return 1.0 if self.worst == "max" else -1.0

    def there(self, scalars: Mapping[str, np.ndarray], nodes: Sequence[str]) -> bool:
        """Whether a run has it."""
        return self.key in scalars and self.node in (None, *nodes)

    def values(self, scalars: Mapping[str, np.ndarray], nodes: Sequence[str]) -> np.ndarray:
        """One value a row, as shown."""
        value = scalars[self.key] if self.node is None else scalars[self.key][:, list(nodes).index(self.node)]
        return self.scale * value.astype(float)


FIGURES = tuple(
    Figure(*row)
    for row in (
        ("node_max_c", "chip", "chip hottest", "C", "max"),
        ("node_min_c", "chip", "chip coldest", "C", "min"),
        ("coolant_max_c", None, "loop hottest", "C", "max"),
        ("coolant_min_c", None, "loop coldest", "C", "min"),
        ("panel_max_c", None, "panel hottest", "C", "max"),
        ("panel_min_c", None, "panel coldest", "C", "min"),
        ("node_max_c", "array", "array hottest", "C", "max"),
        ("node_min_c", "array", "array coldest", "C", "min"),
        ("node_max_c", "battery", "battery hottest", "C", "max"),
        ("node_min_c", "battery", "battery coldest", "C", "min"),
        ("node_max_c", "structure", "structure hottest", "C", "max"),
        ("node_min_c", "structure", "structure coldest", "C", "min"),
        ("soc_min", None, "state of charge, minimum", "%", "min"),
        ("depth_of_discharge", None, "depth of discharge", "%", "max"),
        ("eclipse_min", None, "eclipse a revolution", "min", "max"),
        ("array_available_kw", None, "power made", "kW", "min"),
        ("asked_kw", None, "power asked for", "kW", "max"),
        ("delivered_kw", None, "power delivered", "kW", "min"),
        ("shed_kw", None, "power shed", "kW", "max"),
        ("payload_throttled_kw", None, "compute throttled by heat", "kW", "max"),
        ("compute_kwh_day", None, "compute delivered", "kWh/day", "min"),
        ("compute_percent", None, "compute delivered", "% of demand", "min"),
    )
)
# Which of them matter first.
HEADLINES = tuple(
    one
    for one in FIGURES
    if one.label
    in (
        "chip hottest",
        "loop hottest",
        "loop coldest",
        "panel hottest",
        "panel coldest",
        "state of charge, minimum",
    )
)


def percentile(values: np.ndarray, figure: Figure) -> float:
    """What SHARE per cent of the values are no worse than."""
    return float(np.percentile(values, SHARE if figure.worst == "max" else 100 - SHARE))


def breakdown(scalars: Mapping[str, np.ndarray], fleet: Any, good: np.ndarray) -> dict[str, Any]:
    """A fleet by its planes and epochs, with the worst of each headline there.

    Args:
        good: Rows that count.

    Returns:
        `headlines`, the labels and units of what is listed; `planes` and `epochs`, each with its worst values in that
        order, None where no row counts.
    """
    row, nodes = np.asarray(fleet.row), tuple(fleet.params.network.names)
    shown = [one for one in HEADLINES if one.there(scalars, nodes)]
    plane = np.asarray(fleet.plane)
    # A row belongs to one plane and one epoch, however many satellites share it.
    distinct, first = np.unique(row, return_index=True)
    satellite, epoch = np.unravel_index(first, row.shape)
    distinct, satellite, epoch = (a[good[distinct]] for a in (distinct, satellite, epoch))

    def worst_by(place: np.ndarray, count: int) -> list[list[float | None]]:
        columns = []
        for one in shown:
            worst = np.full(count, -np.inf)
            np.maximum.at(worst, place, one.sign * one.values(scalars, nodes)[distinct])
            columns.append([one.sign * value if np.isfinite(value) else None for value in worst.tolist()])
        return [list(values) for values in zip(*columns)]

    planes, members = np.unique(plane, return_counts=True)
    return {
        "headlines": [{"name": one.label, "unit": one.unit} for one in shown],
        "planes": [
            {"plane": int(k) + 1, "satellites": int(n), "worst": worst}
            for k, n, worst in zip(
                planes, members, worst_by(np.searchsorted(planes, plane[satellite]), len(planes))
            )
        ],
        "epochs": [
            {"epoch": f"{epoch:%Y-%m-%dT%H:%MZ}", "worst": worst}
            for epoch, worst in zip(fleet.epochs, worst_by(epoch, row.shape[1]))
        ],
    }


def worst_satellites(
    limit: Limit, scalars: Mapping[str, np.ndarray], fleet: Any, good: np.ndarray
) -> list[dict[str, Any]]:
    """The satellites that come nearest to a limit, or furthest past it, each at its worst epoch."""
    margins = np.where(good, limit.margins(scalars), np.inf)[np.asarray(fleet.row)]
    epoch = np.argmin(margins, axis=1)
    least = margins[np.arange(len(margins)), epoch]
    order = np.argsort(least, kind="stable")[:WORST]
    return [
        {
            "satellite": str(fleet.names[k]),
            "margin": float(least[k]),
            "unit": limit.unit,
            "epoch": f"{fleet.epochs[epoch[k]]:%Y-%m-%dT%H:%MZ}",
        }
        for k in order.tolist()
        if np.isfinite(least[k])
    ]
