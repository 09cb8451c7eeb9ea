"""An array program of satellites unrolled to the arithmetic of one, for kernels that hold each number by itself.

A function of arrays with satellites on the last axis is traced for one satellite, and each element of each array
becomes a `Number`: a constant, an input, or an operation on others. Zeros and ones are folded away, equal operations
are found once and unused ones never, so that small dense matrices cost what their entries do. What follows from the
design alone is told apart, to be reckoned once, outside a march (`hoisted`); the rest is emitted where it is asked
for, on values of whatever shape the kernel gives a number.
"""

import operator
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Literal

# Where a number is known: for a whole march, in each step, in each turn of a loop within the step.
DESIGN, STEP, TURN = 0, 1, 2


class Number:
    """An operation on numbers and constants, or an input, which has no operation."""

    __slots__ = ("apply", "args", "level", "truth")

    def __init__(self, apply: Callable | None, args: tuple, level: int, truth: bool = False):
        self.apply, self.args, self.level, self.truth = apply, args, level, truth


class _Loop:
    """`turns` turns of a body: its carry's numbers, what each starts from, and what becomes of it."""

    def __init__(self, turns: int, carry: list[Number], start: list, end: list):
        self.turns, self.carry, self.start, self.end = turns, carry, start, end
        self.results: list[Number] = []


def _expm1(x):
    """exp(x) - 1; by its series near zero, to float32 rounding."""
    near = abs(x) < 0.5
    small = jnp.where(near, x, 0.0)
    series = 1.0 + small * (1 / 9)
    for k in range(8, 1, -1):
        series = 1.0 + small * series * (1 / k)
    return jnp.where(near, small * series, jnp.exp(x) - 1.0)


def _power(x, y: int):
    if y < 0:
        return 1.0 / _power(x, -y)
    half = x if y < 2 else _power(x, y // 2)
    if y < 2:
        return x if y else jnp.ones_like(x)
    return half * half * x if y % 2 else half * half


def _select(which, no, yes):
    return jnp.where(which, yes, no)


def _as_float(x):
    return jnp.where(x, 1.0, 0.0)


_ELEMENTWISE: dict[str, Callable] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "neg": operator.neg,
    "abs": operator.abs,
    "max": jnp.maximum,
    "min": jnp.minimum,
    "exp": jnp.exp,
    "expm1": _expm1,
    "log": jnp.log,
    "rsqrt": lax.rsqrt,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "and": operator.and_,
    "or": operator.or_,
    "not": operator.invert,
    "select_n": _select,
    "_reciprocal": lambda x: 1.0 / x,
    "_power": _power,
    "_as_float": _as_float,
}
_OF_CONSTANTS = {
    "max": np.maximum,
    "min": np.minimum,
    "div": np.true_divide,
    "select_n": lambda p, a, b: b if p else a,
}
_TRUTHS = "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not"
_REDUCTIONS = {"reduce_sum": "add", "reduce_max": "max", "reduce_min": "min"}
# What hands its arguments on to a program of its own.
_CALLS = "jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint", "custom_jvp_call"


def _broadcast(params, a):
    shape = [1] * len(params["shape"])
    for axis, size in zip(params["broadcast_dimensions"], a.shape):
        shape[axis] = size
    return np.broadcast_to(a.reshape(shape), params["shape"])


def _iota(params):
    along = [-1 if n == params["dimension"] else 1 for n in range(len(params["shape"]))]
    numbers = np.arange(params["shape"][params["dimension"]]).reshape(along)
    return np.broadcast_to(numbers, params["shape"]).astype(object)


def _slice(params, a):
    strides = params["strides"] or [1] * a.ndim
    return a[tuple(map(slice, params["start_indices"], params["limit_indices"], strides))]


def _pad(params, a, value):
    config = params["padding_config"]
    shape = [n + (n - 1) * gap + max(low, 0) + max(high, 0) for n, (low, high, gap) in zip(a.shape, config)]
    padded = np.full(shape, value.item(), object)
    ends = [max(low, 0) + (n - 1) * (gap + 1) + 1 for n, (low, _, gap) in zip(a.shape, config)]
    inside = [slice(max(low, 0), end, gap + 1) for end, (low, _, gap) in zip(ends, config)]
    padded[tuple(inside)] = a
    # Less than nothing cuts off.
    return padded[tuple(slice(max(-low, 0), n - max(-high, 0)) for n, (low, high, _) in zip(shape, config))]


