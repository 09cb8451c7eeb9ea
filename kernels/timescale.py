"""Two-part Julian dates and sidereal time.

A date is a pair (jd_day, jd_fraction): the Julian date of the last midnight, a multiple of one half that
float32 still holds exactly, and the part of the day since, 0..1. Dates are made on the host in float64;
kernels take the pair in their own dtype and reduce every angle before they add the small parts, so float32
loses no more than the last half second of a date.
"""

from datetime import UTC, datetime

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .constants import DAY, J2000, JULIAN_CENTURY
from .numerics import wrap_angle

TT_MINUS_TAI = 32.184  # s, IAU 1991 A4

# First UTC day of each value of TAI - UTC [s], 10 s on 1972-01-01 and one more each time. IERS Bulletin C
# (https://hpiers.obspm.fr/iers/bul/bulc/Leap_Second.dat); no leap second has been announced after 2017-01-01.
LEAP_SECOND_DAYS = """
1972-01-01 1972-07-01 1973-01-01 1974-01-01 1975-01-01 1976-01-01 1977-01-01 1978-01-01 1979-01-01 1980-01-01
1981-07-01 1982-07-01 1983-07-01 1985-07-01 1988-01-01 1990-01-01 1991-01-01 1992-07-01 1993-07-01 1994-07-01
1996-01-01 1997-07-01 1999-01-01 2006-01-01 2009-01-01 2012-07-01 2015-07-01 2017-01-01
""".split()


def tai_minus_utc(when: datetime) -> int:
    """TAI - UTC at a UTC instant [s]. After the table's end its last value holds."""
    passed = sum(datetime.fromisoformat(day) <= when.replace(tzinfo=None) for day in LEAP_SECOND_DAYS)
    if not passed:
        raise ValueError(f"epoch {when.isoformat()}: UTC has whole leap seconds only from 1972-01-01 on")
    return 9 + passed


def utc_to_tt(when: datetime) -> tuple[float, float]:
    """Two-part Julian date (TT) of a UTC instant; a datetime without a zone is read as UTC.

    TT = UTC + (TAI - UTC) + 32.184 s
    """
    when = when.astimezone(UTC) if when.tzinfo else when
    midnight = when.toordinal() + 1_721_424.5  # ordinal 1 is 0001-01-01, JD 1721425.5
    seconds = when.hour * 3600 + when.minute * 60 + when.second + when.microsecond * 1e-6
    day, fraction = shift_date(midnight, 0.0, seconds + tai_minus_utc(when) + TT_MINUS_TAI)
    return float(day), float(fraction)


def shift_date(jd_day, jd_fraction, seconds) -> tuple[np.ndarray, np.ndarray]:
    """Two-part date `seconds` later, renormalised to 0 <= jd_fraction < 1. Host side, float64, broadcasts."""
    fraction = np.asarray(jd_fraction, np.float64) + np.asarray(seconds, np.float64) / DAY
    whole = np.floor(fraction)
    return np.asarray(jd_day + whole), np.asarray(fraction - whole)


def centuries(jd_day: Float[Array, "*batch"], jd_fraction: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Julian centuries since J2000.0, of the date's own time scale."""
    return ((jd_day - J2000) + jd_fraction) / JULIAN_CENTURY


def linear_angle(
    jd_day: Float[Array, "*batch"],
    jd_fraction: Float[Array, "*batch"],
    degrees: float,
    degrees_per_day: float,
) -> Float[Array, "*batch"]:
    """`degrees` at J2000.0, growing by `degrees_per_day`, as radians in [-pi, pi].

    The whole degrees per day times the whole and half days are reduced exactly, in float32 too (to 2050 for
    |rate| < 400). What is left is multiplied and rounded: 1e-5 deg for the Sun's and the sidereal rate.
    """
    days, whole = jd_day - J2000, round(degrees_per_day)
    exact = jnp.mod(whole * days, 360.0)
    rest = (degrees_per_day - whole) * days + degrees_per_day * jd_fraction
    return wrap_angle(jnp.deg2rad(exact + rest + degrees % 360.0))


def gmst(jd_day: Float[Array, "*batch"], jd_fraction: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Greenwich mean sidereal time of a date in UT1, -pi..pi [rad].

    IAU 1982 (Aoki et al., Astron. Astrophys. 105 (1982) 359) in Meeus' form (Astronomical Algorithms, 2nd
    ed., eq. 12.4). UTC in place of UT1 costs up to 0.9 s, 0.004 deg.
    """
    T = centuries(jd_day, jd_fraction)
    small = T**2 * (0.000387933 - T / 38_710_000)
    return wrap_angle(linear_angle(jd_day, jd_fraction, 280.46061837, 360.98564736629) + jnp.deg2rad(small))
