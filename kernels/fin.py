"""Straight radiating fin: 1-D finite volumes with T^4 on its faces, fins of a batch on the last axis.

    C dT/dt = d/dx[k(T) t dT/dx] + sum over the faces of q,    0 < x < L
    q = absorbed - eps(T) sigma [F T^4 + X (T^4 - T_n^4)]

per unit of fin area, one side counted: F the view to space, X that to a neighbour of known temperature T_n.
Either end is held at a temperature, fed with a heat flow, or insulated. The unknowns sit at the centres of n equal
cells; a held end is half a cell from the nearest of them. Thickness, conductivity and optics may vary from cell to
cell: second order in the cell size, and where they are constant with an error in even powers of it, so that
Richardson's extrapolation gains two orders at a time. What is left out costs nothing: absent terms are absent from
the compiled program.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from . import tridiagonal
from .constants import CONVERGED, NOT_CONVERGED, NOT_FINITE, SIGMA
from .numerics import segmented_scan
from .pytree import pytree, static

ENDS = ("temperature", "flux", "insulated")
NEWTON_LIMIT = 60  # iterations; the worst start between 100 and 600 K takes about 20
# The two stages of a time step (Alexander 1977): length of each over the step, and what is left of the first.
GAMMA = 1 - 0.5**0.5
PAST = (1 - 2 * GAMMA) / GAMMA


@pytree
class Face:
    """One radiating face. Each number is one a fin (*batch) or one a cell (n, *batch).

    Attributes:
        emissivity: Infrared, at `Fin.T_ref` [-].
        to_space: View factor to black space [-]; None: all that the neighbour leaves.
        to_neighbour: View of a neighbouring surface whose temperature the loads give [-]; None: there is none. For
            a black neighbour this is its view factor (`view_factor.parallel_plates`, `perpendicular_plates`); for
            a gray one this and `to_space` are the two areas of `view_factor.exchange_areas` over emissivity and
            area of the face.
        emissivity_slopes: c1, c2 ... of eps = emissivity (1 + c1 u + c2 u^2 ...), u = T - T_ref [1/K^j].
    """

    emissivity: Float[Array, "..."]
    to_space: Float[Array, "..."] | None = None
    to_neighbour: Float[Array, "..."] | None = None
    emissivity_slopes: tuple[Float[Array, "..."], ...] = ()


@pytree
class Fin:
    """Straight fin, or a batch of them.

    Attributes:
        length: Root to tip [m], (*batch).
        thickness: [m]; it, conductivity and heat capacity (*batch) or of each cell (n, *batch).
        conductivity: At T_ref [W/m/K].
        faces: The faces that radiate, any number of them.
        heat_capacity: Per unit of fin area, rho c t; steady functions do without [J/m^2/K].
        conductivity_slopes: c1, c2 ... of k = conductivity (1 + c1 u + c2 u^2 ...), u = T - T_ref [1/K^j],
            (*batch). k must stay > 0 between the temperatures that occur.
        T_ref: Where the slopes start from [K]. Static.
        root, tip: What `Loads.root` and `Loads.tip` mean: "temperature" [K]; "flux", the heat that enters there [W
            per metre of width]; "insulated", not given. Static.
        n_cells: Cells along the fin, >= 2. Static: a new value recompiles.
    """

    length: Float[Array, "*batch"]
    thickness: Float[Array, "..."]
    conductivity: Float[Array, "..."]
    faces: tuple[Face, ...]
    heat_capacity: Float[Array, "..."] | None = None
    conductivity_slopes: tuple[Float[Array, "*batch"], ...] = ()
    T_ref: float = static(default=300.0)
    root: str = static(default="temperature")
    tip: str = static(default="insulated")
    n_cells: int = static(default=64)

    def __post_init__(self):
        for name, kind in (("root", self.root), ("tip", self.tip)):
            if kind not in ENDS:
                raise ValueError(f"{name}: got {kind!r}; must be one of {', '.join(ENDS)}")

    @property
    def cell(self) -> Float[Array, "*batch"]:
        """Cell size [m]."""
        return self.length / self.n_cells

    @property
    def centres(self) -> Float[Array, "n *batch"]:
        """Distance of the cells' centres from the root [m]."""
        middle = (jnp.arange(self.n_cells, dtype=self.length.dtype) + 0.5) / self.n_cells
        return middle.reshape(-1, *([1] * self.length.ndim)) * self.length[None]


