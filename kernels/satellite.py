"""One coupled time step of a satellite: panel, coolant, nodes, array, battery, bus and compute.

A step from t to t + dt, satellites on the last axis:

1. The nodes, the coolant and the panel take one implicit stage together, the panel in its y direction, across the
   tubes: where coolant and conduction are stiffest they stand in the same half of the panel's step (`adi`), which
   keeps its splitting error small. Compute is throttled on the stage's own chip temperature and cut by what the bus
   can give.
2. The panel takes its second half step, implicit along the tubes, with the coolant's heat of that stage.
3. The nodes are extrapolated from their stage; the battery integrates the stage's power over dt.

Nodes, coolant and bus exchange heat with the same number on both sides; what panel and nodes exchange by radiation or
contact agrees to second order, as the balance of a revolution reports. The solution of the undivided steady equations
is left unchanged, whatever dt. Second order in time; beyond three of the panel's radiative time constants a step is
followed by the panel only so far, which the heat balance of a revolution shows. Derived in docs/physics.md, "Coupled
step".
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from . import adi_step
from . import battery as storage
from . import coolant as loop
from . import network as nodal
from . import payload as compute
from .adi_field import Field
from .adi_step import recomputed
from .battery import Battery
from .constants import SIGMA
from .coolant import Coolant
from .network import Network
from .numerics import compensated_sum
from .panel import Panel, as_it_stands, changed_conduction, polynomial, strip, weighted_fourth
from .payload import Payload
from .pytree import pytree
from .revolution import Loads
from .sheet import Sheet
from .solar_array import SolarArray, array_power

# The node stage is iterated: each pass linearises about the last one and hands its bus power, and whether a bypass
# can hold its set point, to the next.
PASSES, BYPASS_PASSES = 2, 3


@pytree
class Bus:
    """Electrical loads besides compute, heaters and pump.

    Attributes:
        base_load: Dissipated in the structure [W].
        transmitted: Radio or laser power that leaves the satellite [W].
        conversion_efficiency: Array terminals to bus; the loss heats the structure [-].
    """

    base_load: Float[Array, " b"]
    transmitted: Float[Array, " b"]
    conversion_efficiency: Float[Array, " b"]


@pytree
class Params:
    """A satellite's design. What a design lacks is None.

    Attributes:
        chip_fraction: Part of the payload's power dissipated in the chip node; the rest heats the cold plate [-].
        space_temperature: [K].
    """

    panel: Panel
    network: Network
    bus: Bus
    coolant: Coolant | None
    array: SolarArray | None
    battery: Battery | None
    payload: Payload | None
    chip_fraction: Float[Array, " b"]
    space_temperature: Float[Array, " b"]


@pytree
class State:
    """What a step carries on.

    Attributes:
        panel: [K].
        nodes: [K].
        energy: In the battery [J].
    """

    panel: Float[Array, "nx ny b"]
    nodes: Float[Array, "n b"]
    energy: Float[Array, " b"]


@pytree
class Power:
    """The bus over one step, mean powers [W].

    Attributes:
        available: Array output if all of it were taken.
        taken: Array output that is taken; the rest stays in the cells as heat.
        asked: Compute demanded.
        throttled: Cut from `asked` by chip temperature.
        curtailed: Cut from the rest by what array and battery can give.
        payload: Delivered to compute.
        heater, pump, base, transmitted: Delivered.
        unmet: Asked by those four and not delivered.
        charge, discharge: At the battery's terminals.
        drift: Into the battery's store if nothing were curtailed and its charge had no limits.
    """

    available: Float[Array, " b"]
    taken: Float[Array, " b"]
    asked: Float[Array, " b"]
    throttled: Float[Array, " b"]
    curtailed: Float[Array, " b"]
    payload: Float[Array, " b"]
    heater: Float[Array, " b"]
    pump: Float[Array, " b"]
    base: Float[Array, " b"]
    transmitted: Float[Array, " b"]
    unmet: Float[Array, " b"]
    charge: Float[Array, " b"]
    discharge: Float[Array, " b"]
    drift: Float[Array, " b"]


@pytree
class Step:
    """What one step reports besides the new state.

    Attributes:
        power: The bus.
        bypass: Share of the flow led past the radiator [-].
        supply, radiator_inlet, radiator_outlet: Fluid temperatures at the stage [K].
        panel_mean4: Mean over the panel of its `weighted_fourth` at mid-step [K^4].
    """

    power: Power
    bypass: Float[Array, " b"]
    supply: Float[Array, " b"]
    radiator_inlet: Float[Array, " b"]
    radiator_outlet: Float[Array, " b"]
    panel_mean4: Float[Array, " b"]


@pytree
class Lumps:
    """Nodes and battery between two steps.

    Attributes:
        nodes: [K].
        lost: What rounding has kept from them so far [K].
        energy: In the battery [J].
        energy_lost: Likewise [J].
    """

    nodes: Float[Array, "n b"]
    lost: Float[Array, "n b"]
    energy: Float[Array, " b"]
    energy_lost: Float[Array, " b"]

    @classmethod
    def start(cls, state: State) -> "Lumps":
        return cls(state.nodes, jnp.zeros_like(state.nodes), state.energy, jnp.zeros_like(state.energy))


@pytree
class Underway:
    """A state between two steps.

    Attributes:
        panel: With y first.
        lumps: Nodes and battery.
        mean, mean4: Mean over the panel of T [K] and of T^4 [K^4].
    """

    panel: Field
    lumps: Lumps
    mean: Float[Array, " b"]
    mean4: Float[Array, " b"]

    @property
    def state(self) -> State:
        return State(adi_step.turn(self.panel.T), self.lumps.nodes, self.lumps.energy)


def depart(params: Params, state: State, room: bool = False) -> Underway:
    """A state to march from. `room`: for a march that is not differentiated, see `Field.start`."""
    panel = Field.start(state.panel, panel_sheet(params), room)
    return Underway(panel, Lumps.start(state), *adi_step.means(panel.T))


def panel_sheet(params: Params) -> Sheet:
    """The panel with what its contact to the nodes takes from it."""
    return strip(params.panel, jnp.sum(params.network.panel_conductance, axis=0) / params.panel.area)


def run_bus(
    params: Params,
    load: Loads,
    energy: Float[Array, " b"],
    array_temperature: Float[Array, " b"],
    heater: Float[Array, " b"],
    asked: Float[Array, " b"],
    throttled: Float[Array, " b"],
) -> Power:
    """Balance the bus over one step: battery first, then compute is cut, then the rest in equal parts.

    Args:
        asked: Compute demanded [W].
        throttled: What the chip's temperature allows of it [W].
    """
    bus, zero = params.bus, jnp.zeros_like(asked)
    available = (
        zero if params.array is None else array_power(load.irradiance, array_temperature, params.array)
    )
    pump = zero if params.coolant is None else params.coolant.pump_power
    essential = bus.base_load + bus.transmitted + heater + pump
    offered = bus.conversion_efficiency * available
    net = offered - essential - throttled

    def store(power):
        if params.battery is None:
            return energy, zero, zero
        return storage.battery_step(energy, power, load.dt, params.battery)

    _, charge, discharge = store(net)
    missing = jnp.maximum(-net - discharge, 0)
    # Nothing missing beats nothing asked: at zero demand a tie would halve the slope.
    curtailed = jnp.where(missing <= throttled, missing, throttled)
    unmet = jnp.minimum(missing - curtailed, essential)
    met = 1 - unmet / jnp.where(essential > 0, essential, 1.0)
    payload = throttled - curtailed
    if params.battery is None:
        drift = net
    else:
        drift = jnp.where(
            net > 0, params.battery.charge_efficiency * net, net / params.battery.discharge_efficiency
        )
    return Power(
        available=available,
        taken=(essential - unmet + payload + charge - discharge) / bus.conversion_efficiency,
        asked=asked,
        throttled=asked - throttled,
        curtailed=curtailed,
        payload=payload,
        heater=met * heater,
        pump=met * pump,
        base=met * bus.base_load,
        transmitted=met * bus.transmitted,
        unmet=unmet,
        charge=charge,
        discharge=discharge,
        drift=drift,
    )


def node_heat(params: Params, load: Loads, power: Power, heaters: Float[Array, "n b"]) -> Float[Array, "n b"]:
    """Absorbed and electrical heat of each node, compute excepted [W]."""
    unit = params.network.unit
    loss = (1 - params.bus.conversion_efficiency) * power.taken
    heat = heaters + unit("structure") * (load.body + power.base + loss)[None]
    heat = heat + unit("array") * (load.array - power.taken)[None]
    if params.battery is not None:
        loss = (1 - params.battery.charge_efficiency) * power.charge
        loss = loss + (1 / params.battery.discharge_efficiency - 1) * power.discharge
        heat = heat + unit("battery") * loss[None]
    return heat


@pytree
class Wall:
    """The panel's tube cells in the first half of a step.

    Attributes:
        start: Temperature at the start of the step [K].
        alone: Increment to mid-step without coolant [K].
        response: Rise per heat flow into them [m^2 K/W]; of several passes each to each, (p, p, k, b).
    """

    start: Float[Array, "*p nx b"]
    alone: Float[Array, "*p nx b"]
    response: Float[Array, "*p k b"]


@pytree
class Stage:
    """The implicit stage of nodes and fluid.

    Attributes:
        moved: What the nodes have moved by since the start of the step [K].
        theta: Where in the step the stage lies, of each node [-].
        inertia: Heat capacity and implicit losses of each node [J/K].
        owed: Heat of each node that the stage could not know yet [W].
        power: The bus.
        bypass: Share of the flow led past the radiator [-].
        supply, inlet, outlet: Fluid at the nodes, and into and out of the radiator [K].
        wall: Increments of the tube cells to mid-step, None without coolant [K].
    """

    moved: Float[Array, "n b"]
    theta: Float[Array, "n b"]
    inertia: Float[Array, "n b"]
    owed: Float[Array, "n b"]
    power: Power
    bypass: Float[Array, " b"]
    supply: Float[Array, " b"]
    inlet: Float[Array, " b"]
    outlet: Float[Array, " b"]
    wall: Float[Array, "*p nx b"] | None


@recomputed
def implicit_stage(
    params: Params,
    load: Loads,
    X: Float[Array, "n b"],
    energy: Float[Array, " b"],
    mean: Float[Array, " b"],
    mean4: Float[Array, " b"],
    wall: Wall | None,
) -> Stage:
    """Nodes, fluid and bus together, given the panel at the start of the step and how its tube cells respond."""
    panel, network, coolant = params.panel, params.network, params.coolant
    n, dt = X.shape[0], load.dt
    zero = jnp.zeros_like(dt)
    if wall is not None:
        start, alone, response = wall.start, wall.alone, wall.response
        still = start + alone
        beside = polynomial(panel.conductivity_slopes, start) if panel.conductivity_slopes else None

    def tube_march(bypassed):
        return loop.tube_march(still, response, coolant, panel, bypassed, beside)

    chip = network.index("chip") if "chip" in network.names else network.index("cold_plate")
    array = network.index("array")
    share = params.chip_fraction if "chip" in network.names else zero
    compute_heat = network.unit("chip") * share[None] + network.unit("cold_plate") * (1 - share)[None]
    effectiveness = zero[None]
    if coolant is not None:
        effectiveness = -jnp.expm1(-network.loop_conductance / coolant.capacity_rate[None])
        inlets, fluid_out = nodal.fluid_path(effectiveness)

    def stage(X_old, power, tube, bypassed, held):
        """One linear solve for the nodes, given the bus and the valve of the pass before.

        For their increments: what a slow node moves by in a step may be less than the rounding of C X.
        """
        W, c = nodal.linearise(X_old, network, params.space_temperature, mean, mean4)
        heaters, slope = nodal.heater_power(X_old, network)
        W = W - jnp.eye(n, dtype=X.dtype)[:, :, None] * slope[:, None]
        c = c + node_heat(params, load, power, met(power, heaters)[None] * heaters) + slope * X_old
        own = -jnp.diagonal(W, axis1=0, axis2=1).T
        if coolant is not None:
            own = own + coolant.capacity_rate[None] * effectiveness
        theta = nodal.fitted_theta(own / network.heat_capacity * dt[None])
        tau = theta * dt[None]
        eye = jnp.eye(n, dtype=X.dtype)[:, :, None]
        C = network.heat_capacity
        A = eye * C[:, None] - tau[:, None] * W
        b = tau * (c + jnp.sum(W * X[None], axis=1))
        p = tau * compute_heat
        known = X
        if coolant is not None:
            flow = coolant.capacity_rate
            full = jnp.concatenate([A, jnp.zeros_like(A[:, :1])], axis=1)
            basis = jnp.eye(n, n + 1, dtype=X.dtype)[:, :, None]
            pick = (tau * flow[None] * effectiveness)[:, None] * (inlets - basis)
            full, b = full - pick, b + jnp.sum(pick[:, :n] * X[None], axis=1)
            _, pass_on, pick_up = tube
            kept = (1 - bypassed) * pass_on[-1] + bypassed
            pumped = power.pump / flow
            supply = jnp.zeros_like(fluid_out).at[n].set(1)
            last, last_b = supply - kept[None] * fluid_out, (1 - bypassed) * pick_up[-1] + kept * pumped
            if coolant.bypass:
                # A valve that holds the set point leaves the nodes nothing to know of the radiator.
                last, last_b = jnp.where(held[None], supply, last), jnp.where(held, coolant.setpoint, last_b)
            A = jnp.concatenate([full, last[None]])
            b = jnp.concatenate([b, (last_b - jnp.sum(last[:n] * X, axis=0))[None]])
            p = jnp.concatenate([p, jnp.zeros_like(p[:1])])
            known = jnp.concatenate([X, jnp.zeros_like(X[:1])])
        z = nodal.solve_dense(A, jnp.stack([b, p], axis=1))
        moved, rise = z[:, 0], z[:, 1]
        base = known + moved
        asked, allowed = zero, zero
        if params.payload is not None:
            asked = load.demand * params.payload.power
            allowed = compute.throttled_power(base[chip], rise[chip], load.demand, params.payload)
        cells = zero if array is None else base[array] + rise[array] * allowed
        used = node_heat(params, load, power, met(power, heaters)[None] * heaters)
        heaters, _ = nodal.heater_power(base[:n] + rise[:n] * allowed[None], network)
        power = run_bus(params, load, energy, cells, jnp.sum(heaters, axis=0), asked, allowed)
        moved = moved + rise * power.payload[None]
        z = known + moved
        used = used - slope * (z[:n] - X_old)
        owed = node_heat(params, load, power, met(power, heaters)[None] * heaters) - used
        fluid = None
        if coolant is not None:
            inlet = jnp.sum(fluid_out * z, axis=0) + pumped
            fluid = (inlet, z[n])
        return moved[:n], theta, C + tau * own, power, fluid, owed

    def met(power, heaters):
        wanted = jnp.sum(heaters, axis=0)
        return jnp.where(wanted > 0, power.heater / jnp.where(wanted > 0, wanted, 1.0), 1.0)

    asked, allowed = zero, zero
    if params.payload is not None:
        asked = load.demand * params.payload.power
        allowed = asked * compute.throttle(X[chip], params.payload)
    cells = zero if array is None else X[array]
    heater = jnp.sum(nodal.heater_power(X, network)[0], axis=0)
    power = run_bus(params, load, energy, cells, heater, asked, allowed)
    bypassed, held = zero, zero > 0
    has_bypass = coolant is not None and coolant.bypass

    def valve(inlet):
        share = loop.bypass_fraction(still, response, inlet, coolant, panel, beside)
        return share, (share > 0) & (share < loop.LARGEST_BYPASS)

    if coolant is not None and coolant.bypass:
        bypassed, held = valve(jnp.sum(fluid_out[:n] * X, axis=0) + fluid_out[n] * coolant.setpoint)
    tube = None if coolant is None else tube_march(bypassed)
    moved, theta, inertia, power, fluid, owed = stage(X, power, tube, bypassed, held)
    for _ in range((BYPASS_PASSES if has_bypass else PASSES) - 1):
        if has_bypass and fluid is not None:
            bypassed, held = valve(fluid[0])
            tube = tube_march(bypassed)
        moved, theta, inertia, power, fluid, owed = stage(X + moved, power, tube, bypassed, held)

    inlet = outlet = supply = zero
    increment = None
    if fluid is not None and tube is not None:
        inlet, supply = fluid
        if has_bypass:
            # The share that the last pass's set point takes, where it was held.
            bypassed = jnp.where(held, valve(inlet)[0], bypassed)
            tube = tube_march(bypassed)
        take, pass_on, pick_up = tube
        fluid_after = pass_on * inlet[None] + pick_up
        outlet = fluid_after[-1]
        entering = jnp.concatenate([inlet[None], fluid_after[:-1]])
        increment = loop.wall_rise(start, alone, response, take, entering)
    return Stage(moved, theta, inertia, owed, power, bypassed, supply, inlet, outlet, increment)


@pytree
class Opening:
    """What a step is laid out by, before the panel moves.

    Attributes:
        sent: Heat of the nodes to the panel at the start [W/m^2].
        source: All that heats the panel, evenly [W/m^2].
        calm: T^4 at which the panel would radiate that [K^4].
        mean4: The panel's T^4 that the step goes by [K^4].
        h: Half the panel's step [s].
    """

    sent: Float[Array, " b"]
    source: Float[Array, " b"]
    calm: Float[Array, " b"]
    mean4: Float[Array, " b"]
    h: Float[Array, " b"]


def opening(
    params: Params, load: Loads, X: Float[Array, "n b"], mean4: Float[Array, " b"], sheet: Sheet
) -> Opening:
    """From the nodes and the panel's mean T^4 at the start of a step [K^4]."""
    panel = params.panel
    sent = _from_nodes(params, X)
    from_space = panel.to_space * SIGMA * weighted_fourth(panel, params.space_temperature)
    source = load.panel + panel.heat + from_space + sent
    calm = adi_step.settled((source[None, None],), sheet)
    start4 = jnp.maximum(mean4, calm)
    return Opening(sent, source, calm, start4, adi_step.half_step(start4, sheet, load.dt))


