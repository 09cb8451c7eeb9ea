"""Kepler orbits with first-order J2 secular drift, sun-synchronous design, and time from orbit noon.

Axes are the mean equator and equinox of date. Over one revolution the elements are frozen: `state` and
`position_at_time` are pure Kepler, `propagate` carries the mean elements from one revolution to another.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .constants import DAY, J2_EARTH, MEAN_SUN_RATE, MU_EARTH, R_EARTH
from .numerics import arctan2, safe_arccos, sincos, wrap_angle
from .pytree import pytree
from .vector import Vector, combination, dot


@pytree
class Orbit:
    """Mean elements of one orbit, mean equator and equinox of date.

    Attributes:
        semi_major_axis: [m].
        eccentricity: 0 <= e <= 0.95 [-].
        inclination: [rad].
        raan: Right ascension of the ascending node [rad].
        arg_perigee: Argument of perigee [rad].
        mean_anomaly: [rad].
    """

    semi_major_axis: Float[Array, ""]
    eccentricity: Float[Array, ""]
    inclination: Float[Array, ""]
    raan: Float[Array, ""]
    arg_perigee: Float[Array, ""]
    mean_anomaly: Float[Array, ""]


def mean_motion(a: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """n = sqrt(mu/a^3) [rad/s] of a semi-major axis [m]."""
    # Not sqrt(mu/a**3): a**3 of a distant orbit comes near the end of float32's range.
    return jnp.sqrt(MU_EARTH / a) / a


def period(a: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Keplerian period 2 pi sqrt(a^3/mu) [s] of a semi-major axis [m]."""
    return 2 * jnp.pi / mean_motion(a)


