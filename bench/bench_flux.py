"""Orbit-averaged fluxes of a fleet over a year, beside what a user would take instead, all in one run.

    pytest bench/bench_flux.py
    python bench/bench_flux.py [--full] [--peers numpy,quadrature,kelvinzero,basilisk]
    python bench/bench_flux.py --convergence docs/flux_convergence.png

10,000 satellites in low orbits, nadir pointing, on each of 365 days: a row is one revolution of one of them, nodes
and perigee drifted by J2, the Sun of the day. Asked are the means of direct Sun, albedo and Earth infrared on six
faces of the body, and the part of the revolution that the Sun is hidden. Times are after compilation, with making the
rows and bringing back the results; with `--full` of the whole year, else of its first rows. A peer takes some rows of
a random sample, and each line gives its errors on them beside its speed. The reference is ours in float64 with 256
nodes and the exact albedo, itself compared with `tests/reference/orbit_flux_mean.csv`. Peers need the `bench` extra;
one that is not installed is left out.
"""

import argparse
import csv
import math
import os
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
from dawndusk.solver import devices

devices.configure("cpu", "double")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from dawndusk.kernels import orbit_average, vector  # noqa: E402
from dawndusk.kernels.attitude import Attitude, body_axes  # noqa: E402
from dawndusk.kernels.constants import AU, DAY, R_EARTH, R_SUN  # noqa: E402
from dawndusk.kernels.eclipse import sunlit_fraction  # noqa: E402
from dawndusk.kernels.environment import albedo_factor_pairs, view_factor_pairs  # noqa: E402
from dawndusk.kernels.orbit import (  # noqa: E402
    Orbit,
    period,
    position_at_time,
    propagate,
    sun_synchronous_inclination,
)
from dawndusk.kernels.pytree import pytree  # noqa: E402
from dawndusk.kernels.revolution import Revolution, Surfaces  # noqa: E402
from dawndusk.kernels.sun import sun_position  # noqa: E402

SATELLITES, DAYS, EPOCH = 10_000, 365, 2_461_041.5  # 2026-01-01
SOLAR, ALBEDO, INFRARED = 1361.0, 0.3, 237.0
FACES = orbit_average.AXES
ALONG = "+x", "+z"  # radiator and array lie on body planes
BLOCK = 1024  # revolutions whose intermediate values stay in a core's second-level cache
CHUNK = 8 * BLOCK  # rows that a device takes at once
NODES = 32
SAMPLES = 360  # in time, of a peer
SAMPLE = 1000  # rows, drawn from the year, on which errors are taken
REFERENCE = Path(__file__).parents[1] / "tests" / "reference" / "orbit_flux_mean.csv"


@pytree
class Rows:
    """Revolutions, on the first axis of every leaf."""

    orbit: Orbit
    sun_hat: np.ndarray
    sun_distance: np.ndarray

    def __len__(self):
        return len(self.sun_distance)

    def __getitem__(self, index):
        return jax.tree.map(lambda x: x[index], self)

    def astype(self, dtype):
        return jax.tree.map(lambda x: np.asarray(x, dtype), self)


class Fleet:
    """The year's rows, made when they are asked for."""

    def __init__(self, satellites=SATELLITES, days=DAYS):
        rng = np.random.default_rng(0)

        def draw(low, high):
            return rng.uniform(low, high, satellites)

        a, e = R_EARTH + draw(400e3, 1400e3), draw(0, 3e-3)
        inclination = np.where(
            np.arange(satellites) % 2, np.radians(draw(30, 90)), sun_synchronous_inclination(a, e)
        )
        self.start = Orbit(a, e, inclination, *(draw(0, 2 * np.pi) for _ in range(3)))
        self.days, self.size = days, satellites * days
        noon = EPOCH + np.arange(days), np.full(days, 0.5)
        self.suns = [np.asarray(x) for x in jax.jit(jax.vmap(sun_position))(*noon)]

    def __call__(self, index) -> Rows:
        """As numbers that both precisions hold, so that no method is charged for their rounding."""
        satellite, day = np.divmod(index, self.days)
        orbit = propagate(jax.tree.map(lambda x: x[satellite], self.start), (day + 0.5) * DAY)
        turned = [np.mod(x, 2 * np.pi) for x in (orbit.raan, orbit.arg_perigee, orbit.mean_anomaly)]
        orbit = Orbit(orbit.semi_major_axis, orbit.eccentricity, orbit.inclination, *turned)
        direction, distance = self.suns
        return Rows(orbit, direction[day], distance[day]).astype(np.float32)