@pytree
class Loads:
    """What acts on a fin at one time; in a transient every array has the steps in front.

    Attributes:
        absorbed: Heat absorbed by each face [W/m^2], (*batch) or of each cell (n, *batch).
        root, tip: As `Fin.root` and `Fin.tip` say, (*batch) [K or W/m]; None where insulated.
        neighbour: Temperature of the surface that each face sees [K], (*batch) or (n, *batch); None for a face
            without `to_neighbour`, and () where no face has one.
    """

    absorbed: tuple[Float[Array, "..."], ...]
    root: Float[Array, "*batch"] | None = None
    tip: Float[Array, "*batch"] | None = None
    neighbour: tuple[Float[Array, "..."] | None, ...] = ()


class _Terms(NamedTuple):
    """Coefficients of the balance, all as rows that go with T: one row, or one a cell.

    Conduction is per unit of cell area, at T_ref: `root` and `tip` over the half cell to a held end, `inner` between
    neighbours. Polynomials in u = T - T_ref, lowest power first: `stretch`, the Kirchhoff transform theta(u) whose
    slope is k/k_ref; `emission`, what multiplies sigma T^4; `received`, from neighbours.
    """

    root: Array | None
    inner: Array
    tip: Array | None
    stretch: list[Array]
    emission: list[Array]
    received: list[Array]
    absorbed: Array


def _row(x: Array, like: Array) -> Array:
    return jnp.reshape(x, (1,) * (like.ndim - x.ndim) + x.shape)


def _terms(loads: Loads, fin: Fin, T: Float[Array, "n *batch"]) -> _Terms:
    kt = _row(fin.conductivity, T) * _row(fin.thickness, T) / _row(fin.cell, T) ** 2
    if kt.shape[0] == 1:
        inner = kt
    else:
        total = kt[1:] + kt[:-1]
        inner = 2 * kt[1:] * kt[:-1] / jnp.where(total > 0, total, 1.0)
    emission, received = [], []

    def add(terms, power, term):
        if power < len(terms):
            terms[power] = terms[power] + term
        else:
            terms.append(term)

    for i, face in enumerate(fin.faces):
        space, neighbour = face.to_space, face.to_neighbour
        for power, slope in enumerate((None, *face.emissivity_slopes)):
            emissivity = _row(face.emissivity, T)
            if slope is not None:
                emissivity = emissivity * _row(slope, T)
            if space is None:
                seen = emissivity
            else:
                seen = emissivity * _row(space, T)
                if neighbour is not None:
                    seen = seen + emissivity * _row(neighbour, T)
            add(emission, power, seen)
            if neighbour is not None:
                incident = SIGMA * _row(loads.neighbour[i], T) ** 4
                add(received, power, emissivity * _row(neighbour, T) * incident)
    zero = jnp.zeros_like(_row(fin.length, T))
    slopes = fin.conductivity_slopes
    return _Terms(
        root=2 * kt[:1] if fin.root == "temperature" else None,
        inner=inner,
        tip=2 * kt[-1:] if fin.tip == "temperature" else None,
        stretch=[zero, zero + 1, *(_row(c / (j + 2), T) for j, c in enumerate(slopes))] if slopes else [],
        emission=emission or [zero],
        received=received,
        absorbed=sum((_row(q, T) for q in loads.absorbed), zero),
    )