def _windows(indices, starts_of, shape, sizes):
    """Of each row of constant indices, the window of an array that it starts."""
    for row in indices.reshape(-1, indices.shape[-1]):
        start = [0] * len(shape)
        for axis, at in zip(starts_of, row):
            start[axis] = min(max(int(at), 0), shape[axis] - sizes[axis])
        yield tuple(slice(low, low + size) for low, size in zip(start, sizes))


def _gather(params, a, indices):
    """Of whole numbers' axes or slices of full length, the batch first."""
    how, sizes = params["dimension_numbers"], params["slice_sizes"]
    found = [a[window] for window in _windows(indices, how.start_index_map, a.shape, sizes)]
    kept = [size for axis, size in enumerate(sizes) if axis not in how.collapsed_slice_dims]
    batch = indices.shape[:-1]
    stacked = np.stack([f.reshape(kept) for f in found]).reshape(*batch, *kept)
    order = iter(range(len(batch))), iter(range(len(batch), stacked.ndim))
    return stacked.transpose([next(order[n in how.offset_dims]) for n in range(stacked.ndim)])


def _scatter(params, a, indices, new):
    """Of one window."""
    how = params["dimension_numbers"]
    inserted, sizes = how.inserted_window_dims, iter(new.shape[n] for n in how.update_window_dims)
    sizes = [1 if axis in inserted else next(sizes) for axis in range(a.ndim)]
    [window] = _windows(indices, how.scatter_dims_to_operand_dims, a.shape, sizes)
    changed = a.copy()
    changed[window] = new.reshape(sizes)
    return changed


def _dynamic_slice(params, a, *starts):
    """From constant indices on."""
    sizes = params["slice_sizes"]
    [window] = _windows(np.array([[start.item() for start in starts]]), range(a.ndim), a.shape, sizes)
    return a[window]


# What moves elements and leaves them as they are.
_MOVES: dict[str, Callable] = {
    "broadcast_in_dim": _broadcast,
    "iota": _iota,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "pad": _pad,
    "gather": _gather,
    "scatter": _scatter,
    "reshape": lambda params, a: a.reshape(params["new_sizes"]),
    "squeeze": lambda params, a: a.squeeze(tuple(params["dimensions"])),
    "transpose": lambda params, a: a.transpose(params["permutation"]),
    "concatenate": lambda params, *a: np.concatenate(a, params["dimension"]),
    "stack": lambda params, *a: np.stack(a, params["axis"]),
    "copy": lambda params, a: a,
    "reshard": lambda params, a: a,
    "stop_gradient": lambda params, a: a,
}


def _constant(x, value=None) -> bool:
    return not isinstance(x, Number) and (value is None or x == value)


