"""One bench per kernel file: the jitted, batched call, compiled beforehand and waited for.

    pytest bench/bench_kernels.py
    pytest bench/bench_kernels.py -k fin --benchmark-json=fin.json

Each line records in `extra_info` the device, the precision, the size of the batch and `per_second`:
evaluations, or cell-steps where cells are marched. The tridiagonal solve also runs a peer in the same
test, on the same machine at the same load, and records `ratio_to_peer` (above 1: we are faster). Compile
time is not in the figures; `compile_s` is beside them.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import (
    adi,
    attitude,
    battery,
    coolant,
    eclipse,
    environment,
    fin,
    network,
    orbit,
    panel,
    payload,
    revolution,
    satellite,
    solar_array,
    sun,
    timescale,
    tridiagonal,
    view_factor,
)
from dawndusk.kernels.constants import AU, R_EARTH

PRECISIONS = ["float32", "float64"]
SATELLITES = 4096  # for kernels of one instant
REVOLUTIONS = 256  # for a whole revolution, and for marched kernels: a cache-sized chunk
STEPS = 128


@pytest.fixture(params=PRECISIONS)
def dtype(request):
    if request.param == "float64" and jax.default_backend() == "tpu":
        pytest.skip("a TPU emulates float64")
    return jnp.dtype(request.param)


def measure(benchmark, f, arguments, count, dtype, peer_per_second=None):
    """Run the bench, `count` evaluations a call, and note what it ran on.

    Returns:
        The result of one call.
    """
    f = jax.jit(f)
    start = time.perf_counter()
    compiled = f.lower(*arguments).compile()
    compile_seconds = time.perf_counter() - start
    out = jax.block_until_ready(compiled(*arguments))

    benchmark(lambda: jax.block_until_ready(compiled(*arguments)))
    info = benchmark.extra_info
    info["device"] = jax.devices()[0].device_kind
    info["dtype"] = str(dtype)
    info["size"] = count
    info["compile_s"] = round(compile_seconds, 3)
    # Without statistics (--benchmark-disable) there is nothing to divide by.
    if benchmark.stats is not None:
        per_second = count / benchmark.stats.stats.min
        info["per_second"] = float(f"{per_second:.4g}")
        if peer_per_second is not None:
            info["peer_per_second"] = float(f"{peer_per_second:.4g}")
            info["ratio_to_peer"] = round(per_second / peer_per_second, 2)
            print(f"\n{info['dtype']}: {per_second:.3g}/s, {info['ratio_to_peer']} x the peer")
    return out


def best_of(repeats, call):
    """Shortest wall time of a few calls [s]."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


class Draw:
    """Random numbers in one precision, the same ones every run."""

    def __init__(self, n, dtype):
        self.rng, self.n, self.dtype = np.random.default_rng(0), n, dtype

    def __call__(self, low, high, *shape):
        return jnp.asarray(self.rng.uniform(low, high, (*shape, self.n)), self.dtype)

    def full(self, value):
        return jnp.full((self.n,), value, self.dtype)

    def rows(self, *columns):
        """(n, 3) vectors from columns."""
        return jnp.stack(columns, axis=-1)


def draw_orbits(draw):
    turn = 2 * np.pi
    return orbit.Orbit(
        semi_major_axis=R_EARTH + draw(400e3, 1200e3),
        eccentricity=draw(0.0, 0.02),
        inclination=draw(0.5, 2.0),
        raan=draw(0, turn),
        arg_perigee=draw(0, turn),
        mean_anomaly=draw(0, turn),
    )


def draw_directions(draw):
    z, azimuth = draw(-1, 1), draw(0, 2 * np.pi)
    ring = jnp.sqrt(1 - z * z)
    return draw.rows(ring * jnp.cos(azimuth), ring * jnp.sin(azimuth), z)


def draw_positions(draw):
    return draw_directions(draw) * (R_EARTH + draw(400e3, 1200e3))[:, None]


# --- one satellite at one instant, vmapped ----------------------------------------------------------------


def test_timescale(benchmark, dtype):
    draw = Draw(SATELLITES, dtype)
    days, fraction = draw.full(2_461_577.0), draw(0, 1)
    measure(benchmark, timescale.gmst, (days, fraction), SATELLITES, dtype)


def test_sun(benchmark, dtype):
    draw = Draw(SATELLITES, dtype)
    days, fraction = jnp.round(draw(2_461_000, 2_462_000)), draw(0, 1)
    measure(benchmark, jax.vmap(sun.sun_position), (days, fraction), SATELLITES, dtype)


