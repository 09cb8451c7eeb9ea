"""Sizing: the values of some keys of a case that make a figure best while all limits hold.

    found = size(case.load("mine.toml"))
    found.case                    # the case with them, which runs; None if no case meets the limits
    sizing_report.report(found)   # what the table and sizing.json say

The [sizing] section names variables with bounds, the objective, and the environments and times of life that must
all be survived, at every epoch, by every satellite. Limits are those of the case, after their uncertainty, each with
a row for each satellite, epoch and condition. The search is that of `optimise`, with the exact derivatives of
`differentiable`, from several starts.
"""

import difflib
import math
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from . import case as cases
from . import keys
from .case import CaseError
from .limits import difference
from .optimise import Evaluation, NoStart, Problem, Solution, minimise
from .schema import Case, Sizing

DRAWS = 20  # times that points are drawn anew in place of those that checks between keys refuse
DIGITS = 12  # of a value in the sized case
SCHEDULED = re.compile(r"payload\.(demand|eclipse_demand|windows\.\d+\.demand)")  # what changes in flight

Progress = Callable[[int, int, float, float], None]


class Objective(NamedTuple):
    """A figure, and whether it is to be large (1) or small (-1)."""

    figure: str
    better: int
    unit: str


class Constraint(NamedTuple):
    """One thing that must hold in every row: sign * (figure - bound) >= 0.

    Attributes:
        name: As the report has it.
        figure: Of the model.
        sign: 1: the figure must not be below the bound; -1: not above it.
        bound: In the figure's unit.
        unit: Of the margin.
    """

    name: str
    figure: str
    sign: float
    bound: float
    unit: str


@dataclass(frozen=True)
class Sized:
    """What sizing has found.

    Attributes:
        task: The problem.
        case: With the best values; of a variable that has one for each epoch the least. None where none is feasible.
        starts: Where the searches began, (k,) each.
        solutions: Where they ended; None where the model has no finite answer at the start.
        best: Of them: the best feasible one, or else that of the least violation.
        wall: Seconds: all, compile, run.
    """

    task: "Task"
    case: Case | None
    starts: tuple[np.ndarray, ...]
    solutions: tuple[Solution | None, ...]
    best: Solution
    wall: dict[str, float]


def size(case: Case, progress: Progress = lambda start, calls, objective, margin: None) -> Sized:
    """Size a case as its [sizing] section says.

    Args:
        progress: Called after each evaluation with the number of the search, its evaluations so far, the objective
            (the negative of a figure that is to be large) and the worst margin, scaled as in `optimise`.

    Raises:
        CaseError: the section is missing, or at odds with the case; no finite answer; an objective that no variable
            changes.
    """
    began = time.perf_counter()
    spec = section(case)
    check_variables(case, spec)
    names = [variable.name for variable in spec.variables]
    # What a schedule is compared with: all demands at 1.
    others = tuple(name for name in demands(case) if name not in names) if schedules(names) else ()
    exact = model_of(case, others)
    smooth = model_of(case, others, spec.smooth) if spec.smooth > 0 else None
    return search(case, exact, smooth, progress, began)


def conditions(case: Case) -> list[Any]:
    """Environments x lives of [sizing], and the case's own condition if it is not among them.

    A run of the sized case sees that one, and no level stands in for another: at aphelion nominal sunlight is less
    than that of cold, which knows no distance.
    """
    from . import differentiable

    spec, own = section(case), case.environment
    out = list(differentiable.conditions(spec.environments, spec.lives))
    of_level = (*(name.partition(".")[2] for name in keys.OF_LEVEL), "scale_with_distance")
    plain = all(getattr(own, name) is None for name in of_level)
    levels = {None, own.level} if plain else {None}
    if not any(one.environment in levels and one.life in (None, own.life) for one in out):
        out.append(differentiable.Condition())
    return out


