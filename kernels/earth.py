"""An Earth whose albedo and infrared vary over the ground: spherical harmonics, and their flux on flat faces.

A patch dA of ground at distance d, under angles gamma on the ground and alpha on the face, sends to the face

    (a S max(0, cos th_sun) + M) cos(alpha) cos(gamma) dA / (pi d^2)

with a albedo, S solar flux, M emitted infrared. a and M are series of spherical harmonics. Seen from a
satellite, each is replaced by the polynomial on the visible cap that is nearest to it (least squares, per area), in

    rho cos(phi), rho sin(phi),    rho^2 = (1 - cos psi) / (1 - 1/H)

psi the Earth-central angle, phi the azimuth; rho = 1 is the limb. On a ring of the cap (`rings`) such a
polynomial is a short Fourier series in phi, as the cosines of the Sun's and of the face's incidence are, so that
the integral over the azimuths that are lit and in view stays closed, with as many rings as a uniform Earth
takes. The terminator and the face's horizon cost no accuracy, and a uniform Earth comes out as `environment`
has it.

Derived in docs/physics.md, "An Earth that varies".
"""

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .environment import CAP_NODES, EDGE_ON, FACE_NODES, view_factor_pairs
from .numerics import safe_sqrt, scaled, sincos
from .pytree import pytree
from .rings import (
    VERTICAL,
    Cap,
    arc,
    arccos,
    integrate,
    over_both_arcs,
    ring,
    ring_coordinate,
    visible_cap,
    zenith_cosine,
)
from .vector import dot

# Degree of the polynomial that stands for the ground in view: at most this, or two more than the Earth's own.
LOCAL_DEGREE = 6
# Gauss-Legendre nodes of what the infrared differs from that of the sub-satellite point: whole cap, one face.
INFRARED_NODES = (4, 5)

# Knocke (1988): coefficients of P0, P1, P2 of sin(latitude), and the amplitude of the season in P1.
KNOCKE_ALBEDO, KNOCKE_ALBEDO_SEASON = (0.34, 0.0, 0.29), 0.10
KNOCKE_EMISSIVITY, KNOCKE_EMISSIVITY_SEASON = (0.68, 0.0, -0.18), -0.07
KNOCKE_EPOCH = 2_444_960.5  # Julian date of 1981-12-22
KNOCKE_YEAR = 365.25  # days

YEAR_2000 = 2_451_544.5  # Julian date of 2000-01-01
GREGORIAN_YEAR = 365.2425  # days
MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

# A Fourier series on a ring: cosine and sine coefficients by order; None stands for no term.
Series = tuple[list, list]


@pytree
class Earth:
    """Albedo and emitted infrared of the ground as spherical harmonics, in axes of the mean equator of date.

    Attributes:
        zonal: [albedo -, infrared W/m2] x degree: coefficients of the Legendre polynomials of sin(latitude). As
            the tesseral ones, of one Earth, or of one for each satellite, on a last axis.
        tesseral: None for an Earth that is the same at all longitudes, or [albedo, infrared] x [cosine, sine]
            x degree x order: coefficients of the Schmidt semi-normalised functions of latitude times cosine
            and sine of order times longitude. Order 0 is not used.
        rotation: Angle of the Greenwich meridian, `timescale.gmst` [rad], of any shape that broadcasts to
            the satellites'. Needed with tesseral.
    """

    zonal: Float[Array, "2 n *batch"]
    tesseral: Float[Array, "2 2 n n *batch"] | None = None
    rotation: Float[Array, "*batch"] | None = None


def knocke(days: np.ndarray | float, solar_flux: np.ndarray | float) -> np.ndarray:
    """`Earth.zonal` of Knocke's Earth at some dates, (*dates, 2, 3). Host side, float64.

        a = .34 + .10 cos(w (t - t0)) sin(lat) + .29 P2(sin lat)
        M = S/4 [.68 - .07 cos(w (t - t0)) sin(lat) - .18 P2(sin lat)]

    t0 = 1981-12-22, w = 2 pi / 365.25 d. Knocke, Ries and Tapley, "Earth radiation pressure effects on
    satellites", AIAA 88-4292 (1988).

    Args:
        days: Julian dates, (*dates).
        solar_flux: S at the Earth, (*dates) [W/m2].
    """
    season = np.cos(2 * np.pi * np.remainder(days - KNOCKE_EPOCH, KNOCKE_YEAR) / KNOCKE_YEAR)[..., None]
    albedo = np.array(KNOCKE_ALBEDO) + season * np.array([0, KNOCKE_ALBEDO_SEASON, 0])
    emissivity = np.array(KNOCKE_EMISSIVITY) + season * np.array([0, KNOCKE_EMISSIVITY_SEASON, 0])
    return np.stack([albedo, np.asarray(solar_flux)[..., None] / 4 * emissivity], axis=-2)


