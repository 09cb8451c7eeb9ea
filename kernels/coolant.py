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

# A valve never shuts the radiator off: its coolant would freeze.
LARGEST_BYPASS = 0.999


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


def tube_exchange(
    coolant: Coolant, panel: Panel, bypassed: Float[Array, " b"]
) -> tuple[Float[Array, "nx b"], Float[Array, "nx b"]]:
    """Effectiveness of each cell of tube [-], and its exchange per area of the panel cell on it [W/m^2/K].

    A tube's wall lies on the cells' edge, y = 0: half a cell of panel stands in series with the wall conductance,
    which makes the exchange second order in the cell's width. A heat pipe's own conductance lies in the first row of
    cells: its evaporator meets that row directly.

    Args:
        bypassed: Fraction of the flow that passes the radiator by [-], below 1.
    """
    # Each half strip has half a tube and its share of the flow.
    rate = (1 - bypassed) * coolant.capacity_rate / panel.half_strips
    edge = jnp.arange(panel.nx).astype(rate.dtype)[:, None]
    wetted = jnp.clip(coolant.evaporator_fraction[None, :] * panel.nx - edge, 0, 1)
    half_cell = jnp.where(coolant.evaporator_fraction < 1, 0.0, panel.half_pitch / panel.ny / 2)
    per_metre = 1 / (2 / coolant.wall_conductance + half_cell / panel.kt_y)
    effectiveness = -jnp.expm1(-wetted * (per_metre * panel.length / panel.nx / rate)[None, :])
    cell = panel.length / panel.nx * panel.half_pitch / panel.ny
    return effectiveness, (rate / cell)[None] * effectiveness


def tube_response(
    still: Float[Array, "nx b"], give: Float[Array, "nx b"], effectiveness: Float[Array, "nx b"]
) -> tuple[Float[Array, "nx b"], Float[Array, "nx b"]]:
    """Fluid temperature after each cell as a linear form p F_in + q of the inlet temperature.

    The wall of a cell answers to the fluid that enters it as the panel's implicit half step lets it,

        T = (still + give F) / (1 + give),   F_after = F + e (T - F)

    Args:
        still: Wall temperature without any fluid [K].
        give: Exchange conductance x the wall's response to heat [-]: 0 where it gives way to nothing.
        effectiveness: e [-].
    """
    share = effectiveness / (1 + give)

    def chain(first, second):
        p1, q1 = first
        p2, q2 = second
        return p2 * p1, p2 * q1 + q2

    return lax.associative_scan(chain, (1 - share, share * still))


def bypass_fraction(
    still: Float[Array, "nx b"],
    response: Float[Array, "nx b"],
    inlet: Float[Array, " b"],
    coolant: Coolant,
    panel: Panel,
) -> Float[Array, " b"]:
    """Share of the flow to lead past the radiator so that the mixed supply meets the set point [-].

    0 where even the whole flow through the radiator comes back too warm, at most LARGEST_BYPASS where it is too cold.
    Bisection on a supply temperature that rises with the bypassed share.

    Args:
        still: Wall temperatures without any fluid [K].
        response: Rise of a wall cell per unit of exchange conductance and kelvin of difference [m^2 K/W].
        inlet: Fluid temperature ahead of the valve [K].
    """

    def supply(share):
        effectiveness, exchange = tube_exchange(coolant, panel, share)
        p, q = tube_response(still, exchange * response, effectiveness)
        return (1 - share) * (p[-1] * inlet + q[-1]) + share * inlet

    low = jnp.zeros_like(inlet)
    high = jnp.full_like(inlet, LARGEST_BYPASS)

    def halve(_, bracket):
        low, high = bracket
        mid = (low + high) / 2
        cold = supply(mid) < coolant.setpoint
        return jnp.where(cold, mid, low), jnp.where(cold, high, mid)

    low, high = lax.fori_loop(0, 12, halve, (low, high))
    # A secant through the bracket brings 12 bits to the accuracy of the arithmetic.
    f_low, f_high = supply(low) - coolant.setpoint, supply(high) - coolant.setpoint
    rise = f_high - f_low
    share = low - f_low * (high - low) / jnp.where(rise > 0, rise, 1.0)
    return jnp.clip(share, low, high)
