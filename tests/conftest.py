"""Strict JAX settings for every test, and shape checks on the kernels."""

import os

# Two XLA host devices, as the command line uses on two cores; must be set before jax starts.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

install_import_hook("dawndusk.kernels", "beartype.beartype")


import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from dawndusk.kernels.battery import Battery  # noqa: E402
from dawndusk.kernels.coolant import Coolant  # noqa: E402
from dawndusk.kernels.network import Network  # noqa: E402
from dawndusk.kernels.panel import Panel  # noqa: E402
from dawndusk.kernels.payload import Payload  # noqa: E402
from dawndusk.kernels.revolution import Loads  # noqa: E402
from dawndusk.kernels.satellite import Bus, Params, State  # noqa: E402
from dawndusk.kernels.solar_array import SolarArray  # noqa: E402
from jax.experimental.compilation_cache import compilation_cache  # noqa: E402

NODES = ("structure", "chip", "cold_plate", "battery", "array")


def _design(b=1, seed=0, cells=(6, 6), bypass=False, dtype=jnp.float64, spread=1.0):
    """Random satellites of the 20 kW class with everything on: loop, exchange, heater, throttle, battery."""
    rng = np.random.default_rng(seed)

    def u(low, high):
        middle, half = (low + high) / 2, (high - low) / 2
        return jnp.asarray(middle + spread * rng.uniform(-half, half, b), dtype)

    def const(x):
        return jnp.full(b, x, dtype)

    n = len(NODES)
    table = {
        k: jnp.zeros((n, b), dtype) for k in ("C", "space", "exchange", "contact", "ua", "gain", "set", "max")
    }
    table["C"] = jnp.stack([u(0.5e5, 4e5), u(5e3, 2e4), u(3e4, 8e4), u(5e4, 1e5), u(2e5, 4e5)])
    table["space"] = table["space"].at[0].set(u(5, 9)).at[4].set(u(150, 170))
    table["exchange"] = table["exchange"].at[4].set(u(8, 12))
    table["contact"] = table["contact"].at[0].set(u(0, 2))
    table["ua"] = table["ua"].at[2].set(u(1500, 3000))
    table["gain"] = table["gain"].at[3].set(50.0)
    table["set"] = table["set"].at[3].set(283.0)
    table["max"] = table["max"].at[3].set(300.0)
    links = jnp.zeros((n, n, b), dtype)
    for i, j, g in (
        (1, 2, u(500, 1500)),
        (0, 3, u(1, 5)),
        (0, 4, u(1, 5)),
        (0, 2, u(0.1, 2)),
        (2, 3, u(30, 60)),
    ):
        links = links.at[i, j].set(g).at[j, i].set(g)
    radiative = jnp.zeros((n, n, b), dtype).at[0, 4].set(0.5).at[4, 0].set(0.5)
    length, half_pitch, area = const(4.0), const(0.1), u(38, 46)
    to_space = u(1.4, 1.5)
    panel = Panel(
        heat_capacity=u(3000, 5000),
        kt_x=u(0.15, 0.2),
        kt_y=u(0.3, 0.4),
        strip_conductance=u(0.01, 0.02),
        length=length,
        half_pitch=half_pitch,
        half_strips=area / (length * half_pitch),
        emission=to_space + table["exchange"][4] / area,
        to_space=to_space,
        heat=const(0.0),
        nx=cells[0],
        ny=cells[1],
    )
    network = Network(
        heat_capacity=table["C"],
        conductance=links,
        radiative=radiative,
        to_space=table["space"],
        panel_radiative=table["exchange"],
        panel_conductance=table["contact"],
        loop_conductance=table["ua"],
        heater_gain=table["gain"],
        heater_setpoint=table["set"],
        heater_max=table["max"],
        heat=jnp.zeros((n, b), dtype),
        names=NODES,
    )
    return Params(
        panel=panel,
        network=network,
        bus=Bus(u(800, 1200), u(300, 600), u(0.93, 0.97)),
        coolant=Coolant(u(1500, 3000), u(30, 60), const(1.0), u(50, 100), const(290.0), bypass=bypass),
        array=SolarArray(u(100, 110), u(0.19, 0.22), u(-0.003, -0.002), const(301.15)),
        battery=Battery(
            u(15, 25) * 3.6e6, u(0.2, 0.3), const(1.0), u(0.94, 0.97), u(0.94, 0.97), u(1e4, 2e4), u(3e4, 4e4)
        ),
        payload=Payload(u(13e3, 18e3), const(340.0), const(360.0), const(0.1)),
        chip_fraction=const(0.8),
        space_temperature=const(2.7255),
    )


def _loads(b=1, steps=128, eclipse=1100.0, period=5863.0, dtype=jnp.float64):
    """An orbit in and out of a sharp shadow, steps laid at its edges, the rest smooth."""
    edges = np.array([0.0, (period - eclipse) / 2, (period + eclipse) / 2, period])
    inside = max(2, round(steps * eclipse / period / 2) * 2) if eclipse else 0
    shares = [(steps - inside) // 2, inside, steps - inside - (steps - inside) // 2]
    times = [np.linspace(a, z, k, endpoint=False) for a, z, k in zip(edges[:-1], edges[1:], shares)]
    times = np.append(np.concatenate(times), period)
    mid = (times[1:] + times[:-1]) / 2
    sun = ((mid < edges[1]) | (mid > edges[2])) * 1.0
    wave = np.cos(2 * np.pi * mid / period)

    def rows(x):
        return jnp.asarray(np.repeat(x[:, None], b, axis=1), dtype)

    return Loads(
        dt=rows(np.diff(times)),
        time=rows(mid),
        sunlit=rows(sun),
        panel=rows(100 + 60 * wave),
        array=rows(sun * 1361 * 105 * 0.9 + 105 * 100),
        body=rows(50 + 20 * sun),
        irradiance=rows(sun * 1361),
        demand=rows(np.ones_like(mid)),
        incident=jnp.zeros((steps, 3, 3, b), dtype),
    )


def _state(params, temperature=300.0, charge=0.8):
    panel = params.panel
    b, dtype = panel.length.shape[0], panel.length.dtype
    return State(
        jnp.full((panel.nx, panel.ny, b), temperature, dtype),
        jnp.full((len(params.network.names), b), temperature, dtype),
        charge * params.battery.capacity,
    )


@pytest.fixture(scope="session")
def design():
    return _design


@pytest.fixture(scope="session")
def square_loads():
    return _loads


@pytest.fixture(scope="session")
def uniform_state():
    return _state


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """A file's programs are of no use to the next one, and take gigabytes together."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def compile_once(tmp_path_factory):
    """Runs of one shape share a program, as they do through the user's cache."""
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    )
    before = [getattr(jax.config, name) for name in names]
    for name, value in zip(names, (str(tmp_path_factory.mktemp("xla")), 0.0, -1)):
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in zip(names, before):
        jax.config.update(name, value)
    compilation_cache.reset_cache()
