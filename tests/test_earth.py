"""An Earth that varies: fluxes by direct integration, Knocke's model, tables, seasons, longitudes, derivatives."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import earth as earths
from dawndusk.kernels import environment, timescale
from dawndusk.kernels.earth import Earth, earth_fluxes, ground
from dawndusk.kernels.rings import visible_cap
from dawndusk.kernels.view_factor import plate_to_sphere
from jax.test_util import check_grads

S = 1361.0
N = 600  # directions at once, the same in most tests: a program serves several
JUNE, DECEMBER = 2_461_577.5, 2_461_760.5  # Julian dates of 2027-06-21 and 2027-12-21

# Latitude, albedo and infrared of a table that looks like the Earth: bright poles, a rain belt at the equator.
LATITUDE = np.radians(np.arange(-85.0, 90, 10))
ALBEDO = [
    0.63,
    0.57,
    0.44,
    0.37,
    0.34,
    0.28,
    0.25,
    0.24,
    0.245,
    0.25,
    0.245,
    0.26,
    0.29,
    0.33,
    0.38,
    0.44,
    0.52,
    0.59,
]
INFRARED = [155, 172, 193, 208, 225, 245, 260, 263, 253, 240, 243, 258, 264, 251, 231, 216, 205, 198]


@jax.jit
def fluxes(earth, up, H, n, sun):
    """[albedo, infrared] x side x direction."""
    flux = jnp.asarray(S, up.dtype)
    return jnp.stack(earth_fluxes(earth, up, H, n[None], sun, flux))[:, :, 0]


ground_of = jax.jit(ground)


def earth_of(zonal, tesseral=None, rotation=None):
    return Earth(*(None if x is None else jnp.asarray(x, float) for x in (zonal, tesseral, rotation)))


def knocke(date=DECEMBER):
    return earth_of(earths.knocke(date, S))


def table():
    zonal, _ = earths.grid_harmonics(LATITUDE, np.array([ALBEDO, INFRARED]), 12)
    return earth_of(zonal)


def map_of_continents(rotation=0.7, degree=12):
    """Eight bright and warm spots anywhere, in 10 degree cells."""
    longitude = np.radians(np.arange(5.0, 360, 10))
    lat, lon = np.meshgrid(LATITUDE, longitude, indexing="ij")
    place = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    spots = np.random.default_rng(1).normal(size=(8, 3))
    spots /= np.linalg.norm(spots, axis=1, keepdims=True)
    bright = sum(np.exp(3 * (np.tensordot(spot, place, 1) - 1)) for spot in spots)
    values = np.stack([0.1 + 0.1 * bright, 150 + 60 * bright])
    zonal, tesseral = earths.grid_harmonics(LATITUDE, values, degree, longitude[0])
    return earth_of(zonal, tesseral, np.broadcast_to(rotation, N)), values, place


# How each is made, and what its fluxes may be off [W/m2]: what the cap's polynomial drops grows with detail.
EARTHS = {
    "knocke": (knocke, 0.02),
    "table": (table, 0.2),
    "continents": (lambda: map_of_continents()[0], 0.05),
}


def directions(seed, lowest=300, highest=2000, n=N):
    """Satellites, faces and Suns anywhere; half near the terminator, a third of the faces near edge-on."""
    rng = np.random.default_rng(seed)
    H = 1 + np.exp(rng.uniform(np.log(lowest), np.log(highest), n)) / 6378.137

    def unit(x):
        return x / np.linalg.norm(x, axis=0)

    def tilted(x, up, angle):
        return np.cos(angle) * unit(x - np.sum(x * up, axis=0) * up) + np.sin(angle) * up

    up, normal, sun = (unit(rng.normal(size=(3, n))) for _ in range(3))
    sun[:, ::2] = tilted(sun, up, 0.35 * rng.normal(size=n))[:, ::2]
    normal[:, ::3] = tilted(normal, up, 0.5 * rng.normal(size=n))[:, ::3]
    return up, H, normal, sun


def on_device(*arrays, dtype=float):
    return [jnp.asarray(x, dtype) for x in arrays]


def direct_integral(earth, up, H, normal, sun, rings=300, azimuths=600):
    """[albedo, infrared] x side by a sum over ground patches, which knows of no ring, arc or polynomial."""
    a = np.cross([0, 0, 1] if abs(up[2]) < 0.9 else [1, 0, 0], up)
    a /= np.linalg.norm(a)
    b = np.cross(up, a)
    psi_max = np.arccos(1 / H)
    psi = ((np.arange(rings) + 0.5) / rings * psi_max)[:, None]
    phi = ((np.arange(azimuths) + 0.5) / azimuths * 2 * np.pi)[None]
    up, a, b = (x[:, None, None] for x in (up, a, b))
    place = np.cos(psi) * up + np.sin(psi) * (np.cos(phi) * a + np.sin(phi) * b)
    line = place - H * up
    distance = np.sqrt(np.sum(line**2, axis=0))
    area = np.sin(psi) * psi_max / rings * 2 * np.pi / azimuths
    sends = -np.sum(place * line, axis=0) / distance * area / (np.pi * distance**2)
    incidence = np.tensordot(normal, line, 1) / distance
    flat = Earth(earth.zonal, earth.tesseral, None if earth.rotation is None else earth.rotation[0])
    albedo, infrared = np.asarray(ground_of(flat, jnp.asarray(place)))
    source = np.stack([S * albedo * np.maximum(np.tensordot(sun, place, 1), 0), infrared])
    seen = np.stack([np.maximum(incidence, 0), np.maximum(-incidence, 0)])
    return np.einsum("irp,srp,rp->is", source, seen, sends)


def errors(name, count, seed, rings, azimuths):
    """Of the first directions of a draw against their sums, [albedo, infrared] x side x direction [W/m2]."""
    earth = EARTHS[name][0]()
    place = directions(seed)
    ours = np.asarray(fluxes(earth, *on_device(*place)))[..., :count]
    sums = [direct_integral(earth, *(x[..., i] for x in place), rings, azimuths) for i in range(count)]
    return ours - np.stack(sums, axis=-1)


@pytest.mark.parametrize("name", ["knocke", "continents"])
def test_fluxes_by_direct_integration(name):
    """Any face under any Sun from 300 to 2,000 km."""
    # The sums are good to 5e-3 W/m2: midpoints of a kinked integrand.
    assert np.abs(errors(name, 24, 5, 300, 600)).max() < EARTHS[name][1]


@pytest.mark.slow
@pytest.mark.parametrize("name", EARTHS)
def test_fluxes_by_direct_integration_of_many(name):
    error = np.abs(errors(name, 120, 6, 500, 1000)).max(axis=(1, 2))
    print(f"{name}: largest errors {error} W/m2")
    assert error.max() < EARTHS[name][1]


def test_uniform_earth_comes_out_as_before():
    earth, _, _ = map_of_continents()
    uniform = jnp.zeros_like(earth.zonal).at[:, 0].set(jnp.asarray([0.3, 237.0]))
    up, H, normal, sun = on_device(*directions(0, lowest=200, highest=40_000))
    ours = fluxes(Earth(uniform, 0 * earth.tesseral, earth.rotation), up, H, normal, sun)
    cos_tilt, cos_zenith, cos_sun = (jnp.sum(a * b, 0) for a, b in ((-normal, up), (up, sun), (normal, sun)))
    reflected = environment.albedo_factor_pairs(cos_tilt[None], cos_zenith, cos_sun[None], H)
    emitted = environment.view_factor_pairs(cos_tilt[None], H)
    # Rounding: the same rings and nodes.
    np.testing.assert_allclose(ours[0], 0.3 * S * jnp.stack(reflected)[:, 0], rtol=0, atol=1e-9)
    np.testing.assert_allclose(ours[1], 237 * jnp.stack(emitted)[:, 0], rtol=0, atol=1e-9)


def test_rings_add_up_to_the_view_factor():
    """The rings of the infrared's variable part, given one everywhere, make the closed form."""
    H = jnp.full(40, 1.2)
    cos_tilt = jnp.linspace(-0.99, 0.0, 40)
    one, zero = jnp.ones_like(H), jnp.zeros_like(H)
    cap = visible_cap(one, H)
    everywhere = [[one], [zero]], [[], [zero]]
    weights = earths._emitted_away(cap, everywhere, cos_tilt, jnp.stack([jnp.sqrt(1 - cos_tilt**2), zero]))
    # 5 nodes: 3e-5 of what the ground differs from that below, tens of W/m2.
    np.testing.assert_allclose(weights, plate_to_sphere(cos_tilt, H), rtol=0, atol=5e-5)
    down, across = earths._warm_flux(cap, everywhere)
    np.testing.assert_allclose(down, 1 / H**2, rtol=1e-5)
    np.testing.assert_allclose(across, 0.0, atol=1e-12)


