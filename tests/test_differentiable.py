"""A case as a function of its keys: what a run gives, derivatives in both modes, smooth extremes, messages."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import march
from dawndusk.kernels.revolution import geometry, revolution_loads
from dawndusk.solver import build, keys
from dawndusk.solver import case as cases
from dawndusk.solver.case import CaseError
from dawndusk.solver.differentiable import Condition, Differentiable, evaluate, jacobian
from dawndusk.solver.quantities import quantities
from dawndusk.solver.run import row_count

# The smallest grid, few steps, one epoch; of a large fleet two planes.
SMALL = ("run.cells=[8,6]", "run.steps=32", "epoch.count=1")
PLANES = ("orbit.planes=2", "orbit.satellites_per_plane=1")
# Relative error of a derivative; of a figure by rounding alone, which a difference divides by its step; and the part
# of a figure's largest effect that counts as none: the periodic orbit's linear equations are solved to 1e-8.
RELATIVE, ROUNDING, NOTHING = 1e-5, 2e-12, 1e-9


@cache
def small(name, *overrides):
    more = PLANES if name == "project_sunrise" else ()
    return cases.load(name, [*SMALL, *more, *overrides])


def differences(model, x, entries, step=2e-5):
    """Derivatives of all figures by some entries of x, (figures, entries), and how large nothing is.

    By Richardson's extrapolation, fourth order in the step.
    """
    h = np.maximum(step * np.abs(x[entries]), 1e-6)
    shifts = np.zeros((4, len(entries), len(x)))
    for k, factor in enumerate((1.0, -1.0, 0.5, -0.5)):
        shifts[k, np.arange(len(entries)), entries] = factor * h
    found = evaluate(model, (x + shifts).reshape(-1, len(x)))
    assert (found.status == march.CONVERGED).all()
    values = np.stack([found.figures[name] for name in model.figures]).reshape(-1, 4, len(entries))
    once, half = (values[:, 0] - values[:, 1]) / (2 * h), (values[:, 2] - values[:, 3]) / h
    found = (4 * half - once) / 3
    size = np.where(x[entries] == 0, 1.0, np.abs(x[entries]))
    none = NOTHING * np.max(np.abs(found) * size, axis=1, keepdims=True) / size
    return found, ROUNDING * np.maximum(np.abs(values[:, 0]), 100.0) / h + none


def errors(slopes, expected, rounding):
    """Relative errors of derivatives, 0 where they are lost in rounding."""
    off = np.abs(slopes - expected)
    return np.where(off <= rounding, 0.0, off / np.maximum(np.abs(expected), 1e-300))


# ------------------------------------------------------------------------------------------------ values


def test_figures_are_those_of_a_run():
    """What a run computes of the same case, by the same march from arrays made on the host."""
    case = small("suncatcher")
    model = Differentiable(case, ["radiator.area_m2"], tolerance=1e-9)
    fleet = build.build(case, np.float64)
    rows = np.arange(row_count(fleet))
    loads = jax.vmap(partial(revolution_loads, n_steps=32), out_axes=-1)(
        build.rows_of(fleet.revolutions, rows, 0)
    )
    params, state = (
        jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -1), build.rows_of(tree, rows, -1))
        for tree in (fleet.params, fleet.state)
    )
    _, cycle, record = jax.jit(partial(march.cyclic, tolerance=1e-9))(params, loads, state)
    found = quantities(params, 0 * loads.dt[0], loads, cycle, record)
    figures = evaluate(model, model.start[None]).figures
    chip = fleet.params.network.names.index("chip")
    for figure, value in {
        "peak_chip_temperature": found["node_max_c"][chip],
        "coldest_coolant_temperature": found["coolant_min_c"],
        "peak_panel_temperature": found["panel_max_c"],
        "min_state_of_charge": 100 * found["soc_min"],
        "depth_of_discharge": 100 * found["depth_of_discharge"],
        "energy_balance": found["energy_balance_kwh"],
        "delivered_compute": found["payload_power_kw"],
        "compute_percent": found["compute_percent"],
    }.items():
        np.testing.assert_allclose(figures[figure][0], float(value[0]), rtol=1e-8, atol=1e-7, err_msg=figure)
    assert figures["mass"][0] == pytest.approx(fleet.mass_kg, rel=1e-12)
    # Nothing is shed: what would be left in the battery without a floor is what is.
    floor = 100 * case.battery.min_soc
    assert figures["margin of state of charge"][0] == pytest.approx(figures["min_state_of_charge"][0] - floor)


# ------------------------------------------------------------------------------------------- derivatives

# Where a shipped case stands at a kink of its own, a little beside it: demand in eclipse at which the hottest fluid
# is as hot by day as by night; a heat pipe's evaporator that ends where a cell does; a window that ends at noon.
NOT_TO_NOON = ("payload.windows.1.end=0.97",)
BESIDE = {
    "ai1_radiator": NOT_TO_NOON,
    "starlink_ai": NOT_TO_NOON,
    "iss_eatcs": ("payload.eclipse_demand=0.9",),
    "suncatcher_prototype": ("loop.evaporator_fraction=0.28",),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(cases.shipped()))
def test_every_key_of_every_case(name):
    """All figures by every continuous key: reverse mode against central differences, and forward mode one way."""
    case = small(name, *BESIDE.get(name, ()))
    model = Differentiable(case, list(keys.continuous(case)), tolerance=1e-9)
    x, names = np.array(model.start), list(model.figures)

    def weighted(x, weights):
        found = model(x)
        return jnp.vdot(jnp.stack([found[name] for name in names]), weights)

    slope = jax.jit(jax.grad(weighted))
    slopes = np.stack([slope(x, weights) for weights in np.eye(len(names))])
    expected, rounding = differences(model, x, np.arange(len(x)))
    off = errors(slopes, expected, rounding)
    worst = np.unravel_index(np.argmax(off), off.shape)
    assert off[worst] < RELATIVE, (names[worst[0]], model.names[worst[1]], slopes[worst], expected[worst])
    # Forward mode: all keys at once, each by a part of itself.
    way = np.random.default_rng(0).uniform(-1, 1, len(x)) * np.maximum(np.abs(x), 1e-2)
    _, forward = jax.jit(lambda x: jax.jvp(model, (x,), (way,)))(jnp.asarray(x))
    size = np.abs(slopes) @ np.abs(way)
    for k, figure in enumerate(names):
        assert abs(float(forward[figure]) - slopes[k] @ way) <= 1e-7 * size[k] + 1e-9, figure


@pytest.mark.slow
def test_both_sides_of_every_onset():
    """A little before and after throttling sets in, the battery's floor is met, and the shadow is: each side has its
    own slope, the one that differences on that side show."""
    names = ["payload.throttle_start_c", "battery.capacity_kwh", "orbit.altitude_km", "payload.power_kw"]
    case = small("suncatcher")
    model = Differentiable(case, names, tolerance=1e-9)
    figures = [
        "peak_chip_temperature",
        "delivered_compute",
        "min_state_of_charge",
        "margin of state of charge",
    ]
    start = np.array(model.start)
    there = evaluate(model, start[None]).figures
    chip = there["peak_chip_temperature"][0]
    # The capacity whose charge just meets the floor, by what a larger one is discharged.
    ample = start.copy()
    ample[1] = 60.0
    depth = evaluate(model, ample[None]).figures["depth_of_discharge"][0] / 100 * 60
    floor = depth / (case.battery.max_soc - case.battery.min_soc)
    # At the solstice the shadow ends here (the beta angle grows with the altitude).
    edge = _shadow_free_altitude(case)
    spots = [start] * 6
    spots = [spot.copy() for spot in spots]
    for spot, (k, value) in zip(
        spots,
        [
            (0, chip - 0.05),
            (0, chip + 0.05),
            (1, 0.999 * floor),
            (1, 1.001 * floor),
            (2, edge - 2),
            (2, edge + 2),
        ],
    ):
        spot[k] = value
    for spot in spots:
        _, slopes = jacobian(model, spot, figures)
        expected, rounding = differences(model, spot, np.arange(len(names)), 1e-6)
        chosen = [list(model.figures).index(figure) for figure in figures]
        off = errors(slopes, expected[chosen], 100 * rounding[chosen])
        assert off.max() < 1e-4, (spot, off)
    shed = [evaluate(model, spot[None]).figures["power_shed"][0] for spot in spots[2:4]]
    assert shed[0] > 0 == pytest.approx(shed[1], abs=1e-9)


def _shadow_free_altitude(case):
    """Least altitude without a shadow at the case's epoch [km]."""
    low, high = 500.0, 3000.0
    for _ in range(40):
        middle = (low + high) / 2
        found = build.build(keys.changed(case, {"orbit.altitude_km": middle}), np.float64)
        row = jax.tree.map(
            lambda leaf: jnp.asarray(leaf[0]), build.rows_of(found.revolutions, np.zeros(1, int), 0)
        )
        dark = float(geometry(row).eclipse_fraction) > 0
        low, high = (middle, high) if dark else (low, middle)
    return high


