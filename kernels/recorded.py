"""One revolution, step by step: the state it ends in and what is seen of it, to be differentiated.

A march that nobody differentiates carries the panel's means from the end of a step to the start of the next. A
derivative takes them at the start of each step, from the temperatures that the step itself is linearised at, so that
a tape keeps these once.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .adi_step import means, turn
from .numerics import segmented_scan
from .panel import extremes_across
from .pytree import pytree
from .revolution import Loads
from .satellite import Params, State, Step, Underway, advance, depart, step

# Arrays of all cells that a derivative keeps of each step, lesser ones included, and the memory up to which it keeps
# all steps [bytes]: beyond, it keeps some of them and marches again from there.
KEPT, TAPE = 6, 2 << 30
# Above any temperature of a panel [K].
HOTTER = 2e4


@pytree
class Seen:
    """What one revolution shows. Series have a leading axis of steps; all have satellites last.

    Attributes:
        nodes: At each step's end [K].
        top, bottom, mean: Of the panel, likewise, see panel.extremes [K].
        energy: In the battery, likewise [J].
        report: Of each step.
        hottest, coldest: The panel at the ends of the steps with the hottest and the coldest cell [K].
    """

    nodes: Float[Array, "t n b"]
    top: Float[Array, "t b"]
    bottom: Float[Array, "t b"]
    mean: Float[Array, "t b"]
    energy: Float[Array, "t b"]
    report: Step
    hottest: Float[Array, "nx ny b"]
    coldest: Float[Array, "nx ny b"]


@jax.custom_jvp
def recorded(params: Params, loads: Loads, state: State) -> tuple[State, Seen]:
    """March over one revolution. Derivatives in both modes, see `differentiable`.

    Args:
        params: Design, satellites last.
        loads: Rows of one revolution, (steps, ..., b).
        state: At its start.
    """

    def body(carry, load):
        now, best = carry
        now, report = step(params, now, load)
        best, edges = _look(params, now.panel.T, best)
        return (now, best), (now.lumps.nodes, *edges, now.mean, now.lumps.energy, report)

    now = depart(params, state)
    (now, best), seen = lax.scan(body, (now, _unseen(now.panel.T)), loads)
    return now.state, Seen(*seen, *(turn(a) for a in best[:2]))


@recorded.defjvp
def _(primals, tangents):
    return jax.jvp(differentiable, primals, tangents)


def differentiable(params: Params, loads: Loads, state: State) -> tuple[State, Seen]:
    """`recorded`, as a derivative takes it."""

    def body(carry, load):
        panel, lumps, best = carry
        now = Underway(panel, lumps, *means(panel.T))
        panel, lumps, report = advance(params, now, load)
        best, edges = _look(params, panel.T, best)
        return (panel, lumps, best), (lumps.nodes, *edges, now.mean, lumps.energy, report)

    now = depart(params, state)
    T = now.panel.T
    fits = loads.dt.shape[0] * T.size * T.dtype.itemsize * KEPT <= TAPE
    scan = lax.scan if fits else segmented_scan
    (panel, lumps, best), seen = scan(body, (now.panel, now.lumps, _unseen(T)), loads)
    nodes, top, bottom, before, energy, report = seen
    mean = jnp.concatenate([before[1:], means(panel.T)[0][None]])
    end = State(turn(panel.T), lumps.nodes, lumps.energy)
    return end, Seen(nodes, top, bottom, mean, energy, report, *(turn(a) for a in best[:2]))


def _unseen(T):
    zero = jnp.zeros_like(T[0, 0])
    return T, T, zero, jnp.full_like(zero, HOTTER)


def _look(params: Params, T, best):
    """Maps of the hottest and the coldest moment so far, and the panel's extremes now."""
    top, bottom = extremes_across(params.panel, T)
    hot, cold, top_best, bottom_best = best
    hot = jnp.where((top > top_best)[None, None], T, hot)
    cold = jnp.where((bottom < bottom_best)[None, None], T, cold)
    highest = lax.stop_gradient((jnp.maximum(top, top_best), jnp.minimum(bottom, bottom_best)))
    return (hot, cold, *highest), (top, bottom)
