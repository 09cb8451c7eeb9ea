"""The summary of a run of fluxes: beta, eclipse seasons and absorbed fluxes of fleet and planes.

The dataset is read chunk by chunk: what is kept of it grows with the planes and the epochs, not with the rows.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from . import results
from .flux import RADIATOR, FluxSolver, faces
from .reductions import Block, Count, Reached, add_all
from .results import FAILED
from .summary import MOST_LINES, NAMED, date, listed, show_foot, show_head, who

MOST_PLANES = 1000  # listed in summary.json
READ = ("beta_deg", "period_min", "eclipse_min", "umbra_min")
READ += ("absorbed_w_m2", "absorbed_max_w_m2", "absorbed_min_w_m2")
ECLIPSE = 1e-3  # min a revolution; less is no eclipse in float32


def summarise(outcome: Any) -> dict[str, Any]:
    """The summary of a finished or interrupted run of fluxes, as plain numbers and text: strict JSON."""
    case, fleet = outcome.case, outcome.fleet
    reached, failed = Reached(), Count(lambda values: values["status"] == FAILED, NAMED)
    tally = Tally(fleet)
    add_all(fleet, _blocks(outcome), reached, failed, tally)
    found: dict[str, Any] = {
        "title": case.title,
        "solves": FluxSolver.solves,
        "satellites": len(fleet.names),
        "epochs": len(fleet.epochs),
        "span_days": case.epoch.span_days,
        "rows": outcome.rows,
        "rows_solved": reached.count,
        "complete": reached.count == outcome.rows,
        "failed": who(failed, fleet),
    }
    if reached.good:
        found |= tally.found()
    found["warnings"], found["infeasible"] = [], []
    if found["failed"]["count"]:
        some = "eclipse" in found
        said = "not finite, left out of every number" if some else "no row of the case has finite fluxes"
        found["warnings" if some else "infeasible"].append(f"{said}: {listed(found['failed'])}")
    wall = outcome.wall
    found["wall_s"] = {name: round(float(getattr(wall, name)), 4) for name in ("build", "compile", "run")}
    found["wall_s"]["rows_solved_now"] = outcome.solved_now
    found["rows_per_s"] = round(outcome.rate, 3)
    found["device"] = outcome.devices
    return found


def _blocks(outcome: Any) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """First row, and what is stored of the rows of a chunk, with their status."""
    if not outcome.scalars:
        return
    for first, values in results.read_chunks(outcome.path, READ):
        rows = np.arange(first, first + len(values["beta_deg"]))
        yield first, values | outcome.scalars.take(rows)


class Extremes:
    """The largest, or smallest, of several quantities over all rows, and the rows that have them."""

    def __init__(self, sign: float, count: int):
        self.sign, self.value, self.row = sign, np.full(count, -np.inf), np.zeros(count, int)

    def add(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Values (rows, quantities)."""
        values = self.sign * values
        place = np.argmax(values, axis=0)
        value = np.take_along_axis(values, place[None], axis=0)[0]
        better = value > self.value
        self.value = np.where(better, value, self.value)
        self.row = np.where(better, rows[place], self.row)