class Graph:
    """The numbers of one satellite."""

    def __init__(self):
        self.known: dict[tuple, Number] = {}

    def inputs(self, tree: Any, level: int) -> Any:
        """An input for each element of a tree of arrays, or their shapes, of one satellite."""

        def of(leaf):
            made = np.empty(leaf.shape, object)
            for at in np.ndindex(leaf.shape):
                made[at] = Number(None, (), level)
            return made

        return jax.tree.map(of, tree)

    def run(self, function: Callable, *trees: Any) -> Any:
        """function(*trees), of trees of arrays of numbers."""
        shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, jnp.float32), trees)
        jaxpr, out = jax.make_jaxpr(function, return_shape=True)(*shapes)
        found = self._evaluate(jaxpr.jaxpr, jaxpr.consts, jax.tree.leaves(trees))
        return jax.tree.unflatten(jax.tree.structure(out), found)

    def _evaluate(self, jaxpr, consts, args) -> list[np.ndarray]:
        known = {}

        def read(v):
            return np.asarray(v.val).astype(object) if isinstance(v, Literal) else known[v]

        for v, value in zip(jaxpr.constvars, consts):
            known[v] = np.asarray(value).astype(object)
        known.update(zip(jaxpr.invars, args))
        for eqn in jaxpr.eqns:
            found = self._equation(eqn, [read(v) for v in eqn.invars])
            known.update(zip(eqn.outvars, found))
        return [read(v) for v in jaxpr.outvars]

    def _equation(self, eqn, args: list[np.ndarray]) -> list[np.ndarray]:
        name, params = eqn.primitive.name, eqn.params
        if name in _CALLS:
            inner = params["call_jaxpr"] if "call_jaxpr" in params else params["jaxpr"]
            return self._evaluate(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), args)
        if name == "scan":
            return self._scan(params, args)
        if name in _REDUCTIONS:
            return [self._reduce(_REDUCTIONS[name], args[0], params["axes"])]
        if name in _MOVES:
            return [_MOVES[name](params, *args)]
        shape = eqn.outvars[0].aval.shape
        if name == "integer_pow":
            return [self._each("_power", shape, args[0], np.asarray(params["y"], object))]
        if name == "square":
            return [self._each("mul", shape, *args, *args)]
        if name == "convert_element_type":
            truth = eqn.invars[0].aval.dtype.kind == "b" and params["new_dtype"].kind != "b"
            return [self._each("_as_float", shape, *args) if truth else args[0]]
        if name not in _ELEMENTWISE:
            raise NotImplementedError(f"{name}: no rule to unroll it by")
        return [self._each(name, shape, *args)]

    def _each(self, name: str, shape, *args: np.ndarray) -> np.ndarray:
        made = np.empty(shape, object)
        for at, *values in zip(np.ndindex(shape), *(np.broadcast_to(a, shape).ravel() for a in args)):
            made[at] = self.operation(name, *values)
        return made

    def operation(self, name: str, *args):
        """A number, or what is known of it."""
        if name == "select_n" and _constant(args[0]):
            return args[2 if args[0] else 1]
        if name == "_power" and args[1] == 1:
            return args[0]
        if all(map(_constant, args)):
            return (
                _OF_CONSTANTS.get(name, _ELEMENTWISE[name])(*args) if name != "_as_float" else float(args[0])
            )
        if name in ("add", "sub") and _constant(args[1], 0):
            return args[0]
        if name == "add" and _constant(args[0], 0):
            return args[1]
        if name == "mul" and any(_constant(a, 0) for a in args):
            return 0.0
        if name == "mul" and any(_constant(a, 1) for a in args):
            return args[1] if _constant(args[0], 1) else args[0]
        if name == "div" and (_constant(args[0], 0) or _constant(args[1], 1)):
            return args[0]
        if name == "div":
            # Divisors come in rows: a product each, where a quotient each would be many operations.
            return self.operation("mul", args[0], self.operation("_reciprocal", args[1]))
        return self._number(name, args)

    def _number(self, name: str, args: tuple) -> Number:
        ordered = args
        if name in ("add", "mul", "max", "min"):
            ordered = tuple(sorted(args, key=lambda a: id(a) if isinstance(a, Number) else 0))
        key = (name, *(a if isinstance(a, Number) else (type(a), a) for a in ordered))
        if key not in self.known:
            level = max(a.level for a in args if isinstance(a, Number))
            self.known[key] = Number(_ELEMENTWISE[name], args, level, name in _TRUTHS)
        return self.known[key]

    def _reduce(self, name: str, a: np.ndarray, axes) -> np.ndarray:
        kept = [n for n in range(a.ndim) if n not in axes]
        a = a.transpose(*kept, *axes).reshape(*(a.shape[n] for n in kept), -1)
        made = np.empty(a.shape[:-1], object)
        for at in np.ndindex(made.shape):
            total, *rest = a[at]
            for term in rest:
                total = self.operation(name, total, term)
            made[at] = total
        return made

    def _scan(self, params, args) -> list[np.ndarray]:
        """A loop that carries numbers and neither takes nor leaves rows; counters among them stay their own."""
        kept, carried = params["num_consts"], params["num_carry"]
        if len(args) != kept + carried:
            raise NotImplementedError("scan: no rule to unroll rows by")
        start = args[kept:]
        carry = [
            np.asarray([Number(None, (), TURN) for _ in a.ravel()], object).reshape(a.shape) for a in start
        ]
        body = params["jaxpr"]
        end = self._evaluate(body.jaxpr, body.consts, [*args[:kept], *carry])

        def flat(arrays):
            return [value for a in arrays for value in a.ravel()]

        loop = _Loop(params["length"], flat(carry), flat(start), flat(end))
        level = max(
            a.level for a in [*flat(args), *_inputs(loop.end)] if isinstance(a, Number) and a.level < TURN
        )
        loop.results = [Number(None, (loop, k), level) for k in range(len(loop.carry))]
        found = iter(loop.results)
        return [np.asarray([next(found) for _ in a.ravel()], object).reshape(a.shape) for a in start]


