"""dawndusk: orbital thermal and power solver for fleets of satellites, in JAX.

`dawndusk.kernels` holds the physics as pure JAX functions; `dawndusk.solver` runs case files.
"""

__version__ = "0.1.0"