def test_orbit(benchmark, dtype):
    draw = Draw(SATELLITES, dtype)

    def propagated(elements, t):
        return orbit.state(orbit.propagate(elements, t))

    measure(benchmark, jax.vmap(propagated), (draw_orbits(draw), draw(0, 86400.0)), SATELLITES, dtype)


def test_sunlit_fraction(benchmark, dtype):
    draw = Draw(SATELLITES, dtype)
    arguments = (draw_positions(draw), draw_directions(draw) * AU)
    measure(benchmark, jax.vmap(eclipse.sunlit_fraction), arguments, SATELLITES, dtype)


def test_shadow_times(benchmark, dtype):
    draw = Draw(SATELLITES, dtype)
    arguments = (draw_orbits(draw), draw_directions(draw), draw.full(AU))
    measure(benchmark, jax.vmap(eclipse.shadow_times), arguments, SATELLITES, dtype)


def test_view_factor(benchmark, dtype):
    draw = Draw(SATELLITES, dtype)
    arguments = (draw(-1, 1), draw(1.05, 1.3))
    measure(benchmark, view_factor.plate_to_sphere, arguments, SATELLITES, dtype)


def test_exchange_areas(benchmark, dtype):
    draw = Draw(SATELLITES, dtype)
    F = jnp.moveaxis(draw(0, 0.2, 4, 4), -1, 0)
    F = (F + jnp.swapaxes(F, 1, 2)) / 2
    emissivity = jnp.moveaxis(draw(0.7, 0.95, 4), -1, 0)
    arguments = (F, emissivity, jnp.ones_like(emissivity))
    measure(benchmark, jax.vmap(view_factor.exchange_areas), arguments, SATELLITES, dtype)


def test_attitude(benchmark, dtype):
    draw = Draw(SATELLITES, dtype)
    law = attitude.Attitude(jnp.eye(3, dtype=dtype), "sun")

    def axes(elements, sun_hat):
        r, v = orbit.state(elements)
        return attitude.body_axes(r, v, sun_hat, law)

    measure(benchmark, jax.vmap(axes), (draw_orbits(draw), draw_directions(draw)), SATELLITES, dtype)


def test_albedo(benchmark, dtype):
    draw = Draw(SATELLITES, dtype)
    arguments = (
        draw_directions(draw),
        draw_positions(draw),
        draw_directions(draw),
        draw.full(1361.0),
        draw.full(0.3),
        draw.full(R_EARTH),
    )
    measure(benchmark, jax.vmap(environment.albedo), arguments, SATELLITES, dtype)


# --- a whole revolution ------------------------------------------------------------------------------------


def draw_revolutions(draw):
    def each(values):
        return jnp.broadcast_to(jnp.asarray(values, draw.dtype), (draw.n, *np.shape(values)))

    surfaces = revolution.Surfaces(
        radiator_solar_absorptance=each([0.1, 0.1]),
        radiator_emissivity=each([0.9, 0.9]),
        radiator_open=each([1.0, 1.0]),
        array_solar_absorptance=each([0.9, 0.3]),
        array_emissivity=each([0.85, 0.85]),
        array_area=draw.full(100.0),
        body_area=each([2.0] * 6),
        body_solar_absorptance=draw.full(0.02),
        body_emissivity=draw.full(0.02),
    )
    return revolution.Revolution(
        orbit=draw_orbits(draw),
        sun_hat=draw_directions(draw),
        sun_distance=draw.full(AU),
        solar_flux=draw.full(1361.0),
        albedo=draw.full(0.3),
        earth_infrared=draw.full(237.0),
        earth_radius=draw.full(R_EARTH),
        attitude=attitude.Attitude(each(np.eye(3)), "sun"),
        radiator_normal_body=each([0.0, 1.0, 0.0]),
        array_axis_body=each([0.0, 0.0, 1.0]),
        surfaces=surfaces,
        demand_edges=each([0.3, 0.6]),
        demand_levels=each([1.0, 0.7, 1.0]),
        eclipse_demand=draw.full(1.0),
        array_drive="two_axis",
    )


def loads_of(revolutions):
    def one(revolution_):
        return revolution.revolution_loads(revolution_, STEPS)

    return jax.vmap(one, out_axes=-1)(revolutions)


def test_geometry(benchmark, dtype):
    # shadow times and, by quadrature over the penumbra, the hidden time
    revolutions = draw_revolutions(Draw(REVOLUTIONS, dtype))
    measure(benchmark, jax.vmap(revolution.geometry), (revolutions,), REVOLUTIONS, dtype)


def test_revolution_loads(benchmark, dtype):
    # one evaluation: all faces of one satellite at one time step
    revolutions = draw_revolutions(Draw(REVOLUTIONS, dtype))
    measure(benchmark, loads_of, (revolutions,), REVOLUTIONS * STEPS, dtype)


