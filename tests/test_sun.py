"""Dates, sidereal time, and the Sun against DE421."""

import csv
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import sun, timescale
from dawndusk.kernels.constants import AU, DAY

ARCSEC = np.pi / 648_000


def almanac_rows():
    lines = (Path(__file__).parent / "reference" / "sun_positions.csv").read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def precession(T):
    """Mean equator and equinox of J2000 to date (Capitaine et al. 2003)."""
    zeta = 2.650545 + T * (2306.083227 + T * (0.2988499 + 0.01801828 * T))
    z = -2.650545 + T * (2306.077181 + T * (1.0927348 + 0.01826837 * T))
    theta = T * (2004.191903 - T * (0.4294934 + 0.04182264 * T))

    def about_z(x):
        return np.array([[np.cos(x), np.sin(x), 0], [-np.sin(x), np.cos(x), 0], [0, 0, 1]])

    def about_y(x):
        return np.array([[np.cos(x), 0, -np.sin(x)], [0, 1, 0], [np.sin(x), 0, np.cos(x)]])

    return about_z(-z * ARCSEC) @ about_y(theta * ARCSEC) @ about_z(-zeta * ARCSEC)


@pytest.fixture(scope="module")
def almanac():
    """DE421 in mean-of-date axes: day and fraction (TT), geometric direction, distance [m]."""
    rows = almanac_rows()
    jd = np.array([float(r["jd_tt"]) for r in rows])
    day = np.floor(jd - 0.5) + 0.5

    def vectors(name):
        return np.array([[float(r[f"{name}_{c}"]) for c in "xyz"] for r in rows])

    matrices = [precession((x - 2451545) / 36525) for x in jd]
    # The precession used here is itself checked on the apparent places, which the file has in both frames.
    apparent = np.einsum("nij,nj->ni", matrices, vectors("app_gcrs"))
    assert np.abs(apparent - vectors("app_mod")).max() < 0.03 * ARCSEC  # frame bias of GCRS, 0.02 arcsec
    geometric = np.einsum("nij,nj->ni", matrices, vectors("geom_gcrs"))
    return day, jd - day, geometric, np.array([float(r["dist_km"]) for r in rows]) * 1e3


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_sun_against_de421(almanac, dtype):
    day, fraction, direction, distance = almanac
    got, d = jax.vmap(sun.sun_position)(jnp.asarray(day, dtype), jnp.asarray(fraction, dtype))
    assert got.dtype == d.dtype == dtype
    error = np.linalg.norm(np.cross(np.asarray(got, float), direction), axis=1)
    # The terms left out of VSOP87 add to about 2 arcsec and 7e-6 au; 1.6 and 6.2e-6 are found here.
    assert error.max() < 2 * ARCSEC
    assert np.abs(np.asarray(d, float) - distance).max() < 1e-5 * AU


def test_dates_are_exact_in_float32():
    day = np.arange(2_440_000, 2_480_000) + 0.5
    np.testing.assert_array_equal(day.astype(np.float32).astype(np.float64), day)


@pytest.mark.parametrize("rate, tolerance", [(0.98564736629, 3e-5), (360.98564736629, 6e-5)])
def test_angles_are_reduced_before_float32_rounds_them(rate, tolerance):
    day, fraction = np.float64(2_469_000.5), np.float64(0.123456)
    exact = np.deg2rad(10 + rate * (day - 2_451_545) + rate * fraction)
    got = timescale.linear_angle(jnp.float32(day), jnp.float32(fraction), 10.0, rate)
    # Degrees: float32 rounds 250 deg, and a day's fraction times the rate. Multiplied out: 0.5 deg.
    assert abs(np.rad2deg(np.angle(np.exp(1j * (float(got) - exact))))) < tolerance


def test_utc_to_tt():
    # J2000.0 is 2000-01-01 11:58:55.816 UTC.
    day, fraction = timescale.utc_to_tt(datetime(2000, 1, 1, 11, 58, 55, 816_000))
    assert day == 2451544.5 and abs(fraction - 0.5) < 1e-15
    # The last 69.184 s of a UTC day already belong to the next TT day.
    day, fraction = timescale.utc_to_tt(datetime(2026, 12, 31, 23, 59, 0, tzinfo=UTC))
    assert day == 2461406.5  # 2027-01-01
    assert abs(fraction * DAY - 9.184) < 1e-9
    # Zones are honoured.
    noon = datetime(2027, 6, 21, 12, tzinfo=UTC)
    there = noon.astimezone(timezone(timedelta(hours=-7)))
    assert timescale.utc_to_tt(noon) == timescale.utc_to_tt(there)


def test_leap_seconds_against_the_reference():
    for row in almanac_rows():
        when = datetime.fromisoformat(row["utc"].rstrip("Z"))
        assert timescale.tai_minus_utc(when) == int(row["tai_minus_utc_s"])
        day, fraction = timescale.utc_to_tt(when)
        # The file's dates are printed to 1e-9 day, its times to 1e-6 s.
        assert abs((day - float(row["jd_tt"])) + fraction) * DAY < 1e-4
    assert timescale.tai_minus_utc(datetime(1972, 1, 1)) == 10
    with pytest.raises(ValueError, match="1972"):
        timescale.tai_minus_utc(datetime(1971, 12, 31))


def test_shift_date_keeps_microseconds_over_a_year():
    day, fraction = timescale.shift_date(2461406.5, 0.75, np.arange(4) * 100 * DAY + 0.25 * DAY + 1e-6)
    np.testing.assert_array_equal(day, 2461407.5 + 100 * np.arange(4))
    np.testing.assert_allclose(fraction * DAY, 1e-6, atol=1e-8)


def test_gmst():
    # Meeus, Astronomical Algorithms, examples 12.a and 12.b: 1987 April 10 at 0h and at 19h21m00s UT.
    day = jnp.array(2446895.5)
    for fraction, degrees in ((0.0, 197.693195), (19.35 / 24, 128.7378734)):
        got = np.rad2deg(float(timescale.gmst(day, jnp.array(fraction)))) % 360
        assert abs(got - degrees) < 1e-6


def test_mean_sun_is_a_year_of_the_true_sun():
    days = jnp.arange(2461406.5, 2461406.5 + 365.25 * 4)
    true = jax.vmap(lambda d: sun.sun_position(d, jnp.zeros_like(d))[0])(days)
    equation = jax.vmap(sun.mean_sun_right_ascension)(days, jnp.zeros_like(days)) - jnp.arctan2(
        true[:, 1], true[:, 0]
    )
    minutes = np.angle(np.exp(1j * np.asarray(equation))) * 720 / np.pi
    # The equation of time: 14.2 min behind in February, 16.4 ahead in November, zero on average over a year.
    assert abs(minutes.min() + 14.2) < 0.1 and abs(minutes.max() - 16.4) < 0.1
    assert abs(minutes.mean()) < 0.1


def test_beta_angle_and_its_gradient():
    h = jnp.array([0.0, 0.0, 1.0])
    for beta in (-np.pi / 2, -0.3, 0.0, 1.2, np.pi / 2 - 1e-9):
        s = jnp.array([np.cos(beta), 0.0, np.sin(beta)])
        assert abs(float(sun.beta_angle(s, h)) - beta) < 1e-15
    for s in (h, -h, jnp.array([1.0, 0.0, 0.0])):
        assert all(jnp.isfinite(g).all() for g in jax.grad(sun.beta_angle, (0, 1))(s, h))
