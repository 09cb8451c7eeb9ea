"""Linear maps with their own transpose: both modes, vmap, tangents that are not asked for, second derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
from dawndusk.kernels.linear import linear_map


def forward(known, x):
    return {"y": known["a"] * x[0], "z": jnp.sum(x[1]) * known["a"]}


def transpose(known, y):
    return known["a"] * y["y"], jnp.full((3,), jnp.sum(known["a"] * y["z"]))


def doubled(known, y):
    """Wrong on purpose: it shows which rule is taken."""
    return jax.tree.map(lambda x: 2 * x, transpose(known, y))


def plain(a, u, v):
    out = forward({"a": a}, (u, v))
    return jnp.sum(out["y"] ** 2) + jnp.sum(out["z"] ** 3)


def mapped(a, u, v, rule=transpose):
    out = linear_map(forward, rule, {"a": a}, (u, v))
    return jnp.sum(out["y"] ** 2) + jnp.sum(out["z"] ** 3)


AT = jnp.asarray([1.0, 2.0, 3.0]), jnp.asarray([2.0, 2.5, 3.5]), jnp.asarray([0.5, 1.0, 1.5])


def agree(found, expected):
    jax.tree.map(lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-12), found, expected)


def test_both_modes_and_second_derivatives():
    for of in (0, 1, 2):
        for derivative in (jax.grad, jax.jacfwd, jax.hessian):
            agree(jax.jit(derivative(mapped, of))(*AT), derivative(plain, of)(*AT))
    agree(mapped(*AT), plain(*AT))


def test_reverse_takes_the_given_transpose_and_forward_does_not():
    wrong = lambda *at: mapped(*at, rule=doubled)  # noqa: E731
    agree(jax.grad(wrong, 1)(*AT), 2 * jax.grad(plain, 1)(*AT))
    agree(jax.jacfwd(wrong, 1)(*AT), jax.grad(plain, 1)(*AT))


def test_vmap_on_either_side():
    many = jnp.stack([AT[0], AT[0] + 1])
    inside = jax.vmap(jax.grad(mapped, (0, 1, 2)), (0, None, None))
    agree(inside(many, *AT[1:]), jax.vmap(jax.grad(plain, (0, 1, 2)), (0, None, None))(many, *AT[1:]))

    def total(f):
        return lambda u, v: jnp.sum(jax.vmap(f, (0, None, None))(many, u, v))

    agree(jax.grad(total(mapped), (0, 1))(*AT[1:]), jax.grad(total(plain), (0, 1))(*AT[1:]))
    kept = jax.checkpoint(total(mapped))
    agree(jax.grad(kept)(*AT[1:]), jax.grad(total(plain))(*AT[1:]))