# ------------------------------------------------------------------------------------------------------ ours


def rows_last(tree):
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), tree)


def rows_first(tree):
    return jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0), tree)


def solar_flux(sun_distance):
    return SOLAR * (AU / sun_distance) ** 2


def revolutions(rows: Rows) -> Revolution:
    """The whole satellite on each row, as a case would build it."""
    d = rows.sun_distance

    def each(values):
        return jnp.broadcast_to(jnp.asarray(values, d.dtype), (len(d), *np.shape(values)))

    surfaces = Surfaces(
        *(each(x) for x in ([0.1] * 2, [0.9] * 2, [1.0] * 2, [0.9, 0.3], [0.85] * 2)),
        *(each(x) for x in (100.0, [2.0] * 6, 0.3, 0.05)),
    )
    return Revolution(
        orbit=rows.orbit,
        sun_hat=rows.sun_hat,
        sun_distance=d,
        solar_flux=solar_flux(d),
        albedo=each(ALBEDO),
        earth_infrared=each(INFRARED),
        earth_radius=each(R_EARTH),
        attitude=Attitude(each(np.eye(3)), "nadir"),
        radiator_normal_body=each([1.0, 0.0, 0.0]),
        array_axis_body=each([0.0, 0.0, 1.0]),
        surfaces=surfaces,
        demand_edges=each(np.zeros(0)),
        demand_levels=each([1.0]),
        eclipse_demand=each(1.0),
    )


def everything(rows: Rows, n=NODES):
    """`fleet_fluxes`: means, greatest and least values on ten faces, shadow times."""
    return rows_first(orbit_average.fleet_fluxes(revolutions(rows), n, ALONG, BLOCK))


def by_blocks(function):
    """A function of rows on the last axis as one of rows on the first, block by block."""

    def blocks(rows: Rows):
        split = jax.tree.map(lambda x: x.reshape(-1, min(BLOCK, len(x)), *x.shape[1:]), rows)
        found = jax.lax.map(lambda block: rows_first(function(rows_last(block))), split)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)

    return blocks


def body_planes(sun_hat):
    law = Attitude(jnp.zeros((3, *sun_hat.shape), sun_hat.dtype), "nadir")
    return lambda up, ahead: body_axes(up, ahead, sun_hat, law)


def faces(both_sides):
    """Sides and planes (..., 2, 3, rows) as faces (..., 6, rows)."""
    turned = jnp.moveaxis(both_sides, -3, -2)
    return turned.reshape(*turned.shape[:-3], len(FACES), turned.shape[-1])


def means(rows: Rows, n=NODES, exact=False):
    """`mean_fluxes` on the body faces, (3, 6, rows)."""
    d = rows.sun_distance
    sources = orbit_average.Sources(
        solar_flux(d), *(jnp.full_like(d, x) for x in (ALBEDO, INFRARED, R_EARTH))
    )
    planes = body_planes(rows.sun_hat)
    return faces(orbit_average.mean_fluxes(rows.orbit, rows.sun_hat, d, sources, planes, n, exact))


def sunlight(rows: Rows, n=NODES):
    """`mean_sunlight`: direct Sun on the body faces (6, rows), and the hidden part."""
    d = rows.sun_distance
    lit, hidden = orbit_average.mean_sunlight(rows.orbit, rows.sun_hat, d, body_planes(rows.sun_hat), n)
    return solar_flux(d) * faces(lit), hidden


def only_sun(solar):
    nothing = np.full_like(solar, np.nan)
    return np.stack([solar, nothing, nothing], axis=1)


# What is asked of a row, (rows, 3, 6) and (rows,), from what each function finds.
OURS = {
    "dawndusk, with extremes": (
        everything,
        lambda found: (np.asarray(found.incident)[:, :, :6], np.asarray(found.eclipse_fraction)),
    ),
    "dawndusk, means": (
        by_blocks(means),
        lambda found: (np.asarray(found), np.full(len(found), np.nan)),
    ),
    "dawndusk, Sun only": (
        by_blocks(sunlight),
        lambda found: (only_sun(np.asarray(found[0])), np.asarray(found[1])),
    ),
}


def compiled(function, rows: Rows):
    """The function for that many rows over all devices, and the seconds that compiling took."""
    start = time.perf_counter()
    made = devices.sharded(function).lower(rows).compile()
    return made, time.perf_counter() - start