def model_of(case: Case, others: tuple[str, ...] = (), smooth: float = 0.0) -> Any:
    """The case as a function of its variables and of other keys, under the conditions of its [sizing]."""
    from .differentiable import Differentiable

    spec = section(case)
    studied = case
    if spec.epochs is not None:
        studied = case.model_copy(update={"epoch": case.epoch.model_copy(update={"count": spec.epochs})})
    names = [variable.name for variable in spec.variables]
    per_epoch = [variable.name for variable in spec.variables if variable.per == "epoch"]
    return Differentiable(studied, [*names, *others], conditions(case), per_epoch=per_epoch, smooth=smooth)


def search(
    case: Case,
    model: Any,
    smooth: Any = None,
    progress: Progress = lambda start, calls, objective, margin: None,
    began: float | None = None,
) -> Sized:
    """The best of the searches from all starts.

    Args:
        case: With [sizing].
        model: `differentiable.Differentiable` of its variables, under its conditions. Other entries stay as they are.
        smooth: The same smoothed, through which each search goes first.
        began: Instant [s] from which the wall time is taken; now if not given.

    Raises:
        CaseError: as `size`.
    """
    began = time.perf_counter() if began is None else began
    task = Task(case, model)
    smoothed = None if smooth is None else Task(case, smooth)
    starts = task.starts()
    solutions: list[Solution | None] = []
    for i, start in enumerate(starts):
        told = partial(progress, i)
        try:
            first = start if smoothed is None else minimise(smoothed.problem(), start, told).x
            solutions.append(minimise(task.problem(), first, told))
        except NoStart:
            solutions.append(None)
    ended = [one for one in solutions if one is not None]
    if not ended:
        raise CaseError(
            f"{case.source}: sizing.starts: got {len(starts)}; at none of them has the case a periodic state"
        )
    if not task.sensitive:
        raise CaseError(task.insensitive())
    best = min(ended, key=_rank)
    sized = None
    if best.feasible:
        try:
            sized = task.case_of(best.x)
        except CaseError as error:
            raise CaseError(
                f"{case.source}: sizing.variables: the best values make no valid case: {error.lines[0]}"
            ) from None
    walls = [one.slopes.wall for one in (task, smoothed) if one is not None]
    wall = {name: sum(one[name] for one in walls) for name in ("compile", "run")}
    return Sized(
        task, sized, tuple(starts), tuple(solutions), best, {"all": time.perf_counter() - began} | wall
    )


def _rank(solution: Solution) -> tuple[float, float]:
    """Feasible ones by their objective, then the others by their violation."""
    violation = 0.0 if solution.feasible else solution.violations.max(initial=0.0)
    return violation, solution.found.objective


# ------------------------------------------------------------------------------------------------ the case


def section(case: Case) -> Sizing:
    """Its [sizing].

    Raises:
        CaseError: it has none.
    """
    if case.sizing is None:
        raise CaseError(f"{case.source}: sizing: missing; a [sizing] section names objective and variables")
    return case.sizing


def schedules(names: Iterable[str]) -> bool:
    """Whether a demand is among some keys."""
    return any(SCHEDULED.fullmatch(name) for name in names)


def demands(case: Case) -> list[str]:
    """Keys of the demand over a revolution that the case has."""
    return [name for name in keys.continuous(case) if SCHEDULED.fullmatch(name)]


def check_variables(case: Case, spec: Sizing) -> None:
    """Raise CaseError if a variable cannot vary, or not between its bounds.

    Checks between keys are tried with each variable at each bound and the others as the case has them.
    """
    for i, variable in enumerate(spec.variables):
        key, here = keys.find(case, variable.name), f"{case.source}: sizing.variables.{i}"
        for side, bound in (("min", variable.min), ("max", variable.max)):
            said = f"{here}.{side}: got {bound:g}"
            if not key.holds(bound):
                raise CaseError(f"{said}; {variable.name} must be {key.range}")
            if bound > key.value if side == "min" else bound < key.value:
                raise CaseError(
                    f"{said}, a bound that excludes the start: the case has {variable.name} = {key.value:g}"
                )
            try:
                keys.changed(case, {variable.name: bound})
            except CaseError as error:
                raise CaseError(f"{said}, with which the case is refused: {error.lines[0]}") from None


