"""Radiator panels as a design names them, and what a grid leaves of their extremes."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .platforms import choose
from .pytree import pytree, static
from .sheet import Sheet


@pytree
class Panel:
    """Radiator panels made of equal strips: half a tube pitch across (y), the flow length along (x).

    The tube or heat pipe runs along y = 0; y = half_pitch and the ends are planes of symmetry.

    Attributes:
        heat_capacity: Areal heat capacity, tubes and fluid smeared in [J/m^2/K].
        kt_x: Conductivity x thickness along the flow [W/K].
        kt_y: The same across [W/K].
        strip_conductance: k A of one tube wall or heat pipe along its length [W m/K].
        length: Along the flow [m].
        half_pitch: Half the distance between tubes [m].
        half_strips: Panel area / (length x half_pitch) [-].
        emission: Effective emission factor per unit of panel area, sum over the radiating faces [-].
        to_space: The part of `emission` that reaches space [-].
        heat: Uniform internal dissipation [W/m^2].
        nx: Cells along the flow. Static.
        ny: Cells across half a pitch. Static.
    """

    heat_capacity: Float[Array, " b"]
    kt_x: Float[Array, " b"]
    kt_y: Float[Array, " b"]
    strip_conductance: Float[Array, " b"]
    length: Float[Array, " b"]
    half_pitch: Float[Array, " b"]
    half_strips: Float[Array, " b"]
    emission: Float[Array, " b"]
    to_space: Float[Array, " b"]
    heat: Float[Array, " b"]
    nx: int = static()
    ny: int = static()

    @property
    def area(self) -> Float[Array, " b"]:
        """Panel area, one side [m^2]."""
        return self.length * self.half_pitch * self.half_strips


def strip(panel: Panel, link: Float[Array, " b"]) -> Sheet:
    """The sheet of one half strip; the tube's or pipe's half lies in the first row of cells.

    Args:
        link: Linear loss per unit of panel area, to what is in contact with it [W/m^2/K].
    """
    dx, dy = panel.length / panel.nx, panel.half_pitch / panel.ny
    along = panel.kt_x / dx**2
    pipe = panel.strip_conductance / (2 * dy) / dx**2
    return Sheet(
        capacity=panel.heat_capacity[None, None],
        along=jnp.stack([along + pipe, along])[None],
        across=(panel.kt_y / dy**2)[None, None],
        emission=(panel.emission[None, None],),
        link=link[None, None],
        along_slope=(),
        across_slope=(),
        pipe=(),
        pipe_limit=(),
        nx=panel.nx,
        ny=panel.ny,
    )


def extremes(panel: Panel, T: Float[Array, "nx ny b"]) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """Hottest and coldest temperature of the panel, its edges included [K].

    A cell's centre lies half a cell inside, so that the extreme of the centres alone is of first order in the cell
    size. At the tube, where heat enters, the edge is extrapolated by a parabola through three cells, at the plane of
    symmetry evenly. At the ends see `end_weight`.
    """
    return extremes_across(panel, jnp.swapaxes(T, 0, 1))


def end_weight(panel: Panel) -> Float[Array, " b"]:
    """w of T_end = T_0 + w (T_0 - T_1), from the cells at an insulated end to the end itself [-].

    Away from the ends the panel follows its tube, along which temperature falls steadily, and what an end does to it
    fades over L = (2/pi) half_pitch sqrt(kt_x/kt_y), the slowest mode across that leaves the tube alone. With T = a
    + b (x + L exp(-x/L)), flat at the end, and s the cell's length over L,

        w = (1/2 - (1 - exp(-s/2))/s) / (1 - (exp(-s/2) - exp(-3s/2))/s)

    which is 1/8 where cells resolve the layer and 1/2 where they are much longer.
    """
    layer = 2 / jnp.pi * panel.half_pitch * jnp.sqrt(panel.kt_x / panel.kt_y)
    s = panel.length / panel.nx / layer
    small = s < 0.1
    z = jnp.where(small, 1.0, s)
    exact = (0.5 + jnp.expm1(-z / 2) / z) / (1 - (jnp.exp(-z / 2) - jnp.exp(-1.5 * z)) / z)
    return jnp.where(small, 0.125 + 3 / 64 * s, exact)


@jax.custom_jvp
def extremes_across(
    panel: Panel, T: Float[Array, "ny nx b"]
) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """`extremes` of a panel that lies with y first."""
    one = jax.ShapeDtypeStruct(T.shape[2:], T.dtype)
    return choose({"cpu": _by_lines, "default": _of_arrays}, (one, one), end_weight(panel), T)


@extremes_across.defjvp
def _(primals, tangents):
    return jax.jvp(lambda panel, T: _of_arrays(end_weight(panel), T), primals, tangents)


def _wide(line):
    """A line across and its two edges."""
    tube = (15 * line[:1] - 10 * line[1:2] + 3 * line[2:3]) / 8
    between = (9 * line[-1:] - line[-2:-1]) / 8
    return jnp.concatenate([tube, line, between])


def _ends(w, wide):
    """Lines at the two ends."""
    w = w[None]
    return wide[:, 0] + w * (wide[:, 0] - wide[:, 1]), wide[:, -1] + w * (wide[:, -1] - wide[:, -2])


def _of_arrays(w, T):
    wide = _wide(T)
    everywhere = jnp.concatenate([wide, *(end[:, None] for end in _ends(w, wide))], axis=1)
    return jnp.max(everywhere, axis=(0, 1)), jnp.min(everywhere, axis=(0, 1))


def _by_lines(w, T):
    """A CPU's library reduction of a panel takes ten times as long as a loop over its lines."""

    def look(i, seen):
        line = _wide(lax.dynamic_index_in_dim(T, i, 1, keepdims=False))
        return jnp.maximum(seen[0], line), jnp.minimum(seen[1], line)

    one, other = _ends(w, _wide(jnp.concatenate([T[:, :2], T[:, -2:]], axis=1)))
    high, low = lax.fori_loop(0, T.shape[1], look, (jnp.maximum(one, other), jnp.minimum(one, other)))

    def over(choose, lines):
        return lax.fori_loop(
            1,
            lines.shape[0],
            lambda j, seen: choose(seen, lax.dynamic_index_in_dim(lines, j, 0, False)),
            lines[0],
        )

    return over(jnp.maximum, high), over(jnp.minimum, low)


def pipe_transport(panel: Panel, T: Float[Array, "nx ny b"]) -> Float[Array, " b"]:
    """Heat flow of one pipe or tube wall integrated along it, between the two places where that is most [W m].

        |integral of q dx| = k A (T_hottest - T_coldest),    q = -k A dT/dx

    of the first row of cells, its ends included as in `extremes`: second order in the cell length. It is what a heat
    pipe's transport capability limits, as the pressure that its wick must make up falls in proportion to q along it,
    with the power times the effective length for heat that enters and leaves evenly (Chi, Heat Pipe Theory and
    Practice, 1976, ch. 2).
    """
    row = T[:, 0]
    ends = (9 * row[:1] - row[1:2]) / 8, (9 * row[-1:] - row[-2:-1]) / 8
    row = jnp.concatenate([ends[0], row, ends[1]])
    return panel.strip_conductance * (jnp.max(row, axis=0) - jnp.min(row, axis=0))
