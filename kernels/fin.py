"""Straight radiating fin: 1-D finite volumes with T^4, fins of a batch on the last axis.

    C dT/dt = k t d2T/dx2 + q - eps sigma T^4,    0 < x < L

per unit of fin area, one side counted: `eps` and `q` add up both faces. The root, x = 0, has a given
temperature or a given heat flow; the tip, x = L, is adiabatic. The unknowns sit at the centres of n equal
cells; a ghost cell puts the root half a cell before the first of them. Second order in the cell size, with an
error in even powers of it, so that Richardson's extrapolation gains two orders at a time.
"""

from dataclasses import dataclass, field
from typing import no_type_check

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from . import tridiagonal
from .constants import SIGMA

NEWTON_LIMIT = 60  # iterations; the worst start between 100 and 600 K takes about 20


# Transformations rebuild a pytree with placeholders for leaves: its fields cannot be checked at run time.
@no_type_check
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Fin:
    """Straight fin of constant thickness, or a batch of them.

    Attributes:
        length: Root to tip [m].
        thickness: [m].
        conductivity: [W/m/K].
        emissivity: Infrared, sum over the faces that radiate, view factors included [-].
        heat_capacity: Per unit of fin area, rho c t; steady functions ignore it [J/m^2/K].
        root: What `root` means below: "temperature" [K] or "flux", the heat that enters the root [W per metre
            of width]. Static.
        n_cells: Cells along the fin. Static: a new value recompiles.
    """

    length: Float[Array, "*batch"]
    thickness: Float[Array, "*batch"]
    conductivity: Float[Array, "*batch"]
    emissivity: Float[Array, "*batch"]
    heat_capacity: Float[Array, "*batch"]
    root: str = field(metadata={"static": True})
    n_cells: int = field(metadata={"static": True})

    def __post_init__(self):
        if self.root not in ("temperature", "flux"):
            raise ValueError(f"root: got {self.root!r}; must be 'temperature' or 'flux'")

    @property
    def cell(self) -> Float[Array, "*batch"]:
        """Cell size [m]."""
        return self.length / self.n_cells

    @property
    def conductance(self) -> Float[Array, "*batch"]:
        """Between neighbouring cells, per unit of cell area, k t / dx^2 [W/m^2/K]."""
        return self.conductivity * self.thickness / self.cell**2


def fin_residual(
    T: Float[Array, "n *batch"], root: Float[Array, "*batch"], q_abs: Float[Array, "*batch"], fin: Fin
) -> Float[Array, "n *batch"]:
    """Net heat into each cell, zero in the steady state [W/m^2].

        k t d2T/dx2 + q_abs - eps sigma T^4,    T(0) = root  or  -k t dT/dx(0) = root,    dT/dx(L) = 0

    Args:
        T: Cell temperatures, root to tip [K].
        root: Root temperature [K] or heat flow into the root [W/m], as `fin.root` says.
        q_abs: Heat absorbed by both faces together [W/m^2].
        fin: Its size and material.

    Three-point differences, second order; the sum over the cells is conservative.
    """
    # From the ghost cell, 2 root - T[0] or T[0] + root dx / (k t), to the first.
    if fin.root == "temperature":
        first = 2 * (T[0] - root)
    else:
        first = -root * fin.cell / (fin.conductivity * fin.thickness)
    # Differences of neighbours are exact in floating point, so this form stays accurate in float32 where a
    # product with the matrix would lose n^2 roundings.
    steps = jnp.concatenate([first[None], jnp.diff(T, axis=0), jnp.zeros_like(T[:1])])
    conduction = fin.conductance[None] * jnp.diff(steps, axis=0)
    return conduction + q_abs[None] - fin.emissivity[None] * (SIGMA * T**4)


def _solve_linearised(
    T: Float[Array, "n *batch"],
    capacity: Float[Array, "*batch"],
    h: Float[Array, "*batch"],
    rhs: Float[Array, "n *batch"],
    fin: Fin,
) -> Float[Array, "n *batch"]:
    """Solve (capacity - h J) x = rhs, J the Jacobian of `fin_residual` at T."""
    link = jnp.broadcast_to((h * fin.conductance)[None], T.shape)
    # The root is half a cell away, which makes a link of twice the conductance, or it is no link at all.
    first = 3 * link[:1] if fin.root == "temperature" else link[:1]
    links = jnp.concatenate([first, 2 * link[1:-1], link[-1:]])
    diag = capacity[None] + links + (h * fin.emissivity)[None] * (4 * SIGMA * T**3)
    return tridiagonal.solve(-link, diag, -link, rhs)


def _diagonals(linear, like: Float[Array, "n *batch"]):
    """The three diagonals of a tridiagonal linear map, from what it does to three combs."""
    row = jnp.arange(like.shape[0]).reshape(-1, *([1] * (like.ndim - 1)))
    images = [linear(jnp.broadcast_to((row % 3 == k).astype(like.dtype), like.shape)) for k in range(3)]

    def pick(offset):
        return sum((row % 3 == (k - offset) % 3).astype(like.dtype) * image for k, image in enumerate(images))

    return pick(-1), pick(0), pick(1)