def solve(made, asked, fleet: Fleet, chunk: int, count: int):
    """Wall time and processor time of the first `count` rows [s], and their mean fluxes on each face."""
    start = time.perf_counter(), time.process_time()
    total = np.zeros((3, len(FACES)))
    for first in range(0, count, chunk):
        # The last row stands in for those that fill up the last chunk.
        rows = fleet(np.minimum(np.arange(first, first + chunk), count - 1))
        incident, _ = asked(made(rows))
        total += np.sum(incident[: count - first], axis=0, dtype=float)
    return time.perf_counter() - start[0], time.process_time() - start[1], total / count


def reference(rows: Rows):
    """Means (rows, 3, 6) and hidden part (rows,) in float64, 256 nodes, exact albedo."""
    count = len(rows)
    rows = rows.astype(float)[np.minimum(np.arange(devices.even(count)), count - 1)]
    best = devices.sharded(by_blocks(partial(means, n=256, exact=True)))(rows)
    _, hidden = devices.sharded(by_blocks(partial(sunlight, n=256)))(rows)
    return np.asarray(best)[:count], np.asarray(hidden)[:count]


def published():
    """Largest difference of the reference from `orbit_flux_mean.csv`, of the three fluxes [W/m2]."""
    lines = [line for line in REFERENCE.read_text().splitlines() if not line.startswith("#")]
    plates = {"ram": 0, "wake": 1, "south": 2, "north": 3, "nadir": 4, "zenith": 5}
    table = [row for row in csv.DictReader(lines) if row["plate"] in plates]
    a = np.array([R_EARTH + 1e3 * float(row["h_km"]) for row in table])
    beta = np.radians([float(row["beta_deg"]) for row in table])
    zero = np.zeros_like(a)
    sun = np.stack([np.cos(beta), zero, np.sin(beta)], axis=1)
    found, _ = reference(Rows(Orbit(a, zero, zero, zero, zero, zero), sun, np.full_like(a, AU)))
    ours = [found[k, :, plates[row["plate"]]] for k, row in enumerate(table)]
    given = [[float(row[name]) for name in ("solar_mean", "albedo_mean", "ir_mean")] for row in table]
    return np.abs(np.array(ours) - given).max(axis=0)


# ----------------------------------------------------------------------------------------------------- peers


def local_sun(rows: Rows, samples: int):
    """What a user has at equal steps in time: radius [m], and the Sun towards zenith, ahead and the orbit normal.

    Each (samples, rows); the last (rows,).
    """
    orbit = rows.orbit
    e = orbit.eccentricity
    M = 2 * np.pi * np.arange(samples)[:, None] / samples
    E = M + e * np.sin(M)
    for _ in range(4):
        E = E - (E - e * np.sin(E) - M) / (1 - e * np.cos(E))
    nu = 2 * np.arctan2(np.sqrt(1 + e) * np.sin(E / 2), np.sqrt(1 - e) * np.cos(E / 2))
    u = orbit.arg_perigee + nu
    (so, co), (si, ci) = ((np.sin(x), np.cos(x)) for x in (orbit.raan, orbit.inclination))
    x, y, z = rows.sun_hat.T
    node, across, normal = co * x + so * y, ci * (co * y - so * x) + si * z, si * (so * x - co * y) + ci * z
    su, cu = np.sin(u), np.cos(u)
    return (
        orbit.semi_major_axis * (1 - e * np.cos(E)),
        cu * node + su * across,
        cu * across - su * node,
        normal,
    )


def cylinder(radius, zenith):
    return ~((zenith < 0) & (radius * np.sqrt(1 - zenith**2) < R_EARTH))


def cone(radius, zenith, sun_distance):
    """Visible part of the disc, from the area that two circles share."""
    to_sun = np.sqrt(sun_distance**2 + radius**2 - 2 * sun_distance * radius * zenith)
    a, b = np.arcsin(R_SUN / to_sun), np.arcsin(R_EARTH / radius)
    c = np.arccos(np.clip((radius - sun_distance * zenith) / to_sun, -1, 1))
    partial = (np.abs(a - b) < c) & (c < a + b)
    x = np.where(partial, (c**2 + a**2 - b**2) / (2 * c), 0.0)
    y = np.sqrt(np.maximum(a**2 - x**2, 0.0))
    A, B = np.arccos(np.clip(x / a, -1, 1)), np.arccos(np.clip((c - x) / b, -1, 1))
    hidden = (a**2 * A + b**2 * B - c * y) / (np.pi * a**2)
    return np.where(partial, 1 - hidden, c > b)