def _polynomial(coefficients: list[Array], a: Array, b: Array) -> tuple[Array, Array | None]:
    """Value at a, and difference quotient from a to b, the slope where they are equal; None of a constant.

    By Horner's rule, no difference taken: the quotient keeps its digits however close a and b are.
    """
    value, quotient = coefficients[-1], None
    for c in coefficients[-2::-1]:
        quotient = value if quotient is None else quotient * b + value
        value = value * a + c
    return value, quotient


def _stretch(a: Array, b: Array, terms: _Terms, fin: Fin) -> Array | float:
    """Mean of k/k_ref between temperatures a and b, [theta(b) - theta(a)]/(b - a)."""
    if not terms.stretch:
        return 1.0
    mean = _polynomial(terms.stretch, a - fin.T_ref, b - fin.T_ref)[1]
    assert mean is not None  # theta is linear at least
    return mean


def _ends(T: Array, loads: Loads, terms: _Terms, fin: Fin) -> tuple[Array, Array]:
    """Heat into the first and into the last cell from their ends, per unit of cell area [W/m^2]."""

    def end(kind, value, T, conductance):
        if kind == "temperature":
            value = _row(value, T)
            return conductance * _stretch(T, value, terms, fin) * (value - T)
        if kind == "flux":
            return jnp.broadcast_to(_row(value, T) / _row(fin.cell, T), T.shape)
        return jnp.zeros_like(T)

    return end(fin.root, loads.root, T[:1], terms.root), end(fin.tip, loads.tip, T[-1:], terms.tip)


def _radiation(T: Array, terms: _Terms, fin: Fin) -> Array:
    """Net heat radiated by the faces [W/m^2]."""
    u = T - fin.T_ref
    net = _polynomial(terms.emission, u, u)[0] * (SIGMA * T**4)
    return net - _polynomial(terms.received, u, u)[0] if terms.received else net


def _radiation_slope(T: Array, terms: _Terms, fin: Fin, inertia: Array | float) -> tuple[Array, Array]:
    """Slope of the net radiation, that of T^4 alone and the whole [W/m^2/K].

    Where the emissivity rises with T a cold cell may gain more from a hot neighbour than it loses. The whole is
    bounded so that it stays positive with the `inertia` beside it; at short steps the bound is out of reach.
    """
    u = T - fin.T_ref
    value, quotient = _polynomial(terms.emission, u, u)
    own = value * (4 * SIGMA * T**3)
    if quotient is None:
        return own, own
    rest = quotient * (SIGMA * T**4)
    if len(terms.received) > 1:
        rest = rest - _polynomial(terms.received, u, u)[1]
    return own, own + jnp.maximum(rest, -(inertia + 0.75 * own))


def _balance(T: Array, loads: Loads, terms: _Terms, fin: Fin) -> Array:
    # Differences of neighbours are exact in floating point, so this form stays accurate in float32 where a
    # product with the matrix would lose n^2 roundings.
    inner = terms.inner * _stretch(T[:-1], T[1:], terms, fin) * jnp.diff(T, axis=0)
    first, last = _ends(T, loads, terms, fin)
    conduction = jnp.diff(jnp.concatenate([-first, inner, last]), axis=0)
    return conduction + (terms.absorbed - _radiation(T, terms, fin))


def fin_residual(T: Float[Array, "n *batch"], loads: Loads, fin: Fin) -> Float[Array, "n *batch"]:
    """Net heat into each cell, zero in the steady state [W/m^2].

        d/dx(k t dT/dx) + sum over the faces of {absorbed - eps sigma [F T^4 + X (T^4 - T_n^4)]}

    Args:
        T: Cell temperatures, root to tip [K].
        loads: What acts on the fin.
        fin: Its size, material and faces.

    Between cells flows the harmonic mean of their k_ref t times the difference of theta = Int k/k_ref dT, which is
    Kirchhoff's transform: exact in one dimension for whatever k(T), and the sum over the cells is conservative.
    """
    return _balance(T, loads, _terms(loads, fin, T), fin)


