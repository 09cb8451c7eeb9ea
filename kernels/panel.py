"""Radiator panels as a design names them, and what a grid leaves of their extremes."""

from dataclasses import dataclass, field
from typing import no_type_check

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .sheet import Sheet


# scan and vmap rebuild a pytree with other ranks: its fields cannot be shape-checked at run time.
@no_type_check
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
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
    nx: int = field(metadata={"static": True})
    ny: int = field(metadata={"static": True})

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


def extremes(T: Float[Array, "nx ny b"]) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """Hottest and coldest temperature of the panel, its edges included [K].

    A cell's centre lies half a cell inside, so that the extreme of the centres alone is of first order in the cell
    size. At the tube, where heat enters, the edge is extrapolated linearly, at the planes of symmetry evenly.
    """
    tube = 1.5 * T[:, :1] - 0.5 * T[:, 1:2]
    between = (9 * T[:, -1:] - T[:, -2:-1]) / 8
    wide = jnp.concatenate([tube, T, between], axis=1)
    ends = (9 * wide[:1] - wide[1:2]) / 8, (9 * wide[-1:] - wide[-2:-1]) / 8
    everywhere = jnp.concatenate([ends[0], wide, ends[1]])
    return jnp.max(everywhere, axis=(0, 1)), jnp.min(everywhere, axis=(0, 1))


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