def fin_steady(
    root: Float[Array, "*batch"],
    q_abs: Float[Array, "*batch"],
    fin: Fin,
    T_start: Float[Array, "n *batch"] | None = None,
) -> Float[Array, "n *batch"]:
    """Steady cell temperatures, root to tip [K].

    Args:
        root: Root temperature [K] or heat flow into the root [W/m], as `fin.root` says.
        q_abs: Heat absorbed by both faces together [W/m^2].
        fin: Its size and material, with `fin.n_cells` >= 2.
        T_start: Where Newton starts, > 0 [K]; 300 K if not given.

    Newton on the tridiagonal system of `fin_residual`. Minus the residual is convex in T and its Jacobian is
    an M-matrix, so that the first step lands above the solution wherever it starts and the others fall on it
    without oscillation (Ortega and Rheinboldt, Iterative Solution of Nonlinear Equations in Several
    Variables, 1970, section 13.3): no damping is needed. With a given flow a solution exists only if the
    emissivity and root + q_abs length are > 0. Derivatives, of any order and in both modes, come from the
    implicit function theorem, not from the iterations.
    """
    shape = (fin.n_cells, *root.shape)
    if T_start is None:
        T_start = jnp.full(shape, 300, root.dtype)
    zero, one = jnp.zeros_like(root), jnp.ones_like(root)
    # Newton squares its relative error, so a step this small has left less than a rounding of it.
    tolerance = 0.3 * float(jnp.finfo(T_start.dtype).eps) ** 0.5

    def residual(T):
        return fin_residual(T, root, q_abs, fin)

    def newton(f, T):
        def advance(carry):
            T, _, count = carry
            step = _solve_linearised(T, zero, one, f(T), fin)
            return T + step, jnp.max(jnp.abs(step / T)), count + 1

        def unfinished(carry):
            return (carry[1] > tolerance) & (carry[2] < NEWTON_LIMIT)

        start = (T, jnp.asarray(jnp.inf, T.dtype), jnp.asarray(0))
        return lax.while_loop(unfinished, advance, start)[0]

    def tangent(linear, y):
        return tridiagonal.solve(*_diagonals(linear, y), y)

    return lax.custom_root(residual, T_start, newton, tangent)


def fin_step(
    T: Float[Array, "n *batch"],
    root: Float[Array, "*batch"],
    q_abs: Float[Array, "*batch"],
    dt: Float[Array, "*batch"],
    fin: Fin,
) -> Float[Array, "n *batch"]:
    """Cell temperatures after one time step with constant loads [K].

    Arguments as in `fin_residual`, dt [s].

    TR-BDF2 (Bank et al., IEEE Trans. Electron Devices 32 (1985) 1992; Hosea and Shampine, Appl. Numer. Math.
    20 (1996) 21): a trapezoid over gamma dt, gamma = 2 - sqrt 2, then a second-order backward difference to
    the end of the step, each with one Newton iteration. Second order, and L-stable: a jump of the load or of
    the root, which each edge of a shadow brings, is damped at once where the trapezoid alone rings on, and
    the error constant is half the trapezoid's. Two tridiagonal solves. A step of length 0 changes nothing.
    """
    gamma = 2 - 2**0.5
    past = (1 - gamma) ** 2 / (gamma * (2 - gamma))
    h = gamma / 2 * dt

    # C (T1 - T) = h [f(T) + f(T1)], f linearised about T.
    heat = h[None] * fin_residual(T, root, q_abs, fin)
    rise = _solve_linearised(T, fin.heat_capacity, h, 2 * heat, fin)
    T1 = T + rise

    # C (T2 - T1) = C past (T1 - T) + h f(T2), f linearised about T1.
    heat = h[None] * fin_residual(T1, root, q_abs, fin) + (past * fin.heat_capacity)[None] * rise
    return T1 + _solve_linearised(T1, fin.heat_capacity, h, heat, fin)


def fin_transient(
    T: Float[Array, "n *batch"],
    root: Float[Array, "k *batch"],
    q_abs: Float[Array, "k *batch"],
    dt: Float[Array, "k *batch"],
    fin: Fin,
) -> Float[Array, "n *batch"]:
    """Cell temperatures after k steps of `fin_step` [K].

    Row i of root, q_abs and dt holds over step i: steps laid between the jumps of the loads keep the second
    order.
    """

    def step(T, loads):
        root, q_abs, dt = loads
        return fin_step(T, root, q_abs, dt, fin), None

    return lax.scan(step, T, (root, q_abs, dt))[0]


def face_temperatures(
    T: Float[Array, "n *batch"], root: Float[Array, "*batch"], fin: Fin
) -> Float[Array, "n+1 *batch"]:
    """Temperatures at x = 0, dx, 2 dx ... L: root, between the cells, tip [K]. Second order."""
    if fin.root == "temperature":
        base = root
    else:
        base = T[0] + root * fin.cell / (2 * fin.conductivity * fin.thickness)
    return jnp.concatenate([base[None], (T[1:] + T[:-1]) / 2, T[-1:]])


def base_heat(T: Float[Array, "n *batch"], root: Float[Array, "*batch"], fin: Fin) -> Float[Array, "*batch"]:
    """Heat that enters the fin at its root [W per metre of width].

        -k t dT/dx(0)

    In the steady state this is what the cells radiate less what they absorb, to rounding. Second order.
    """
    if fin.root == "flux":
        return root
    return 2 * fin.conductivity * fin.thickness * (root - T[0]) / fin.cell


def fin_efficiency(
    T: Float[Array, "n *batch"], root: Float[Array, "*batch"], q_abs: Float[Array, "*batch"], fin: Fin
) -> Float[Array, "*batch"]:
    """Base heat over that of a fin all at root temperature [-].

        eta = Q / (L (eps sigma T_root^4 - q_abs))

    (Mackay, Design of Space Powerplants, 1963.) It tends to 1 for a short, thick fin. Undefined where the
    root is at the sink temperature and rejects nothing.
    """
    T_root = face_temperatures(T, root, fin)[0]
    ideal = fin.length * (fin.emissivity * (SIGMA * T_root**4) - q_abs)
    return base_heat(T, root, fin) / ideal
