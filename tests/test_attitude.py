"""Pointing laws by their definitions, and finite derivatives where a law leaves a direction open."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import attitude as laws
from dawndusk.kernels.attitude import Attitude
from jax.test_util import check_grads

LAWS = [
    ("sun", "along_track", False),
    ("sun", "nadir", False),
    ("sun", "inertial", False),
    ("nadir", "along_track", False),
    ("nadir", "along_track", True),
    ("velocity", "along_track", False),
    ("inertial", "along_track", False),
]
body_axes = jax.jit(laws.body_axes)
array_normal = jax.jit(laws.array_normal, static_argnums=2)


def rotation(seed):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


def law(name, dtype=float, axes=None):
    axes = jnp.asarray(rotation(1) if axes is None else axes, dtype)
    pointing, roll, yaw_steering = name
    return Attitude(axes, pointing, roll, yaw_steering)


def states(n, dtype=float):
    """Positions and velocities of elliptic orbits at random places, and Sun directions."""
    rng = np.random.default_rng(7)
    for _ in range(n):
        r, v, s = rng.normal(size=(3, 3))
        v = v - 0.9 * (v @ r) / (r @ r) * r
        yield [
            jnp.asarray(x, dtype)
            for x in (7e6 * r / np.linalg.norm(r), 7.5e3 * v / np.linalg.norm(v), s / np.linalg.norm(s))
        ]


@pytest.mark.parametrize("name", LAWS)
def test_axes_are_a_right_handed_frame(name):
    for r, v, s in states(20):
        axes = np.asarray(body_axes(r, v, s, law(name)))
        np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-14)
        assert np.linalg.det(axes) > 0


def unit(x):
    return np.asarray(x) / np.linalg.norm(x)


def perpendicular(x, z):
    return unit(x - (x @ z) * z)


def test_laws_by_their_definitions():
    for r, v, s in states(20):
        nadir, track, sun = -unit(r), unit(v), np.asarray(s)
        x, y, z = np.asarray(body_axes(r, v, s, law(LAWS[0])))
        np.testing.assert_allclose([z, x], [sun, perpendicular(track, sun)], atol=1e-14)
        x, y, z = np.asarray(body_axes(r, v, s, law(LAWS[1])))
        np.testing.assert_allclose([z, x], [sun, perpendicular(nadir, sun)], atol=1e-14)
        x, y, z = np.asarray(body_axes(r, v, s, law(LAWS[2])))
        np.testing.assert_allclose([z, x], [sun, perpendicular(rotation(1)[0], sun)], atol=1e-14)
        x, y, z = np.asarray(body_axes(r, v, s, law(LAWS[3])))
        np.testing.assert_allclose([z, x], [nadir, perpendicular(track, nadir)], atol=1e-14)
        x, y, z = np.asarray(body_axes(r, v, s, law(LAWS[4])))
        np.testing.assert_allclose(z, nadir, atol=1e-14)
        assert abs(y @ sun) < 1e-14 and x @ sun > 0
        x, y, z = np.asarray(body_axes(r, v, s, law(LAWS[5])))
        np.testing.assert_allclose([x, z], [track, perpendicular(nadir, track)], atol=1e-14)
        np.testing.assert_allclose(body_axes(r, v, s, law(LAWS[6])), rotation(1), atol=0)


def test_array_drives():
    axis_body = jnp.asarray([0.0, 1.0, 0.0])
    for r, v, s in states(20):
        axes = body_axes(r, v, s, law(LAWS[3]))
        axis = np.asarray(axes)[1]
        np.testing.assert_allclose(array_normal(axes, s, "fixed", axis_body), axis, atol=0)
        np.testing.assert_allclose(array_normal(axes, s, "two_axis", axis_body), s, atol=0)
        n = np.asarray(array_normal(axes, s, "one_axis", axis_body))
        # No other turn about the axis sees more of the Sun.
        turn = np.linspace(0, 2 * np.pi, 361)[:, None]
        u = np.asarray(axes)[0]
        others = np.cos(turn) * u + np.sin(turn) * np.cross(axis, u)
        assert abs(n @ axis) < 1e-14 and abs(n @ n - 1) < 1e-14
        assert np.all(others @ np.asarray(s) <= n @ np.asarray(s) + 1e-14)


R, V = np.array([7e6, 0, 0]), np.array([0, 7.5e3, 0.0])
OPEN = [np.array(x, float) for x in ([0, 1, 0], [0, -1, 0], [1, 0, 0], [-1, 0, 0], [0, 0, 1], [0, 0, -1])]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("name", LAWS)
def test_open_directions_stay_finite(name, dtype):
    """The Sun along the velocity, the vertical, the orbit normal, and along the fixed axes of the case."""
    jacobian = jax.jit(jax.jacrev(lambda *a: laws.body_axes(*a, law(name, dtype, np.eye(3))), (0, 1, 2)))
    for s in OPEN:
        r, v, sun = (jnp.asarray(x, dtype) for x in (R, V, s))
        axes = np.asarray(body_axes(r, v, sun, law(name, dtype, np.eye(3))), float)
        np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-6)
        assert np.linalg.det(axes) > 0
        assert all(jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(jacobian(r, v, sun)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_array_axis_along_the_sun_stays_finite(dtype):
    axis_body = jnp.asarray([0.0, 1.0, 0.0], dtype)
    jacobian = jax.jit(jax.jacrev(lambda s, a: laws.array_normal(a, s, "one_axis", axis_body), (0, 1)))
    for s, axes in itertools.product(OPEN, (np.eye(3), rotation(3))):
        sun, axes = jnp.asarray(s, dtype), jnp.asarray(axes, dtype)
        n = np.asarray(array_normal(axes, sun, "one_axis", axis_body), float)
        assert abs(n @ n - 1) < 1e-6 and abs(n @ np.asarray(axes, float)[1]) < 1e-6
        assert all(jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(jacobian(sun, axes)))


@pytest.mark.parametrize("name", LAWS[:6])
def test_derivatives_at_ordinary_points(name):
    r, v, s = next(states(1))
    check_grads(
        jax.jit(lambda r, v, s: laws.body_axes(7e6 * r, 7.5e3 * v, s, law(name))),
        (r / 7e6, v / 7.5e3, s),
        order=1,
        modes=("fwd", "rev"),
        rtol=1e-4,
    )


@pytest.mark.parametrize("name", LAWS)
def test_float32(name):
    for double, single in zip(states(20), states(20, jnp.float32), strict=True):
        a = body_axes(*double, law(name))
        b = np.asarray(body_axes(*single, law(name, jnp.float32)), float)
        # Rounding over the sine of the smallest angle between two of the directions, 0.1 here.
        np.testing.assert_allclose(b, a, atol=3e-6)


@pytest.mark.parametrize("field, value", [("pointing", "moon"), ("roll", "barrel")])
def test_unknown_laws_name_the_known_ones(field, value):
    bad = Attitude(jnp.eye(3), **{"pointing": "sun", field: value})
    with pytest.raises(ValueError, match=f"{field}: got '{value}'; one of"):
        laws.body_axes(*next(states(1)), bad)
    with pytest.raises(ValueError, match="drive: got 'crank'; one of"):
        laws.array_normal(jnp.eye(3), jnp.asarray(OPEN[0]), "crank", jnp.asarray(OPEN[0]))