class Tally:
    """The reduction of a fleet's rows to what the summary tells.

    Means count each satellite at each epoch once, whoever shares its row.
    """

    def __init__(self, fleet: Any):
        self.fleet, self.epochs = fleet, len(fleet.epochs)
        self.faces = faces(fleet.case)
        # Satellites of one group share all its rows; the first one stands for them.
        _, self.first, self.members = np.unique(fleet.group, return_index=True, return_counts=True)
        self.planes, self.plane = np.unique(np.asarray(fleet.plane)[self.first], return_inverse=True)
        n, count = len(self.planes), len(self.faces) + 1
        self.weight, self.shadow, self.sum = np.zeros(n), np.zeros(n), np.zeros((n, count))
        self.hottest, self.coldest = np.full((n, count), -np.inf), np.full((n, count), np.inf)
        self.beta = np.tile([np.inf, -np.inf], (n, 1))
        self.eclipse, self.eclipse_row = np.full(n, -np.inf), np.zeros(n, int)
        self.umbra = np.full(n, -np.inf)
        self.dark = np.zeros((n, self.epochs), bool)
        self.always_sunlit = np.ones(len(self.first), bool)
        self.extremes = {
            "beta_deg": (Extremes(-1, 1), Extremes(1, 1)),
            "eclipse_min": (Extremes(1, 1),),
            "umbra_min": (Extremes(1, 1),),
            "absorbed_w_m2": (Extremes(1, count), Extremes(-1, count)),
            "absorbed_max_w_m2": (Extremes(1, count - 1),),
            "absorbed_min_w_m2": (Extremes(-1, count - 1),),
        }

    def add(self, block: Block) -> None:
        good = block.good
        rows, group, epoch, weight = (x[good] for x in (block.rows, block.group, block.epoch, block.members))
        if not len(rows):
            return
        values = {name: block.scalars[name][good].astype(float) for name in READ}
        absorbed = values["absorbed_w_m2"]
        # Both faces of the radiator together, as one more quantity.
        radiator = sum(absorbed[:, self.faces.index(face)] for face in RADIATOR)
        values["absorbed_w_m2"] = absorbed = np.column_stack([absorbed, radiator])
        for name, extremes in self.extremes.items():
            for extreme in extremes:
                extreme.add(rows, values[name].reshape(len(rows), -1))

        eclipse = values["eclipse_min"]
        self.always_sunlit[group[eclipse > ECLIPSE]] = False
        self.dark[self.plane[group[eclipse > ECLIPSE]], epoch[eclipse > ECLIPSE]] = True
        # A group's rows, and all of a plane's groups, follow one another.
        plane = self.plane[group]
        starts = np.flatnonzero(np.diff(plane, prepend=-1))
        place = plane[starts]

        def gather(operation, into, value):
            into[place] = operation(into[place], operation.reduceat(value, starts, axis=0))

        gather(np.add, self.weight, weight)
        gather(np.add, self.shadow, weight * eclipse / values["period_min"])
        gather(np.add, self.sum, weight[:, None] * absorbed)
        gather(np.maximum, self.hottest, absorbed)
        gather(np.minimum, self.coldest, absorbed)
        gather(np.minimum, self.beta[:, 0], values["beta_deg"])
        gather(np.maximum, self.beta[:, 1], values["beta_deg"])
        gather(np.maximum, self.umbra, values["umbra_min"])
        before = self.eclipse.copy()
        gather(np.maximum, self.eclipse, eclipse)
        longest = np.flatnonzero((eclipse == self.eclipse[plane]) & (eclipse > before[plane]))
        which, at = np.unique(plane[longest], return_index=True)
        self.eclipse_row[which] = rows[longest[at]]

    def found(self) -> dict[str, Any]:
        """`beta`, `eclipse`, `faces` and `planes` of the summary."""
        low, high = self.extremes["beta_deg"]
        seen = self.weight > 0
        hot, cold = self.extremes["absorbed_w_m2"]
        (peak,), (least,) = self.extremes["absorbed_max_w_m2"], self.extremes["absorbed_min_w_m2"]
        mean = self.sum.sum(axis=0) / self.weight.sum()
        faces = [
            {
                "face": face,
                "mean": float(mean[k]),
                "hottest": self._at(hot, k),
                "coldest": self._at(cold, k),
                "peak": self._at(peak, k),
                "least": self._at(least, k),
            }
            for k, face in enumerate(self.faces)
        ]
        both = {"mean": float(mean[-1]), "hottest": self._at(hot, -1), "coldest": self._at(cold, -1)}
        return {
            "beta_deg": {"least": self._at(low, 0), "greatest": self._at(high, 0)},
            "eclipse": {
                "longest_min": self._at(self.extremes["eclipse_min"][0], 0),
                "longest_umbra_min": self._at(self.extremes["umbra_min"][0], 0),
                "share_of_time": float(self.shadow.sum() / self.weight.sum()),
                "never_eclipsed": int(self.members[self.always_sunlit].sum()),
                **self._season(self.dark.any(axis=0)),
            },
            "absorbed_w_m2": {"faces": faces, "radiator": both},
            **self._planes(np.flatnonzero(seen)),
        }

    def _planes(self, seen: np.ndarray) -> dict[str, Any]:
        """Every plane, of very many those with the longest eclipses."""
        shown = seen
        if len(seen) > MOST_PLANES:
            shown = np.sort(seen[np.argsort(-self.eclipse[seen], kind="stable")[:MOST_PLANES]])
        members = np.bincount(self.plane, self.members, len(self.planes)).astype(int)
        lead = np.full(len(self.planes), len(self.fleet.names))
        np.minimum.at(lead, self.plane, self.first)
        mean = self.sum[shown] / self.weight[shown, None]
        planes = [
            {
                "plane": int(self.planes[k]) + 1,
                "satellites": int(members[k]),
                "first": str(self.fleet.names[lead[k]]),
                "beta_deg": self.beta[k].tolist(),
                "longest_eclipse_min": float(self.eclipse[k]),
                "longest_eclipse_epoch": date(self.fleet.epochs[self.eclipse_row[k] % self.epochs]),
                "longest_umbra_min": float(self.umbra[k]),
                "share_of_time_eclipsed": float(self.shadow[k] / self.weight[k]),
                **self._season(self.dark[k]),
                "absorbed_w_m2": {
                    face: {"mean": a, "hottest": b, "coldest": c}
                    for face, a, b, c in zip(
                        (*self.faces, "radiator"),
                        mean[i].tolist(),
                        self.hottest[k].tolist(),
                        self.coldest[k].tolist(),
                    )
                },
            }
            for i, k in enumerate(shown)
        ]
        return {"planes": planes, "planes_left_out": len(seen) - len(shown)}

    def _season(self, dark: np.ndarray) -> dict[str, Any]:
        """Epochs with an eclipse: how many, how many days of the span, the first and last of each season."""
        edges = np.flatnonzero(np.diff(np.concatenate([[0], dark, [0]]).astype(int)))
        epochs = self.fleet.epochs
        return {
            "epochs": int(dark.sum()),
            "days": float(dark.sum() * self.fleet.case.epoch.span_days / self.epochs),
            "seasons": [[date(epochs[a]), date(epochs[b - 1])] for a, b in zip(edges[::2], edges[1::2])],
        }

    def _at(self, extreme: Extremes, k: int) -> dict[str, Any]:
        group, epoch = divmod(int(extreme.row[k]), self.epochs)
        return {
            "value": float(extreme.sign * extreme.value[k]),
            "satellite": str(self.fleet.names[self.first[group]]),
            "epoch": date(self.fleet.epochs[epoch]),
        }