def _from_nodes(params: Params, X):
    """Heat that the nodes send to the panel [W/m^2]."""
    network = params.network
    sent = SIGMA * network.panel_radiative * X**4 + network.panel_conductance * X
    return jnp.sum(sent, axis=0) / params.panel.area


def more_from_nodes(params: Params, X: Float[Array, "n b"], stage: Stage, sent: Float[Array, " b"]):
    """What the nodes send to the panel at the stage more than at the start of the step, `sent` [W/m^2]."""
    return _from_nodes(params, X + stage.moved) - sent


def closing(
    params: Params,
    load: Loads,
    now: Lumps,
    stage: Stage,
    rise: Float[Array, " b"],
    rise4: Float[Array, " b"],
) -> Lumps:
    """Nodes and battery at the end of a step.

    Args:
        rise, rise4: Of the panel's means of T [K] and T^4 [K^4] from the start of the step to its middle.
    """
    network, dt = params.network, load.dt
    # What the stage could not know yet, the panel at mid-step and the last pass's bus, felt as the stage would.
    late = stage.owed + network.panel_conductance * rise[None] + SIGMA * network.panel_radiative * rise4[None]
    moved = stage.moved / stage.theta + dt[None] * late / stage.inertia
    X, lost = compensated_sum(now.nodes, moved, now.lost)
    energy, energy_lost = now.energy, now.energy_lost
    if params.battery is not None:
        cell, power = params.battery, stage.power
        stored = cell.charge_efficiency * power.charge - power.discharge / cell.discharge_efficiency
        energy, energy_lost = compensated_sum(energy, dt * stored, energy_lost)
    return Lumps(X, lost, energy, energy_lost)


