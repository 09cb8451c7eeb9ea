"""Pointing laws and array drives: from orbit and Sun to the directions of body faces and arrays.

Vectors are given and taken by components, see `vector`, each of any number of instants or satellites.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .pytree import pytree, static
from .vector import Vector, choose, combination, cross, dot, unit, without

# A direction is taken as degenerate when less than this part of it (squared sine) is left after projection;
# above float32 rounding of the projection (1e-14), below any pointing error that matters (1e-5 rad).
DEGENERATE = 1e-10


@pytree
class Attitude:
    """A pointing law for the body axes.

    Attributes:
        inertial_axes: Rows are the body axes x, y, z in eci. Row 0 is also the direction of the "inertial"
            roll.
        pointing: "sun": +z to the Sun. "nadir": +z to the Earth's centre. "velocity": +x along the
            velocity, +z on the nadir side. "inertial": the axes are inertial_axes. Static.
        roll: Around the Sun line, pointing "sun" only. +x as near as it gets to: "along_track" the
            velocity, "nadir" the nadir, "inertial" row 0 of inertial_axes. Static.
        yaw_steering: Pointing "nadir" only. True: the Sun lies in the body x-z plane, on the +x side.
            False: +x as near to the velocity as it gets. Static.
    """

    inertial_axes: Float[Array, "3 3 *batch"]
    pointing: str = static()
    roll: str = static(default="along_track")
    yaw_steering: bool = static(default=False)


def body_axes(r, v, sun_hat, attitude: Attitude) -> tuple[Vector, Vector, Vector]:
    """Body axes x, y, z in eci; right-handed and orthonormal.

    Where the law leaves the turn about its main axis open (Sun along the velocity, say), the turn is fixed
    by the orbit normal, or by the velocity under yaw steering; the derivatives stay finite there.

    Args:
        r: Position, of any length.
        v: Velocity, of any length.
        sun_hat: Unit vector to the Sun.
        attitude: With inertial axes of the same batch.
    """
    up, track = unit(r), unit(v)
    nadir = (-up[0], -up[1], -up[2])
    # Never parallel to both z and the wanted direction, unless two of them are the same.
    normal = unit(cross(up, track))
    match attitude.pointing:
        case "inertial":
            x, y, z = attitude.inertial_axes
            return _vector(x), _vector(y), _vector(z)
        case "velocity":
            x = track
            z = _perpendicular(nadir, x, normal)
        case "nadir":
            z = nadir
            x = _perpendicular(sun_hat if attitude.yaw_steering else track, z, track)
        case "sun":
            z = sun_hat
            match attitude.roll:
                case "along_track":
                    x = _perpendicular(track, z, normal)
                case "nadir":
                    x = _perpendicular(nadir, z, normal)
                case "inertial":
                    x = _perpendicular(attitude.inertial_axes[0], z, normal)
                case other:
                    raise ValueError(f"roll: got {other!r}; one of 'along_track', 'nadir', 'inertial'")
        case other:
            raise ValueError(f"pointing: got {other!r}; one of 'sun', 'nadir', 'velocity', 'inertial'")
    return _vector(x), cross(z, x), _vector(z)


def in_eci(body, axes) -> Vector:
    """A vector given in body axes, in eci; `axes` from `body_axes`."""
    return combination(*zip(body, axes))


def array_normal(axes, sun_hat, drive: str, axis_body) -> Vector:
    """Outward normal of the array's cell side, in eci.

    "fixed": axis_body itself. "one_axis": turned about axis_body to bring the normal nearest to the Sun,
    that is the Sun direction less its part along the axis. "two_axis": to the Sun.

    Args:
        axes: Body axes in eci, from `body_axes`.
        sun_hat: Unit vector to the Sun.
        drive: Static.
        axis_body: Unit vector in body axes: the normal ("fixed") or the turning axis ("one_axis").
    """
    axis = in_eci(axis_body, axes)
    match drive:
        case "fixed":
            return axis
        case "one_axis":
            # With the Sun along the axis every turn is as good: any direction across the axis will do.
            return _perpendicular(sun_hat, axis, _any_perpendicular(axis))
        case "two_axis":
            return _vector(sun_hat)
        case other:
            raise ValueError(f"drive: got {other!r}; one of 'fixed', 'one_axis', 'two_axis'")


def _any_perpendicular(z) -> Vector:
    """A unit vector across the unit vector z, continuous but at one direction (Duff et al. 2017, JCGT
    6-1)."""
    sign = jnp.where(z[2] < 0, -1.0, 1.0).astype(z[2].dtype)
    a = -1 / (sign + z[2])
    return 1 + sign * z[0] ** 2 * a, sign * z[0] * z[1] * a, -sign * z[0]


def _perpendicular(wanted, z, fallback) -> Vector:
    """Unit vector across z nearest to `wanted`; to `fallback` where `wanted` is along z."""
    across, other = without(wanted, z), without(fallback, z)
    # With both along z (a fixed direction of the case, chosen badly) anything across z is as good.
    other = choose(dot(other, other) > DEGENERATE, other, _any_perpendicular(z))
    return unit(choose(dot(across, across) > DEGENERATE, across, other))


def _vector(a) -> Vector:
    return a[0], a[1], a[2]