# --- power --------------------------------------------------------------------------------------------------


def draw_battery(draw):
    values = (100 * 3.6e6, 0.1, 1.0, 0.95, 0.95, 50e3, 50e3)
    return battery.Battery(*(draw.full(x) for x in values))


def draw_payload(draw):
    return payload.Payload(draw.full(100e3), draw.full(358.0), draw.full(368.0), draw.full(0.2))


def draw_array(draw):
    return solar_array.SolarArray(draw.full(600.0), draw.full(0.22), draw.full(-0.0028), draw.full(301.0))


def test_solar_array(benchmark, dtype):
    draw = Draw(SATELLITES, dtype)
    arguments = (draw(0, 1423), draw(180, 400), draw_array(draw))
    measure(benchmark, solar_array.array_power, arguments, SATELLITES, dtype)


def test_battery(benchmark, dtype):
    draw = Draw(SATELLITES, dtype)
    arguments = (draw(36e6, 360e6), draw(-80e3, 80e3), draw(0, 60), draw_battery(draw))
    measure(benchmark, battery.battery_step, arguments, SATELLITES, dtype)


def test_payload(benchmark, dtype):
    draw = Draw(SATELLITES, dtype)
    arguments = (draw(300, 380), draw(1e-5, 1e-3), draw(0, 1), draw_payload(draw))
    measure(benchmark, payload.throttled_power, arguments, SATELLITES, dtype)


# --- finite differences and the coupled step ----------------------------------------------------------------


def test_tridiagonal(benchmark, dtype):
    """Peer: LAPACK's gtsv, one system after the other, called from Python on 256 rows to hide the call."""
    from scipy.linalg import get_lapack_funcs

    n, draw = 256, Draw(REVOLUTIONS, dtype)
    lower, upper = draw(-1, -0.5, n), draw(-1, -0.5, n)
    diag, rhs = draw(2.1, 3.0, n), draw(-1, 1, n)
    columns = [np.ascontiguousarray(np.asarray(a).T) for a in (lower, diag, upper, rhs)]
    (gtsv,) = get_lapack_funcs(("gtsv",), columns)

    def peer():
        for low, mid, up, b in zip(*columns):
            gtsv(low[1:], mid, up[:-1], b)

    rows = n * REVOLUTIONS
    speed = rows / best_of(5, peer)
    measure(benchmark, tridiagonal.solve, (lower, diag, upper, rhs), rows, dtype, speed)


def draw_fins(draw, n_cells):
    """Fins on a revolution of 5800 s with an eclipse of 2100 s, as flat arrays."""
    fins = fin.Fin(
        length=draw(0.1, 0.25),
        thickness=draw(0.0008, 0.0015),
        conductivity=draw(120, 200),
        faces=(fin.Face(draw(1.5, 1.8)),),
        heat_capacity=draw(2000, 5000),
        root="flux",
        n_cells=n_cells,
    )
    return fins, draw(40, 90), draw(250, 450), draw(70, 160)


def test_fin(benchmark, dtype):
    """1000 fins x 64 cells x 580 steps of 10 s; accuracy and peers: bench_fin.py."""
    n, steps, fins_n = 64, 580, 1000
    chunk = 125  # a chunk's arrays stay in the cache of one core

    def march(fins, heat, in_sun, in_shadow):
        def one_chunk(part):
            fins, heat, in_sun, in_shadow = part
            absorbed = jnp.where(jnp.arange(steps)[:, None] < 370, in_sun[None], in_shadow[None])
            loads = fin.Loads((absorbed,), jnp.broadcast_to(heat[None], absorbed.shape))
            start = jnp.full((n, chunk), 290, dtype)
            return fin.fin_transient(start, loads, jnp.full_like(absorbed, 10), fins)

        return jax.lax.map(
            one_chunk, jax.tree.map(lambda x: x.reshape(-1, chunk), (fins, heat, in_sun, in_shadow))
        )

    measure(benchmark, march, draw_fins(Draw(fins_n, dtype), n), fins_n * n * steps, dtype)


def test_fin_steady(benchmark, dtype):
    draw = Draw(1000, dtype)
    fins, heat, in_sun, _ = draw_fins(draw, 64)
    measure(benchmark, fin.fin_steady, (fin.Loads((in_sun,), heat), fins), 1000, dtype)


NX, NY = 32, 16


def draw_panel(draw):
    return panel.Panel(
        heat_capacity=draw(4000, 6000),
        kt_x=draw(0.15, 0.3),
        kt_y=draw(0.15, 0.3),
        strip_conductance=draw.full(0.02),
        length=draw.full(4.0),
        half_pitch=draw.full(0.1),
        half_strips=draw.full(275.0),
        emission=draw(1.6, 1.8),
        to_space=draw(1.5, 1.6),
        heat=draw.full(0.0),
        nx=NX,
        ny=NY,
    )


