"""Pumped single-phase loop: heat taken up at the nodes, given off along the panel's tubes.

The fluid is quasi-steady (its heat capacity is counted with the panel and the cold plate): over one cell of tube,
or one cold plate, of conductance UA at wall temperature T, it changes by

    T_out - T_in = (1 - exp(-UA / (mdot cp))) (T - T_in)

which is exact for a wall temperature uniform over the cell, and second order where it varies. Heat pipes are
tubes' strips whose fluid meets them only at the evaporator, the first part of the length. Tubes that go forth and
back are in `passes`.

A tube's conductance is given, or follows from its bore and flow: laminar, turbulent or between (`nusselt`).
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from . import passes
from .panel import Panel
from .pytree import pytree, static

# A valve never shuts the radiator off: its coolant would freeze.
LARGEST_BYPASS = 0.999

LAMINAR_NUSSELT = 48 / 11  # round tube, fully developed, uniform flux; Shah and London, Laminar Flow (1978)
# Reynolds numbers up to which a tube's flow is laminar, and from which it is turbulent (Gnielinski 2013).
LAMINAR, TURBULENT = 2300.0, 4000.0


@pytree
class Film:
    """Forced convection inside the tubes, by which their conductance follows the flow.

    Attributes:
        diameter: Inner, hydraulic [m].
        viscosity: Dynamic, of the fluid [Pa s].
        conductivity: Of the fluid [W/m/K].
        specific_heat: Of the fluid [J/kg/K].
    """

    diameter: Float[Array, " b"]
    viscosity: Float[Array, " b"]
    conductivity: Float[Array, " b"]
    specific_heat: Float[Array, " b"]

    @property
    def prandtl(self) -> Float[Array, " b"]:
        """Prandtl number [-]."""
        return self.viscosity * self.specific_heat / self.conductivity


@pytree
class Coolant:
    """Loop from the nodes through the radiator and back; all tubes, or serpentines, in parallel.

    Attributes:
        capacity_rate: Mass flow x specific heat of the whole loop [W/K].
        wall_conductance: Fluid to panel, per metre of one tube; with a film, what stands in series with it, inf where
            nothing does [W/m/K].
        evaporator_fraction: Part of the length where fluid meets the strip: 1 for tubes [-].
        pump_power: Electrical; all of it ends as heat in the fluid [W].
        setpoint: Supply temperature that the bypass holds [K]. Unused without bypass.
        bypass: Whether a valve leads part of the flow past the radiator. Static.
        film: Convection inside the tubes, or None where `wall_conductance` holds it.
    """

    capacity_rate: Float[Array, " b"]
    wall_conductance: Float[Array, " b"]
    evaporator_fraction: Float[Array, " b"]
    pump_power: Float[Array, " b"]
    setpoint: Float[Array, " b"]
    bypass: bool = static()
    film: Film | None = None


def friction_factor(reynolds: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Darcy's friction factor of a smooth round tube, flow fully developed [-].

        64/Re                      Re <= 2300, Hagen and Poiseuille
        (1.8 log10 Re - 1.5)^-2    Re >= 4000, Konakov, Dokl. Akad. Nauk SSSR 51 (1946) 503

    and linear in Re between: continuous there, where measurements scatter by tens of per cent.

    Args:
        reynolds: > 0.
    """
    laminar, turbulent, share = _regimes(reynolds)
    return (1 - share) * 64 / laminar + share * _konakov(turbulent)


