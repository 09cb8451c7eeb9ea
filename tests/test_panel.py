"""What a grid leaves of a panel: its extremes, the transport of its pipes."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import panel as kernel
from dawndusk.kernels.panel import extremes, pipe_transport


def test_pipe_transport_is_power_times_effective_length(design):
    """Heat enters evenly over the first quarter and leaves evenly over the rest: 100 W x half the length."""
    length, power, share, conductance = 4.0, 100.0, 0.25, 40.0
    evaporator, condenser = share * length, (1 - share) * length
    for n in (16, 64):
        x = (np.arange(n) + 0.5) / n * length
        inside = power * x**2 / (2 * evaporator)
        beyond = power * evaporator / 2 + power / condenser * (length * x - x**2 / 2)
        beyond -= power / condenser * (length * evaporator - evaporator**2 / 2)
        row = 300 - np.where(x < evaporator, inside, beyond) / conductance
        panel = replace(design().panel, strip_conductance=jnp.full(1, conductance), nx=n)
        # The rows beside the pipe do not count, whichever way it carries.
        T = np.stack([row, row[::-1] - 50], axis=1)[:, :, None]
        found = [float(pipe_transport(panel, jnp.asarray(grid))[0]) for grid in (T, T[::-1])]
        # Parabolas at both ends, which the extrapolation to them takes exactly.
        np.testing.assert_allclose(found, power * length / 2, rtol=1e-10)


@pytest.mark.parametrize("n", [4, 16, 400])
def test_extremes_at_the_ends_whatever_the_grid(design, n):
    """A steady fall along the tube that insulated ends bend, and a parabola across: both edges to rounding."""
    panel = replace(design().panel, nx=n, ny=6)
    length, width = float(panel.length[0]), float(panel.half_pitch[0])
    layer = 2 / np.pi * width * float(jnp.sqrt(panel.kt_x / panel.kt_y)[0])
    x, y = (np.arange(n) + 0.5) / n * length, (np.arange(6) + 0.5) / 6 * width
    # The layer of the far end is not felt at the near one.
    assert length > 12 * layer
    along = 40 - 3 * (x + layer * np.exp(-x / layer) - layer * np.exp((x - length) / layer))
    T = 300 + along[:, None] + 5 * (1 - y[None] / width) ** 2
    found = [float(v[0]) for v in extremes(panel, jnp.asarray(T)[:, :, None])]
    hottest, coldest = 345 - 3 * layer, 340 - 3 * (length - layer)
    # The even extrapolation to y = half_pitch takes the parabola exactly, too; small s by its series.
    np.testing.assert_allclose(found, [hottest, coldest], atol=2e-5 if n == 400 else 1e-9)


def test_extremes_line_by_line_are_those_of_arrays():
    rng = np.random.default_rng(0)
    w, T = jnp.asarray(rng.uniform(0.1, 0.5, 5)), jnp.asarray(rng.normal(300, 10, (9, 7, 5)))
    for found, expected in zip(kernel._by_lines(w, T, 1), kernel._of_arrays(w, T, 1), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_derivatives_of_extremes(design):
    panel = replace(design().panel, nx=7, ny=9)
    T = jnp.asarray(np.random.default_rng(0).normal(300, 10, (7, 9, 1)))
    way = jnp.asarray(np.random.default_rng(1).normal(size=T.shape))

    def figure(s):
        longer = replace(panel, length=panel.length * (1 + s))
        high, low = extremes(longer, T + s * way)
        return (high - 0.5 * low)[0]

    h = 1e-6
    central = (figure(h) - figure(-h)) / (2 * h)
    np.testing.assert_allclose([jax.grad(figure)(0.0), jax.jacfwd(figure)(0.0)], central, rtol=1e-6)
