"""Position of the Sun, the mean Sun, and the angle of the Sun to an orbit."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from . import vector
from .constants import AU
from .numerics import arctan2, wrap_angle
from .timescale import centuries, linear_angle

# Heliocentric Earth, mean ecliptic and equinox of date: amplitude [1e-8 rad or au], phase [rad], rate [rad
# per Julian millennium] of the largest periodic terms of VSOP87D (Bretagnon and Francou, Astron. Astrophys.
# 202 (1988) 309), as tabulated by Meeus, Astronomical Algorithms (2nd ed. 1998), appendix III.
LONGITUDE = (
    (3341656, 4.6692568, 6283.07585),
    (34894, 4.6261, 12566.1517),
    (3497, 2.7441, 5753.3849),
    (3418, 2.8289, 3.5231),
    (3136, 3.6277, 77713.7715),
    (2676, 4.4181, 7860.4194),
    (2343, 6.1352, 3930.2097),
    (1324, 0.7425, 11506.7698),
    (1273, 2.0371, 529.691),
    (1199, 1.1096, 1577.3435),
    (990, 5.233, 5884.927),
    (902, 2.045, 26.298),
    (857, 3.508, 398.149),
    (780, 1.179, 5223.694),
    (753, 2.533, 5507.553),
    (505, 4.583, 18849.228),
    (492, 4.205, 775.523),
    (357, 2.92, 0.067),
    (317, 5.849, 11790.629),
    (284, 1.899, 796.298),
    (271, 0.315, 10977.079),
    (243, 0.345, 5486.778),
    (206, 4.806, 2544.314),
    (205, 1.869, 5573.143),
    (202, 2.458, 6069.777),
)
LONGITUDE_GROWING = ((206059, 2.678235, 6283.07585), (4303, 2.6351, 12566.1517))
LATITUDE = ((280, 3.199, 84334.662), (102, 5.422, 5507.553), (80, 3.88, 5223.69))
DISTANCE = (
    (1670700, 3.0984635, 6283.07585),
    (13956, 3.05525, 12566.1517),
    (3084, 5.1985, 77713.7715),
    (1628, 1.1739, 5753.3849),
    (1576, 2.8469, 7860.4194),
    (925, 5.453, 11506.77),
    (542, 4.564, 3930.21),
    (472, 3.661, 5884.927),
    (346, 0.964, 5507.553),
    (329, 5.9, 5223.694),
    (307, 0.299, 5573.143),
    (243, 4.273, 11790.629),
    (212, 5.847, 1577.344),
)
DISTANCE_GROWING = ((103019, 1.10749, 6283.07585), (1721, 1.0644, 12566.1517))


def sun_position(
    jd_day: Float[Array, ""], jd_fraction: Float[Array, ""]
) -> tuple[Float[Array, "3"], Float[Array, ""]]:
    """Geometric direction of the Sun in mean-of-date axes, and its distance [m], at a date in TT.

        L = L0 + n t + sum A cos(B + C t) + t sum A cos(B + C t), likewise distance and latitude

    VSOP87 cut at 2e-6 rad (see the tables) and the mean obliquity of IAU 1980. Against DE421 in 2000-2050
    within 2 arcsec and 1e-5 au; float32 adds 0.1 arcsec.
    """
    T = centuries(jd_day, jd_fraction)
    t = T / 10

    def series(terms):
        return sum(1e-8 * A * jnp.cos(B + C * t) for A, B, C in terms)

    # Only the mean longitude needs more of the date than a float32 century holds.
    mean = linear_angle(jd_day, jd_fraction, math.degrees(1.75347046), math.degrees(6283.31966747) / 365_250)
    longitude = mean + 0.00052919 * t**2 + series(LONGITUDE) + t * series(LONGITUDE_GROWING)
    latitude = series(LATITUDE)
    distance = 1.00013989 + series(DISTANCE) + t * series(DISTANCE_GROWING)
    # The Sun is opposite to the Earth.
    x = -jnp.cos(latitude) * jnp.cos(longitude)
    y = -jnp.cos(latitude) * jnp.sin(longitude)
    z = -jnp.sin(latitude)
    obliquity = mean_obliquity(T)
    c, s = jnp.cos(obliquity), jnp.sin(obliquity)
    return jnp.stack([x, c * y - s * z, s * y + c * z]), AU * distance


def mean_obliquity(T: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Mean obliquity of the ecliptic [rad], T in Julian centuries since J2000 (IAU 1980; Meeus eq. 22.2)."""
    return jnp.deg2rad(23.43929111 - T * (0.013004167 + T * (1.63889e-7 - 5.03611e-7 * T)))


def mean_sun_right_ascension(
    jd_day: Float[Array, "*batch"], jd_fraction: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """Right ascension of the fictitious mean Sun, -pi..pi [rad], which local mean solar time refers to.

        alpha = GMST - UT1 + 12 h

    with the GMST of Aoki et al. (1982). Its argument is UT1; TT in its place costs 0.0008 deg.
    """
    T = centuries(jd_day, jd_fraction)
    linear = linear_angle(jd_day, jd_fraction, 280.46061837, 0.98564736629)
    return wrap_angle(linear + jnp.deg2rad(T**2 * (0.000387933 - T / 38_710_000)))


def beta_angle(sun_hat: Float[Array, "3"], h_hat: Float[Array, "3"]) -> Float[Array, ""]:
    """Elevation of the Sun above the orbit plane, positive on the side of the orbit normal [rad].

    sin beta = s . h, as atan2(s . h, |s x h|), which keeps its digits near +-90 deg.
    """
    return arctan2(vector.dot(sun_hat, h_hat), vector.norm(vector.cross(sun_hat, h_hat)))
