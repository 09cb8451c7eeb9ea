"""JAX settings of the benches: both precisions in one process."""

import jax

jax.config.update("jax_enable_x64", True)
