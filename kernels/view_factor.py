"""Closed-form diffuse view factors, and radiative exchange among gray surfaces with space."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .numerics import arctan2, safe_sqrt


@jax.custom_jvp
def plate_to_sphere(
    cos_tilt: Float[Array, "*batch"], r_over_R: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """View factor from a small one-sided plate to a sphere, the part below the plate's own horizon included.

    With H = r/R, k = sqrt(H^2 - 1), lam the angle between the plate's normal and the sphere's centre:

        |cos lam| >= 1/H:  F = max(cos lam, 0)/H^2
        otherwise:         q = sqrt(1 - H^2 cos^2 lam)
                           F = [atan2(q, k) + (cos lam atan2(q, -k cos lam) - k q)/H^2] / pi

    Cunningham (1961), NASA TN D-710; Martinez, Radiative View Factors, "Patch to a sphere, tilted", with
    asin(k/(H sin lam)) and acos(-k cot lam) written as arc tangents, which lose no digits in float32.

    Derivatives in closed form, in which what cancels is left out: with phi = atan2(q, -k cos lam) half the limb that
    lies above the horizon (180 deg where all does, 0 where nothing does),

        dF/dcos lam = (phi + k q cos lam/sin^2 lam)/(pi H^2),  dF/dH = -2/(pi H^3) (phi cos lam + q/k)

    Both are continuous across both limits.

    Args:
        cos_tilt: Cosine of the angle from the plate's normal to the direction of the centre [-].
        r_over_R: Distance from the centre over the radius, > 1 [-].
    """
    H2 = r_over_R * r_over_R
    k, q, cut = _horizon(cos_tilt, r_over_R)
    F = (arctan2(q, k) + (cos_tilt * arctan2(q, -k * cos_tilt) - k * q) / H2) / math.pi
    return jnp.where(cut, jnp.maximum(F, 0.0), jnp.maximum(cos_tilt, 0.0) / H2)


@plate_to_sphere.defjvp
def _(primals, tangents):
    (cos_tilt, H), (d_tilt, d_H) = primals, tangents
    k, q, cut = _horizon(cos_tilt, H)
    phi = jnp.where(cut, arctan2(q, -k * cos_tilt), jnp.where(cos_tilt > 0, math.pi, 0.0))
    cut_limb = cut & (k > 0)
    per_k = jnp.where(cut_limb, q / jnp.where(cut_limb, k, 1.0), 0.0)
    turned = jnp.where(cut, k * q * cos_tilt / jnp.where(cut, 1 - cos_tilt**2, 1.0), 0.0)
    slope = (phi + turned) * d_tilt - 2 / H * (phi * cos_tilt + per_k) * d_H
    return plate_to_sphere(cos_tilt, H), slope / (math.pi * H * H)


def _horizon(cos_tilt: Array, H: Array) -> tuple[Array, Array, Array]:
    """k, q, and whether the plate's horizon cuts the sphere."""
    q2 = 1 - H * H * cos_tilt**2
    # A multiplication fused with the subtraction leaves remainders below rounding, of whose root the slope is noise.
    cut = q2 > jnp.finfo(q2.dtype).eps
    return safe_sqrt(H * H - 1), jnp.sqrt(jnp.where(cut, q2, 1.0)), cut


