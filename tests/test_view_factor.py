"""View factors against quadrature, published values and limits; exchange areas against closed forms."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels.view_factor import (
    exchange_areas,
    parallel_plates,
    perpendicular_plates,
    plate_to_sphere,
)
from jax.test_util import check_grads

REFERENCE = Path(__file__).parent / "reference"


def arrays(*values, dtype=float):
    return [jnp.asarray(v, dtype) for v in values]


def reference_rows():
    lines = (REFERENCE / "view_factor.csv").read_text().splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    return np.array([[float(r[k]) for k in ("h_km", "theta_deg", "F")] for r in rows]).T


def test_plate_to_sphere_meets_the_reference():
    h, theta, F = reference_rows()
    ours = plate_to_sphere(*arrays(np.cos(np.radians(theta)), 1 + h / 6378.137))
    # The file is printed to 12 digits; 1e-10 is what its README demands.
    np.testing.assert_allclose(ours, F, rtol=0, atol=1e-10)


def test_plate_to_sphere_in_float32():
    h, theta, F = reference_rows()
    single = plate_to_sphere(*arrays(np.cos(np.radians(theta)), 1 + h / 6378.137, dtype=jnp.float32))
    # Two parts in 1e7 of the largest F: rounding of the arguments.
    np.testing.assert_allclose(np.asarray(single, float), F, rtol=0, atol=4e-7)


def test_opposite_faces_differ_by_the_disc():
    """F(n) - F(-n) = cos(lam)/H^2: the disc's flux through the plane, whatever the horizon cuts off."""
    cos_tilt, H = (x.ravel() for x in np.meshgrid(np.linspace(-1, 1, 41), [1.02, 1.1, 2.0, 6.6]))
    c, H = arrays(cos_tilt, H)
    difference = plate_to_sphere(c, H) - plate_to_sphere(-c, H)
    np.testing.assert_allclose(difference, c / H**2, rtol=0, atol=1e-15)


def test_plate_to_sphere_is_smooth_across_its_limits():
    H = jnp.asarray(1.1)
    slope = jax.vmap(jax.grad(plate_to_sphere), (0, None))
    for edge in (-1 / 1.1, 1 / 1.1):
        below, at, above = slope(*arrays([edge - 1e-9, edge, edge + 1e-9]), H)
        # The slope leaves its limit as the 3/2 power: 1e-13 here; cancellation at the limit costs 1e-9.
        np.testing.assert_allclose([below, above], max(edge, 0) and 1 / 1.1**2, rtol=0, atol=1e-8)
        assert np.isfinite(at)


@pytest.mark.parametrize("cos_tilt", [-0.95, -0.5, 0.0, 0.3, 0.95])
def test_plate_to_sphere_derivatives(cos_tilt):
    check_grads(jax.jit(plate_to_sphere), arrays(cos_tilt, 1.1), order=1, modes=("fwd", "rev"))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_plate_to_sphere_derivatives_are_finite_at_every_limit(dtype):
    H = jnp.asarray([1.05, 1.05, 1.05, 1.05, 1.05, 7.0], dtype)
    c = jnp.asarray([-1, 1, 0, -1 / 1.05, 1 / 1.05, 0], dtype)
    for mode in (jax.jacfwd, jax.jacrev):
        for g in mode(lambda c, H: plate_to_sphere(c, H), (0, 1))(c, H):
            assert jnp.all(jnp.isfinite(g))


def by_quadrature(depth_1, depth_2, edge, n=48):
    """F_12 of plates at right angles: 1/A1 Int Int cos cos/(pi d^2), the edge direction integrated once."""
    x, w = np.polynomial.legendre.leggauss(n)
    # u^3 nodes, for the singularity at the shared edge.
    u, w = (x + 1) / 2, w / 2
    a, wa = depth_1 * u**3, depth_1 * 3 * u**2 * w
    b, wb = depth_2 * u**3, depth_2 * 3 * u**2 * w
    s2 = a[:, None] ** 2 + b[None, :] ** 2
    s = np.sqrt(s2)
    # Int Int_0^L dz1 dz2/(s^2 + (z1 - z2)^2)^2 in closed form.
    along = edge * np.arctan(edge / s) / s**3
    kernel = a[:, None] * b[None, :] / np.pi
    return np.sum(wa[:, None] * wb[None, :] * kernel * along) / (depth_1 * edge)


def facing_by_quadrature(width, depth, gap, n=64):
    """F of equal plates face to face: 1/A Int Int gap^2/(pi d^4), of which the two centres integrate at once."""
    x, w = np.polynomial.legendre.leggauss(n)
    u, v, w = width * (x[:, None] + 1) / 2, depth * (x[None, :] + 1) / 2, np.outer(w, w) / 4
    return 4 * np.sum(w * (width - u) * (depth - v) * gap**2 / (np.pi * (u**2 + v**2 + gap**2) ** 2))