# ------------------------------------------------------------------------------------ extremes and conditions


@cache
def plate():
    return Differentiable(small("single_node_cyclic"), ["radiator.area_m2"])


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("width", [1e-3, 0.5, 20.0])
def test_smooth_extremes_stay_within_their_bound(side, width):
    model = Differentiable(small("single_node_cyclic"), ["radiator.area_m2"], smooth=width)
    values = jnp.asarray(np.random.default_rng(0).normal(300, 5, (7, 40)))
    exact, smooth = plate()._extreme(values, side, 1), model._extreme(values, side, 1)
    beyond = side * np.asarray(smooth - exact)
    assert (beyond >= -1e-9).all()
    assert (beyond <= width * np.log(40) + 1e-9).all()
    # And smooth: the slopes share out one, all of them in part.
    slopes = np.asarray(jax.grad(lambda row: model._extreme(row[None], side, 1)[0])(values[0]))
    assert slopes.sum() == pytest.approx(1)
    assert (slopes >= 0).all()


def test_conditions_are_looked_at_together():
    """The extreme over conditions is the worst of each alone; places say which."""
    case = small("single_node_cyclic", "environment.scale_with_distance=false")
    data = case.model_dump(exclude_none=True, by_alias=True)
    for name in ("solar_flux_w_m2", "albedo", "earth_infrared_w_m2"):
        data["environment"].pop(name)
    case = cases.validate(data)
    conditions = Condition("hot"), Condition("cold")
    model = Differentiable(case, ["radiator.heat_w_m2"], conditions)
    assert [place.condition.environment for place in model.places] == ["hot", "cold"]
    x = np.array([[545.0], [500.0]])
    rows, figures = model.rows(x), model.batch(x)
    peaks = np.asarray(rows["peak_panel_temperature"])
    assert (peaks[:, 0] > peaks[:, 1] + 5).all()
    np.testing.assert_array_equal(figures["peak_panel_temperature"], peaks.max(axis=1))
    np.testing.assert_array_equal(
        figures["coldest_panel_temperature"], rows["coldest_panel_temperature"].min(axis=1)
    )
    alone = Differentiable(case, ["radiator.heat_w_m2"], conditions[:1]).batch(x)
    np.testing.assert_allclose(alone["peak_panel_temperature"], peaks[:, 0], atol=1e-7)


