"""The periodic orbit of a thousand random designs: found from a hot and from a cold start, and the same one."""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dawndusk.kernels import march
from dawndusk.kernels.constants import SIGMA
from jax import lax

STEPS, CELLS = 48, (8, 6)
# Temperature [K] and charge [-] that the two searches start from.
STARTS = ((360.0, 0.9), (230.0, 0.35))
ECLIPSES = (0.0, 600.0, 1100.0, 2100.0)  # s
# Time constants that structure, chip, cold plate, battery, array and panel have by themselves at 300 K [s].
SHORTEST = 120.0
LONGEST = (240_000.0, 1200.0, 7200.0, 36_000.0, 36_000.0, 20_000.0)
# Each search may end 0.01 K from the periodic orbit.
AGREEMENT = 0.02


class Answer(NamedTuple):
    state: march.State
    cycle: march.Cycle
    record: march.Record


class Solved(NamedTuple):
    params: march.Params
    loads: march.Loads
    hot: Answer
    cold: Answer

    @property
    def converged(self):
        """Designs that have an answer from both starts."""
        return np.asarray(
            (self.hot.cycle.status == march.CONVERGED) & (self.cold.cycle.status == march.CONVERGED)
        )

    def peaks(self, record):
        """Highest temperatures of chip and panel [K], (2, b)."""
        chip = self.params.network.index("chip")
        return np.stack([record.nodes[:, chip].max(axis=0), record.panel_max.max(axis=0)])


@pytest.fixture(scope="module")
def solve(design, square_loads, uniform_state):
    """Answers for `count` designs in a precision, kept for the tests that ask again."""
    cyclic, kept = jax.jit(march.cyclic), {}

    def draw(count, dtype):
        params, rng = design(b=count, seed=2026, cells=CELLS, dtype=dtype), np.random.default_rng(2027)
        network, panel = params.network, params.panel
        radiative = network.to_space + network.panel_radiative + network.radiative.sum(axis=1)
        loss = network.conductance.sum(axis=1) + network.loop_conductance + network.panel_conductance
        loss = np.vstack([loss + 4 * SIGMA * 300**3 * radiative, 4 * SIGMA * 300**3 * panel.emission])
        tau = SHORTEST * (np.array(LONGEST)[:, None] / SHORTEST) ** rng.uniform(size=loss.shape)
        capacity = jnp.asarray(tau * loss, dtype)

        def scaled(x, low, high):
            return x * jnp.asarray(rng.uniform(low, high, count), dtype)

        return replace(
            params,
            network=replace(network, heat_capacity=capacity[:-1]),
            panel=replace(panel, heat_capacity=capacity[-1]),
            payload=replace(params.payload, power=scaled(params.payload.power, 0.7, 1.6)),
            array=replace(params.array, area=scaled(params.array.area, 0.8, 1.8)),
        )

    def solved(count, dtype=jnp.float64):
        if (count, dtype) not in kept:
            params = draw(count, dtype)
            parts = [square_loads(count // len(ECLIPSES), STEPS, eclipse=e, dtype=dtype) for e in ECLIPSES]
            loads = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=-1), *parts)
            answers = [Answer(*cyclic(params, loads, uniform_state(params, *start))) for start in STARTS]
            kept[count, dtype] = Solved(params, loads, *answers)
        return kept[count, dtype]

    return solved


counts = pytest.mark.parametrize("count", [64, pytest.param(1000, marks=pytest.mark.slow)])


@counts
def test_most_converge_soon(solve, count):
    """99.5 % of them, half within 8 marches, 95 % within 12, the recorded one included."""
    found = solve(count)
    for _, cycle, record in (found.hot, found.cold):
        converged = np.asarray(cycle.status) == march.CONVERGED
        assert converged.mean() >= 0.995
        marches = np.asarray(cycle.iterations)[converged]
        assert np.median(marches) <= 8 and np.percentile(marches, 95) <= 12
        # The others say so, and what they were left with is finite.
        assert np.all(np.asarray(cycle.status)[~converged] == march.NOT_CONVERGED)
        assert np.all(np.isfinite(record.nodes))
    # Designs of every kind are among them.
    slowest = np.asarray(found.hot.cycle.slowest) / 3600
    assert slowest.min() < 2 and slowest.max() > 70
    assert 0.05 < np.mean(found.hot.cycle.power_deficit) < 0.4
    assert 0.05 < np.mean(found.hot.record.payload_throttled.max(axis=0) > 0) < 0.4


@counts
def test_hot_and_cold_starts_agree(solve, count):
    found = solve(count)
    apart = np.abs(found.peaks(found.hot.record) - found.peaks(found.cold.record)).max(axis=0)
    assert apart[found.converged].max() < AGREEMENT
    # So do charges, wherever they are not neutral: 0.02 K of an array are 6e-5 of its power, 1e-4 of the capacity in
    # a revolution.
    kept = found.converged & ~np.asarray(found.hot.cycle.neutral_charge)
    charge = jnp.abs(found.hot.record.energy - found.cold.record.energy) / found.params.battery.capacity[None]
    assert np.asarray(charge).max(axis=0)[kept].max() < 2e-4


@counts
def test_no_chip_flips_from_step_to_step(solve, count):
    """A throttle and a loop that answer each other a step late alternate, and close over an even number of steps."""
    found = solve(count)
    for _, _, record in (found.hot, found.cold):
        chip = np.asarray(record.nodes)[:, found.params.network.index("chip"), found.converged]
        bend = np.diff(chip, 2, axis=0)
        # Opposite bends of more than 1 mK one after the other; the edges of a shadow make a few.
        flips = -bend[1:] * bend[:-1] > 1e-6
        run = longest = np.zeros(flips.shape[1], int)
        for flip in flips:
            run = np.where(flip, run + 1, 0)
            longest = np.maximum(longest, run)
        assert longest.max() <= 6


@pytest.mark.slow
def test_later_revolutions_are_the_same(solve):
    """Three more revolutions, marched plainly from the answers of a few designs."""
    found = solve(1000)
    some = np.random.default_rng(0).choice(np.flatnonzero(found.converged), 32, replace=False)
    params, loads, start = jax.tree.map(lambda x: x[..., some], (found.params, found.loads, found.cold.state))

    def revolution(state, _):
        return march.transient(params, loads, state)

    _, records = jax.jit(lambda state: lax.scan(revolution, state, None, length=3))(start)
    chip = params.network.index("chip")
    later = np.stack([records.nodes[:, :, chip].max(axis=1), records.panel_max.max(axis=1)], axis=1)
    assert np.abs(later - found.peaks(found.cold.record)[None, :, some]).max() < AGREEMENT


@pytest.mark.slow
def test_single_precision(solve):
    """As many close in float32 as in float64, days or minutes slow, and to the same answer."""
    single, double = solve(1000, jnp.float32), solve(1000)
    apart = np.abs(single.peaks(single.hot.record) - double.peaks(double.hot.record)).max(axis=0)
    # The search stops within 0.01 K by its own reckoning.
    assert apart[single.converged & double.converged].max() < 0.01
    slow = np.asarray(double.hot.cycle.slowest) > 86_400
    assert slow.sum() > 100 and single.converged[slow].mean() >= 0.99
    assert single.converged.mean() >= 0.995
