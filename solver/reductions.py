"""What a run's rows come to, read block by block: nothing here holds all of them.

    hottest, mean = Extreme(peak), Mean(peak)
    reduce(outcome, hottest, mean)

A reduction sees every block once, in the order of the rows, and keeps a few numbers, or a few for each satellite,
plane or epoch. Rows count once for each satellite that shares them, failed rows and rows that were not reached not at
all unless a reduction says otherwise. `add_all` takes blocks from elsewhere.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from . import limits as bounds
from . import results
from .results import FAILED, NOT_RUN

BLOCK = 1 << 13  # rows read at once
KEPT = 1 << 15  # rows up to which a percentile is exact, and entries that it keeps of more at each level

Scalars = Mapping[str, np.ndarray]
Of = Callable[[Scalars], np.ndarray]  # one value a row


@dataclass(frozen=True)
class Block:
    """Some successive rows.

    Attributes:
        scalars: What is known of each row by name, rows first, `status` among it.
        rows: Their numbers.
        group, epoch: Which satellites they are of, see `build.Roster.group`, and when.
        members: Satellites that share each.
        good: Rows that count: reached, and not failed.
    """

    scalars: Scalars
    rows: np.ndarray
    group: np.ndarray
    epoch: np.ndarray
    members: np.ndarray
    good: np.ndarray


class Reduction(Protocol):
    """Something that successive blocks are added to."""

    def add(self, block: Block) -> None: ...


def reduce(outcome: Any, *reductions: Reduction) -> None:
    """Add every row of a `run.Outcome`, BLOCK at once, to all of them: its scalars, and `limits.POWERS`."""
    if outcome.scalars:
        add_all(outcome.fleet, _blocks(outcome), *reductions)


def _blocks(outcome: Any) -> Iterator[tuple[int, Scalars]]:
    for first in range(0, outcome.rows, BLOCK):
        scalars = _some(outcome.scalars, np.arange(first, min(first + BLOCK, outcome.rows)))
        yield first, scalars | bounds.powers(scalars)


def add_all(fleet: Any, values: Iterable[tuple[int, Scalars]], *reductions: Reduction) -> None:
    """Add blocks of a fleet's rows, each given by its first row and what is known of it, to all of them."""
    members, n_epochs = np.bincount(fleet.group), len(fleet.epochs)
    # Rows without numbers are masked by large ones.
    with np.errstate(over="ignore", invalid="ignore"):
        for first, scalars in values:
            status = scalars["status"]
            rows = np.arange(first, first + len(status))
            group, epoch = np.divmod(rows, n_epochs)
            good = (status != FAILED) & (status != NOT_RUN)
            block = Block(scalars, rows, group, epoch, members[group], good)
            for one in reductions:
                one.add(block)