def test_a_key_by_epoch_acts_at_its_epoch():
    case = small("suncatcher", "epoch.count=3")
    model = Differentiable(case, ["payload.demand", "radiator.area_m2"], per_epoch=["payload.demand"])
    assert model.names == ("payload.demand@0", "payload.demand@1", "payload.demand@2", "radiator.area_m2")
    built = model._built(jnp.asarray([[1.0, 0.5, 0.25, 30.0]]))[0]
    np.testing.assert_array_equal(np.asarray(built.demand_levels)[:3, 0], [1.0, 0.5, 0.25])


@pytest.mark.parametrize(
    "overrides, options, message",
    [
        (
            ("run.mode=transient",),
            {},
            r"run\.mode: got 'transient'; figures of merit are those of 'orbit'",
        ),
        ((), {"keys": ["payload.packages"]}, r"payload\.packages: got 54; cannot vary, it is a whole number"),
        (
            (),
            {"keys": ["radiator.aera_m2"]},
            r"radiator\.aera_m2: no such key; did you mean radiator\.area_m2\?",
        ),
        ((), {"keys": ["run.steps"]}, r"run\.steps: cannot vary; \[run\] says what is looked at"),
        (
            (),
            {"keys": ["environment.level"]},
            r"environment\.level: got 'nominal'; cannot vary, it is no number",
        ),
        ((), {"keys": ["battery"]}, r"battery: cannot vary as a whole; give one of battery\.capacity_kwh"),
        ((), {"keys": ["loop.density_kg_m3"]}, r"loop\.density_kg_m3: not given in the case"),
        (
            (),
            {"keys": ["environment.albedo"], "conditions": [Condition("hot")]},
            r"environment\.albedo: cannot vary where the environment is set \('hot'\)",
        ),
        ((), {"per_epoch": ["radiator.area_m2"]}, r"radiator\.area_m2: cannot be another at each epoch"),
        (
            (),
            {"per_epoch": ["payload.demand"]},
            r"payload\.demand: by epoch, but not among the keys that vary",
        ),
    ],
)
def test_messages(overrides, options, message):
    with pytest.raises(CaseError, match=message):
        Differentiable(small("suncatcher", *overrides), **({"keys": ["radiator.area_m2"]} | options))


def test_an_unknown_figure_is_told_the_nearest():
    model = plate()
    with pytest.raises(CaseError, match="no figure 'peak_panel_temp'; did you mean 'peak_panel_temperature'"):
        model.figure("peak_panel_temp")