def numpy_peer(rows: Rows, thorough=False, at_once=64):
    """360 samples in time, float64, a block of rows at a time.

    Cylindrical shadow, and albedo as the Earth's infrared times what the ground straight below reflects; `thorough`:
    the cone, and albedo integrated over the ground in view, 16 rings of 24 directions.
    """
    found = []
    for first in range(0, len(rows), at_once):
        part = rows[first : first + at_once]
        S = solar_flux(part.sun_distance)
        radius, zenith, ahead, normal = local_sun(part, SAMPLES)
        normal = np.broadcast_to(normal, zenith.shape)
        lit = cone(radius, zenith, part.sun_distance) if thorough else cylinder(radius, zenith)
        sides = np.stack([ahead, -ahead, -normal, normal, -zenith, zenith])
        solar = S * np.mean(lit * np.maximum(sides, 0.0), axis=1)
        H = radius / R_EARTH
        k = np.sqrt(H**2 - 1)
        side = (np.arctan(1 / k) - k / H**2) / np.pi
        F = np.stack([side] * 4 + [1 / H**2, np.zeros_like(H)])
        if thorough:
            albedo = np.mean(ground(H, zenith, ahead, normal), axis=1)
        else:
            albedo = np.mean(F * np.maximum(zenith, 0.0), axis=1)
        fluxes = np.stack([solar, ALBEDO * S * albedo, INFRARED * np.mean(F, axis=1)])
        found.append((np.moveaxis(fluxes, -1, 0), 1 - np.mean(lit, axis=0)))
    return tuple(np.concatenate(x) for x in zip(*found))


def ground(H, zenith, ahead, normal, rings=16, spokes=6):
    """Albedo factors (6, samples, rows) by Gauss-Legendre in the cosine of the nadir angle and in each quadrant."""
    x, w = np.polynomial.legendre.leggauss(rings)
    y, v = np.polynomial.legendre.leggauss(spokes)
    azimuth = (np.pi / 2 * (np.arange(4)[:, None] + (y + 1) / 2)).ravel()
    v = np.tile(np.pi / 4 * v, 4)
    edge = np.sqrt(1 - 1 / H**2)[..., None]
    cos_eta = 1 - (1 - edge) * (x + 1) / 2
    sin_eta = np.sqrt(1 - cos_eta**2)
    central = np.arcsin(np.minimum(H[..., None] * sin_eta, 1.0)) - np.arcsin(sin_eta)
    round_ = ahead[..., None] * np.cos(azimuth) + normal[..., None] * np.sin(azimuth)
    sun = (np.cos(central) * zenith[..., None])[..., None] + np.sin(central)[..., None] * round_[..., None, :]
    reflected = np.maximum(sun, 0.0) * ((1 - edge) * w / (2 * np.pi))[..., None]
    horizontal = np.maximum([np.cos(azimuth), -np.cos(azimuth), -np.sin(azimuth), np.sin(azimuth)], 0.0)
    sides = np.einsum("...r,...rf->f...", sin_eta, reflected @ (v * horizontal).T)
    down = np.sum(cos_eta * (reflected @ v), axis=-1)
    return np.concatenate([sides, down[None], np.zeros_like(down)[None]])


def kelvinzero_peer(rows: Rows):
    """Its closed form for circular orbits and a cylinder. It has no fluxes."""
    from kelvinzero.orbit import eclipse_fraction_per_orbit, plane_normal

    beta = np.arcsin(np.sum(plane_normal(rows.orbit.raan, rows.orbit.inclination) * rows.sun_hat, axis=1))
    hidden = eclipse_fraction_per_orbit(beta, (rows.orbit.semi_major_axis - R_EARTH) / 1e3)
    return np.full((len(hidden), 3, len(FACES)), np.nan), hidden


# Body faces' normals towards zenith, ahead and the orbit normal.
NORMALS = np.array([(0, 1, 0), (0, -1, 0), (0, 0, -1), (0, 0, 1), (-1, 0, 0), (1, 0, 0)], float)