def _some(scalars: Scalars, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Every scalar of some rows: read, or of those that are in memory."""
    if isinstance(scalars, results.Scalars):
        return scalars.take(rows)
    return {name: value[rows] for name, value in scalars.items()}


def names(outcome: Any) -> set[str]:
    """What the blocks of a run hold of each row."""
    return {*outcome.scalars, *bounds.POWERS} if outcome.scalars else set()


def everywhere(scalars: Scalars) -> np.ndarray:
    """All rows."""
    return np.ones(len(scalars["status"]), bool)


class Reached:
    """Rows that were reached, each once: how many, and whether any of them is good."""

    def __init__(self):
        self.count, self.good = 0, False

    def add(self, block: Block) -> None:
        self.count += int(np.sum(block.scalars["status"] != NOT_RUN))
        self.good = self.good or bool(block.good.any())


class Extreme:
    """The first row with the largest key, of the good rows that are `wanted`.

    Attributes:
        row: Its number, None while there is none.
        scalars: All that is known of it, as arrays of one row.
    """

    def __init__(self, key: Of, wanted: Of = everywhere):
        self.key, self.wanted = key, wanted
        self.row: int | None = None
        self.scalars: dict[str, np.ndarray] = {}
        self._largest = -np.inf

    def add(self, block: Block) -> None:
        among = np.flatnonzero(block.good & self.wanted(block.scalars))
        if len(among) == 0:
            return
        keys = self.key(block.scalars)[among]
        k = int(np.argmax(keys))
        if self.row is None or keys[k] > self._largest:
            self._largest, self.row = float(keys[k]), int(block.rows[among[k]])
            self.scalars = {name: value[among[k : k + 1]] for name, value in block.scalars.items()}

    def of(self, values: Of) -> float:
        """What `values` gives of that row."""
        return float(values(self.scalars)[0])


class Count:
    """Satellites and epochs of the rows that are `wanted`, failed ones too: how many, and the rows of the first."""

    def __init__(self, wanted: Of, named: int = 0):
        self.wanted, self.named = wanted, named
        self.count = 0
        self.rows: list[int] = []

    def add(self, block: Block) -> None:
        among = self.wanted(block.scalars)
        self.count += int(block.members[among].sum())
        if len(self.rows) < self.named:
            self.rows += block.rows[among][: self.named - len(self.rows)].tolist()


class Mean:
    """Mean over satellites and epochs."""

    def __init__(self, values: Of):
        self.values = values
        self._sum = self._weight = 0.0

    def add(self, block: Block) -> None:
        good = block.good
        members = block.members[good]
        self._sum += float(np.sum(self.values(block.scalars)[good] * members, dtype=np.float64))
        self._weight += int(members.sum())

    @property
    def value(self) -> float:
        return self._sum / self._weight


class Largest:
    """The largest value of the good rows, -inf while there is none."""

    def __init__(self, values: Of):
        self.values, self.value = values, -np.inf

    def add(self, block: Block) -> None:
        if block.good.any():
            self.value = max(self.value, float(self.values(block.scalars)[block.good].max()))


class Percentile:
    """What `share` per cent of satellites and epochs are at or below, as numpy interpolates it.

    Exact up to KEPT rows. Of more, the sorted values with their weights go two heaps into one of half as many
    entries, again and again (Munro and Paterson, Theor. Comput. Sci. 12 (1980) 315): of n rows the answer is a value
    of the run whose share is off by 50 log2(2 n/KEPT)/KEPT per cent at most, 0.016 of 18.8 million.
    """

    def __init__(self, values: Of, share: float):
        self.values, self.share = values, share
        self._levels: list[tuple[np.ndarray, np.ndarray] | None] = []
        self._loose: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, block: Block) -> None:
        values = self.values(block.scalars)[block.good].astype(np.float64)
        self._loose.append((values, block.members[block.good].astype(np.float64)))
        if sum(len(part) for part, _ in self._loose) <= KEPT:
            return
        values, weights = _joined(self._loose)
        whole = len(values) // KEPT * KEPT
        for first in range(0, whole, KEPT):
            part = slice(first, first + KEPT)
            self._carry(_sorted(values[part], weights[part]))
        self._loose = [(values[whole:], weights[whole:])]

    def _carry(self, heap: tuple[np.ndarray, np.ndarray]) -> None:
        for k, other in enumerate(self._levels):
            if other is None:
                self._levels[k] = heap
                return
            heap, self._levels[k] = _halved(other, heap), None
        self._levels.append(heap)

    @property
    def value(self) -> float:
        heaps = [*self._loose, *(level for level in self._levels if level is not None)]
        values, weights = _sorted(*_joined(heaps))
        upto = np.cumsum(weights)
        place = self.share / 100 * (upto[-1] - 1)
        # The values of rank floor and ceil of the place, the first having rank 0. A weight may have rounded.
        low, high = (
            values[min(np.searchsorted(upto, rank + 0.5), len(values) - 1)]
            for rank in (np.floor(place), np.ceil(place))
        )
        return float(low + (high - low) * (place - np.floor(place)))


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([part for part, _ in parts]), np.concatenate([weights for _, weights in parts])


def _sorted(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Without an order to bring the weights into, numpy sorts ten times as fast.
    if weights.min() == weights.max():
        return np.sort(values), weights
    order = np.argsort(values, kind="stable")
    return values[order], weights[order]


def _halved(one, two) -> tuple[np.ndarray, np.ndarray]:
    """Two heaps as one of KEPT entries of equal weight, each the value at the middle of what it stands for."""
    values, weights = _sorted(*_joined([one, two]))
    upto = np.cumsum(weights)
    each = upto[-1] / KEPT
    chosen = np.searchsorted(upto, (np.arange(KEPT) + 0.5) * each)
    return values[np.minimum(chosen, len(values) - 1)], np.full(KEPT, each)


class LargestBy:
    """The largest value at each of `count` places, and the first row that has it; -inf and -1 where there is none.

    `place` tells a block's places, one a row: `by_group`, `by_epoch`.
    """

    def __init__(self, values: Of, place: Callable[[Block], np.ndarray], count: int):
        self.values, self.place = values, place
        self.largest, self.row = np.full(count, -np.inf), np.full(count, -1)

    def add(self, block: Block) -> None:
        rows, place = block.rows[block.good], self.place(block)[block.good]
        values = self.values(block.scalars)[block.good]
        largest = np.full_like(self.largest, -np.inf)
        np.maximum.at(largest, place, values)
        best = np.flatnonzero((values == largest[place]) & (values > self.largest[place]))[::-1]
        # From the last to the first, which stays.
        self.largest[place[best]], self.row[place[best]] = values[best], rows[best]


def by_group(block: Block) -> np.ndarray:
    return block.group


def by_epoch(block: Block) -> np.ndarray:
    return block.epoch
