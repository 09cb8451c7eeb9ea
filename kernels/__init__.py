"""The physics: pure functions of arrays, SI units and radians throughout."""