@pytest.mark.parametrize("date", [JUNE, DECEMBER])
def test_knocke_means_over_the_globe(date):
    z, weight = np.polynomial.legendre.leggauss(8)
    place = np.stack([np.sqrt(1 - z * z), 0 * z, z])
    mean = np.asarray(ground(knocke(date), jnp.asarray(place))) @ weight / 2
    np.testing.assert_allclose(mean, [0.34, 0.68 * S / 4], rtol=1e-14)


def test_knocke_season():
    """Northern winter: the north is brighter and colder than in summer by twice the amplitude, the south mirrored."""
    poles = jnp.asarray([[0.0, 0], [0, 0], [1, -1]])
    winter, summer = (np.asarray(ground(knocke(date), poles)) for date in (DECEMBER, JUNE))
    np.testing.assert_allclose(winter - summer, [[0.2, -0.2], [-0.14 * S / 4, 0.14 * S / 4]], rtol=1e-3)
    np.testing.assert_allclose(winter[0, 0], 0.34 + 0.10 + 0.29, rtol=1e-3)
    np.testing.assert_allclose(winter, summer[:, ::-1], rtol=1e-2)


def test_infrared_of_a_polar_and_an_equatorial_orbit():
    """A face to nadir sees K2 of the zonal P2, whatever the azimuth (Funk and Hecke).

    P2 has the mean 1/4 over a polar orbit and -1/2 over an equatorial one.
    """
    H = 7028.137 / 6378.137
    x, weight = np.polynomial.legendre.leggauss(60)
    psi = np.arccos(1 / H) * (x + 1) / 2
    d2 = H * H + 1 - 2 * H * np.cos(psi)
    sends = (H - np.cos(psi)) * (H * np.cos(psi) - 1) / d2**2 * 2 * np.sin(psi)
    K2 = np.sum(weight / 2 * np.arccos(1 / H) * sends * (1.5 * np.cos(psi) ** 2 - 0.5))
    u = np.arange(N) / N * 2 * np.pi
    for mean_p2, up in (
        (0.25, [np.cos(u), 0 * u, np.sin(u)]),
        (-0.5, [np.cos(u), np.sin(u), 0 * u]),
    ):
        up = jnp.asarray(up)
        nadir = fluxes(knocke(), up, jnp.full(N, H), -up, up)[1, 0]
        # P1 averages out over either orbit. 4 nodes a cap: 2e-4 W/m2.
        expected = S / 4 * (0.68 / H**2 - 0.18 * K2 * mean_p2)
        np.testing.assert_allclose(np.mean(nadir), expected, rtol=0, atol=1e-3)