@pytest.mark.parametrize("width, depth, gap", [(1.0, 1.0, 1.0), (2.0, 5.0, 1.0), (0.3, 4.0, 2.0)])
def test_parallel_plates_against_quadrature(width, depth, gap):
    F = parallel_plates(*arrays(width, depth, gap))
    # The integrand is analytic: 64 nodes are exact to rounding; the two agree to 1e-14.
    np.testing.assert_allclose(F, facing_by_quadrature(width, depth, gap), rtol=1e-12)


@pytest.mark.parametrize("edge, depth_1, depth_2", [(1.0, 1.0, 1.0), (2.0, 5.0, 1.0), (10.0, 1.0, 20.0)])
def test_perpendicular_plates_against_quadrature(edge, depth_1, depth_2):
    F = perpendicular_plates(*arrays(edge, depth_1, depth_2))
    # Measured error of the 48 x 48 quadrature: below 1e-7.
    np.testing.assert_allclose(F, by_quadrature(depth_1, depth_2, edge), rtol=1e-6)


def test_published_values():
    """Hamilton and Morgan's charts, in any textbook: squares sharing an edge, and unit squares facing."""
    one = jnp.asarray(1.0)
    assert abs(float(perpendicular_plates(one, one, one)) - 0.20004) < 5e-6
    assert abs(float(parallel_plates(one, one, one)) - 0.19982) < 5e-6


def test_infinite_plates():
    """A long edge gives Hottel's crossed strings; a narrow gap gives F = 1 less what leaves at the rim."""
    w, h = 2.0, 3.0
    strings = (w + h - np.hypot(w, h)) / (2 * w)
    long = perpendicular_plates(*arrays(1e5, w, h))
    assert abs(float(long) - strings) < 1e-4  # ends: depth/edge
    assert abs(float(parallel_plates(*arrays(1.0, 1.0, 1e-6))) - 1) < 1e-5  # rim: 2 gap/side


def test_reciprocity():
    edge, a, b = arrays(3.0, 1.3, 7.0)
    F_12, F_21 = perpendicular_plates(edge, a, b), perpendicular_plates(edge, b, a)
    np.testing.assert_allclose(a * F_12, b * F_21, rtol=1e-13)


def test_far_and_shallow_plates():
    # Small plates far apart: A/(pi gap^2), next term in (side/gap)^2. A narrow strip beside a wide plate sees half
    # of it in its half space: F -> 1/2, less about depth/edge.
    np.testing.assert_allclose(parallel_plates(*arrays(1e-3, 2e-3, 1.0)), 2e-6 / np.pi, rtol=1e-5)
    assert abs(float(perpendicular_plates(*arrays(1e3, 1e-3, 1e3))) - 0.5) < 1e-3


@pytest.mark.parametrize("f", [parallel_plates, perpendicular_plates])
def test_plates_in_float32_over_six_decades(f):
    # The textbook forms lose all digits of plates that are far apart or of unequal depth.
    ratios = np.logspace(-3, 3, 13)
    a, b = (x.ravel() for x in np.meshgrid(ratios, ratios))
    sizes = (a, b, np.ones_like(a)) if f is parallel_plates else (np.ones_like(a), a, b)
    value_and_slopes = jax.jit(jax.vmap(jax.value_and_grad(f, (0, 1, 2))))
    double, slopes = value_and_slopes(*arrays(*sizes))
    single, single_slopes = value_and_slopes(*arrays(*sizes, dtype=jnp.float32))
    # Some four roundings; slopes, as powers of each size, some ten.
    np.testing.assert_allclose(single, double, rtol=5e-7)
    for one, two, size in zip(single_slopes, slopes, sizes):
        np.testing.assert_allclose(np.asarray(one) * size / double, two * size / double, rtol=0, atol=3e-6)
    # Lengths alone do not matter, so the powers add up to none.
    np.testing.assert_allclose(sum(s * x for s, x in zip(slopes, sizes)) / double, 0, rtol=0, atol=1e-9)


# Equal depths are where the deeper plate changes.
@pytest.mark.parametrize("sizes", [(1.0, 1.0, 1.0), (22.0, 3.4, 10.0), (0.3, 5.0, 2.0)])
def test_plates_derivatives(sizes):
    for f in (perpendicular_plates, parallel_plates):
        check_grads(jax.jit(f), arrays(*sizes), order=1, modes=("fwd", "rev"), rtol=1e-5)


def box(a, b, c):
    """View factors and areas of the six inner walls of a closed box, +x -x +y -y +z -z."""
    sides = (a, b, c)
    area = np.repeat([b * c, a * c, a * b], 2)
    F = np.zeros((6, 6))
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        across = float(parallel_plates(*arrays(sides[j], sides[k], sides[i])))
        F[2 * i, 2 * i + 1] = F[2 * i + 1, 2 * i] = across
        for other, third in ((j, k), (k, j)):
            F[2 * i : 2 * i + 2, 2 * other : 2 * other + 2] = float(
                perpendicular_plates(*arrays(sides[third], sides[other], sides[i]))
            )
    return F, area


