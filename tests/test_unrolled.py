"""Array programs unrolled to numbers give what the arrays give, with nothing reckoned twice or in vain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import network, satellite, unrolled
from dawndusk.kernels.unrolled import DESIGN, STEP, Emitter, Graph
from jax import lax


def numbers(tree):
    return [x for a in jax.tree.leaves(tree) for x in a.ravel()]


def emitted(function, *arrays, levels=None):
    """function(*arrays) by way of numbers, arrays' last axis the satellites'; and the graph's results."""
    graph = Graph()
    levels = levels or [STEP] * len(arrays)
    inputs = [graph.inputs(np.empty((*a.shape[:-1], 1)), level) for a, level in zip(arrays, levels)]
    results = graph.run(function, *inputs)
    rows = [row for a in arrays for row in a.reshape(-1, a.shape[-1])]
    given = {n: (lambda row=row: row) for n, row in zip(numbers(inputs), rows)}

    def full(x):
        return jnp.broadcast_to(x, arrays[0].shape[-1:])

    emit = Emitter(given, full)
    values = jax.tree.map(
        lambda a: jnp.stack([full(emit(x)) for x in a.ravel()]).reshape(*a.shape[:-1], -1), results
    )
    return values, results


def uniform(*shape):
    return jnp.asarray(np.random.default_rng(0).uniform(0.5, 2, shape), jnp.float32)


def agree(function, *arrays):
    found, _ = emitted(function, *arrays)
    expected = function(*arrays)
    # A quotient is a product with a reciprocal here: a rounding or two more, in sums of a few terms.
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
        np.testing.assert_allclose(a, b, rtol=3e-6, atol=1e-6)


def test_small_systems():
    A = uniform(4, 4, 3) + 8 * jnp.eye(4, dtype=jnp.float32)[:, :, None]
    agree(network.solve_dense, A, uniform(4, 2, 3))


@pytest.mark.parametrize(
    "move",
    [
        lambda a: a.at[1].set(0.0),
        lambda a: a.at[2, 1].set(a[0, 0]),
        lambda a: jnp.diagonal(a, axis1=0, axis2=1).T,
        lambda a: jnp.concatenate([a[::2], a[:1]]) + jnp.swapaxes(a, 0, 1)[:, :1],
        lambda a: lax.associative_scan(jnp.multiply, a[:, 0]),
        lambda a: jnp.where(jnp.arange(3)[:, None, None] == 1, a, jnp.max(a, axis=0)[None]),
        lambda a: jnp.stack([a[0], a[1]], axis=1) * jnp.eye(3, 2, dtype=a.dtype)[:, :, None],
        lambda a: lax.pad(a, jnp.float32(2), [(-1, 1, 0), (0, -1, 1), (0, 0, 0)]),
    ],
)
def test_moves(move):
    agree(move, uniform(3, 3, 2))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: jnp.clip(x - 1, 0.1, 0.6) ** 3 + x**-2,
        lambda x: jnp.where((x > 1) & ~(x < 1.2), x, -x).astype(x.dtype),
        lambda x: (x > 1).astype(x.dtype) + jnp.log(x) * lax.rsqrt(x),
        lambda x: -jnp.expm1(-x) + jnp.expm1(-1e-4 * x) * 1e4 + jnp.abs(x - 1) + jnp.exp(x),
    ],
)
def test_operations(function):
    agree(function, uniform(4, 5))


def test_small_expm1_keeps_its_digits():
    x = jnp.asarray([-0.6, -0.5, -0.3, -1e-3, -1e-7, 1e-5, 0.4, 0.7], jnp.float32)
    found, _ = emitted(jnp.expm1, x)
    np.testing.assert_allclose(np.ravel(found), np.expm1(np.asarray(x, np.float64)), rtol=4e-7)


def test_loops_keep_what_they_take_from_outside():
    def bisected(x, y):
        def halve(_, bracket):
            low, high = bracket
            mid = (low + high) / 2
            cold = mid * mid < x * y
            return jnp.where(cold, mid, low), jnp.where(cold, high, mid)

        low, high = lax.fori_loop(0, 12, halve, (jnp.zeros_like(x), jnp.full_like(x, 4.0)))
        return low + 2 * high

    agree(bisected, uniform(1, 4), uniform(2, 4)[1:])


def test_the_coupled_stage(design, square_loads, uniform_state):
    """All that a satellite is besides its panel, and a panel's tube cells."""
    params, loads = design(b=2, cells=(3, 3), dtype=jnp.float32), square_loads(2, 32, dtype=jnp.float32)
    state, load = uniform_state(params, 310.0), jax.tree.map(lambda a: a[14], loads)
    leaves, tree = jax.tree.flatten((params, load))
    line = uniform(3, 2)

    def stage(nodes, energy, start, response, *leaves):
        params, load = jax.tree.unflatten(tree, leaves)
        wall = satellite.Wall(300 + start, start - 1, 1e-3 * response)
        mean = jnp.full_like(energy, 300.0)
        return satellite.implicit_stage(params, load, nodes, energy, mean, mean**4, wall)

    arrays = state.nodes, state.energy, line, line[::-1], *leaves
    found, _ = emitted(stage, *arrays)
    expected = jax.jit(stage)(*arrays)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        # Powers of 2e4 W, among them one that all others are taken from.
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4 if np.abs(b).max() < 1e3 else 0.05)


def test_zeros_and_ones_cost_nothing_and_equals_are_one():
    def function(x):
        identity = jnp.eye(2, dtype=x.dtype)[:, :, None]
        return jnp.sum(identity * x[None], axis=1), (x[0] + x[1]) * (x[1] + x[0])

    _, (same, square) = emitted(function, uniform(2, 3))
    graph_of = unrolled.given(numbers(same))
    assert set(numbers(same)) == graph_of  # the inputs themselves
    [product] = numbers(square)
    assert product.args[0] is product.args[1]


def test_what_follows_from_the_design_is_hoisted():
    def function(design, x):
        return jnp.exp(design[0]) * jnp.log(design[1]) * x[0] + (design[0] > 1).astype(x.dtype)

    _, result = emitted(function, uniform(2, 3), uniform(1, 3), levels=(DESIGN, STEP))
    hoisted = unrolled.hoisted(numbers(result))
    # The product of both, and the comparison as a number.
    assert len(hoisted) == 2 and all(n.level == DESIGN for n in hoisted)


def test_what_has_no_rule_is_named():
    with pytest.raises(NotImplementedError, match="sin: no rule"):
        emitted(jnp.sin, uniform(1, 2))
    with pytest.raises(NotImplementedError, match="scan: no rule"):
        emitted(lambda x: lax.scan(lambda c, row: (c + row, c), x[0], x)[1], uniform(3, 2))
    with pytest.raises(KeyError, match="nobody has given"):
        Emitter({}, lambda x: x)(Graph().inputs(np.empty((1,)), STEP).item())
