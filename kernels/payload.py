"""Payload: compute power asked, and cut as the chips run hot."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .pytree import pytree


@pytree
class Payload:
    """Compute payload of one satellite, or of a batch.

    Attributes:
        power: At full demand [W].
        throttle_start: Junction temperature at which the power begins to fall [K].
        throttle_end: Junction temperature at which it has fallen to the floor, > `throttle_start` [K].
        throttle_floor: Share of the power left from there on, 0..1; 1 means never throttled [-].
    """

    power: Float[Array, "*batch"]
    throttle_start: Float[Array, "*batch"]
    throttle_end: Float[Array, "*batch"]
    throttle_floor: Float[Array, "*batch"]


def throttle(T: Float[Array, "*batch"], payload: Payload) -> Float[Array, "*batch"]:
    """Share of the asked power that runs at junction temperature T [-].

    1 up to `throttle_start`, falling linearly to `throttle_floor` at `throttle_end`, level beyond.
    """
    ramp = (T - payload.throttle_start) / (payload.throttle_end - payload.throttle_start)
    return 1 - (1 - payload.throttle_floor) * jnp.clip(ramp, 0, 1)


def throttled_power(
    a: Float[Array, "*batch"],
    b: Float[Array, "*batch"],
    demand: Float[Array, "*batch"],
    payload: Payload,
) -> Float[Array, "*batch"]:
    """Power that is consistent with the junction temperature it causes [W].

        P = demand power throttle(a + b P),    b >= 0

    Args:
        a: Junction temperature at zero power [K].
        b: Its rise per watt over the step [K/W].
        demand: Share of the full power asked, 0..1 [-].
        payload: Its power and throttle.

    The right side falls with P and the left side rises, so there is one solution. On the ramp the equation is linear;
    elsewhere its share lies outside [floor, 1], and is cut back to the level branch. Solving it, rather than using
    the temperature of the step before, is what keeps a steep throttle from switching up and down at every step.
    """
    asked = demand * payload.power
    slope = (1 - payload.throttle_floor) / (payload.throttle_end - payload.throttle_start)
    # The share, not the power, is cut back: at zero demand both limits of the power are 0 and its slope is lost.
    share = (1 - slope * (a - payload.throttle_start)) / (1 + asked * slope * b)
    return asked * jnp.clip(share, payload.throttle_floor, 1)
