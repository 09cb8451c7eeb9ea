"""Lumped nodes: chip, cold plate, structure, battery, array and what else a case names.

    C_k dX_k/dt = sum_j G_kj (X_j - X_k) + sigma sum_j R_kj (X_j^4 - X_k^4) - sigma S_k (X_k^4 - T_space^4)
                  + exchange with the panel + heat from the coolant + heaters + dissipation + absorbed

Satellites on the last axis. In time each node takes an implicit stage at a fraction theta of the step and is
extrapolated from it; theta is fitted to the node's own rate (`fitted_theta`).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .constants import SIGMA
from .linear import linear_map
from .pytree import pytree, static


@pytree
class Network:
    """Nodes and what links them.

    Attributes:
        heat_capacity: [J/K].
        conductance: Symmetric, zero diagonal [W/K].
        radiative: Effective areas of exchange, symmetric, zero diagonal [m^2].
        to_space: Effective emitting area towards space [m^2].
        panel_radiative: Effective area of exchange with the whole panel [m^2].
        panel_conductance: Uniform conductance to the panel [W/K].
        loop_conductance: UA to the coolant, 0 off the loop; the flow visits the nodes in their order [W/K].
        heater_gain, heater_setpoint, heater_max: Proportional heaters [W/K], [K], [W].
        heat: Constant dissipation that the bus does not supply, and what surfaces of known temperature send more than
            space [W].
        names: Static.
    """

    heat_capacity: Float[Array, "n b"]
    conductance: Float[Array, "n n b"]
    radiative: Float[Array, "n n b"]
    to_space: Float[Array, "n b"]
    panel_radiative: Float[Array, "n b"]
    panel_conductance: Float[Array, "n b"]
    loop_conductance: Float[Array, "n b"]
    heater_gain: Float[Array, "n b"]
    heater_setpoint: Float[Array, "n b"]
    heater_max: Float[Array, "n b"]
    heat: Float[Array, "n b"]
    names: tuple[str, ...] = static()

    def index(self, name: str) -> int | None:
        """Position of a node, None where the case has none."""
        return self.names.index(name) if name in self.names else None

    def unit(self, name: str) -> Float[Array, "n 1"]:
        """1 at the named node, 0 elsewhere; all zero where there is no such node [-]."""
        k = self.index(name)
        zero = jnp.zeros((len(self.names), 1), self.heat_capacity.dtype)
        return zero if k is None else zero.at[k].set(1)


def fitted_theta(z: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Implicitness at which the theta method damps a mode by exactly exp(-z), z = rate x step [-].

        theta = 1/(1 - exp(-z)) - 1/z

    1/2 + z/12 for a slow mode, which keeps the second order, towards 1 for a stiff one, which takes the ringing of
    the midpoint rule away. Exponential fitting: Liniger and Willoughby, SIAM J. Numer. Anal. 7 (1970) 47.
    """
    small = z < 0.5
    safe = jnp.where(small, 1.0, z)
    series = 0.5 + z / 12 - z**3 / 720 + z**5 / 30240
    return jnp.where(small, series, -1 / jnp.expm1(-safe) - 1 / safe)


def heater_power(T: Float[Array, "n b"], network: Network) -> tuple[Float[Array, "n b"], Float[Array, "n b"]]:
    """Electrical power of each node's heater [W], and minus its slope with temperature [W/K]."""
    asked = network.heater_gain * (network.heater_setpoint - T)
    proportional = (asked > 0) & (asked < network.heater_max)
    return jnp.clip(asked, 0, network.heater_max), jnp.where(proportional, network.heater_gain, 0.0)


def linearise(
    X: Float[Array, "n b"],
    network: Network,
    space: Float[Array, " b"],
    panel_mean: Float[Array, " b"],
    panel_mean4: Float[Array, " b"],
) -> tuple[Float[Array, "n n b"], Float[Array, "n b"]]:
    """Matrix W and vector c of the heat into the nodes, W X' + c, T^4 linearised about X [W/K], [W].

    Links, space and panel; neither coolant nor dissipation nor heaters.

    Args:
        space: Temperature of space [K].
        panel_mean, panel_mean4: Mean of T [K] and of T^4 [K^4] over the panel.
    """
    slope = 4 * SIGMA * X**3
    loss = jnp.sum(network.radiative, axis=1) + network.panel_radiative + network.to_space
    W = network.conductance + SIGMA * 4 * network.radiative * (X**3)[None]
    own = jnp.sum(network.conductance, axis=1) + network.panel_conductance + slope * loss
    n = X.shape[0]
    W = W - jnp.eye(n, dtype=X.dtype)[:, :, None] * own[:, None]
    X4 = X**4
    c = (
        3 * SIGMA * (loss * X4 - jnp.sum(network.radiative * X4[None], axis=1))
        + SIGMA * (network.to_space * (space**4)[None] + network.panel_radiative * panel_mean4[None])
        + network.panel_conductance * panel_mean[None]
        + network.heat
    )
    return W, c


def fluid_path(
    effectiveness: Float[Array, "n b"],
) -> tuple[Float[Array, "n m b"], Float[Array, "m b"]]:
    """Fluid temperature at each node's inlet, and after the last, as linear forms of (X_1..X_n, supply).

    Args:
        effectiveness: Of each node's exchange with the coolant [-].
    """
    n = effectiveness.shape[0]
    basis = jnp.eye(n + 1, dtype=effectiveness.dtype)[:, :, None]
    fluid = jnp.broadcast_to(basis[n], (n + 1, effectiveness.shape[1]))
    inlets = []
    for k in range(n):
        inlets.append(fluid)
        fluid = fluid + effectiveness[k][None] * (basis[k] - fluid)
    return jnp.stack(inlets), fluid


@jax.custom_jvp
def solve_dense(A: Float[Array, "m m b"], rhs: Float[Array, "m r b"]) -> Float[Array, "m r b"]:
    """Small systems, one per satellite, by Gauss-Jordan elimination without pivoting (diagonally dominant).

    Derivatives by one more solve.
    """
    m = A.shape[0]
    work = jnp.concatenate([A, rhs], axis=1)
    for k in range(m):
        row = work[k] / work[k, k][None]
        others = jnp.where(jnp.arange(m)[:, None] == k, 0.0, work[:, k])
        work = (work - others[:, None] * row[None]).at[k].set(row)
    return work[:, m:]


@solve_dense.defjvp
def _(primals, tangents):
    A, rhs = primals
    x = solve_dense(A, rhs)
    return x, linear_map(_solve_tangent, _solve_transpose, (A, x), tangents)


def _columns(x) -> list:
    return [x[:, k] for k in range(x.shape[1])]


def _solve_tangent(known, tangents):
    A, x = known
    A_dot, rhs_dot = tangents
    felt = [jnp.sum(A_dot * column[None], axis=1) for column in _columns(x)]
    return solve_dense(A, rhs_dot - jnp.stack(felt, axis=1))


def _solve_transpose(known, given):
    A, x = known
    y = solve_dense(jnp.swapaxes(A, 0, 1), given)
    return -sum(a[:, None] * b[None] for a, b in zip(_columns(y), _columns(x), strict=True)), y