def test_panel(benchmark, dtype):
    """128 steps of 32 x 16 cells by alternating directions, a heat pipe in the first row."""
    draw = Draw(REVOLUTIONS, dtype)
    plate = draw_panel(draw)
    loads, start = draw(100, 400, STEPS), draw(280, 320, NX, NY)

    def march(plate, loads, T):
        sheet = panel.strip(plate, jnp.zeros_like(plate.length))
        return adi.transient(T, jnp.zeros_like(T[:1, :1]), loads, jnp.full_like(loads, 45), sheet)[0]

    measure(benchmark, march, (plate, loads, start), REVOLUTIONS * STEPS * NX * NY, dtype)


def draw_coolant(draw):
    return coolant.Coolant(
        capacity_rate=draw(8e3, 12e3),
        wall_conductance=draw(20, 40),
        evaporator_fraction=draw.full(1.0),
        pump_power=draw.full(500.0),
        setpoint=draw.full(290.0),
        bypass=True,
    )


def test_coolant(benchmark, dtype):
    draw = Draw(REVOLUTIONS, dtype)
    walls, response = draw(270, 300, NX), draw(1e-3, 5e-3, NX)
    arguments = (walls, response, draw(295, 320), draw_coolant(draw), draw_panel(draw))
    measure(benchmark, coolant.bypass_fraction, arguments, REVOLUTIONS, dtype)


NODES = ("structure", "chip", "cold_plate", "battery", "array")


def draw_network(draw):
    n = len(NODES)
    links = np.zeros((n, n))
    links[0, 2] = links[2, 0] = 20.0
    links[1, 2] = links[2, 1] = 4000.0
    links[0, 3] = links[3, 0] = 5.0

    def column(values):
        return jnp.broadcast_to(jnp.asarray(values, draw.dtype)[:, None], (n, draw.n))

    none = column([0.0] * n)
    square = jnp.broadcast_to(jnp.asarray(links, draw.dtype)[..., None], (n, n, draw.n))
    return network.Network(
        heat_capacity=column([5e5, 5e4, 2e5, 3e5, 5e5]),
        conductance=square,
        radiative=jnp.zeros_like(square),
        to_space=column([1.0, 0, 0, 0, 500.0]),
        panel_radiative=none,
        panel_conductance=none,
        loop_conductance=column([0, 0, 2e4, 0, 0]),
        heater_gain=column([0, 0, 0, 100.0, 0]),
        heater_setpoint=column([0, 0, 0, 278.0, 0]),
        heater_max=column([0, 0, 0, 500.0, 0]),
        heat=none,
        names=NODES,
    )


def test_network(benchmark, dtype):
    """Linearised heat balance and its small dense solve."""
    draw = Draw(REVOLUTIONS, dtype)

    def relax(X, nodes, space, mean):
        W, c = network.linearise(X, nodes, space, mean, mean**4)
        eye = jnp.eye(len(NODES), dtype=X.dtype)[:, :, None]
        rate = (nodes.heat_capacity / 45)[:, None]
        return network.solve_dense(rate * eye - W, (rate[:, 0] * X + c)[:, None])

    arguments = (draw(280, 320, len(NODES)), draw_network(draw), draw.full(2.7), draw(280, 300))
    measure(benchmark, relax, arguments, REVOLUTIONS, dtype)


def test_satellite(benchmark, dtype):
    """One revolution of coupled steps: panel, loop, five nodes, array, battery and throttled compute."""
    draw = Draw(REVOLUTIONS, dtype)
    params = satellite.Params(
        panel=draw_panel(draw),
        network=draw_network(draw),
        bus=satellite.Bus(draw.full(3e3), draw.full(1e3), draw.full(0.95)),
        coolant=draw_coolant(draw),
        array=draw_array(draw),
        battery=draw_battery(draw),
        payload=draw_payload(draw),
        chip_fraction=draw.full(0.8),
        space_temperature=draw.full(2.7),
    )
    loads = jax.jit(loads_of)(draw_revolutions(draw))
    start = satellite.State(
        draw(285, 290, NX, NY), draw(290, 300, len(NODES)), draw_battery(draw).capacity * 0.8
    )

    def march(params, loads, state):
        def step(now, load):
            return satellite.step(params, now, load)[0], None

        return jax.lax.scan(step, satellite.depart(params, state), loads)[0].state

    measure(benchmark, march, (params, loads, start), REVOLUTIONS * STEPS * NX * NY, dtype)