def perpendicular_plates(
    edge: Float[Array, "*batch"], depth_1: Float[Array, "*batch"], depth_2: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """View factor F_12 between two rectangles at right angles that share an edge.

    With W = depth_1/edge, H = depth_2/edge, Q = W^2 + H^2:

        pi W F_12 = W atan(1/W) + H atan(1/H) - sqrt(Q) atan(1/sqrt(Q))
                    + 1/4 { ln[(1 + W^2)(1 + H^2)/(1 + Q)] + W^2 ln[W^2 (1 + Q)/((1 + W^2) Q)]
                                                           + H^2 ln[H^2 (1 + Q)/((1 + H^2) Q)] }

    Hamilton and Morgan (1952), NACA TN 2836; Howell's catalogue C-14. Reciprocity: depth_1 F_12 = depth_2
    F_21.

    Args:
        edge: Length of the shared edge, > 0 [m].
        depth_1: Extent of plate 1 away from the edge, > 0 [m].
        depth_2: Extent of plate 2 away from the edge, > 0 [m].
    """
    W, H = depth_1 / edge, depth_2 / edge
    W2, H2 = W * W, H * H
    Q = W2 + H2

    def log_of_share(own, other):
        # own (1 + Q)/((1 + own) Q) = 1 - other/((1 + own) Q), between 0 and 1: whichever form keeps its digits.
        missing = other / ((1 + own) * Q)
        near = missing < 0.5
        share = jnp.where(near, 1.0, own * (1 + Q) / ((1 + own) * Q))
        return jnp.where(near, jnp.log1p(-jnp.where(near, missing, 0.0)), jnp.log(share))

    # (1 + W2)(1 + H2)/(1 + Q) = 1 + W2 H2/(1 + Q)
    logs = jnp.log1p(W2 * H2 / (1 + Q)) + W2 * log_of_share(W2, H2) + H2 * log_of_share(H2, W2)
    # S = sqrt(Q) is next to the deeper plate's M where the other's m is shallow: M atan(1/M) - S atan(1/S) through
    # S - M = m^2/(S + M).
    m, M, S = jnp.minimum(W, H), jnp.maximum(W, H), jnp.sqrt(Q)
    beyond = m * m / (S + M)
    # Of two arguments: XLA's arc tangent of one is wrong on CPUs with 512-bit registers, beside a logarithm.
    one = jnp.ones_like(m)
    angles = m * arctan2(one, m) - beyond * arctan2(one, S) + M * arctan2(beyond, 1 + M * S)
    return (angles + logs / 4) / (math.pi * W)


def parallel_plates(
    width: Float[Array, "*batch"], depth: Float[Array, "*batch"], gap: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """View factor between two equal, directly opposed rectangles.

    With X = width/gap, Y = depth/gap:

        pi X Y/2 F = 1/2 ln[(1 + X^2)(1 + Y^2)/(1 + X^2 + Y^2)] + X sqrt(1 + Y^2) atan(X/sqrt(1 + Y^2))
                     + Y sqrt(1 + X^2) atan(Y/sqrt(1 + X^2)) - X atan X - Y atan Y

    Hamilton and Morgan (1952), NACA TN 2836; Howell's catalogue C-11.

    Args:
        width, depth: Sides of each plate, > 0 [m].
        gap: Distance between the plates, > 0 [m].
    """
    X, Y = width / gap, depth / gap
    X2, Y2 = X * X, Y * Y

    def bracket(x, y2):
        # a atan(x/a) - atan x with a^2 = 1 + y^2, through a - 1 = y^2/(a + 1): far plates keep their digits.
        a = jnp.sqrt(1 + y2)
        beyond = y2 / (a + 1)
        return beyond * arctan2(x, a) - arctan2(x * beyond, a + x * x)

    log = jnp.log1p(X2 * Y2 / (1 + X2 + Y2)) / 2
    return (log + X * bracket(X, Y2) + Y * bracket(Y, X2)) * 2 / (math.pi * X * Y)


def exchange_areas(
    F: Float[Array, "n n"], emissivity: Float[Array, " n"], area: Float[Array, " n"]
) -> tuple[Float[Array, "n n"], Float[Array, " n"]]:
    """Effective exchange areas of diffuse-gray surfaces that see each other and black space.

        q_ij = sigma R_ij (T_i^4 - T_j^4),   R_ij = eps_i A_i B_ij,   (I - F diag(1 - eps)) B = F diag(eps)

    and the same with the view of space, 1 - sum_j F_ij, on the right for R_space. All reflections are
    counted (Gebhart 1961; Hottel's script-F times the area). R is symmetric when A_i F_ij = A_j F_ji, its
    diagonal is set to zero (a surface exchanges nothing with itself), and

        sum_j R_ij + R_space_i = eps_i A_i (1 - B_ii).

    Args:
        F: View factors, row i from surface i; each row sums to at most 1 [-].
        emissivity: Gray infrared emissivity [-].
        area: [m2].

    Returns:
        R [m2] and R_space [m2].
    """
    n = area.shape[0]
    eye = jnp.eye(n, dtype=F.dtype)
    to_space = 1 - jnp.sum(F, axis=1)
    sources = jnp.concatenate([F * emissivity[None, :], to_space[:, None]], axis=1)
    B = jnp.linalg.solve(eye - F * (1 - emissivity)[None, :], sources)
    R = (emissivity * area)[:, None] * B
    return R[:, :n] * (1 - eye), R[:, n]