def _inputs(values: Iterable) -> list[Number]:
    """What numbers of a loop's turn take from outside of it."""
    return [n for n in _order(values, lambda n: n.level < TURN) if n.level < TURN]


def _order(values: Iterable, known: Callable) -> list[Number]:
    """Numbers that these consist of, each behind its arguments, down to those that are known."""
    found: dict[Number, None] = {}
    for value in values:
        stack = [(value, False)]
        while stack:
            number, ready = stack.pop()
            if not isinstance(number, Number) or number in found:
                continue
            if ready or known(number):
                found[number] = None
                continue
            stack.append((number, True))
            args = number.args
            if args and isinstance(args[0], _Loop):
                args = (*args[0].start, *_inputs(args[0].end))
            stack.extend((a, False) for a in reversed(args))
    return list(found)


def hoisted(values: Iterable) -> list[Number]:
    """Numbers of the design that others are reckoned from, in the order in which these ask for them."""
    return [n for n in _order(values, lambda n: n.level == DESIGN) if n.level == DESIGN]


def given(values: Iterable) -> set[Number]:
    """Inputs that numbers are reckoned from."""
    return {
        n for n in _order(values, lambda n: n.apply is None and not n.args) if n.apply is None and not n.args
    }


class Emitter:
    """Values of numbers in a program that is being traced.

    Args:
        given: Functions without arguments that fetch what is given; they are called again at each use.
        full: From a value or a constant, a value of the kernel's shape.
        pause: Called whenever so many numbers have been emitted.
    """

    def __init__(
        self, given: dict[Number, Callable], full: Callable, pause: tuple[int, Callable] | None = None
    ):
        self.given, self.full, self.pause, self.values = given, full, pause, {}

    def __call__(self, number):
        """The value of a number; a constant is its own."""
        for n in _order([number], lambda n: n in self.given or n in self.values):
            if n not in self.given and n not in self.values:
                self._emit(n)
                if self.pause and len(self.values) % self.pause[0] == 0:
                    self.pause[1]()
        return self._read(number)

    def _read(self, x):
        if not isinstance(x, Number):
            return x
        return self.given[x]() if x in self.given else self.values[x]

    def _emit(self, number: Number):
        if number.apply is not None:
            self.values[number] = number.apply(*map(self._read, number.args))
        elif number.args:
            self._turns(number.args[0])
        else:
            raise KeyError("a number that nobody has given")

    def _turns(self, loop: _Loop):
        # Counters, which are whole, are the loop's own affair.
        numbers = [k for k, value in enumerate(loop.start) if not isinstance(value, int)]

        def turn(_, carry):
            inside = {
                n: partial(operator.itemgetter(k), carry)
                for k, n in enumerate(loop.carry[k] for k in numbers)
            }
            outside = {n: partial(self._read, n) for n in _inputs(loop.end)}
            emitter = Emitter(inside | outside, self.full)
            return [self.full(emitter(loop.end[k])) for k in numbers]

        start = [self.full(self._read(loop.start[k])) for k in numbers]
        found = lax.fori_loop(0, loop.turns, turn, start)
        for k, value in zip(numbers, found):
            self.values[loop.results[k]] = value
