"""A sheet marched by alternating directions (`adi_step`), as each platform does it best.

`adi_field` has the half steps, line by line on a CPU and as arrays elsewhere, with derivatives in both modes. On a
TPU and on a GPU a whole march is one kernel, in `adi_tpu` and `adi_gpu`.

Conduction along x is carried from step to step, `S` = A_x T, and brought up to date from the solution of the second
half, where it stands divided by the same stiffness: float32 then holds a stiff heat pipe as well as a thin sheet,
which differences of rounded temperatures do not.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .adi_field import Field
from .adi_step import (
    Source,
    at_line,
    first_coefficients,
    half_step,
    means,
    recomputed,
    second_coefficients,
    settled,
    turn,
)
from .numerics import segmented_scan
from .platforms import choose, gpu_kernel
from .pytree import pytree
from .sheet import Sheet, tr_bdf2_step

# --- without splitting


@pytree
class Unsplit:
    """A sheet under way by `sheet.tr_bdf2_step`: heat pipes at their limit are too stiff and too bent to be split."""

    T: Float[Array, "ny nx b"]

    @classmethod
    def start(cls, T: Float[Array, "nx ny b"]) -> "Unsplit":
        return cls(turn(T))

    def step(self, source: Source, dt: Float[Array, " b"], sheet: Sheet) -> "Unsplit":
        return Unsplit(turn(tr_bdf2_step(turn(self.T), turn(sum(source)), dt, sheet)))


# --- a sheet by itself


@pytree
class Extremes:
    """What a march has seen.

    Attributes:
        hottest, coldest: Cell temperatures, at the start and at the ends of the steps [K].
        mean: Of the panel's mean temperature over time, by the trapezoidal rule [K].
    """

    hottest: Float[Array, " b"]
    coldest: Float[Array, " b"]
    mean: Float[Array, " b"]


@recomputed
def _coarse_mean4(T):
    """A few lines of the panel are mean enough for what follows from it."""
    return means(T[:: max(1, T.shape[0] // 4)])[1]


def step(panel: Field, source: Source, dt: Float[Array, " b"], sheet: Sheet) -> Field:
    """One step of a sheet by itself: what heats it [W/m^2], y first; dt the whole step [s]. See the module."""
    mean4 = jnp.maximum(_coarse_mean4(panel.T), settled(source, sheet))
    h = half_step(mean4, sheet, dt)
    first = first_coefficients(mean4, sheet, h)
    second = second_coefficients(mean4, mean4, sheet, h)
    panel = panel.first_half(source, first, sheet).finish_first(first, sheet)
    return panel.second_half(jnp.zeros_like(dt)[None, None], second, sheet)


def transient(
    T: Float[Array, "nx ny b"],
    source: Float[Array, "i j b"],
    load: Float[Array, "k b"],
    dt: Float[Array, "k b"],
    sheet: Sheet,
    extremes: bool = False,
) -> tuple[Float[Array, "nx ny b"], Extremes | None]:
    """Temperatures after k steps [K], and with `extremes` what they have been on the way.

    Args:
        T: At the start [K].
        source: Heat that stays the same: strips, links to held edges [W/m^2].
        load: Heat of each step, alike over the panel: what it absorbs [W/m^2].
        dt: Lengths of the steps [s]. Laid between jumps of the load they keep the second order; zero does nothing.

    Second order in time. Derivatives in both modes; in reverse the march is kept at the square root of its steps and
    computed anew between, so that memory grows with that. On a TPU and on an NVIDIA data-centre GPU (compute
    capability 9 and 10) all steps are one kernel, see `adi_tpu` and `adi_gpu`: of linear conduction, in float32, on
    grids that fit the chip, not under vmap; otherwise XLA's own loops. Heat pipes that may reach their limit are
    marched by `sheet.tr_bdf2_step`, which serves rough starts too.
    """
    return _transient(T, source, load, dt, sheet, extremes)


@partial(jax.custom_jvp, nondiff_argnums=(5,))
def _transient(T, source, load, dt, sheet: Sheet, extremes: bool):
    one = jax.ShapeDtypeStruct(T.shape[-1:], T.dtype)
    out = jax.ShapeDtypeStruct(T.shape, T.dtype), Extremes(one, one, one) if extremes else None
    ways = {"default": _march, "cuda": _on_gpu, "tpu": _on_tpu}
    return choose(ways, out, T, source, load, dt, sheet, extremes=extremes)


@_transient.defjvp
def _(extremes, primals, tangents):
    def march(T, source, load, dt, sheet):
        return _march(T, source, load, dt, sheet, extremes, differentiated=True)

    return jax.jvp(march, primals, tangents)


def _on_gpu(T, source, load, dt, sheet: Sheet, extremes: bool):
    adi_gpu = gpu_kernel("adi_gpu")
    if adi_gpu is not None and adi_gpu.supports(T, sheet):
        return adi_gpu.transient(T, source, load, dt, sheet, extremes)
    return _march(T, source, load, dt, sheet, extremes)


def _on_tpu(T, source, load, dt, sheet: Sheet, extremes: bool):
    from . import adi_tpu

    if load.shape[0] > 0 and adi_tpu.supports(T, sheet):
        return adi_tpu.transient(T, source, load, dt, sheet, extremes)
    return _march(T, source, load, dt, sheet, extremes)


def _march(T, source, load, dt, sheet: Sheet, extremes: bool = False, differentiated: bool = False):
    source = turn(source)

    def advance(carry, row):
        panel, seen = carry
        load, dt = row
        advanced = panel.step if isinstance(panel, Unsplit) else partial(step, panel)
        panel = advanced((source, load[None, None]), dt, sheet)
        if not extremes:
            return (panel, ()), None
        hottest, coldest, mean, integral = seen
        high, low, now = glance(panel.T)
        integral = integral + dt * ((mean + now) / 2 - start[2])
        return (panel, (jnp.maximum(hottest, high), jnp.minimum(coldest, low), now, integral)), None

    panel = Unsplit.start(T) if sheet.pipe else Field.start(T, sheet, room=not differentiated)
    start: Any = glance(panel.T) if extremes else ()
    seen: Any = (*start, jnp.zeros_like(start[0])) if extremes else ()
    scan = segmented_scan if differentiated else lax.scan
    (panel, seen), _ = scan(advance, (panel, seen), (load, dt))
    return turn(panel.T), Extremes(seen[0], seen[1], time_mean(start[2], seen[3], dt)) if extremes else None


def glance(T: Float[Array, "i j b"]) -> tuple[Float[Array, " b"], Float[Array, " b"], Float[Array, " b"]]:
    """Hottest, coldest and mean temperature of a sheet [K], in one loop over its lines, as `line_sum`."""

    def look(i, seen):
        line = at_line(T, i)
        return jnp.maximum(seen[0], line), jnp.minimum(seen[1], line), seen[2] + line

    high, low, total = lax.fori_loop(1, T.shape[0], look, (T[0], T[0], T[0]))
    return jnp.max(high, 0), jnp.min(low, 0), jnp.sum(total, 0) / (T.shape[0] * T.shape[1])


def time_mean(
    start: Float[Array, " b"], integral: Float[Array, " b"], dt: Float[Array, "k b"]
) -> Float[Array, " b"]:
    """Mean over a march from what it was at the start and the integral over time of what it rose by since [K]."""
    time = jnp.sum(dt, axis=0)
    return start + integral / jnp.where(time > 0, time, 1.0)
