"""What a grid leaves of a panel: the transport of its pipes."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from dawndusk.kernels.panel import pipe_transport


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
