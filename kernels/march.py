"""March over a revolution, and the periodic orbit.

A plain march reaches the periodic state only after many of its slowest time constants. `cyclic` instead corrects
after each march by a linear model of the nodes and the panel's mean,

    x <- Phi(x) + lift E (I - E)^-1 restrict(Phi(x) - x),   E = expm(P A),

with A the network linearised at the revolution's mean temperatures, so that its cost does not grow with thermal
mass. What the linear model misses, Anderson mixing over the last iterates takes up.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from . import network as nodal
from .constants import CONVERGED, NOT_CONVERGED, NOT_FINITE, SIGMA
from .coolant import tube_conductance
from .panel import weighted_fourth
from .periodic import EXACT, periodic_revolution
from .platforms import choose, gpu_kernel
from .pytree import pytree
from .recorded import Seen, recorded
from .revolution import Loads
from .satellite import Lumps, Params, Power, State, Step, depart, step
from .sheet import emitted

# Largest correction of one iteration [K], and temperature above which a satellite is given up [K].
LONGEST_CORRECTION, RUNAWAY = 60.0, 2000.0
# Anderson mixing: iterates kept, and the largest weight of one.
DEPTH, LARGEST_WEIGHT = 3, 5.0
# Jumps of the state of charge to the limit its drift points at, before a march's own end is taken instead.
CHARGE_JUMPS = 4
# Part of the capacity by which a charge may change over a periodic revolution.
CHARGE_CLOSURE = 1e-5


@pytree
class Record:
    """One revolution. Time series have a leading axis of steps; all have satellites last.

    Attributes:
        nodes: At each step's end [K].
        panel_max, panel_min, panel_mean: At each step's end, see panel.extremes [K].
        fluid_supply, fluid_radiator_in, fluid_radiator_out: At each step's stage [K]; 0 without a loop.
        bypass: Share of the flow led past the radiator [-].
        energy: In the battery at each step's end [J].
        array_available ... battery_discharge: Mean powers over each step [W], see satellite.Power.
        heat_absorbed: Solar, albedo and Earth infrared, electrical part included, over the revolution [J].
        heat_radiated: eps sigma F (T^4 - T_space^4) of the temperatures themselves, plus other heat out [J].
        heat_stored: Change of heat in panel and nodes, and of energy in the battery [J].
        heat_residual: (absorbed + other heat - radiated - transmitted - stored) / throughput [-].
        bus_residual: (array - dissipated - transmitted - battery's change) / array, or / load without array [-].
        battery_drift: Net energy into the store if nothing were curtailed and charge had no limits [J].
        panel_hottest, panel_coldest: Maps at the ends of the steps with the hottest and the coldest cell [K].
    """

    nodes: Float[Array, "t n b"]
    panel_max: Float[Array, "t b"]
    panel_min: Float[Array, "t b"]
    panel_mean: Float[Array, "t b"]
    fluid_supply: Float[Array, "t b"]
    fluid_radiator_in: Float[Array, "t b"]
    fluid_radiator_out: Float[Array, "t b"]
    bypass: Float[Array, "t b"]
    energy: Float[Array, "t b"]
    array_available: Float[Array, "t b"]
    array_taken: Float[Array, "t b"]
    payload_asked: Float[Array, "t b"]
    payload_throttled: Float[Array, "t b"]
    payload_curtailed: Float[Array, "t b"]
    payload_power: Float[Array, "t b"]
    heater_power: Float[Array, "t b"]
    pump_power: Float[Array, "t b"]
    base_power: Float[Array, "t b"]
    transmitted: Float[Array, "t b"]
    unmet: Float[Array, "t b"]
    battery_charge: Float[Array, "t b"]
    battery_discharge: Float[Array, "t b"]
    heat_absorbed: Float[Array, " b"]
    heat_radiated: Float[Array, " b"]
    heat_stored: Float[Array, " b"]
    heat_residual: Float[Array, " b"]
    bus_residual: Float[Array, " b"]
    battery_drift: Float[Array, " b"]
    panel_hottest: Float[Array, "nx ny b"]
    panel_coldest: Float[Array, "nx ny b"]


@pytree
class Cycle:
    """How the periodic orbit was found.

    Attributes:
        iterations: Orbit marches spent, the recorded one included.
        closure: Largest |T(P) - T(0)| over panel and nodes in the recorded revolution [K].
        distance: Distance to the periodic state that the linear model infers from it [K].
        slowest: Slowest time constant of the linear model [s].
        status: CONVERGED, NOT_CONVERGED or NOT_FINITE.
        power_deficit: The array cannot feed what is asked over a revolution: the state of charge ends at its
            floor and compute is curtailed.
        neutral_charge: Neither surplus nor deficit: the state of charge kept is one of many periodic ones.
    """

    iterations: Int[Array, " b"]
    closure: Float[Array, " b"]
    distance: Float[Array, " b"]
    slowest: Float[Array, " b"]
    status: Int[Array, " b"]
    power_deficit: Bool[Array, " b"]
    neutral_charge: Bool[Array, " b"]


def transient(params: Params, loads: Loads, state: State) -> tuple[State, Record]:
    """March over one revolution and record it.

    Args:
        params: Design, satellites last.
        loads: Rows of one revolution, (steps, ..., b).
        state: At its start.
    """

    end, seen = recorded(params, loads, state)
    return end, _record(params, loads, state, end, seen)


def _record(params: Params, loads: Loads, start: State, end: State, seen: Seen) -> Record:
    report, power = seen.report, seen.report.power
    return Record(
        nodes=seen.nodes,
        panel_max=seen.top,
        panel_min=seen.bottom,
        panel_mean=seen.mean,
        fluid_supply=report.supply,
        fluid_radiator_in=report.radiator_inlet,
        fluid_radiator_out=report.radiator_outlet,
        bypass=report.bypass,
        energy=seen.energy,
        array_available=power.available,
        array_taken=power.taken,
        payload_asked=power.asked,
        payload_throttled=power.throttled,
        payload_curtailed=power.curtailed,
        payload_power=power.payload,
        heater_power=power.heater,
        pump_power=power.pump,
        base_power=power.base,
        transmitted=power.transmitted,
        unmet=power.unmet,
        battery_charge=power.charge,
        battery_discharge=power.discharge,
        panel_hottest=seen.hottest,
        panel_coldest=seen.coldest,
        **_balance(params, loads, start, end, seen.nodes, report),
    )


def _balance(params, loads, start, end, nodes, report: Step) -> dict[str, Array]:
    """Both energy balances of a revolution, from temperatures and powers alone."""
    dt, panel, network, power = loads.dt, params.panel, params.network, report.power

    def total(rate):
        return jnp.sum(rate * dt, axis=0)

    space4 = params.space_temperature**4
    mid = (jnp.concatenate([start.nodes[None], nodes[:-1]]) + nodes) / 2
    from_nodes = jnp.sum(SIGMA * network.to_space[None] * (mid**4 - space4[None, None]), axis=1)
    from_panel = report.panel_mean4 - weighted_fourth(panel, params.space_temperature)[None]
    from_panel = SIGMA * (panel.to_space * panel.area)[None] * from_panel
    radiated = total(from_nodes + from_panel)
    absorbed = total(loads.panel * panel.area[None] + loads.array * _has(params.array) + loads.body)
    # Heat from neither the Sun nor the Earth: dissipation that a case prescribes, and bus power without an array.
    constant = panel.heat * panel.area + jnp.sum(network.heat, axis=0)
    other = total(jnp.broadcast_to(constant[None], dt.shape))
    spent = power.base + power.heater + power.pump + power.payload
    if params.array is None:
        other = other + total(spent + power.transmitted + power.charge - power.discharge)
    transmitted = total(power.transmitted)
    cell = (panel.heat_capacity * panel.area)[None, None]
    in_panel = jnp.sum(jnp.mean(cell * (end.panel - start.panel), axis=(0, 1), keepdims=True), axis=(0, 1))
    in_nodes = jnp.sum(network.heat_capacity * (end.nodes - start.nodes), axis=0)
    in_battery = end.energy - start.energy
    stored = in_panel + in_nodes + in_battery
    throughput = jnp.maximum(absorbed + other, radiated + transmitted)
    loss = (1 - params.bus.conversion_efficiency)[None] * power.taken
    if params.battery is not None:
        loss = loss + (1 - params.battery.charge_efficiency)[None] * power.charge
        loss = loss + (1 / params.battery.discharge_efficiency - 1)[None] * power.discharge
    used = total(spent + power.transmitted + loss)
    drawn = total(power.taken)
    return dict(
        heat_absorbed=absorbed,
        heat_radiated=radiated,
        heat_stored=stored,
        heat_residual=(absorbed + other - radiated - transmitted - stored) / _nonzero(throughput),
        bus_residual=(drawn - used - in_battery) / _nonzero(jnp.maximum(drawn, used)),
        battery_drift=total(power.drift),
    )


def _has(part) -> float:
    return 0.0 if part is None else 1.0


def _nonzero(x):
    return jnp.where(x > 0, x, 1.0)


@pytree
class Tally:
    """What a search sees of a march.

    Attributes:
        nodes: Integral of their temperatures [K s].
        mean: Of the panel's mean temperature [K s].
        throttled: Time in which compute is cut by temperature, not by power [s].
        held: Time in which the bypass holds its set point [s].
        time: All of it [s].
        low, high: Least and most energy in the battery at the ends of steps [J].
    """

    nodes: Float[Array, "n b"]
    mean: Float[Array, " b"]
    throttled: Float[Array, " b"]
    held: Float[Array, " b"]
    time: Float[Array, " b"]
    low: Float[Array, " b"]
    high: Float[Array, " b"]

    @classmethod
    def start(cls, state: State) -> "Tally":
        zero = jnp.zeros_like(state.energy)
        big = jnp.full_like(zero, jnp.finfo(zero.dtype).max)
        return cls(jnp.zeros_like(state.nodes), zero, zero, zero, zero, big, -big)

    def add(self, lumps: Lumps, mean: Float[Array, " b"], power: Power, bypass, w) -> "Tally":
        """With one more step, of length w [s]: its end, what the bus did in it, and the share led past."""
        throttled = ((power.throttled > 0) & (power.curtailed <= 0)).astype(w.dtype)
        held = ((bypass > 0) & (bypass < 0.998)).astype(w.dtype)
        return Tally(
            nodes=self.nodes + lumps.nodes * w[None],
            mean=self.mean + mean * w,
            throttled=self.throttled + throttled * w,
            held=self.held + held * w,
            time=self.time + w,
            low=jnp.minimum(self.low, lumps.energy),
            high=jnp.maximum(self.high, lumps.energy),
        )

    @property
    def means(self):
        """Over time, of nodes and panel [K], and of being throttled and held [-]."""
        return self.nodes / self.time[None], *(a / self.time for a in (self.mean, self.throttled, self.held))


def _summary_march(params: Params, loads: Loads, state: State) -> tuple[State, Tally]:
    """March without a record, which nobody differentiates: on an accelerator one kernel, where that holds it."""
    out = jax.eval_shape(lambda state: (state, Tally.start(state)), state)
    ways = {"default": _summary_loop, "tpu": _summary_on_tpu, "cuda": _summary_on_gpu}
    return choose(ways, out, params, loads, state)


def _summary_loop(params: Params, loads: Loads, state: State) -> tuple[State, Tally]:
    def advance(carry, load):
        now, tally = carry
        now, report = step(params, now, load)
        return (now, tally.add(now.lumps, now.mean, report.power, report.bypass, load.dt)), None

    (now, tally), _ = lax.scan(advance, (depart(params, state, room=True), Tally.start(state)), loads)
    return now.state, tally


def _summary_on_gpu(params: Params, loads: Loads, state: State) -> tuple[State, Tally]:
    march_gpu = gpu_kernel("march_gpu")
    if march_gpu is not None and march_gpu.supports(params, loads, state):
        return march_gpu.summary(params, loads, state)
    return _summary_loop(params, loads, state)


def _summary_on_tpu(params: Params, loads: Loads, state: State) -> tuple[State, Tally]:
    from . import march_tpu

    march = march_tpu.summary if march_tpu.supports(params, loads, state) else _summary_loop
    return march(params, loads, state)


def _linear_model(params: Params, means, period: Float[Array, " b"]):
    """E = expm(P A) of nodes and panel mean, satellites first, and the slowest time constant [s]."""
    X, T, throttled, held = means
    network, panel, coolant = params.network, params.panel, params.coolant
    n = X.shape[0]
    W, _ = nodal.linearise(X, network, params.space_temperature, T, T**4)
    K = jnp.zeros((n + 1, n + 1, T.shape[0]), T.dtype).at[:n, :n].set(W)
    to_panel = network.panel_conductance + 4 * SIGMA * network.panel_radiative * (T**3)[None]
    from_nodes = network.panel_conductance + 4 * SIGMA * network.panel_radiative * X**3
    emission = (panel.emission, *(panel.to_space * c for c in panel.emission_slopes))
    own = emitted(T, emission)[1] * panel.area + jnp.sum(network.panel_conductance, axis=0)
    K = K.at[:n, n].set(to_panel).at[n, :n].set(from_nodes).at[n, n].set(-own)
    if coolant is not None:
        # The whole radiator as one exchanger at the panel's mean temperature closes the loop.
        flow = coolant.capacity_rate
        effectiveness = -jnp.expm1(-network.loop_conductance / flow[None])
        inlets, outlet = nodal.fluid_path(effectiveness)
        tubes = panel.half_strips / 2 * panel.length * coolant.evaporator_fraction
        radiator = -jnp.expm1(-tube_conductance(coolant, panel) * tubes / flow)
        # A bypass that holds the set point hides the panel from the nodes.
        back = jnp.where(held > 0.5, 0.0, 1 - radiator)
        gain = jnp.where(held > 0.5, 0.0, radiator)
        closed = 1 / (1 - back * outlet[n])
        panel_unit = jnp.zeros((n + 1, 1), T.dtype).at[n].set(1)
        supply = closed[None] * (back[None] * outlet.at[n].set(0.0) + gain[None] * panel_unit)

        # Fluid temperature at each node as a linear form in (X, panel mean) instead of (X, supply).
        fluid = inlets.at[:, n].set(0.0) + inlets[:, n:] * supply[None]
        unit = jnp.eye(n + 1, dtype=T.dtype)[:n, :, None]
        taken = (flow[None] * effectiveness)[:, None] * (fluid - unit)
        K = K.at[:n].add(taken).at[n].add(-jnp.sum(taken, axis=0))
    if params.payload is not None and "chip" in network.names:
        c = network.index("chip")
        pay = params.payload
        slope = pay.power * (1 - pay.throttle_floor) / (pay.throttle_end - pay.throttle_start)
        K = K.at[c, c].add(-throttled * slope * params.chip_fraction / 2)
    capacity = jnp.concatenate([network.heat_capacity, (panel.heat_capacity * panel.area)[None]])
    A = jnp.moveaxis(K / capacity[:, None], -1, 0)
    E = jax.vmap(jax.scipy.linalg.expm)(A * period[:, None, None])
    return E


def _correct(E, r):
    """E (I - E)^-1 r and (I - E)^-1 r, satellites last in r."""
    eye = jnp.eye(E.shape[-1], dtype=E.dtype)[None]
    full = jnp.linalg.solve(eye - E, r.T[..., None])
    return jnp.matmul(E, full, precision=EXACT)[..., 0].T, full[..., 0].T


def _reduced(state: State) -> Float[Array, "m b"]:
    return jnp.concatenate([state.nodes, jnp.mean(state.panel, axis=(0, 1))[None]])


def _select(keep, old, new):
    return jax.tree.map(lambda a, b: jnp.where(keep, a, b), old, new)


def _next_charge(params: Params, start, end, low, high, jumps, closure: float = CHARGE_CLOSURE):
    """Charge to try next, whether it is periodic already, whether it is neutral, and the jumps spent."""
    if params.battery is None:
        yes = jnp.ones_like(start, dtype=bool)
        return end, yes, ~yes, jumps
    battery = params.battery
    full, floor = battery.soc_max * battery.capacity, battery.soc_min * battery.capacity
    near = closure * battery.capacity
    limited = (high >= full - near) | (low <= floor + near)
    drift = end - start
    still = jnp.abs(drift) <= near
    jump = ~limited & ~still & (jumps < CHARGE_JUMPS)
    target = jnp.where(drift > 0, full, floor)
    return jnp.where(jump, target, end), still, still & ~limited, jumps + jump.astype(jumps.dtype)


def _search(params: Params, loads: Loads, state: State, tolerance: float, max_iterations: int):
    """State at the start of the periodic revolution, marches spent, whether its charge is neutral, and the linear
    model it was found by."""
    period = jnp.sum(loads.dt, axis=0)
    m = state.nodes.shape[0] + 1
    b = period.shape[0]
    dtype = period.dtype

    def iterate(carry):
        k, state, E, done, spent, jumps, neutral, history, best = carry
        end, seen = _summary_march(params, loads, state)
        energy, periodic, free, jumps_new = _next_charge(
            params, state.energy, end.energy, seen.low, seen.high, jumps
        )
        rebuild = (k < 2) | (k % 3 == 0)
        E = lax.cond(rebuild, lambda: _linear_model(params, seen.means, period), lambda: E)
        x, fx = _reduced(state), _reduced(end)
        move, full = _correct(E, fx - x)
        distance = jnp.max(jnp.abs(full), axis=0)
        broken = ~(distance < RUNAWAY) | (jnp.max(end.panel, axis=(0, 1)) > RUNAWAY)
        arrived = (distance < tolerance) & periodic & (_panel_change(state, end) < tolerance) & (k > 0)
        g = fx + jnp.clip(move, -LONGEST_CORRECTION, LONGEST_CORRECTION)
        g, history, best = _anderson(k, x, g, history, best)
        shift = g - fx
        shift = jnp.where(arrived[None], 0.0, shift)
        new = State(end.panel + shift[-1][None, None], end.nodes + shift[:-1], energy)
        finished = done | arrived | broken
        # A broken satellite keeps its last finite state.
        state = _select(done | broken, state, new)
        return (
            k + 1,
            state,
            E,
            finished,
            jnp.where(done, spent, k + 1),
            jnp.where(done, jumps, jumps_new),
            jnp.where(done, neutral, free),
            history,
            best,
        )

    def unfinished(carry):
        return (carry[0] < max_iterations) & ~jnp.all(carry[3])

    never = jnp.zeros(b, bool)
    none = jnp.zeros(b, jnp.int32)
    history = (jnp.zeros((DEPTH, m, b), dtype), jnp.zeros((DEPTH, m, b), dtype))
    big = jnp.full(b, jnp.finfo(dtype).max, dtype)
    start = (jnp.int32(0), state, jnp.zeros((b, m, m), dtype), never, none, none, never, history, big)
    _, state, E, _, spent, _, neutral, _, _ = lax.while_loop(unfinished, iterate, start)
    return state, spent, neutral, E


def cyclic(
    params: Params, loads: Loads, state: State, tolerance: float = 5e-3, max_iterations: int = 40
) -> tuple[State, Cycle, Record]:
    """The periodic orbit: the state that one revolution of these loads brings back.

    Args:
        params: Design, satellites last.
        loads: Rows of one revolution, (steps, ..., b).
        state: Where to start looking; the answer does not depend on it.
        tolerance: On the distance to the periodic state that the linear model infers [K].
        max_iterations: Marches after which a satellite is given up and flagged.

    The search is not differentiated: derivatives, in both modes, are those of the root of the closure
    Phi(x) - x (implicit function theorem), active limits held fixed and a neutral charge pinned.

    Returns:
        The state at the start of the periodic revolution, how it was found, and the revolution. A satellite that
        has converged is frozen, so that what a batch holds besides it does not change its answer.
    """
    period = jnp.sum(loads.dt, axis=0)
    state, spent, neutral, E = _search(*lax.stop_gradient((params, loads, state)), tolerance, max_iterations)
    state, end, seen = periodic_revolution(params, loads, state, neutral, E)
    record = _record(params, loads, state, end, seen)
    means = _record_means(loads, record)
    E = _linear_model(params, means, period)
    _, full = _correct(E, _reduced(end) - _reduced(state))
    closure = jnp.maximum(_panel_change(state, end), jnp.max(jnp.abs(end.nodes - state.nodes), axis=0))
    distance = jnp.maximum(jnp.max(jnp.abs(full), axis=0), closure)
    # The recorded revolution starts a march later than the one that was tested: rounding may add a little.
    _, periodic, neutral, _ = _next_charge(
        params,
        state.energy,
        end.energy,
        record.energy.min(axis=0),
        record.energy.max(axis=0),
        jnp.zeros_like(spent),
        2 * CHARGE_CLOSURE,
    )
    finite = jnp.isfinite(distance) & jnp.all(jnp.isfinite(record.nodes), axis=(0, 1))
    finite = finite & (jnp.max(record.panel_max, axis=0) < RUNAWAY)
    close = (distance < 2 * tolerance) & periodic
    status = jnp.where(finite, jnp.where(close, CONVERGED, NOT_CONVERGED), NOT_FINITE)
    asked = jnp.sum((record.payload_asked + record.base_power) * loads.dt, axis=0)
    deficit = jnp.sum((record.payload_curtailed + record.unmet) * loads.dt, axis=0) > 1e-6 * asked
    cycle = Cycle(
        iterations=spent + 1,
        closure=closure,
        distance=distance,
        slowest=_slowest(E, period),
        status=status.astype(jnp.int32),
        power_deficit=deficit & (record.battery_drift < 0),
        neutral_charge=neutral,
    )
    return state, cycle, record


def _record_means(loads: Loads, record: Record):
    w = loads.dt / jnp.sum(loads.dt, axis=0)[None]
    throttled = ((record.payload_throttled > 0) & (record.payload_curtailed <= 0)).astype(w.dtype)
    held = ((record.bypass > 0) & (record.bypass < 0.998)).astype(w.dtype)
    return (
        jnp.sum(record.nodes * w[:, None], axis=0),
        jnp.sum(record.panel_mean * w, axis=0),
        jnp.sum(throttled * w, axis=0),
        jnp.sum(held * w, axis=0),
    )


def _panel_change(start: State, end: State):
    return jnp.max(jnp.abs(end.panel - start.panel), axis=(0, 1))


def _slowest(E, period):
    """Slowest time constant, from the norm that repeated squaring of E leaves [s]."""
    power, log_scale, weight = E, jnp.zeros_like(period), 1.0
    for _ in range(6):
        power = jnp.matmul(power, power, precision=EXACT)
        weight = weight * 2
        scale = jnp.maximum(jnp.max(jnp.abs(power), axis=(1, 2)), 1e-30)
        power = power / scale[:, None, None]
        log_scale = log_scale * 2 + jnp.log(scale)
    return -period * weight / jnp.minimum(log_scale, -1e-6)


def _anderson(k, x, g, history, best):
    """Mix the last iterates of x <- g(x) so that their residuals cancel (Anderson, J. ACM 12 (1965) 547).

    Walker and Ni's form with differences: weights from a regularised least-squares fit, clipped; the plain iterate
    where the residual has grown to four times the best one.
    """
    xs, fs = history
    f = g - x
    size = jnp.max(jnp.abs(f), axis=0)
    filled = jnp.arange(DEPTH, dtype=k.dtype)[:, None, None] < k
    dx = jnp.where(filled, x[None] - xs, 0.0)
    df = jnp.where(filled, f[None] - fs, 0.0)
    gram = jnp.einsum("imb,jmb->bij", df, df, precision=EXACT)
    trace = jnp.trace(gram, axis1=1, axis2=2)
    ridge = 1e-6 * trace + jnp.finfo(f.dtype).tiny
    gram = gram + ridge[:, None, None] * jnp.eye(DEPTH, dtype=f.dtype)[None]
    right = jnp.einsum("imb,mb->bi", df, f, precision=EXACT)
    weights = jnp.linalg.solve(gram, right[..., None])[..., 0].T
    usable = (size < 4 * best) & (jnp.max(jnp.abs(weights), axis=0) < LARGEST_WEIGHT) & (k > 1)
    weights = jnp.where(usable[None], weights, 0.0)
    mixed = g - jnp.einsum("ib,imb->mb", weights, dx + df, precision=EXACT)
    mixed = jnp.clip(mixed, x - 2 * LONGEST_CORRECTION, x + 2 * LONGEST_CORRECTION)
    history = (jnp.concatenate([x[None], xs[:-1]]), jnp.concatenate([f[None], fs[:-1]]))
    return mixed, history, jnp.minimum(best, size)