def _solve_linearised(T: Array, slope: Array, rhs: Array, terms: _Terms, fin: Fin) -> Array:
    """Solve (slope - A) x = rhs, A conduction linearised at T."""
    inner = jnp.broadcast_to(terms.inner, (T.shape[0] - 1, *T.shape[1:]))
    none = jnp.zeros_like(T[:1])
    first = none if terms.root is None else none + terms.root
    last = none if terms.tip is None else none + terms.tip
    faces = jnp.concatenate([first, inner, last])
    before, after = faces[:-1], faces[1:]
    links = before + after
    if terms.stretch:
        # theta is the unknown of conduction: its slope scales the columns.
        k = jnp.asarray(_stretch(T, T, terms, fin))
        links = links * k
        before = before * jnp.concatenate([none, k[:-1]])
        after = after * jnp.concatenate([k[1:], none])
    return tridiagonal.solve(-before, links + slope, -after, rhs)


def _diagonals(linear, like: Float[Array, "n *batch"]):
    """The three diagonals of a tridiagonal linear map, from what it does to three combs."""
    row = jnp.arange(like.shape[0]).reshape(-1, *([1] * (like.ndim - 1)))
    images = [linear(jnp.broadcast_to((row % 3 == k).astype(like.dtype), like.shape)) for k in range(3)]

    def pick(offset):
        return sum((row % 3 == (k - offset) % 3).astype(like.dtype) * image for k, image in enumerate(images))

    return pick(-1), pick(0), pick(1)


def fin_steady(
    loads: Loads, fin: Fin, T_start: Float[Array, "n *batch"] | None = None
) -> tuple[Float[Array, "n *batch"], Int[Array, "*batch"]]:
    """Steady cell temperatures, root to tip [K], and whether they are that.

    Args:
        loads: What acts on the fin.
        fin: Its size, material and faces.
        T_start: Where Newton starts, > 0 [K]; 300 K if not given.

    Returns:
        T, and status CONVERGED, NOT_CONVERGED or NOT_FINITE of each fin. Without a held end a solution exists only
        if the fin radiates and what it receives is > 0; raise the heat flow or the load of one that does not
        converge.

    Newton on the tridiagonal system of `fin_residual`. With constant properties minus the residual is convex in T
    and its Jacobian is an M-matrix: the first full step lands above the solution wherever it starts, the others fall
    on it without oscillation (Ortega and Rheinboldt, Iterative Solution of Nonlinear Equations in Several Variables,
    1970, section 13.3). A step is shortened where it would more than double a temperature or halve it, lest k(T)
    and eps(T) be read far outside their range. Each fin stops by itself. Derivatives, of any order and in both
    modes, come from the implicit function theorem, not from the iterations: one more tridiagonal solve.
    """
    if T_start is None:
        T_start = jnp.full((fin.n_cells, *fin.length.shape), 300, fin.length.dtype)
    # Newton squares its relative error until rounding of the matrix, where links outweigh radiation by 1/eps, lets it
    # only shrink: this step leaves less than a rounding of it in either case.
    tolerance = float(jnp.finfo(T_start.dtype).eps) ** 0.75

    def residual(T):
        return fin_residual(T, loads, fin)

    def newton(f, T):
        terms = _terms(loads, fin, T)

        def advance(carry):
            T, size, count = carry
            step = _solve_linearised(T, _radiation_slope(T, terms, fin, 0.0)[1], f(T), terms, fin)
            relative = step / T
            excess = jnp.max(jnp.maximum(relative, -2 * relative), axis=0)
            going = ~(size <= tolerance)
            T = jnp.where(going[None], T + step / jnp.maximum(excess, 1.0)[None], T)
            return T, jnp.where(going, jnp.max(jnp.abs(relative), axis=0), size), count + 1

        def unfinished(carry):
            # A size that is not a number stays so: that fin is given up.
            return jnp.any(carry[1] > tolerance) & (carry[2] < NEWTON_LIMIT)

        size = jnp.full_like(T[0], jnp.inf)
        T, size, _ = lax.while_loop(unfinished, advance, (T, size, jnp.asarray(0)))
        return T, size

    def tangent(linear, y):
        return tridiagonal.solve(*_diagonals(linear, y), y)

    T, size = lax.custom_root(residual, T_start, newton, tangent, has_aux=True)
    status = jnp.where(size <= tolerance, CONVERGED, NOT_CONVERGED)
    status = jnp.where(jnp.all(jnp.isfinite(T), axis=0), status, NOT_FINITE)
    return T, status.astype(jnp.int32)


