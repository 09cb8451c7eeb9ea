"""What a case's numbers become arrays with: NumPy in float64 on the host, or JAX while it traces them.

What `build` and `constellation` compute of a case they compute with Python's operators, and with one of these where
operators do not do. A case some of whose numbers are traced (`differentiable`) then takes the same way as any other.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@contextmanager
def host_float64() -> Iterator[None]:
    """JAX in float64 on the host, whatever the run's precision and device: dates and angles need it.

    At once, even while a program is traced that needs the numbers as constants.
    """
    cpu = jax.local_devices(backend="cpu")[0]
    with jax.ensure_compile_time_eval(), jax.enable_x64(True), jax.default_device(cpu):
        yield


class Host:
    """Numbers are Python's and NumPy's."""

    xp = np
    traced = False

    def array(self, value: Any) -> np.ndarray:
        """Of a number, an array, or nested lists of them."""
        return np.asarray(value, np.float64)

    def of(self, kernel: Callable, *numbers: Any) -> Any:
        """A kernel's value at some numbers or arrays."""
        with host_float64():
            return jax.tree.map(np.asarray, kernel(*(jnp.asarray(np.asarray(x, float)) for x in numbers)))


class Traced:
    """Some numbers are JAX's."""

    xp = jnp
    traced = True

    def __init__(self, dtype: Any):
        self.dtype = np.dtype(dtype)

    def array(self, value: Any) -> jax.Array:
        """Of a number, an array, or nested lists of them."""
        if isinstance(value, list | tuple):
            return jnp.stack([self.array(part) for part in value]) if value else jnp.zeros(0, self.dtype)
        return jnp.asarray(value, self.dtype)

    def of(self, kernel: Callable, *numbers: Any) -> Any:
        """A kernel's value at some numbers or arrays."""
        return kernel(*(self.array(x) for x in numbers))


HOST = Host()