def nusselt(reynolds: Float[Array, "*b"], prandtl: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Nusselt number of a round tube under uniform flux, flow fully developed [-].

        48/11                                                        Re <= 2300
        (f/8) (Re - 1000) Pr/(1 + 12.7 sqrt(f/8) (Pr^(2/3) - 1))     Re >= 4000, f of `friction_factor`

    and linear in Re between (Gnielinski, Int. J. Heat Mass Transfer 63 (2013) 134): continuous, kinks at both ends.
    Measurements of turbulent flow lie within 10 % of it for 0.5 <= Pr <= 1000, Re <= 1e6. Left out are the entrance,
    a factor 1 + (d/L)^(2/3), and the wall's other viscosity, (Pr/Pr_wall)^0.11.
    """
    _, turbulent, share = _regimes(reynolds)
    f = _konakov(turbulent) / 8
    developed = f * (turbulent - 1000) * prandtl / (1 + 12.7 * jnp.sqrt(f) * (prandtl ** (2 / 3) - 1))
    return (1 - share) * LAMINAR_NUSSELT + share * developed


def _regimes(reynolds):
    """Reynolds number held to the laminar range, to the turbulent one, and the weight of the latter."""
    laminar = jnp.where(reynolds < LAMINAR, reynolds, LAMINAR)
    turbulent = jnp.where(reynolds > TURBULENT, reynolds, TURBULENT)
    return laminar, turbulent, jnp.clip((reynolds - LAMINAR) / (TURBULENT - LAMINAR), 0, 1)


def _konakov(reynolds):
    return (1.8 * jnp.log10(reynolds) - 1.5) ** -2


def tube_reynolds(
    coolant: Coolant, film: Film, panel: Panel, bypassed: Float[Array, " b"] | None = None
) -> Float[Array, " b"]:
    """Reynolds number in each of the panel's tubes in parallel [-].

        Re = 4 mdot / (pi d mu)

    Args:
        bypassed: Fraction of the flow that passes the radiator by [-], below 1; None: nothing does.
    """
    left = coolant.capacity_rate if bypassed is None else (1 - bypassed) * coolant.capacity_rate
    flow = left / film.specific_heat / panel.tubes
    return 4 * flow / (jnp.pi * film.diameter * film.viscosity)


def tube_conductance(
    coolant: Coolant, panel: Panel, bypassed: Float[Array, " b"] | None = None
) -> Float[Array, " b"]:
    """Fluid to panel, per metre of one tube [W/m/K].

    With a film, pi k Nu of the flow that is left to a tube, and the wall conductance in series. It does not change
    along the tube, as the properties do not.

    Args:
        bypassed: Fraction of the flow that passes the radiator by [-], below 1; None: nothing does.
    """
    film = coolant.film
    if film is None:
        return coolant.wall_conductance
    inside = jnp.pi * film.conductivity * nusselt(tube_reynolds(coolant, film, panel, bypassed), film.prandtl)
    return 1 / (1 / inside + 1 / coolant.wall_conductance)


def tube_pressure_drop(
    coolant: Coolant, film: Film, panel: Panel, density: Float[Array, " b"]
) -> Float[Array, " b"]:
    """Pressure that friction takes along the panel's tubes, smooth, with nothing led past them [Pa].

        f L/d G^2/(2 rho),    G = Re mu/d,    L of all passes

    Manifolds, bends and cold plates come on top (Darcy and Weisbach; f of `friction_factor`).

    Args:
        density: Of the fluid [kg/m^3].
    """
    reynolds = tube_reynolds(coolant, film, panel)
    flux = reynolds * film.viscosity / film.diameter
    length = panel.length if panel.passes == 1 else panel.passes * panel.length
    return friction_factor(reynolds) * length / film.diameter * flux**2 / (2 * density)


def tube_exchange(
    coolant: Coolant,
    panel: Panel,
    bypassed: Float[Array, " b"],
    beside: Float[Array, "*p m b"] | None = None,
) -> tuple[Float[Array, "nx b"], Float[Array, "nx b"]]:
    """Effectiveness of each cell of tube [-], and its exchange per area of the panel cell on it [W/m^2/K].

    A tube's wall lies on the cells' edge, y = 0: half a cell of panel stands in series with the wall conductance,
    which makes the exchange second order in the cell's width. A heat pipe's own conductance lies in the first row of
    cells: its evaporator meets that row directly. So does a tube of several passes, whose wall lies in the middle of
    its cells.

    Args:
        bypassed: Fraction of the flow that passes the radiator by [-], below 1.
        beside: Conductivity of the sheet at the tube over that at T_REF [-], where it depends on temperature.
    """
    if panel.passes > 1:
        rate = (1 - bypassed) * coolant.capacity_rate / panel.tubes
        length = panel.length / panel.nx
        effectiveness = -jnp.expm1(-tube_conductance(coolant, panel, bypassed) * length / rate)
        exchange = rate / (length * panel.width / panel.ny) * effectiveness
        return effectiveness[None], exchange[None]
    # Each half strip has half a tube and its share of the flow.
    rate = (1 - bypassed) * coolant.capacity_rate / panel.half_strips
    edge = jnp.arange(panel.nx).astype(rate.dtype)[:, None]
    wetted = jnp.clip(coolant.evaporator_fraction[None, :] * panel.nx - edge, 0, 1)
    half_cell = jnp.where(coolant.evaporator_fraction < 1, 0.0, panel.half_pitch / panel.ny / 2)
    outside = 2 / tube_conductance(coolant, panel, bypassed)
    if beside is None:
        cells = (1 / (outside + half_cell / panel.kt_y) * panel.length / panel.nx / rate)[None, :]
    else:
        per_metre = 1 / (outside[None] + (half_cell / panel.kt_y)[None] / beside)
        cells = per_metre * (panel.length / panel.nx / rate)[None]
    effectiveness = -jnp.expm1(-wetted * cells)
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


def tube_march(
    still: Float[Array, "*p nx b"],
    response: Float[Array, "*q k b"],
    coolant: Coolant,
    panel: Panel,
    bypassed: Float[Array, " b"],
    beside: Float[Array, "*p nx b"] | None = None,
) -> tuple[Float[Array, "*q m b"], Float[Array, "n b"], Float[Array, "n b"]]:
    """How walls take heat, and the fluid's temperature behind each cell, in its order, as p F_in + q.

    Args:
        still: Wall temperatures without any fluid [K].
        response: Rise of a wall cell per heat flow into it [m^2 K/W]; with several passes that of each to each in a
            column, (p, p, k, b), k 1 where all columns are alike.
        bypassed, beside: As in `tube_exchange`.

    Returns:
        Heat that a wall takes per kelvin of fluid above it, of several passes per kelvin above `still`, (p, p, k, b)
        [W/m^2/K]; p [-] and q [K].
    """
    effectiveness, exchange = tube_exchange(coolant, panel, bypassed, beside)
    if panel.passes == 1:
        return exchange, *tube_response(still, exchange * response, effectiveness)
    # Heat G of a column's walls: G = exchange (F - T) and T = still + response G.
    eye = jnp.eye(panel.passes, dtype=still.dtype)[:, :, None, None]
    take = passes.inverse(response + eye / exchange[None, None])
    return take, *passes.fluid((effectiveness / exchange)[None, None] * take, still)


def warmed(
    start: Float[Array, "nx b"],
    alone: Float[Array, "nx b"],
    give: Float[Array, "nx b"],
    entering: Float[Array, "nx b"],
) -> Float[Array, "nx b"]:
    """Increments of tube cells to mid-step, from the fluid that enters each; see `tube_response` [K]."""
    return (alone + give * (entering - start)) / (1 + give)


def wall_rise(
    start: Float[Array, "*p nx b"],
    alone: Float[Array, "*p nx b"],
    response: Float[Array, "*q k b"],
    take: Float[Array, "*q m b"],
    entering: Float[Array, "n b"],
) -> Float[Array, "*p nx b"]:
    """Increments of the tube cells with the coolant [K].

    Args:
        start: At the start of the step [K].
        alone: Increments without coolant [K].
        response, take: As in `tube_march`.
        entering: Fluid temperature before each cell, in the order of the flow [K].
    """
    if start.ndim == 2:
        return warmed(start, alone, take * response, entering)
    heat = passes.times(take, passes.in_columns(entering, start.shape[0]) - (start + alone))
    return alone + passes.times(response, heat)


def bypass_fraction(
    still: Float[Array, "*p nx b"],
    response: Float[Array, "*q k b"],
    inlet: Float[Array, " b"],
    coolant: Coolant,
    panel: Panel,
    beside: Float[Array, "*p nx b"] | None = None,
) -> Float[Array, " b"]:
    """Share of the flow to lead past the radiator so that the mixed supply meets the set point [-].

    0 where even the whole flow through the radiator comes back too warm, at most LARGEST_BYPASS where it is too cold.
    Bisection on a supply temperature that rises with the bypassed share.

    Args:
        still: Wall temperatures without any fluid [K].
        response: As in `tube_march` [m^2 K/W].
        inlet: Fluid temperature ahead of the valve [K].
        beside: As in `tube_exchange`.
    """

    def supply(share):
        _, p, q = tube_march(still, response, coolant, panel, share, beside)
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