def basilisk_peer(rows: Rows, samples=120):
    """Its eclipse and albedo modules on its default patches, 1 x 1 deg. It has no infrared on a face.

    Axes are zenith, ahead and orbit normal: the Sun goes round, and satellite and attitude stay.
    """
    from Basilisk.architecture import messaging
    from Basilisk.simulation import albedo, eclipse

    earth, sun, state = (
        messaging.SpicePlanetStateMsg(),
        messaging.SpicePlanetStateMsg(),
        messaging.SCStatesMsg(),
    )
    planet = messaging.SpicePlanetStateMsgPayload()
    planet.PlanetName, planet.J20002Pfix = "earth", np.eye(3).tolist()
    earth.write(planet)
    ground, shadow, grid = albedo.Albedo(), eclipse.Eclipse(), albedo.PlanetGrid()
    grid.albedoAvg, grid.REQ_m, grid.RP_m = ALBEDO, R_EARTH, R_EARTH
    ground.addPlanetEntry(earth.addSubscriber(), grid)
    for normal in NORMALS:
        ground.addInstrumentConfig(np.pi / 2, normal.tolist(), [0.0] * 3)
    ground.spacecraftStateInMsg.subscribeTo(state)
    ground.sunPositionInMsg.subscribeTo(sun)
    shadow.sunInMsg.subscribeTo(sun)
    shadow.addSpacecraftToModel(state)
    shadow.addPlanetToModel(earth)
    place, satellite = messaging.SpicePlanetStateMsgPayload(), messaging.SCStatesMsgPayload()

    def look(radius, sun_hat, distance):
        place.PositionVector = (distance * sun_hat).tolist()
        satellite.r_BN_N = [radius, 0.0, 0.0]
        sun.write(place)
        state.write(satellite)
        for module in (ground, shadow):
            module.UpdateState(1)
        lit = shadow.eclipseOutMsgs[0].read().shadowFactor
        reflected = [message.read().albedoAtInstrument for message in ground.albOutMsgs]
        return [*(lit * np.maximum(NORMALS @ sun_hat, 0.0)), *reflected, 1 - lit]

    sun.write(place)
    state.write(satellite)
    for module in (ground, shadow):
        module.Reset(0)
    radius, *sun_hat = np.broadcast_arrays(*local_sun(rows, samples))
    seen = [
        [look(*at, distance) for at in zip(r, np.stack(s, axis=-1))]
        for r, s, distance in zip(radius.T, zip(*(x.T for x in sun_hat)), rows.sun_distance)
    ]
    found = np.mean(seen, axis=1)
    fluxes = solar_flux(rows.sun_distance)[:, None] * found[:, :12]
    nothing = np.full((len(found), len(FACES)), np.nan)
    return np.stack([fluxes[:, :6], fluxes[:, 6:], nothing], axis=1), found[:, 12]


# Name, function, rows that it does in some seconds.
PEERS = {
    "numpy": ("numpy, cylinder, sub-point", numpy_peer, 1000),
    "quadrature": ("numpy, cone, ground", partial(numpy_peer, thorough=True, at_once=4), 200),
    "kelvinzero": ("kelvinzero", kelvinzero_peer, 1000),
    "basilisk": ("Basilisk", basilisk_peer, 8),
}


# ---------------------------------------------------------------------------------------------------- report


def errors(found, best):
    """Largest and rms, of solar, albedo, infrared [W/m2] and hidden part [-], (4, 2)."""
    (incident, hidden), (fluxes, dark) = found, best
    count = len(hidden)
    off = [*np.moveaxis(incident - fluxes[:count], 1, 0), hidden - dark[:count]]
    return np.array([(np.abs(x).max(), np.sqrt(np.mean(x**2))) for x in off])