def grid_harmonics(
    latitude: np.ndarray, values: np.ndarray, degree: int, first_longitude: float = 0.0
) -> tuple[np.ndarray, np.ndarray | None]:
    """`Earth.zonal` and `Earth.tesseral` nearest to a table. Host side, float64.

    Least squares over the rows, each weighted with the area of its cells (from halfway to the row before to
    halfway to the next, or the pole), for each order of the Fourier series along the rows. Summed over the
    cells the series has the table's mean.

    Args:
        latitude: Of the rows, ascending [rad].
        values: [albedo -, infrared W/m2] x latitude, or x latitude x longitude, eastwards in equal steps all
            round.
        degree: Of the series: at most two thirds of the number of rows, or it swings between them.
        first_longitude: [rad].

    Returns:
        zonal, and tesseral: None without longitudes.
    """
    z, n = np.sin(latitude), degree + 1
    edges = np.concatenate([[-1.0], np.sin((latitude[1:] + latitude[:-1]) / 2), [1.0]])
    root = np.sqrt(np.diff(edges))[:, None]

    def fit(m, rows):
        columns = np.stack(list(_functions(z, m, n)), axis=1) * np.cos(latitude)[:, None] ** m
        return np.linalg.lstsq(root * columns, root * rows, rcond=None)[0]

    if values.ndim == 2:
        return fit(0, values.T).T, None
    count = values.shape[2]
    longitude = first_longitude + 2 * np.pi / count * np.arange(count)
    tesseral = np.zeros((2, 2, n, n))
    for m in range(1, min(degree, (count - 1) // 2) + 1):
        for part, wave in enumerate((np.cos(m * longitude), np.sin(m * longitude))):
            tesseral[:, part, m:, m] = fit(m, 2 / count * (values @ wave).T).T
    return fit(0, values.mean(axis=2).T).T, tesseral


def in_season(days: np.ndarray | float, months: np.ndarray) -> np.ndarray:
    """Monthly values at some dates, linear between the middles of months, the year closed. Host side.

    Args:
        days: Julian dates, (*dates); the calendar is that of a mean year, a day off at most.
        months: January to December on the first axis.
    """
    middle = (np.cumsum(MONTH_DAYS) - np.array(MONTH_DAYS) / 2) / sum(MONTH_DAYS)
    part = np.remainder((days - YEAR_2000) / GREGORIAN_YEAR, 1.0)
    weight = np.stack([np.interp(part, middle, column, period=1.0) for column in np.eye(12)], axis=-1)
    return np.tensordot(weight, months, 1)


def ground(earth: Earth, direction: Float[Array, "3 *batch"]) -> Float[Array, "2 *batch"]:
    """Albedo [-] and emitted infrared [W/m2] of the ground in a direction from the Earth's centre.

    Args:
        direction: Unit vectors, mean equator and equinox of date.
    """
    x, y, z = direction
    degrees = earth.zonal.shape[1]
    total = jnp.zeros((2, *z.shape), z.dtype)
    for n, P in enumerate(_functions(z, 0, degrees)):
        total = total + _outer(earth.zonal[:, n], P)
    if earth.tesseral is None:
        return total
    angle = jnp.broadcast_to(earth.rotation, z.shape)
    s, c = sincos(angle)
    x, y = c * x + s * y, c * y - s * x
    # cos and sin of m longitude, times cos^m latitude.
    cosine, sine = x, y
    for m in range(1, degrees):
        for n, P in zip(range(m, degrees), _functions(z, m, degrees)):
            total = total + _outer(earth.tesseral[:, 0, n, m], P * cosine)
            total = total + _outer(earth.tesseral[:, 1, n, m], P * sine)
        cosine, sine = cosine * x - sine * y, cosine * y + sine * x
    return total


def _outer(coefficients: Array, values: Array) -> Array:
    """Of albedo and infrared, (2, *batch), with values that have further axes before the batch."""
    _, *batch = coefficients.shape
    return coefficients.reshape(2, *[1] * (values.ndim - len(batch)), *batch) * values[None]


def _functions(z, m: int, degrees: int) -> Iterator:
    """Schmidt semi-normalised Legendre functions of order m, degrees m .. degrees - 1, over cos^m(latitude).

    z is sin(latitude); for m = 0 they are the Legendre polynomials.
    """
    last, value = 0 * z, 0 * z + math.prod(math.sqrt((2 * k - 1) / (2 * k)) for k in range(2, m + 1))
    for n in range(m, degrees):
        yield value
        step = (2 * n + 1) * z * value - math.sqrt(n * n - m * m) * last
        last, value = value, step / math.sqrt((n + 1) ** 2 - m * m)


def earth_fluxes(
    earth: Earth,
    up: Float[Array, "3 *batch"],
    r_over_R: Float[Array, "*batch"],
    normals: Float[Array, "planes 3 *batch"],
    sun_hat: Float[Array, "3 *batch"],
    solar_flux: Float[Array, "..."],
) -> tuple[Float[Array, "2 planes *batch"], Float[Array, "2 planes *batch"]]:
    """Albedo and Earth infrared on both sides of several planes [W/m2].

    Args:
        earth: Coefficients of one Earth, or of one for each satellite.
        up: Unit vector from the Earth's centre to the satellite, mean equator and equinox of date, as all
            vectors here.
        r_over_R: Distance from the Earth's centre over the radius of the reflecting sphere, > 1.
        normals: Unit normals.
        sun_hat: Unit vector to the Sun, taken to be at infinity.
        solar_flux: At the Earth, of all satellites or of each [W/m2].

    Returns:
        Albedo and infrared, each on the sides along the normals and on those opposite.
    """
    axes = _axes(up)
    flat = jnp.stack([dot(sun_hat, axis) for axis in axes])
    cap = visible_cap(dot(sun_hat, up), r_over_R)
    albedo, infrared = _local(earth, up, axes, cap)
    sun_azimuth = _direction(flat)
    lit = _lit_flux(cap, _turned(albedo, *sun_azimuth), sun_azimuth)
    # The sub-satellite point's infrared has a closed view factor; the rest is integrated.
    below = infrared[0][0][0]
    infrared = ([[jnp.zeros_like(below), *infrared[0][0][1:]], *infrared[0][1:]], infrared[1])
    warm = _warm_flux(cap, infrared)

    def both_sides(n):
        cos_tilt = -dot(n, up)
        across = jnp.stack([dot(n, axis) for axis in axes])
        facing = cos_tilt > EDGE_ON
        # To the side that faces away from the Earth.
        turn = jnp.where(facing, -1.0, 1.0).astype(cos_tilt.dtype)
        n_away = turn * cos_tilt, turn[None] * across
        reflected = jnp.maximum(_reflected_away(cap, albedo, *n_away, flat), 0.0)
        emitted = _emitted_away(cap, infrared, *n_away)
        pairs = []
        for away, (down, horizontal) in ((reflected, lit), (emitted, warm)):
            level = across[0] * horizontal[0] + across[1] * horizontal[1]
            toward = away - turn * (cos_tilt * down + level)
            pairs.append(jnp.stack([jnp.where(facing, toward, away), jnp.where(facing, away, toward)]))
        return pairs[0], pairs[1]

    # A loop rather than one more axis: see `environment.albedo_factor_pairs`.
    reflected, emitted = jax.lax.map(both_sides, normals)
    cos_tilt = jnp.stack([-dot(plane, up) for plane in normals])
    F = jnp.stack(view_factor_pairs(cos_tilt, r_over_R))
    reflected, emitted = jnp.moveaxis(reflected, 1, 0), jnp.moveaxis(emitted, 1, 0)
    return scaled(jnp.asarray(solar_flux), jnp.maximum(reflected, 0.0)), scaled(below, F) + emitted


def _axes(up: Array) -> tuple[Array, Array]:
    """Two horizontal unit vectors, right-handed with up; they jump at the equator, which no result shows.

    Duff et al., "Building an orthonormal basis, revisited", JCGT 6 (2017) 1.
    """
    x, y, z = up
    sign = jnp.where(z >= 0, 1.0, -1.0).astype(z.dtype)
    a = -1 / (sign + z)
    b = x * y * a
    return jnp.stack([1 + sign * x * x * a, sign * b, -sign * x]), jnp.stack([b, sign + y * y * a, -y])


def _direction(flat: Array) -> tuple[Array, Array]:
    """Cosine and sine of the azimuth of a horizontal vector; azimuth zero where it vanishes."""
    length = safe_sqrt(flat[0] * flat[0] + flat[1] * flat[1])
    ok = length > math.sqrt(VERTICAL)
    length = jnp.where(ok, length, 1.0)
    return jnp.where(ok, flat[0] / length, 1.0), jnp.where(ok, flat[1] / length, 0.0)


# ----------------------------------------------------------------------------------- the ground in view


def _terms(degree: int) -> list[tuple[int, int, int]]:
    """Terms rho^(m + 2j) times cos (0) or sin (1) of m phi of a local polynomial: (m, part, j)."""
    return [
        (m, part, j)
        for m in range(degree + 1)
        for part in range(2 if m else 1)
        for j in range((degree - m) // 2 + 1)
    ]


def _samples(degree: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """rho, cosine and sine of phi where the ground is looked up, and the matrix from values to terms."""
    circles, azimuths = degree // 2 + 1, 2 * degree + 1
    x, weight = np.polynomial.legendre.leggauss(circles)
    rho = np.repeat(np.sqrt((1 + x) / 2), azimuths)
    # Every other circle is turned by half a step.
    phi = 2 * np.pi / azimuths * (np.arange(azimuths)[None] + np.arange(circles)[:, None] % 2 / 2).ravel()
    root = np.sqrt(np.repeat(weight, azimuths))
    columns = [rho ** (m + 2 * j) * (np.cos, np.sin)[part](m * phi) for m, part, j in _terms(degree)]
    return rho, np.cos(phi), np.sin(phi), np.linalg.pinv(np.stack(columns, 1) * root[:, None]) * root


def _local(earth: Earth, up: Array, axes: tuple[Array, Array], cap: Cap) -> list[tuple[list, list]]:
    """Local polynomials of albedo and infrared: cosine and sine parts by order, coefficients by power."""
    degree = min(LOCAL_DEGREE, earth.zonal.shape[1] + 1)
    *places, matrix = (jnp.asarray(x, cap.H.dtype) for x in _samples(degree))
    rho, cos_phi, sin_phi = (x.reshape(-1, *[1] * cap.H.ndim) for x in places)
    cos_psi, sin_psi = _central_angle(cap, rho)
    horizontal = [cos_phi * axes[0][i][None] + sin_phi * axes[1][i][None] for i in range(3)]
    direction = jnp.stack([cos_psi * up[i][None] + sin_psi * horizontal[i] for i in range(3)])
    values = ground(earth, direction)
    found = jnp.einsum("ts,fs...->ft...", matrix, values, precision=jax.lax.Precision.HIGHEST)
    out = []
    for field in found:
        parts = [[[] for _ in range(degree + 1)] for _ in range(2)]
        for (m, part, _), value in zip(_terms(degree), field):
            parts[part][m].append(value)
        out.append((parts[0], parts[1]))
    return out


def _central_angle(cap: Cap, rho: Array) -> tuple[Array, Array]:
    """Cosine and sine of the Earth-central angle at rho."""
    h = (1 - 1 / cap.H)[None]
    return 1 - h * rho * rho, rho * jnp.sqrt(h * (2 - h * rho * rho))


def _turned(local: tuple[list, list], cos_turn: Array, sin_turn: Array) -> tuple[list, list]:
    """A local polynomial in the azimuth from a direction whose azimuth was `turn`."""
    cosines, sines = [local[0][0]], [local[1][0]]
    c, s = cos_turn, sin_turn
    for a, b in zip(local[0][1:], local[1][1:]):
        cosines.append([x * c + y * s for x, y in zip(a, b)])
        sines.append([y * c - x * s for x, y in zip(a, b)])
        c, s = c * cos_turn - s * sin_turn, s * cos_turn + c * sin_turn
    return cosines, sines


def _on_ring(local: tuple[list, list], cap: Cap, cos_psi: Array, sin_psi: Array) -> Series:
    """The Fourier series of a local polynomial on a ring."""
    rho = sin_psi / jnp.sqrt((1 + cos_psi) * (1 - 1 / cap.H))
    square, power = rho * rho, jnp.ones_like(rho)
    series = [], []
    for m in range(len(local[0])):
        for part in range(2):
            value = None
            for x in reversed(local[part][m]):
                value = x if value is None else value * square + x
            series[part].append(None if value is None else value * power)
        power = power * rho
    return series


# ------------------------------------------------------------------------------------ integrals over rings


def _product(f: Series, g: Series) -> Series:
    """Product of two Fourier series."""
    n = len(f[0]) + len(g[0]) - 1
    out = [[None] * n, [None] * n]

    def add(part, order, term):
        if part and order == 0:
            return
        if order < 0:
            order, term = -order, -term if part else term
        out[part][order] = term if out[part][order] is None else out[part][order] + term

    for m in range(len(f[0])):
        for k in range(len(g[0])):
            for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
                a, b = f[i][m], g[j][k]
                if a is None or b is None:
                    continue
                term = a * b
                if m == 0 or k == 0:
                    add(i or j, m + k, term)
                    continue
                half = term / 2
                # cos cos, cos sin, sin cos, sin sin of m phi and k phi.
                add((i + j) % 2, m + k, -half if i and j else half)
                add((i + j) % 2, m - k, -half if j and not i else half)
    return out[0], out[1]


def _clenshaw(coefficients: list, cosine: Array) -> tuple[Array, Array]:
    """u1, u2 with sum over k >= 1 of x_k sin(k phi) = u1 sin phi, of x_k cos(k phi) = u1 cos phi - u2."""
    u, later = jnp.zeros_like(cosine), jnp.zeros_like(cosine)
    for x in reversed(coefficients[1:]):
        u, later = 2 * cosine * u - later + (0.0 if x is None else x), u
    return u, later


def _over_arc(cosines: list, face: tuple[Array, Array, Array]) -> Array:
    """Integral over |phi| < a of a Fourier series, of which only cosines count."""
    a, c, s = face
    divided = [None, *(None if x is None else x / k for k, x in enumerate(cosines[1:], 1))]
    return 2 * (cosines[0] * a + _clenshaw(divided, c)[0] * s)


def _antiderivative(series: Series):
    """Of a Fourier series, in the form that `over_both_arcs` takes."""
    divided = [[None, *(None if x is None else x / k for k, x in enumerate(part[1:], 1))] for part in series]

    def G(phi, sin_phi, cos_phi, *_):
        u, _ = _clenshaw(divided[0], cos_phi)
        v, later = _clenshaw(divided[1], cos_phi)
        return series[0][0] * phi + u * sin_phi - (v * cos_phi - later)

    return G


def _lit_flux(cap: Cap, local: tuple[list, list], sun_azimuth: tuple[Array, Array]) -> tuple[Array, Array]:
    """Sunlight from the whole lit cap, weighted with the cosine from nadir, and with the horizontal unit vector.

    `local` is the albedo in the azimuth from the Sun.
    """

    def weighted(y, sin_eta, cos_eta, down, along, across):
        return y * cos_eta * down, y * sin_eta * along, y * sin_eta * across

    def on_ring(w):
        y, sin_eta, cos_eta, cos_psi, sin_psi = ring(cap, w)
        C, D = cos_psi * cap.cos_zenith, sin_psi * cap.sin_zenith
        return (
            (y, sin_eta, cos_eta),
            (C, D),
            _product(_on_ring(local, cap, cos_psi, sin_psi), ([C, D], [None] * 2)),
        )

    def sunlit(w):
        place, _, (cosines, sines) = on_ring(w)
        return weighted(*place, 2 * math.pi * cosines[0], math.pi * cosines[1], math.pi * sines[1])

    def crossed(w):
        place, (C, D), (cosines, sines) = on_ring(w)
        lit = arc(C, D, exact=False)
        one = jnp.ones_like(w)
        along, _ = _product((cosines, [None] * len(cosines)), ([None, one], [None] * 2))
        across, _ = _product(([None] * len(sines), sines), ([None] * 2, [None, one]))
        return weighted(*place, *(_over_arc(x, lit) for x in (cosines, along, across)))

    zero = jnp.zeros_like(cap.H)
    w_nadir = ring_coordinate(cap, jnp.ones_like(cap.H))
    w_sun = ring_coordinate(cap, zenith_cosine(cap, cap.sin_zenith))
    day = integrate(sunlit, w_nadir, w_sun, CAP_NODES[0], smooth="none")
    dusk = integrate(crossed, w_sun, zero, CAP_NODES[1])
    down, along, across = (
        (jnp.where(cap.cos_zenith > 0, a, 0.0) + b) / (math.pi * cap.H) for a, b in zip(day, dusk)
    )
    c, s = sun_azimuth
    return down, jnp.stack([along * c - across * s, along * s + across * c])


def _warm_flux(cap: Cap, local: tuple[list, list]) -> tuple[Array, Array]:
    """Infrared from the whole cap, weighted as in `_lit_flux`."""

    def all_round(w):
        y, sin_eta, cos_eta, cos_psi, sin_psi = ring(cap, w)
        cosines, sines = _on_ring(local, cap, cos_psi, sin_psi)
        return 2 * y * cos_eta * cosines[0], y * sin_eta * cosines[1], y * sin_eta * sines[1]

    zero = jnp.zeros_like(cap.H)
    w_nadir = ring_coordinate(cap, jnp.ones_like(cap.H))
    down, *across = integrate(all_round, w_nadir, zero, INFRARED_NODES[0], smooth="none")
    return down / cap.H, jnp.stack(across) / cap.H[None]


def _reflected_away(
    cap: Cap, local: tuple[list, list], cos_tilt: Array, across: Array, sun_across: Array
) -> Array:
    """Sunlight on faces turned away from the Earth: `environment._away` with an albedo that varies."""
    sin_tilt = jnp.sqrt(jnp.maximum(1 - cos_tilt**2, VERTICAL))
    # Azimuth of the Sun from that of the face, mirrored into 0..pi together with the ground.
    along = across[0] * sun_across[0] + across[1] * sun_across[1]
    side = across[0] * sun_across[1] - across[1] * sun_across[0]
    mirror = jnp.where(side < 0, -1.0, 1.0).astype(side.dtype)
    cd, sd = _direction(jnp.stack([along, mirror * side]))
    azimuth = arccos(cd, exact=False)
    cosines, sines = _turned(local, *_direction(across))
    local = cosines, [[mirror * x for x in part] for part in sines]

    def on_ring(w):
        y, sin_eta, cos_eta, cos_psi, sin_psi = ring(cap, w)
        A, B = cos_eta * cos_tilt, sin_eta * sin_tilt
        C, D = cos_psi * cap.cos_zenith, sin_psi * cap.sin_zenith
        incidence = _product(([A, B], [None] * 2), ([C, D * cd], [None, D * sd]))
        series = _product(_on_ring(local, cap, cos_psi, sin_psi), incidence)
        return y, series, arc(A, B, exact=False), C, D

    def sunlit(w):
        y, series, face, _, _ = on_ring(w)
        return (y * _over_arc(series[0], face),)

    def crossed(w):
        y, series, face, C, D = on_ring(w)
        sun = arc(C, D, exact=False)
        return (y * over_both_arcs(_antiderivative(series), series[0][0], face, sun, azimuth, cd, sd),)

    zero = jnp.zeros_like(cos_tilt)
    w_face = ring_coordinate(cap, safe_sqrt(1 - (cap.H * cos_tilt) ** 2))
    w_sun = jnp.minimum(w_face, ring_coordinate(cap, zenith_cosine(cap, cap.sin_zenith)))
    (day,) = integrate(sunlit, w_face, w_sun, FACE_NODES[0])
    (dusk,) = integrate(crossed, w_sun, zero, FACE_NODES[1])
    return (jnp.where(cap.cos_zenith > 0, day, 0.0) + dusk) / (math.pi * cap.H)


def _emitted_away(cap: Cap, local: tuple[list, list], cos_tilt: Array, across: Array) -> Array:
    """Infrared on faces turned away from the Earth."""
    sin_tilt = jnp.sqrt(jnp.maximum(1 - cos_tilt**2, VERTICAL))
    cosines, _ = _turned(local, *_direction(across))
    local = cosines, [[] for _ in cosines]

    def in_view(w):
        y, sin_eta, cos_eta, cos_psi, sin_psi = ring(cap, w)
        A, B = cos_eta * cos_tilt, sin_eta * sin_tilt
        series = _product(_on_ring(local, cap, cos_psi, sin_psi), ([A, B], [None] * 2))
        return (y * _over_arc(series[0], arc(A, B, exact=False)),)

    w_face = ring_coordinate(cap, safe_sqrt(1 - (cap.H * cos_tilt) ** 2))
    (total,) = integrate(in_view, w_face, jnp.zeros_like(w_face), INFRARED_NODES[1])
    return total / (math.pi * cap.H)