def j2_rates(
    orbit: Orbit, j2: float = J2_EARTH
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """First-order secular rates of node, perigee and mean anomaly [rad/s].

        k = 3/2 n J2 (R/p)^2,  p = a (1 - e^2)
        raan' = -k cos i,  argp' = k (2 - 5/2 sin^2 i),  M' = n + k sqrt(1 - e^2) (1 - 3/2 sin^2 i)

    Elements are read as mean. Kozai, Astron. J. 64 (1959) 367. What is left out is of order J2^2: about
    1e-3 of the rates, and short-period oscillations of about 10 km in position.
    """
    eta2 = 1 - orbit.eccentricity**2
    n = mean_motion(orbit.semi_major_axis)
    k = 1.5 * n * j2 * (R_EARTH / (orbit.semi_major_axis * eta2)) ** 2
    sin2 = jnp.sin(orbit.inclination) ** 2
    return (
        -k * jnp.cos(orbit.inclination),
        k * (2 - 2.5 * sin2),
        n + k * jnp.sqrt(eta2) * (1 - 1.5 * sin2),
    )


def propagate(orbit: Orbit, t: Float[Array, ""], j2: float = J2_EARTH) -> Orbit:
    """Mean elements t seconds later, angles unwrapped; j2 = 0 gives Kepler's motion.

    In float32 the mean anomaly after N revolutions carries an error of N x 4e-7 rad: propagate over more than
    a few revolutions in float64.
    """
    raan_dot, argp_dot, anomaly_dot = j2_rates(orbit, j2)
    return Orbit(
        semi_major_axis=orbit.semi_major_axis,
        eccentricity=orbit.eccentricity,
        inclination=orbit.inclination,
        raan=orbit.raan + raan_dot * t,
        arg_perigee=orbit.arg_perigee + argp_dot * t,
        mean_anomaly=orbit.mean_anomaly + anomaly_dot * t,
    )


@jax.custom_jvp
def kepler(M: Float[Array, "*batch"], e: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Eccentric anomaly E of E - e sin E = M, in the same revolution as M [rad].

    Markley's cubic starter (Celest. Mech. Dyn. Astron. 63 (1995) 101), within 1e-3 for any e < 1, and two
    Halley steps; the derivative is the implicit one. Error for e <= 0.95: rounding / (1 - e).
    """
    m = wrap_angle(M)
    alpha = (3 * jnp.pi**2 + 1.6 * jnp.pi * (jnp.pi - jnp.abs(m)) / (1 + e)) / (jnp.pi**2 - 6)
    d = 3 * (1 - e) + alpha * e
    q = 2 * alpha * d * (1 - e) - m**2
    r = 3 * alpha * d * (d - 1 + e) * m + m**3
    w = jnp.cbrt(jnp.abs(r) + jnp.sqrt(q**3 + r**2)) ** 2
    E = (2 * r * w / (w**2 + w * q + q**2) + m) / d
    for _ in range(2):
        sine, cosine = sincos(E)
        f2, f1 = e * sine, 1 - e * cosine
        f = E - f2 - m
        E = E - f * f1 / (f1**2 - f * f2 / 2)
    return E + (M - m)


@kepler.defjvp
def _kepler_jvp(primals, tangents):
    (M, e), (dM, de) = primals, tangents
    E = kepler(M, e)
    sine, cosine = sincos(E)
    return E, (dM + sine * de) / (1 - e * cosine)


def eccentric_anomaly_at(nu: Float[Array, "*batch"], e: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Eccentric anomaly of a true anomaly, in the same revolution [rad].

        E = nu - 2 atan(b sin nu/(1 + b cos nu)),  b = e/(1 + sqrt(1 - e^2))

    Broucke and Cefola, Celest. Mech. 7 (1973) 388: no branch to choose.
    """
    b = e / (1 + jnp.sqrt(1 - e**2))
    sine, cosine = sincos(nu)
    return nu - 2 * arctan2(b * sine, 1 + b * cosine)


def mean_anomaly_at(nu: Float[Array, "*batch"], e: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Mean anomaly M = E - e sin E of a true anomaly, in the same revolution [rad]."""
    E = eccentric_anomaly_at(nu, e)
    return E - e * sincos(E)[0]


def perifocal_axes(orbit: Orbit) -> Float[Array, "3 3 *batch"]:
    """Rows: towards perigee, 90 deg ahead of it in the plane, and along the orbit normal."""
    return jnp.stack([jnp.stack(axis) for axis in _axes(orbit)])


def _axes(orbit: Orbit) -> tuple[Vector, Vector, Vector]:
    """As `perifocal_axes`, by components."""
    (si, ci), (so, co), (sw, cw) = (
        sincos(angle) for angle in (orbit.inclination, orbit.raan, orbit.arg_perigee)
    )
    node, ahead = (co, so, jnp.zeros_like(co)), (-ci * so, ci * co, si)
    P, Q = combination((cw, node), (sw, ahead)), combination((cw, ahead), (-sw, node))
    return P, Q, (si * so, -si * co, ci)


def in_plane(
    E: Float[Array, "*batch"], e: Float[Array, "*batch"]
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"], Float[Array, "*batch"]]:
    """Cosine and sine of the true anomaly, and r/a = 1 - e cos E, at an eccentric anomaly [rad]."""
    s, c = sincos(E)
    radius = 1 - e * c
    return (c - e) / radius, jnp.sqrt(1 - e * e) * s / radius, radius


def orbit_normal(orbit: Orbit) -> Float[Array, "3"]:
    """Unit vector along the angular momentum."""
    return perifocal_axes(orbit)[2]


def _state_at_eccentric(orbit: Orbit, E) -> tuple[Vector, Vector]:
    a, e = orbit.semi_major_axis, orbit.eccentricity
    P, Q, _ = _axes(orbit)
    (s, c), eta = sincos(E), jnp.sqrt(1 - e**2)
    speed = a * mean_motion(a) / (1 - e * c)
    r = combination((a * (c - e), P), (a * eta * s, Q))
    v = combination((-speed * s, P), (speed * eta * c, Q))
    return r, v


def _stacked(state: tuple[Vector, Vector]) -> tuple[Float[Array, "3"], Float[Array, "3"]]:
    r, v = state
    return jnp.stack(r), jnp.stack(v)


def state(orbit: Orbit) -> tuple[Float[Array, "3"], Float[Array, "3"]]:
    """Position [m] and velocity [m/s] at the orbit's mean anomaly, in the axes of its elements."""
    return _stacked(_state_at_eccentric(orbit, kepler(orbit.mean_anomaly, orbit.eccentricity)))


def state_at_true_anomaly(orbit: Orbit, nu: Float[Array, ""]) -> tuple[Float[Array, "3"], Float[Array, "3"]]:
    """Position [m] and velocity [m/s] at a true anomaly [rad].

    r = p/(1 + e cos nu) (cos nu P + sin nu Q),  v = sqrt(mu/p) ((e + cos nu) Q - sin nu P)
    """
    e = orbit.eccentricity
    p = orbit.semi_major_axis * (1 - e**2)
    P, Q, _ = _axes(orbit)
    s, c = sincos(nu)
    r, speed = p / (1 + e * c), jnp.sqrt(MU_EARTH / p)
    v = combination((-speed * s, P), (speed * (e + c), Q))
    return _stacked((combination((r * c, P), (r * s, Q)), v))


def noon_true_anomaly(orbit: Orbit, sun_hat: Float[Array, "3 *batch"]) -> Float[Array, "*batch"]:
    """True anomaly of orbit noon, the Sun's projection into the orbit plane, -pi..pi [rad].

    With the Sun on the orbit normal there is no such direction, and perigee is taken.
    """
    cosine, sine, _ = noon_direction([dot(axis, sun_hat) for axis in _axes(orbit)])
    return arctan2(sine, cosine)


def noon_direction(sun) -> tuple[Array, Array, Array]:
    """Cosine and sine of the true anomaly of orbit noon, cosine of the beta angle; the Sun in perifocal axes."""
    x, y, _ = sun
    square = x * x + y * y
    ok = square > (8 * jnp.finfo(x.dtype).eps) ** 2
    length = jnp.sqrt(jnp.where(ok, square, 1.0))
    return jnp.where(ok, x, 1.0) / length, jnp.where(ok, y, 0.0) / length, jnp.where(ok, length, 0.0)


def time_since_noon(orbit: Orbit, sun_hat: Float[Array, "3"]) -> Float[Array, ""]:
    """Time from the last orbit noon to the orbit's mean anomaly, 0..P [s]."""
    noon = mean_anomaly_at(noon_true_anomaly(orbit, sun_hat), orbit.eccentricity)
    return jnp.mod(orbit.mean_anomaly - noon, 2 * jnp.pi) / mean_motion(orbit.semi_major_axis)


def position_at_time(
    orbit: Orbit, sun_hat: Float[Array, "3"], t: Float[Array, ""]
) -> tuple[Float[Array, "3"], Float[Array, "3"]]:
    """Position [m] and velocity [m/s] t seconds after orbit noon; the orbit's mean anomaly is not used."""
    return _stacked(components_at_time(orbit, sun_hat, t))


def components_at_time(orbit: Orbit, sun_hat, t: Float[Array, "*batch"]) -> tuple[Vector, Vector]:
    """As `position_at_time`, by components."""
    e = orbit.eccentricity
    noon = mean_anomaly_at(noon_true_anomaly(orbit, sun_hat), e)
    return _state_at_eccentric(orbit, kepler(noon + mean_motion(orbit.semi_major_axis) * t, e))


def sun_synchronous_inclination(
    a: Float[Array, "*batch"], e: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """Inclination whose first-order J2 drift of the node follows the mean Sun [rad].

        cos i = -(2/3) n_sun/(n J2) (p/R)^2,  n_sun = 360 deg per tropical year

    Beyond about 5,980 km of altitude (circular) no inclination does it, and the result is pi.
    """
    k = 1.5 * mean_motion(a) * J2_EARTH * (R_EARTH / (a * (1 - e**2))) ** 2
    return safe_arccos(-MEAN_SUN_RATE / k)


def raan_from_ltan(
    ltan: Float[Array, "*batch"], mean_sun_right_ascension: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """Node [rad] of an orbit that crosses the equator northwards at local mean solar time `ltan` [s].

        raan = alpha_mean_sun + 2 pi (ltan/86400 - 1/2)

    Local time refers to the mean Sun (`sun.mean_sun_right_ascension`), as launch and station-keeping
    requirements do: the beta angle then shows the equation of time, up to 16 minutes or 4 deg, over the
    year. Result in [-pi, pi] [rad].
    """
    return wrap_angle(mean_sun_right_ascension + 2 * jnp.pi * (ltan / DAY - 0.5))
