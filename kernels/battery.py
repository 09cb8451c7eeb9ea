"""Battery: energy counting with efficiencies, power limits and limits of charge."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .pytree import pytree


@pytree
class Battery:
    """Battery of one satellite, or of a batch.

    Attributes:
        capacity: Energy when full, fade included [J].
        soc_min: Lowest state of charge allowed [-].
        soc_max: Highest state of charge allowed [-].
        charge_efficiency: Stored energy per energy taken from the bus [-].
        discharge_efficiency: Energy given to the bus per energy taken from the store [-].
        charge_power_max: Most power taken from the bus [W].
        discharge_power_max: Most power given to the bus [W].
    """

    capacity: Float[Array, "*batch"]
    soc_min: Float[Array, "*batch"]
    soc_max: Float[Array, "*batch"]
    charge_efficiency: Float[Array, "*batch"]
    discharge_efficiency: Float[Array, "*batch"]
    charge_power_max: Float[Array, "*batch"]
    discharge_power_max: Float[Array, "*batch"]


def battery_step(
    energy: Float[Array, "*batch"],
    net: Float[Array, "*batch"],
    dt: Float[Array, "*batch"],
    battery: Battery,
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"], Float[Array, "*batch"]]:
    """Energy after a step, and the mean bus power taken and given over it.

        dE/dt = eta_c min(net, P_c)        net > 0, until E = soc_max C
        dE/dt = -min(-net, P_d) / eta_d    net < 0, until E = soc_min C

    Args:
        energy: Stored at the start of the step [J].
        net: Power that the bus offers (> 0) or asks (< 0), constant over the step [W].
        dt: Step [s]; 0 leaves the energy as it is.
        battery: Its sizes and limits.

    Returns:
        Energy at the end [J]; `charge`, mean power taken from the bus [W]; `discharge`, mean power given
        to the bus [W]. Both are >= 0, to rounding, and never both positive.

    Exact for a constant `net`: E is piecewise linear and stops at its limit, so the mean power is the
    smallest of what is offered, the power limit and the room divided by the step. A store that starts
    outside its limits is left there until the bus moves it back.
    """
    # A step of zero length has no rate at which to fill the room: only the power limits count there.
    moves = dt > 0
    span = jnp.where(moves, dt, 1)

    # The comparisons are inclusive: at a limit the slope dE_new/dE is 0 and dE_new/dE_limit is 1, the
    # slopes of a store that stays at the limit, where jnp.maximum would give one half of each.
    # A few roundings beyond a limit still count as at it.
    rounding = 8 * jnp.finfo(energy.dtype).eps * battery.capacity
    room = battery.soc_max * battery.capacity - energy
    room = jnp.where(room >= -rounding, room, 0)
    stock = energy - battery.soc_min * battery.capacity
    stock = jnp.where(stock >= -rounding, stock, 0)

    fill = jnp.where(moves, room / (battery.charge_efficiency * span), battery.charge_power_max)
    drain = jnp.where(moves, stock * battery.discharge_efficiency / span, battery.discharge_power_max)
    charge = jnp.minimum(jnp.minimum(jnp.maximum(net, 0), battery.charge_power_max), fill)
    discharge = jnp.minimum(jnp.minimum(jnp.maximum(-net, 0), battery.discharge_power_max), drain)

    stored = charge * battery.charge_efficiency - discharge / battery.discharge_efficiency
    return energy + stored * dt, charge, discharge


def faded_capacity(
    capacity: Float[Array, "*batch"],
    calendar_fade_per_year: Float[Array, "*batch"],
    cycle_fade: Float[Array, "*batch"],
    years: Float[Array, "*batch"],
    cycles: Float[Array, "*batch"],
) -> Float[Array, "*batch"]:
    """Capacity after ageing, in the unit of `capacity`.

        C max(0, 1 - calendar_fade_per_year years - cycle_fade cycles)

    Calendar and cycle ageing add up, each linear: the first-order superposition of lithium-ion ageing
    models (Schmalstieg et al., J. Power Sources 257 (2014) 325), whose square roots of time are left to
    the rates that the user gives.
    """
    return capacity * jnp.maximum(1 - calendar_fade_per_year * years - cycle_fade * cycles, 0)