def report(options):
    jax.config.update("jax_enable_compilation_cache", False)
    fleet = Fleet()
    chunk = CHUNK * jax.local_device_count()
    count = fleet.size if options.full else options.chunks * chunk
    sample = fleet(np.random.default_rng(1).permutation(fleet.size)[:SAMPLE])
    print(
        f"{SATELLITES} satellites x {DAYS} days x {len(FACES)} faces, {NODES} nodes, float32; "
        f"{jax.local_device_count()} x {jax.devices()[0].device_kind}; load average {os.getloadavg()[0]:.2f}"
    )
    best = reference(sample)
    differences = ", ".join(f"{x:.1e}" for x in published())
    print(f"reference against {REFERENCE.name}, solar, albedo, infrared: {differences} W/m2")
    lines = []
    for name, (function, asked) in OURS.items():
        made, compiling = compiled(function, fleet(np.arange(chunk)))
        found = [x[:SAMPLE] for x in asked(made(sample[np.arange(chunk) % SAMPLE]))]
        runs = [solve(made, asked, fleet, chunk, count) for _ in range(options.repeats)]
        spent, busy, mean = min(runs, key=lambda run: run[0])
        print(
            f"{name}: compiled in {compiling:.1f} s; {count} rows in {spent:.2f} s, processor time {busy:.2f} s; "
            f"mean fluxes {', '.join(f'{x:.2f}' for x in mean.mean(axis=1))} W/m2"
        )
        lines.append((name, count, spent, errors(found, best)))
    for key in filter(None, options.peers.split(",")):
        name, peer, some = PEERS[key]
        rows = sample.astype(float)[:some]
        try:
            peer(rows[:1])
        except ImportError as missing:
            print(f"{name}: left out, {missing.name} is not installed", file=sys.stderr)
            continue
        start = time.perf_counter()
        found = peer(rows)
        lines.append((name, some, time.perf_counter() - start, errors(found, best)))
    titles = "solar", "albedo", "infrared", "hidden part"
    print(f"{'largest and rms error':28}{'rows':>9}{'us/row':>11}{'rows/s':>9}{'year [s]':>11}", end="")
    print("".join(f"{x:>19}" for x in titles))
    for name, rows, spent, off in lines:
        print(
            f"{name:28}{rows:>9}{1e6 * spent / rows:>11.2f}{rows / spent:>9.2g}{fleet.size * spent / rows:>11.1f}"
            + "".join(f"{'-':>19}" if np.isnan(a) else f"{a:>10.1e}{b:>9.1e}" for a, b in off)
        )


def bench(benchmark, name):
    """Beside numpy's samples in time, of as many rows as those do in a moment."""
    fleet, (function, asked) = Fleet(100), OURS[name]
    chunk = 2 * BLOCK * jax.local_device_count()
    made, compiling = compiled(function, fleet(np.arange(chunk)))
    count = 4 * chunk
    benchmark.pedantic(solve, (made, asked, fleet, chunk, count), rounds=3, warmup_rounds=1)
    _, peer, some = PEERS["numpy"]
    rows = fleet(np.arange(some)).astype(float)
    start = time.perf_counter()
    incident, _ = peer(rows)
    peer_per_row = (time.perf_counter() - start) / some
    found, _ = asked(made(fleet(np.arange(chunk))))
    # By as much a peer's steps in time are off.
    np.testing.assert_allclose(found[:some, 0], incident[:, 0], rtol=0, atol=10.0)
    per_row = benchmark.stats.stats.min / count
    benchmark.extra_info |= {
        "device": jax.devices()[0].device_kind,
        "devices": jax.local_device_count(),
        "dtype": "float32",
        "size": f"{count} rows x {len(FACES)} faces, {NODES} nodes",
        "compile_s": round(compiling, 3),
        "us_per_row": round(1e6 * per_row, 2),
        "ratio_to_peer": round(peer_per_row / per_row, 1),
    }


def test_with_extremes(benchmark):
    bench(benchmark, "dawndusk, with extremes")


def test_means(benchmark):
    bench(benchmark, "dawndusk, means")


def test_sunlight(benchmark):
    bench(benchmark, "dawndusk, Sun only")


# ------------------------------------------------------------------------------------------------ convergence

COUNTS = (8, 16, 32, 64, 128)
FINEST = 16_384  # samples in time, of which the coarser ones are every so many
# Perigee and apogee [km], argument of perigee and beta [rad].
SPREAD = (
    *((650, 650, 0.0, math.radians(beta)) for beta in (0, 20, 40, 60, 75, 90)),
    (650, 650, 0.0, math.asin(R_EARTH / (R_EARTH + 650e3))),  # grazing
    (400, 400, 0.0, 0.5),
    (1400, 1400, 0.0, 0.9),
    (600, 8000, 2.0, 0.4),
)


