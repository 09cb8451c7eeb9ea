"""Pumped single-phase loop: heat taken up at the nodes, given off along the panel's tubes.

The fluid is quasi-steady (its heat capacity is counted with the panel and the cold plate): over one cell of tube,
or one cold plate, of conductance UA at wall temperature T, it changes by

    T_out - T_in = (1 - exp(-UA / (mdot cp))) (T - T_in)

which is exact for a wall temperature uniform over the cell, and second order where it varies. Heat pipes are
tubes' strips whose fluid meets them only at the evaporator, the first part of the length.
"""

from dataclasses import dataclass, field
from typing import no_type_check

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .panel import Panel


# scan and vmap rebuild a pytree with other ranks: its fields cannot be shape-checked at run time.
@no_type_check
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Coolant:
    """Loop from the nodes through the radiator and back; all tubes in parallel.

    Attributes:
        capacity_rate: Mass flow x specific heat of the whole loop [W/K].
        wall_conductance: Fluid to panel, per metre of one tube [W/m/K].
        evaporator_fraction: Part of the length where fluid meets the strip: 1 for tubes [-].
        pump_power: Electrical; all of it ends as heat in the fluid [W].
        setpoint: Supply temperature that the bypass holds [K]. Unused without bypass.
        bypass: Whether a valve leads part of the flow past the radiator. Static.
    """

    capacity_rate: Float[Array, " b"]
    wall_conductance: Float[Array, " b"]
    evaporator_fraction: Float[Array, " b"]
    pump_power: Float[Array, " b"]
    setpoint: Float[Array, " b"]
    bypass: bool = field(metadata={"static": True})


def tube_effectiveness(
    coolant: Coolant, panel: Panel, bypassed: Float[Array, " b"]
) -> tuple[Float[Array, "nx b"], Float[Array, " b"]]:
    """Effectiveness of each cell of tube [-], and the capacity rate of one half strip's share of flow [W/K].

    Args:
        bypassed: Fraction of the flow that passes the radiator by [-], below 1.
    """
    rate = (1 - bypassed) * coolant.capacity_rate / panel.half_strips
    # Part of each cell that belongs to the evaporator.
    edge = jnp.arange(panel.nx).astype(rate.dtype)[:, None]
    wetted = jnp.clip(coolant.evaporator_fraction[None, :] * panel.nx - edge, 0, 1)
    conductance = coolant.wall_conductance / 2 * panel.length / panel.nx
    return -jnp.expm1(-wetted * (conductance / rate)[None, :]), rate


def radiator_outlet(
    wall: Float[Array, "nx b"], inlet: Float[Array, " b"], effectiveness: Float[Array, "nx b"]
) -> Float[Array, " b"]:
    """Fluid temperature after the tubes at given wall temperatures [K]."""
    log_pass = jnp.log1p(-jnp.minimum(effectiveness, 1 - 1e-7))
    # What is left, at the outlet, of heat exchanged in a cell: the product over the cells behind it.
    behind = jnp.exp(jnp.cumsum(log_pass[::-1], axis=0)[::-1] - log_pass)
    total = jnp.exp(jnp.sum(log_pass, axis=0))
    return inlet * total + jnp.sum(effectiveness * behind * wall, axis=0)


def bypass_fraction(
    wall: Float[Array, "nx b"], inlet: Float[Array, " b"], coolant: Coolant, panel: Panel
) -> Float[Array, " b"]:
    """Share of the flow to lead past the radiator so that the mixed supply meets the set point [-].

    0 where even the whole flow through the radiator comes back too warm, at most 0.999 where it is too cold.
    Bisection on a supply temperature that rises with the bypassed share.
    """

    def supply(share):
        effectiveness, _ = tube_effectiveness(coolant, panel, share)
        return (1 - share) * radiator_outlet(wall, inlet, effectiveness) + share * inlet

    low = jnp.zeros_like(inlet)
    high = jnp.full_like(inlet, 0.999)

    def halve(_, bracket):
        low, high = bracket
        mid = (low + high) / 2
        cold = supply(mid) < coolant.setpoint
        return jnp.where(cold, mid, low), jnp.where(cold, high, mid)

    low, high = lax.fori_loop(0, 14, halve, (low, high))
    # A secant through the bracket brings 14 bits to the accuracy of the arithmetic.
    f_low, f_high = supply(low) - coolant.setpoint, supply(high) - coolant.setpoint
    rise = f_high - f_low
    share = low - f_low * (high - low) / jnp.where(rise > 0, rise, 1.0)
    return jnp.clip(share, low, high)


def tube_elimination(
    diag: Float[Array, "nx b"],
    rhs: Float[Array, "nx b"],
    before: Float[Array, "nx b"],
    after: Float[Array, "nx b"],
    exchange: Float[Array, "nx b"],
    effectiveness: Float[Array, "nx b"],
) -> tuple[tuple[Array, ...], Float[Array, " b"], Float[Array, " b"]]:
    """Implicit march of fluid and tube cells together, the inlet temperature left open.

        (diag + x) T_i - before T_{i-1} - after T_{i+1} = rhs + x F_{i-1},   F_i = F_{i-1} + e (T_i - F_{i-1})

    with x = exchange and e = effectiveness. Elimination carries T_{i-1} = p T_i + q + r F_in and
    F_{i-1} = u T_i + v + w F_in. Returns what `tube_substitution` needs, and a, b of the outlet a + b F_in.
    """

    def eliminate(carry, row):
        p, q, r, u, v, w = carry
        dg, rh, be, af, x, e = row
        pivot = 1 / (dg + x * (1 - u) - be * p)
        p = af * pivot
        q, r = (rh + be * q + x * v) * pivot, (be * r + x * w) * pivot
        taken = (1 - e) * u + e
        out = (taken * p, taken * q + (1 - e) * v, taken * r + (1 - e) * w)
        return (p, q, r, *out), (p, q, r, u, v, w)

    zero = jnp.zeros_like(diag[0])
    start = (zero, zero, zero, zero, zero, zero + 1)
    end, rows = lax.scan(eliminate, start, (diag, rhs, before, after, exchange, effectiveness))
    return rows, end[4], end[5]


def tube_substitution(
    rows: tuple[Array, ...], inlet: Float[Array, " b"]
) -> tuple[Float[Array, "nx b"], Float[Array, "nx b"]]:
    """Tube cell temperatures, and fluid temperature at the inlet of each cell, for a given inlet [K]."""

    def substitute(T, row):
        p, q, r, u, v, w = row
        T = p * T + q + r * inlet
        return T, (T, u * T + v + w * inlet)

    return lax.scan(substitute, jnp.zeros_like(inlet), rows, reverse=True)[1]