class _Stage(NamedTuple):
    T: Array  # where it is linearised [K]
    slope: Array  # of its radiation [W/m^2/K]
    rise: Array  # its solution [K]


def _stages(T: Array, loads: Loads, dt: Array, terms: _Terms, fin: Fin) -> tuple[_Stage, _Stage]:
    # Heat flows, not heats: conduction's part of the matrix is then the same in all steps. What keeps the division
    # finite in a step of no length (7e-16 s in float32) is too short to change a temperature.
    inertia = _row(fin.heat_capacity, T) / (GAMMA * _row(dt, T) + float(jnp.finfo(T.dtype).tiny) ** 0.4)

    def stage(T, past):
        heat = _balance(T, loads, terms, fin)
        heat = heat if past is None else heat + PAST * inertia * past
        own, slope = _radiation_slope(T, terms, fin, inertia)
        # The chord of T^4 over a relative rise x is steeper than its tangent by 1 + 3/2 x ..., and the cell's own
        # heat says roughly how much it is going to rise.
        rise = jnp.maximum(heat, 0.0) / ((inertia + slope) * T)
        slope = slope + 1.5 * rise * own
        return _Stage(T, slope, _solve_linearised(T, inertia + slope, heat, terms, fin))

    first = stage(T, None)
    return first, stage(T + first.rise, first.rise)


def fin_step(
    T: Float[Array, "n *batch"], loads: Loads, dt: Float[Array, "*batch"], fin: Fin
) -> Float[Array, "n *batch"]:
    """Cell temperatures after one time step with constant loads [K].

    Arguments as in `fin_residual`, dt [s].

    Two backward Euler stages of length gamma dt, gamma = 1 - 1/sqrt 2 (Alexander, SIAM J. Numer. Anal. 14 (1977)
    1006), each with one tridiagonal solve:

        C (T1 - T) = gamma dt f(T1)
        C (T2 - T1) = (1 - 2 gamma)/gamma C (T1 - T) + gamma dt f(T2)

    Second order and L-stable: a jump of the load or of an end, which each edge of a shadow brings, is damped at
    once; a mode that the step does not resolve may end up to 21 % of its way beyond the new balance, 4 % after two
    steps. The stability function is TR-BDF2's; unlike there no stage reflects a jump to its other side. f is
    linearised about the stage's start, its T^4 by a chord where the cell is being heated: a cold fin in full sun
    stays within that bound too, however long the step. A step of length 0 changes nothing, and a steady state stays
    itself.
    """
    last = _stages(T, loads, dt, _terms(loads, fin, T), fin)[1]
    return last.T + last.rise


class StepHeat(NamedTuple):
    """Heat over one step, per metre of width [J/m]: root and tip as it enters, net radiation as it leaves."""

    root: Float[Array, "*batch"]
    tip: Float[Array, "*batch"]
    absorbed: Float[Array, "*batch"]
    radiated: Float[Array, "*batch"]


