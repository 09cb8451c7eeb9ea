"""The figures by which a run is judged, and the fleet seen by them: planes, epochs, worst satellites."""

from collections.abc import Container, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .limits import Limit
from .reductions import Extreme, LargestBy, Mean, Percentile, by_epoch, by_group, reduce

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

    def there(self, scalars: Container[str], nodes: Sequence[str]) -> bool:
        """Whether a run has it."""
        return self.key in scalars and self.node in (None, *nodes)

    def badness(self, scalars: Mapping[str, np.ndarray], nodes: Sequence[str]) -> np.ndarray:
        """The larger the worse."""
        return self.sign * self.values(scalars, nodes)

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


class Spread:
    """A figure over the fleet: mean, what SHARE per cent are no worse than, and the worst row."""

    def __init__(self, figure: Figure, nodes: Sequence[str]):
        self.figure, self.of = figure, partial(figure.values, nodes=nodes)
        self.mean = Mean(self.of)
        self.percentile = Percentile(self.of, SHARE if figure.worst == "max" else 100 - SHARE)
        self.worst = Extreme(partial(figure.badness, nodes=nodes))

    def add(self, block: Any) -> None:
        for part in (self.mean, self.percentile, self.worst):
            part.add(block)


class Breakdown:
    """A fleet by its planes and epochs, with the worst of each headline there."""

    def __init__(self, fleet: Any, scalars: Container[str], nodes: Sequence[str]):
        self.fleet = fleet
        self.shown = [one for one in HEADLINES if one.there(scalars, nodes)]
        # Satellites that share their rows are of one plane.
        groups, first = np.unique(fleet.group, return_index=True)
        self._planes, self._members = np.unique(fleet.plane, return_counts=True)
        plane = np.zeros(groups[-1] + 1, int)
        plane[groups] = np.searchsorted(self._planes, np.asarray(fleet.plane)[first])
        values = [partial(one.badness, nodes=nodes) for one in self.shown]
        self._by_plane = [
            LargestBy(one, lambda block: plane[block.group], len(self._planes)) for one in values
        ]
        self._by_epoch = [LargestBy(one, by_epoch, len(fleet.epochs)) for one in values]

    def add(self, block: Any) -> None:
        for part in (*self._by_plane, *self._by_epoch):
            part.add(block)

    def found(self) -> dict[str, Any]:
        """`headlines`, the labels and units of what is listed; `planes` and `epochs`, each with its worst values in
        that order, None where no row counts."""
        return {
            "headlines": [{"name": one.label, "unit": one.unit} for one in self.shown],
            "planes": [
                {"plane": int(k) + 1, "satellites": int(n), "worst": worst}
                for k, n, worst in zip(self._planes, self._members, self._worst(self._by_plane))
            ],
            "epochs": [
                {"epoch": f"{epoch:%Y-%m-%dT%H:%MZ}", "worst": worst}
                for epoch, worst in zip(self.fleet.epochs, self._worst(self._by_epoch))
            ],
        }

    def _worst(self, parts: list[LargestBy]) -> list[list[float | None]]:
        columns = [
            [one.sign * value if row >= 0 else None for value, row in zip(part.largest.tolist(), part.row)]
            for one, part in zip(self.shown, parts)
        ]
        return [list(values) for values in zip(*columns)]


def worst_satellites(limit: Limit, outcome: Any) -> list[dict[str, Any]]:
    """The satellites that come nearest to a limit, or furthest past it, each at its worst epoch."""
    fleet = outcome.fleet
    nearest = LargestBy(lambda scalars: -limit.margins(scalars), by_group, fleet.group.max() + 1)
    reduce(outcome, nearest)
    margins, row = -nearest.largest[fleet.group], nearest.row[fleet.group]
    order = np.argsort(margins, kind="stable")[:WORST]
    return [
        {
            "satellite": str(fleet.names[k]),
            "margin": float(margins[k]),
            "unit": limit.unit,
            "epoch": f"{fleet.epochs[row[k] % len(fleet.epochs)]:%Y-%m-%dT%H:%MZ}",
        }
        for k in order.tolist()
        if row[k] >= 0
    ]
