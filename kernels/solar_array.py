"""Solar array: electrical power of the cells, and what years in orbit take from it."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .pytree import pytree


@pytree
class SolarArray:
    """Solar array of one satellite, or of a batch.

    Attributes:
        area: Cell area [m^2].
        efficiency: At the reference temperature, losses of age included [-].
        temperature_coefficient: Relative change of the efficiency with temperature, usually < 0 [1/K].
        reference_temperature: At which `efficiency` holds [K].
    """

    area: Float[Array, "*batch"]
    efficiency: Float[Array, "*batch"]
    temperature_coefficient: Float[Array, "*batch"]
    reference_temperature: Float[Array, "*batch"]


def array_power(
    irradiance: Float[Array, "*batch"], T: Float[Array, "*batch"], array: SolarArray
) -> Float[Array, "*batch"]:
    """Electrical power at the maximum power point [W].

        P = A G max(0, eta (1 + kappa (T - T_ref)))

    Args:
        irradiance: On the cells, incidence and shadow included, G [W/m^2].
        T: Cell temperature [K].
        array: Its cells.

    The linear temperature law is that of cell data sheets (the PVWatts cell model: Dobos 2014,
    NREL/TP-6A20-62641); it is cut at zero, where it has long left its range.
    """
    efficiency = array.efficiency * (1 + array.temperature_coefficient * (T - array.reference_temperature))
    return array.area * jnp.maximum(efficiency, 0) * irradiance


def degraded_efficiency(
    efficiency: Float[Array, "*batch"], annual_loss: Float[Array, "*batch"], years: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """Efficiency after some years in orbit [-].

        eta (1 - annual_loss)^years

    Compound yearly loss to radiation, ultraviolet and thermal cycles (Wertz and Larson, Space Mission
    Analysis and Design, 3rd ed., section 11.4). `annual_loss` is a fraction < 1.
    """
    return efficiency * jnp.exp(years * jnp.log1p(-annual_loss))