# ----------------------------------------------------------------------------------------------- tables


def test_table_of_a_smooth_earth_is_met_exactly():
    """Knocke's Earth, sampled every 10 degrees, is found again: a least-squares fit of a polynomial."""
    zonal = earths.knocke(DECEMBER, S)
    rows = zonal @ legendre(np.sin(LATITUDE), 3)
    found, tesseral = earths.grid_harmonics(LATITUDE, rows, 12)
    assert tesseral is None
    np.testing.assert_allclose(found[:, :3], zonal, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found[:, 3:], 0, atol=1e-9)


def legendre(z, degrees):
    return np.stack([np.polynomial.legendre.Legendre.basis(n)(z) for n in range(degrees)])


def test_table_keeps_its_mean():
    """The series' mean over the cells is the table's: the residuals of the fit are orthogonal to a constant."""
    area = np.diff(np.sin(np.radians(np.arange(-90, 91, 10))))
    series = table().zonal @ legendre(np.sin(LATITUDE), 13)
    np.testing.assert_allclose(series @ area, np.array([ALBEDO, INFRARED]) @ area, rtol=1e-12)


def test_longitudes_turn_with_the_earth():
    """The table is found again below its own meridians, which gmst has turned by."""
    turn = timescale.gmst(jnp.asarray(2_461_577.5), jnp.asarray(0.3))
    earth, values, place = map_of_continents(turn)
    c, s = np.cos(turn), np.sin(turn)
    turned = np.stack([c * place[0] - s * place[1], s * place[0] + c * place[1], place[2]])
    # Spots of 45 degrees, degree 12: measured 2e-9 and 1e-6 W/m2.
    found = np.asarray(ground_of(Earth(earth.zonal, earth.tesseral, turn), jnp.asarray(turned)))
    np.testing.assert_allclose(found[0], values[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[1], values[1], rtol=0, atol=1e-3)


def test_mean_over_a_turn_is_the_zonal_mean():
    """25 meridians average out every order up to 12; from 24 places."""
    earth, _, _ = map_of_continents()
    place = [jnp.repeat(x[..., :24], 25, axis=-1) for x in on_device(*directions(7))]
    turn = jnp.tile(jnp.arange(25.0) / 25 * 2 * np.pi, 24)
    turning = fluxes(Earth(earth.zonal, earth.tesseral, turn), *place).reshape(2, 2, 24, 25).mean(axis=-1)
    still = fluxes(Earth(earth.zonal, 0 * earth.tesseral, turn), *place)[..., ::25]
    # The series is linear in the coefficients; only its degree on the cap is cut, alike in both.
    np.testing.assert_allclose(turning, still, rtol=0, atol=1e-9)


def test_months_are_interpolated_round_the_year():
    months = np.stack([np.arange(12.0), 100 - np.arange(12.0)], axis=1)
    middle_of_july = 2_461_577.5 + 25
    np.testing.assert_allclose(earths.in_season(middle_of_july, months), [6, 94], atol=0.04)
    new_year = np.array([2_461_406.5, 2_461_406.5 + 15.5])
    # Halfway from December to January, and in the middle of January.
    np.testing.assert_allclose(earths.in_season(new_year, months)[:, 0], [5.5, 0], atol=0.2)


# ------------------------------------------------------------------------------ precision and derivatives


@pytest.mark.parametrize("name", ["knocke", pytest.param("continents", marks=pytest.mark.slow)])
def test_fluxes_in_float32(name):
    earth = EARTHS[name][0]()
    place = directions(8, highest=40_000)
    double = np.asarray(fluxes(earth, *on_device(*place)))
    single = fluxes(in_single(earth), *on_device(*place, dtype=jnp.float32))
    assert single.dtype == jnp.float32
    # 1e-4 of the flux is what the design asks; measured 1e-3 W/m2.
    np.testing.assert_allclose(single, double, rtol=0, atol=0.01)


def in_single(earth):
    return jax.tree.map(lambda x: x.astype(jnp.float32), earth)


def angles(tilt, zenith, azimuth, latitude):
    """up, H, normal and Sun, in degrees, repeated to N directions; the face's tilt from nadir."""
    given = np.stack(np.broadcast_arrays(*np.atleast_1d(tilt, zenith, azimuth, latitude)))
    tilt, zenith, azimuth, latitude = np.radians(np.resize(given.T.astype(float), (N, 4))).T
    up = np.array([np.cos(latitude), 0 * latitude, np.sin(latitude)])
    east, north = (
        np.array([0 * latitude, 0 * latitude + 1, 0 * latitude]),
        np.array([-up[2], 0 * latitude, up[0]]),
    )
    sun = np.cos(zenith) * up + np.sin(zenith) * east
    normal = -np.cos(tilt) * up + np.sin(tilt) * (np.cos(azimuth) * east + np.sin(azimuth) * north)
    return up, 0 * latitude + 1.1, normal, sun


EDGES = {
    "nadir": (0, 40, 0, 30),
    "zenith": (180, 40, 0, 30),
    "edge-on, in the plane of the Sun": (90, 40, 0, 30),
    "edge-on, across": (90, 40, 90, 30),
    "sub-solar": (100, 0, 50, 30),
    "anti-solar": (30, 180, 50, 30),
    "terminator below, edge-on": (90, 90, 0, 30),
    "terminator below, nadir": (0, 90, 0, 30),
    "north pole": (100, 60, 20, 90),
    "south pole": (100, 60, 20, -90),
    "equator": (100, 60, 20, 0),
    "last light": (20, 90 + math.degrees(math.acos(1 / 1.1)), 30, 30),
    "horizon at the limb": (180 - math.degrees(math.acos(1 / 1.1)), 40, 30, 30),
}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_derivatives(dtype):
    """With respect to place, face and Sun, in both modes: finite where directions degenerate, and right elsewhere."""
    earth = jax.tree.map(lambda x: x.astype(dtype), knocke())
    edges, anywhere = angles(*np.array(list(EDGES.values())).T), directions(10, lowest=200)
    k = len(EDGES)
    place = on_device(
        *(np.concatenate([a[..., :k], b[..., k:]], -1) for a, b in zip(edges, anywhere)), dtype=dtype
    )
    rng = np.random.default_rng(9)
    weights = jnp.asarray(rng.normal(size=(2, 2, N)), dtype)
    # Directions turn and stay of length one.
    tangents = [rng.normal(size=x.shape) for x in place]
    for x, t in zip(map(np.asarray, place), tangents):
        t[...] = t - np.sum(x * t, axis=0) * x if x.ndim > 1 else 0.01 * t
    tangents = on_device(*tangents, dtype=dtype)

    @jax.jit
    def each(*place):
        return jnp.sum(weights * fluxes(earth, *place), axis=(0, 1))

    _, forward = jax.jit(lambda *place: jax.jvp(each, place, tuple(tangents)))(*place)
    slopes = jax.jit(jax.grad(lambda *place: jnp.sum(each(*place)), (0, 1, 2, 3)))(*place)
    backward = sum(jnp.sum(g * t, axis=0) if g.ndim > 1 else g * t for g, t in zip(slopes, tangents))
    assert np.all(np.isfinite(forward)) and all(np.all(np.isfinite(g)) for g in slopes)
    # No face gains more than a few times the solar flux per radian, or per Earth radius.
    assert max(float(jnp.max(jnp.abs(g))) for g in slopes) < 10 * S
    # At an edge the two may take different sides of a kink.
    atol = 0.5 if dtype == jnp.float32 else 1e-7
    np.testing.assert_allclose(forward[k:], backward[k:], rtol=0, atol=atol)
    if dtype == jnp.float64:
        h = 1e-6
        ahead, behind = (each(*(x + sign * h * t for x, t in zip(place, tangents))) for sign in (1, -1))
        numerical = np.asarray((ahead - behind) / (2 * h))
        # Central differences over a kink's neighbourhood, and rounding of 1e3 W/m2.
        np.testing.assert_allclose(numerical[k:], forward[k:], rtol=1e-5, atol=1e-3)


@pytest.mark.slow
def test_derivatives_of_a_map():
    """With respect to its coefficients and its angle, too."""
    place = angles([10, 110, 60], [20, 80, 95], [30, 40, 10], [40, -60, 5])
    earth, _, _ = map_of_continents(degree=2)
    check_grads(fluxes, (earth, *on_device(*place)), order=1, modes=("fwd", "rev"), rtol=1e-5)


def test_poles_and_equator_are_like_other_places():
    """The axes in which the ground is looked up jump at the equator, the flux does not."""
    latitude = np.array([-90, -89.999999, -1e-6, 0, 1e-6, 89.999999, 90.0])
    flux = np.asarray(fluxes(knocke(), *on_device(*angles(110, 70, 40, latitude))))
    for pair in ((0, 1), (2, 3), (3, 4), (5, 6)):
        np.testing.assert_allclose(flux[..., pair[0]], flux[..., pair[1]], rtol=0, atol=1e-4)


def test_lowers_to_plain_arrays_in_float32():
    """For a GPU and a TPU: no double precision, no call back to the host, nothing looked up by a computed index."""
    earth = in_single(map_of_continents()[0])
    place = on_device(*directions(8), dtype=jnp.float32)
    with jax.enable_x64(False):
        traced = fluxes.trace(earth, *place)
        for platform in ("cuda", "tpu"):
            text = traced.lower(lowering_platforms=(platform,)).as_text()
            assert not re.search(r"f64|custom_call|gather|callback", text)