def step_heat(T: Float[Array, "n *batch"], loads: Loads, dt: Float[Array, "*batch"], fin: Fin) -> StepHeat:
    """Where the heat of one `fin_step` from T comes from and goes to, as the step itself counts it.

    root + tip + absorbed - radiated is the sum of C dx (T2 - T) over the cells, to rounding.
    """
    terms = _terms(loads, fin, T)

    def heat(stage):
        T, slope, rise = stage
        k = _stretch(T, T, terms, fin)
        first, last = _ends(T, loads, terms, fin)
        if terms.root is not None:
            first = first - terms.root * (k * rise)[:1]
        if terms.tip is not None:
            last = last - terms.tip * (k * rise)[-1:]
        absorbed = jnp.broadcast_to(terms.absorbed, T.shape)
        radiated = _radiation(T, terms, fin) + slope * rise
        return StepHeat(*(jnp.sum(x, axis=0) for x in (first, last, absorbed, radiated)))

    one, two = (heat(stage) for stage in _stages(T, loads, dt, terms, fin))
    dx = fin.cell
    return StepHeat(*(dx * dt * ((1 - GAMMA) * a + GAMMA * b) for a, b in zip(one, two)))


def fin_transient(
    T: Float[Array, "n *batch"], loads: Loads, dt: Float[Array, "k *batch"], fin: Fin
) -> Float[Array, "n *batch"]:
    """Cell temperatures after k steps of `fin_step` [K].

    Row i of every array of `loads` and of dt holds over step i: steps laid between the jumps of the loads keep the
    second order. In reverse mode each segment of about sqrt k steps is marched again from its start, and each step
    from its own: memory grows as the square root of k.
    """

    @jax.checkpoint
    def step(T, row):
        loads, dt = row
        return fin_step(T, loads, dt, fin), None

    return segmented_scan(step, T, (loads, dt))[0]


def face_temperatures(T: Float[Array, "n *batch"], loads: Loads, fin: Fin) -> Float[Array, "n+1 *batch"]:
    """Temperatures at x = 0, dx, 2 dx ... L: root, between the cells, tip [K]. Second order."""
    kt = jnp.broadcast_to(_row(fin.conductivity, T) * _row(fin.thickness, T), T.shape)
    terms = _terms(loads, fin, T)

    def end(kind, value, T, kt):
        if kind == "temperature":
            return jnp.broadcast_to(_row(value, T), T.shape)
        if kind == "insulated":
            return T
        return T + _row(value, T) * _row(fin.cell, T) / (2 * kt * _stretch(T, T, terms, fin))

    first, last = end(fin.root, loads.root, T[:1], kt[:1]), end(fin.tip, loads.tip, T[-1:], kt[-1:])
    return jnp.concatenate([first, (T[1:] + T[:-1]) / 2, last])


def edge_heat(
    T: Float[Array, "n *batch"], loads: Loads, fin: Fin
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """Heat that enters the fin at its root and at its tip [W per metre of width].

        -k t dT/dx(0),    k t dT/dx(L)

    In the steady state their sum is what the cells radiate less what they absorb, to rounding. Second order.
    """
    first, last = _ends(T, loads, _terms(loads, fin, T), fin)
    return fin.cell * first[0], fin.cell * last[0]


def net_radiation(T: Float[Array, "n *batch"], loads: Loads, fin: Fin) -> Float[Array, "n *batch"]:
    """Heat that the faces of each cell radiate, less what neighbours send; absorbed loads not counted [W/m^2]."""
    return _radiation(T, _terms(loads, fin, T), fin)


def fin_efficiency(T: Float[Array, "n *batch"], loads: Loads, fin: Fin) -> Float[Array, "*batch"]:
    """Heat that enters at the ends over that of a fin all at root temperature [-].

        eta = Q / (L (eps sigma T_root^4 - q_abs))

    (Mackay, Design of Space Powerplants, 1963.) It tends to 1 for a short, thick fin. Undefined where the
    root is at the sink temperature and rejects nothing.
    """
    terms = _terms(loads, fin, T)
    isothermal = jnp.broadcast_to(face_temperatures(T, loads, fin)[:1], T.shape)
    ideal = jnp.sum(_radiation(isothermal, terms, fin) - terms.absorbed, axis=0) * fin.cell
    return sum(edge_heat(T, loads, fin)) / ideal