# --------------------------------------------------------------------------------------------- the problem


class Task:
    """The optimisation problem of a case and a model of it.

    Attributes:
        entries: Places of the variables among the model's entries.
        names, keys: Of the variables: as the model names them, and as the case does.
        low, high, start: (k,) of them.
        constraints, groups: What must hold, and (m,) which of them each row of margins is of.
        places: (m,) of the model that each row of margins is of; None where it is of all.
        sensitive: Whether a variable has been seen to change the objective.
    """

    def __init__(self, case: Case, model: Any, designs: int = 1):
        """
        Args:
            case: With [sizing].
            model: With its variables among its entries.
            designs: Solved at once.
        """
        from .slopes import Slopes

        self.case, self.spec, self.model = case, section(case), model
        bounds = {variable.name: (variable.min, variable.max) for variable in self.spec.variables}
        of = [name.partition("@")[0] for name in model.names]
        self.entries = np.array([i for i, name in enumerate(of) if name in bounds])
        self.names, self.keys = ([one[i] for i in self.entries] for one in (model.names, of))
        self.low, self.high = np.array([bounds[name] for name in self.keys], float).T
        self.start = np.asarray(model.start, float)[self.entries]
        self.objective = self._objective()
        self.constraints = [*self._limits(), *self._held()]
        self.slopes = Slopes(model, self.entries, {one.figure for one in self.constraints}, designs)
        self.groups, self.places = np.zeros(0, int), []
        for i, one in enumerate(self.constraints):
            places = list(model.places) if model.figures[one.figure].of_rows else [None]
            self.groups = np.append(self.groups, np.full(len(places), i))
            self.places += places
        # Where all limits of power must hold, compute counts as if nothing were curtailed.
        limits = [one.limit for one in model.figures.values() if one.limit is not None]
        ignored = any(limit.of_power and limit.name in self.spec.ignore for limit in limits)
        self._judged = "figures" if ignored else "uncurtailed"
        self.sensitive = False

    def problem(self) -> Problem:
        return Problem(self.evaluate, self.low, self.high, self.groups)

    def full(self, x: np.ndarray) -> np.ndarray:
        """The model's entries with the variables at x (k,)."""
        out = np.array(self.model.start, float)
        out[self.entries] = x
        return out

    def evaluate(self, x: np.ndarray) -> Evaluation:
        """Objective, margins and their slopes at x (k,)."""
        objective, *parts = (part[0] for part in self.evaluate_all(self.full(x)[None]))
        return Evaluation(float(objective), *parts)

    def evaluate_all(self, full: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of many designs, given by all entries of the model: as `optimise_batch.Evaluations`.

        The objective is infinite where a row has no periodic state.
        """
        found = self.slopes(full)
        value, slope = getattr(found, self._judged)[self.objective.figure]
        self.sensitive |= bool(np.any(slope != 0))
        sign = -self.objective.better
        rows = [self._rows(found, one) for one in self.constraints]
        n, k = slope.shape
        margins = np.concatenate([np.zeros((n, 0)), *(values for values, _ in rows)], axis=1)
        jacobian = np.concatenate([np.zeros((n, 0, k)), *(slopes for _, slopes in rows)], axis=1)
        return np.where(found.failed, np.inf, sign * value), sign * slope, margins, jacobian

    def whole(self, full: np.ndarray) -> dict[str, float]:
        """Every figure of the model at its entries `full`."""
        return {name: float(value[0]) for name, (value, _) in self.slopes(full[None]).figures.items()}

    def margins(self, full: np.ndarray) -> list[np.ndarray]:
        """Of the rows of each constraint, at the model's entries."""
        found = self.slopes(full[None])
        return [self._rows(found, one)[0][0] for one in self.constraints]

    def _rows(self, found: Any, one: Constraint) -> tuple[np.ndarray, np.ndarray]:
        """Margins (n, rows) of a constraint and their slopes (n, rows, k)."""
        if self.model.figures[one.figure].of_rows:
            values, slopes = found.rows[one.figure]
        else:
            values, slopes = (part[:, None] for part in getattr(found, self._judged)[one.figure])
        return one.sign * (values - one.bound), one.sign * slopes

    def insensitive(self) -> str:
        """What is said where no variable changes the objective."""
        total = self.case.mass.total_kg
        hint = (
            "" if total is None else f"; mass.total_kg = {total:g} stands in place of the sum of the masses"
        )
        return f"{self.case.source}: sizing.objective: got '{self.objective.figure}'; no variable changes it{hint}"

    def case_of(self, x: np.ndarray) -> Case:
        """The case at x (k,), validated; it holds the least of a variable that has a value for each epoch.

        Raises:
            CaseError: a check between keys refuses it.
        """
        values: dict[str, float] = {}
        for name, value in zip(self.keys, x.tolist()):
            values[name] = min(values.get(name, math.inf), float(f"{value:.{DIGITS}g}"))
        data = keys.put(self.case, values).model_dump(by_alias=True, exclude_none=True)
        return cases.validate(data, self.case.source)

    def starts(self) -> list[np.ndarray]:
        """The case's own, then a Latin hypercube between the bounds.

        Raises:
            CaseError: checks between keys refuse too many of the points drawn.
        """
        from scipy.stats import qmc

        out, wanted, refused = [self.start], self.spec.starts, ""
        draws = qmc.LatinHypercube(len(self.start), rng=np.random.default_rng(self.spec.seed))
        for _ in range(DRAWS):
            if len(out) == wanted:
                return out
            for z in draws.random(wanted - len(out)):
                x = self.low + z * (self.high - self.low)
                try:
                    self.case_of(x)
                    out.append(x)
                except CaseError as error:
                    refused = error.lines[0]
        if len(out) == wanted:
            return out
        raise CaseError(
            f"{self.case.source}: sizing.starts: got {wanted}; too few points between the bounds make a valid case:"
            f" {refused}"
        )

    def _objective(self) -> Objective:
        name, figures = self.spec.objective, self.model.figures
        here = f"{self.case.source}: sizing.objective: got '{name}'"
        if name not in figures:
            raise CaseError(f"{here}; {_unknown(name, self._plain(), 'figure')}")
        if figures[name].better == 0:
            raise CaseError(f"{here}, of which neither more nor less is better")
        return Objective(name, figures[name].better, figures[name].unit)

    def _limits(self) -> list[Constraint]:
        limits = {one.limit.name: one for one in self.model.figures.values() if one.limit is not None}
        for i, name in enumerate(self.spec.ignore):
            if name not in limits:
                raise CaseError(
                    f"{self.case.source}: sizing.ignore.{i}: got '{name}'; {_unknown(name, limits, 'limit')}"
                )
        return [
            Constraint(name, one.name, 1.0, 0.0, difference(one.unit))
            for name, one in limits.items()
            if name not in self.spec.ignore
        ]

    def _held(self) -> list[Constraint]:
        out, figures = [], self.model.figures
        for i, one in enumerate(self.spec.constraints):
            if one.figure not in figures:
                raise CaseError(
                    f"{self.case.source}: sizing.constraints.{i}.of: got '{one.figure}';"
                    f" {_unknown(one.figure, self._plain(), 'figure')}"
                )
            unit = difference(figures[one.figure].unit)
            for sign, bound, side in ((1.0, one.min, "min"), (-1.0, one.max, "max")):
                if bound is not None:
                    out.append(Constraint(f"{one.figure} {side} {bound:g}", one.figure, sign, bound, unit))
        return out

    def _plain(self) -> list[str]:
        """Names of figures that are no margins of limits."""
        return [name for name, one in self.model.figures.items() if one.limit is None]


def _unknown(name: str, known: Iterable[str], what: str) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, 1, cutoff=0.5)
    if near:
        return f"unknown {what}; did you mean {near[0]}?"
    return f"unknown {what}; those of this case are {', '.join(known)}"