def test_walls_of_a_box_see_nothing_but_each_other():
    F, area = box(1.0, 2.5, 0.7)
    np.testing.assert_allclose(F.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(area[:, None] * F, (area[:, None] * F).T, atol=1e-12)


def test_two_infinite_plates_exchange():
    """q = sigma A (T1^4 - T2^4)/(1/e1 + 1/e2 - 1), and nothing reaches space."""
    F, eps, area = arrays([[0.0, 1.0], [1.0, 0.0]], [0.9, 0.05], [3.0, 3.0])
    R, R_space = exchange_areas(F, eps, area)
    np.testing.assert_allclose(R[0, 1], 3.0 / (1 / 0.9 + 1 / 0.05 - 1), rtol=1e-14)
    np.testing.assert_allclose(R_space, 0, atol=1e-15)


def test_two_plates_and_space():
    """Resistance network of two gray plates with view F, space black: solved by hand for equal plates.

    By symmetry both at the same temperature radiate e A (1 - F)/(1 - (1 - e) F) each.
    """
    e, view, A = 0.8, 0.3, 2.0
    _, R_space = exchange_areas(*arrays([[0, view], [view, 0]], [e, e], [A, A]))
    np.testing.assert_allclose(R_space, e * A * (1 - view) / (1 - (1 - e) * view), rtol=1e-14)


def open_box():
    F, area = box(1.0, 2.5, 0.7)
    return F[:5, :5], np.array([0.9, 0.05, 0.3, 0.8, 1.0]), area[:5]


def test_exchange_is_symmetric_and_conserves():
    F, eps, area = arrays(*open_box())
    R, R_space = (np.asarray(x) for x in exchange_areas(F, eps, area))
    np.testing.assert_allclose(R, R.T, atol=1e-14)
    assert np.all(R >= 0) and np.all(R_space > 0)
    # What leaves a wall comes back to it or goes elsewhere: R_ii = eps A B_ii from the same linear system.
    F, eps, area = open_box()
    B = np.linalg.solve(np.eye(5) - F * (1 - eps), F * eps)
    emitted = R.sum(axis=1) + R_space + eps * area * np.diag(B)
    np.testing.assert_allclose(emitted, eps * area, atol=1e-14)
    T4 = np.array([300.0, 280, 350, 310, 260]) ** 4
    exchanged = (R * (T4[:, None] - T4[None, :])).sum(axis=1)
    assert abs(exchanged.sum()) < 1e-14 * (R * T4[:, None]).sum()


def test_exchange_in_float32_and_derivatives():
    values = open_box()
    double, single = exchange_areas(*arrays(*values)), exchange_areas(*arrays(*values, dtype=jnp.float32))
    for a, b in zip(single, double, strict=True):
        np.testing.assert_allclose(np.asarray(a, float), b, rtol=1e-5, atol=1e-6)
    check_grads(jax.jit(exchange_areas), arrays(*values), order=1, modes=("fwd", "rev"), rtol=1e-6)


def test_surfaces_that_do_not_emit_exchange_nothing():
    F, eps, area = arrays([[0, 0.4], [0.4, 0]], [0.0, 0.8], [1.0, 1.0])
    R, R_space = exchange_areas(F, eps, area)
    np.testing.assert_allclose(R, 0)
    # Radiosities J1 = 0.4 J2 and J2 = 0.8 + 0.2 x 0.4 J1, of which space gets 0.6 each.
    np.testing.assert_allclose(R_space[1], 0.6 * 1.4 * 0.8 / (1 - 0.2 * 0.4 * 0.4), rtol=1e-14)


def test_many_plates_at_once_in_the_widest_registers():
    """A batch that fills registers has the numbers of one alone, compiled as a run compiles it: there XLA's arc
    tangent of one argument gave 0 beside a logarithm."""
    code = (
        "from dawndusk.solver import devices; devices.configure(precision='double', cache=False)\n"
        "import jax, numpy as np\n"
        "from dawndusk.kernels.view_factor import parallel_plates, perpendicular_plates\n"
        "for function in (parallel_plates, perpendicular_plates):\n"
        "    for n in (8, 16, 32):\n"
        "        sizes = [np.full(n, x) for x in (7.5, 4.0, 7.0)]\n"
        "        many, one = jax.jit(function)(*sizes), jax.jit(function)(*(x[:1] for x in sizes))\n"
        "        np.testing.assert_allclose(many, np.repeat(one, n), rtol=1e-12)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "XLA_FLAGS": ""})