def spread():
    """Orbits of SPREAD, the Sun, and planes: the body's, one that follows the Sun, one between nadir and ram."""
    perigee, apogee, arg_perigee, beta = np.array(SPREAD).T
    a, zero = R_EARTH + 500 * (perigee + apogee), np.zeros_like(beta)
    orbit = Orbit(a, 500 * (apogee - perigee) / a, zero, zero, arg_perigee, zero)
    sun_hat = np.stack([np.cos(beta), zero, np.sin(beta)])

    def planes(up, ahead):
        sun = jnp.broadcast_to(sun_hat.reshape(3, -1, *[1] * (up.ndim - 2)), up.shape)
        axes = body_planes(sun)(up, ahead)
        return jnp.concatenate([axes, sun[None], math.sqrt(0.5) * (axes[0] + axes[2])[None]])

    return orbit, sun_hat, planes


def by_nodes(n):
    """Mean fluxes (3, 2, planes, orbits) with n nodes."""
    orbit, sun_hat, planes = spread()
    d = np.full(len(SPREAD), AU)
    sources = orbit_average.Sources(*(np.full_like(d, x) for x in (SOLAR, ALBEDO, INFRARED, R_EARTH)))
    return np.asarray(
        jax.jit(lambda d: orbit_average.mean_fluxes(orbit, sun_hat, d, sources, planes, n, True))(d)
    )


def in_time(at_once=256):
    """Fluxes at FINEST equal steps in time, (3, 2, planes, orbits, samples)."""
    orbit, sun_hat, planes = spread()
    orbit, sun = jax.tree.map(lambda x: x[:, None], orbit), sun_hat[:, :, None]

    @jax.jit
    def fluxes(part):
        r, v = position_at_time(orbit, sun, part * period(orbit.semi_major_axis))
        up, H = vector.unit(r), vector.norm(r) / R_EARTH
        sides = planes(r, v)
        cos_sun = jnp.stack([vector.dot(plane, sun) for plane in sides])
        cos_tilt = jnp.stack([-vector.dot(plane, up) for plane in sides])
        lit = sunlit_fraction(r, sun * AU)
        solar = lit * jnp.stack([jnp.maximum(cos_sun, 0), jnp.maximum(-cos_sun, 0)])
        reflected = albedo_factor_pairs(cos_tilt, vector.dot(up, sun), cos_sun, H, True)
        infrared = view_factor_pairs(cos_tilt, H)
        return jnp.stack(
            [SOLAR * solar, SOLAR * ALBEDO * jnp.stack(reflected), INFRARED * jnp.stack(infrared)]
        )

    parts = np.arange(FINEST).reshape(-1, 1, at_once) / FINEST
    return np.concatenate([np.asarray(fluxes(part)) for part in parts], axis=-1)


def convergence(path):
    """Largest errors over faces and orbits, of samples in time also over where the first of them falls."""
    best = by_nodes(1024)
    nodes = {n: np.abs(by_nodes(n) - best).max(axis=(1, 2, 3)) for n in COUNTS}
    found, samples = in_time(), {}
    for n in 2 ** np.arange(3, 13):
        coarse = found.reshape(*found.shape[:-1], n, FINEST // n).mean(axis=-2)
        samples[n] = np.abs(coarse - best[..., None]).max(axis=(1, 2, 3, 4))
    for title, series in (("nodes", nodes), ("samples in time", samples)):
        print(f"{title:>16}{'solar':>10}{'albedo':>10}{'infrared':>10}  [W/m2]")
        for n, off in series.items():
            print(f"{n:>16}" + "".join(f"{x:>10.1e}" for x in off))

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(8, 3), sharex=True, sharey=True, layout="constrained")
    for k, (axis, title) in enumerate(zip(axes, ("direct Sun", "albedo", "Earth infrared"))):
        axis.loglog(list(samples), [off[k] for off in samples.values()], "s-", label="equal steps in time")
        axis.loglog(list(nodes), [off[k] for off in nodes.values()], "o-", label="dawndusk")
        axis.set_title(title)
        axis.set_xlabel("nodes a revolution")
        axis.set_xticks([8, 32, 128, 512, 2048], ["8", "32", "128", "512", "2048"])
        axis.minorticks_off()
        axis.grid(True, alpha=0.3)
    axes[0].set_ylim(bottom=1e-8)
    axes[0].set_ylabel("largest error [W/m2]")
    axes[1].legend()
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="time all rows of the year")
    parser.add_argument("--chunks", type=int, default=12, help="chunks of rows that are timed otherwise")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated; empty for none")
    parser.add_argument("--convergence", metavar="PNG", help="draw errors against nodes, and stop")
    options = parser.parse_args()
    if options.convergence:
        convergence(options.convergence)
    else:
        report(options)


if __name__ == "__main__":
    main()