def step(params: Params, now: Underway, load: Loads) -> tuple[Underway, Step]:
    """Advance by one step.

    Args:
        params: Design.
        now: At the start of the step.
        load: One row of Loads, with `dt` the length of the step [s]; zero is harmless.

    Returns:
        What comes after it, and what the bus and the fluid did.
    """
    panel, lumps, report = advance(params, now, load)
    return Underway(panel, lumps, *adi_step.means(panel.T)), report


def advance(params: Params, now: Underway, load: Loads) -> tuple[Field, Lumps, Step]:
    """`step`, but for the panel's means at its end."""
    panel, lumps = params.panel, now.lumps
    X = lumps.nodes
    sheet, under_way = panel_sheet(params), now.panel
    varying = None if sheet.linear else sheet
    if varying is not None:
        # Conductivity is that of the step's start; what it changes until mid-step is added there.
        sheet = as_it_stands(varying, adi_step.turn(under_way.T))
        under_way = under_way.conducting(sheet)

    # --- panel, first half: across the tubes, eliminated down to the tube cells
    start = opening(params, load, X, now.mean4, sheet)
    first = adi_step.first_coefficients(start.mean4, sheet, start.h)
    under_way = under_way.first_half((start.source[None, None],), first, sheet)
    wall = None
    if params.coolant is not None:
        line, alone, give_way = under_way.wall(first, sheet)
        response = start.h.reshape((1,) * (give_way.ndim - 1) + start.h.shape) * give_way
        wall = Wall(line, alone, adi_step.repeated(response, panel.nx) if panel.passes == 1 else response)
    stage = implicit_stage(params, load, X, lumps.energy, now.mean, now.mean4, wall)

    # --- panel: the rest of the first half, then along the tubes
    under_way = under_way.finish_first(first, sheet, stage.wall)
    half_mean, half_mean4 = under_way.mid_means()
    radiated4 = half_mean4
    if panel.emission_slopes:
        radiated4 = jnp.mean(weighted_fourth(panel, under_way.middle()), axis=(0, 1))
    # The first half used the nodes at its start: the second makes the whole step's heat that of the stage.
    more = more_from_nodes(params, X, stage, start.sent)[None, None]
    if varying is not None:
        middle = adi_step.turn(under_way.middle())
        more = more + adi_step.turn(changed_conduction(varying, sheet, middle, start.h))
    second = adi_step.second_coefficients(start.mean4, jnp.maximum(half_mean4, start.calm), sheet, start.h)
    panel_end = under_way.second_half(more, second, sheet)

    # --- nodes and battery
    lumps = closing(params, load, lumps, stage, half_mean - now.mean, half_mean4 - now.mean4)
    report = Step(stage.power, stage.bypass, stage.supply, stage.inlet, stage.outlet, radiated4)
    return panel_end, lumps, report