# ------------------------------------------------------------------------------------------------ terminal


def show(summary: Mapping[str, Any], console: Any) -> None:
    """Print the summary with rich."""
    show_head(summary, "fluxes only", console)
    if "eclipse" in summary:
        _show_faces(summary, console)
        _show_design(summary, console)
        _show_planes(summary, console)
    console.print()
    show_foot(summary, console)


def _flux(value: float) -> str:
    return f"{value:,.2f}"


def _table(columns: tuple[tuple[str, str], ...]) -> Any:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, justify in columns:
        table.add_column(name, justify=justify, no_wrap=True)
    return table


def _show_faces(summary: Mapping[str, Any], console: Any) -> None:
    """Each face that absorbs anything at all."""
    names = (
        "absorbed, W/m2",
        "mean",
        "coldest",
        "hottest",
        "satellite",
        "epoch",
        "peak",
        "satellite",
        "epoch",
    )
    words = ("absorbed, W/m2", "satellite", "epoch")
    table = _table(tuple((name, "left" if name in words else "right") for name in names))
    for one in summary["absorbed_w_m2"]["faces"]:
        hot, peak = one["hottest"], one["peak"]
        if hot["value"] > 0:
            where = (hot["satellite"], hot["epoch"][:10], _flux(peak["value"]))
            means = (_flux(one["mean"]), _flux(one["coldest"]["value"]), _flux(hot["value"]))
            table.add_row(one["face"], *means, *where, peak["satellite"], peak["epoch"][:10])
    console.print(table)
    console.print(
        "coldest and hottest: means over a revolution; peak: the greatest within one", highlight=False
    )


def _show_design(summary: Mapping[str, Any], console: Any) -> None:
    """What the design has to bear."""
    eclipse, radiator = summary["eclipse"], summary["absorbed_w_m2"]["radiator"]
    low, high = summary["beta_deg"]["least"], summary["beta_deg"]["greatest"]

    def at(one):
        return f"({one['satellite']}, {one['epoch'][:10]})"

    hot, cold, longest = radiator["hottest"], radiator["coldest"], eclipse["longest_min"]
    console.print(
        f"\nradiator, both faces: absorbs {_flux(cold['value'])} W/m2 of panel {at(cold)}"
        f" to {_flux(hot['value'])} {at(hot)}, mean over a revolution",
        highlight=False,
    )
    if longest["value"] > ECLIPSE:
        umbra = eclipse["longest_umbra_min"]["value"]
        console.print(
            f"longest eclipse {longest['value']:.2f} min a revolution {at(longest)},"
            f" full shadow up to {umbra:.2f} min",
            highlight=False,
        )
        console.print(
            f"eclipses at {eclipse['epochs']} of {summary['epochs']} epochs ({eclipse['days']:.0f} days):"
            f" {_seasons(eclipse['seasons'])}; {100 * eclipse['share_of_time']:.2f} % of the time in shadow;"
            f" {eclipse['never_eclipsed']:,} satellites never",
            highlight=False,
        )
    else:
        console.print("no eclipse at any epoch", highlight=False)
    console.print(
        f"beta {low['value']:+.2f} {at(low)} to {high['value']:+.2f} deg {at(high)}", highlight=False
    )


def _show_planes(summary: Mapping[str, Any], console: Any) -> None:
    planes, left = summary["planes"], summary["planes_left_out"]
    if len(planes) < 2:
        return
    if len(planes) > MOST_LINES:
        planes = sorted(planes, key=lambda one: -one["longest_eclipse_min"])
    columns = (
        ("plane", "left"),
        ("beta, deg", "right"),
        ("radiator, W/m2", "right"),
        ("shadow, %", "right"),
        ("eclipse, min", "right"),
        ("days", "right"),
        ("from, to", "left"),
    )
    table = _table(columns)
    # Within a year month and day tell the date.
    short = summary["span_days"] <= 366
    for one in planes[:MOST_LINES]:
        radiator, eclipsed = one["absorbed_w_m2"]["radiator"], one["longest_eclipse_min"] > ECLIPSE
        alone = one["satellites"] == 1
        table.add_row(
            one["first"] if alone else f"{one['plane']} ({one['satellites']:,} satellites)",
            "{:+.1f} to {:+.1f}".format(*one["beta_deg"]),
            f"{_flux(radiator['coldest'])} to {_flux(radiator['hottest'])}",
            f"{100 * one['share_of_time_eclipsed']:.2f}",
            f"{one['longest_eclipse_min']:.2f}" if eclipsed else "-",
            f"{one['days']:.0f}",
            _seasons(one["seasons"], 2, start=5 if short else 0),
        )
    console.print()
    console.print(table)
    if len(planes) > MOST_LINES:
        console.print(
            f"those with the longest eclipses, of {len(planes) + left:,}; {len(planes):,} are in summary.json"
        )


def _seasons(seasons: list[list[str]], most: int = 4, start: int = 0) -> str:
    """First and last dates, without their years where `start` is 5."""
    if not seasons:
        return "none"
    dates = ([when[start:10] for when in span] for span in seasons[:most])
    spans = [first if first == last else f"{first} to {last}" for first, last in dates]
    return ", ".join(spans) + (f" and {len(seasons) - most} more" if len(seasons) > most else "")
