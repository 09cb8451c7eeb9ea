"""Rows reduced block by block: as numpy does with all of them, whatever the blocks, in memory that does not grow."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from dawndusk.solver import case as cases
from dawndusk.solver import limits, reductions, results, run, summary
from dawndusk.solver.quantities import SCALARS
from dawndusk.solver.reductions import Percentile

NODES = ("structure", "chip", "cold_plate", "battery", "array")
SIZES = {"node": len(NODES), "source": 3, "face": 3}


def fleet_of(group, epochs):
    """Satellites of some groups on so many days, three planes."""
    group = np.asarray(group)
    start = datetime(2027, 1, 1, tzinfo=UTC)
    rows = (int(group.max()) + 1) * epochs
    panel = SimpleNamespace(nx=4, ny=6, passes=1, length=np.full(rows, 2.0), width=np.full(rows, 0.1))
    return SimpleNamespace(
        group=group,
        row=group[:, None] * epochs + np.arange(epochs),
        plane=group % 3,
        names=[f"sat-{k}" for k in range(len(group))],
        epochs=[start + timedelta(days=k) for k in range(epochs)],
        params=SimpleNamespace(network=SimpleNamespace(names=NODES), panel=panel),
        mass_kg=575.0,
        revolutions=np.zeros(rows),
        left_out=(),
    )


def values_of(draw, count):
    """Random scalars of plausible size; one row in fifty has failed, one has not converged."""
    out = {}
    for name, variable in SCALARS.items():
        shape = (count, *(SIZES[dim] for dim in variable.dims))
        if name in ("power_deficit", "neutral_charge"):
            out[name] = draw.random(shape) < 0.01
        elif name == "iterations":
            out[name] = draw.integers(3, 9, shape).astype(np.int32)
        elif name != "status":
            out[name] = draw.normal(20, 5, shape).astype(np.float32)
    out["soc_min"] = draw.uniform(0.3, 0.9, count).astype(np.float32)
    out["reason"] = draw.choice([0, 1, 4], count, p=[0.96, 0.02, 0.02]).astype(np.int32)
    out["status"] = np.minimum(out["reason"], results.FAILED)
    return out


def outcome_of(path, group, epochs, chunk, draw, reached=None):
    """A run of random rows, written to its marks in chunks; the last rows not reached."""
    fleet = fleet_of(group, epochs)
    rows = len(fleet.revolutions)
    plan = {"case_hash": "abc", "precision": "single", "rows": rows, "chunk": chunk, "version": "1"}
    results.begin(path, fleet, plan, "")
    for first in range(0, rows if reached is None else reached, chunk):
        results.write_rows(path, first, values_of(draw, min(chunk, rows - first)), rows, chunk)
    case = cases.load("project_sunrise")
    return run.Outcome(path, case, fleet, None, results.Scalars(path, rows), run.Walls(), rows)


def alike(one, two, where="summary"):
    """The same keys and texts, the same numbers but for the rounding of sums."""
    assert type(one) is type(two), where
    if isinstance(one, dict):
        assert one.keys() == two.keys(), where
        for key in one:
            alike(one[key], two[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(two), where
        for k, pair in enumerate(zip(one, two)):
            alike(*pair, f"{where}[{k}]")
    elif isinstance(one, float) and where.split(".")[1].startswith(("quantities", "design")):
        assert one == pytest.approx(two, rel=1e-12), where
    else:
        assert one == two, where


@pytest.mark.parametrize("reached", [None, 90], ids=["complete", "interrupted"])
def test_the_summary_does_not_depend_on_blocks(tmp_path, monkeypatch, reached):
    """Groups of one to four satellites, out of order; chunks of 30 rows, blocks of one row, of seven, of all."""
    group = np.random.default_rng(3).permutation(np.repeat(np.arange(40), np.arange(40) % 4 + 1))
    outcome = outcome_of(tmp_path, group, 6, 30, np.random.default_rng(4), reached)
    whole = summary.summarise(outcome, headroom=False)
    assert whole["complete"] == (reached is None) and whole["failed"]["count"] > 0
    for block in (1, 7):
        monkeypatch.setattr(reductions, "BLOCK", block)
        alike(whole, summary.summarise(outcome, headroom=False))


def test_the_summary_is_numpys_of_the_dataset(tmp_path, monkeypatch):
    """Every satellite and epoch of results.zarr, whole in memory, against rows in blocks of 11 and regions of 25."""
    monkeypatch.setattr(reductions, "BLOCK", 11)
    monkeypatch.setattr(results, "REGION", 25)
    group = np.random.default_rng(5).permutation(np.repeat(np.arange(30), 2))
    outcome = outcome_of(tmp_path, group, 4, 16, np.random.default_rng(6))
    found = summary.summarise(outcome, headroom=False)
    results.finish(tmp_path, outcome.fleet, outcome.scalars, {})
    with xr.open_zarr(tmp_path / results.DATASET) as data:
        data = data.load()
    assert data["panel_max_c"].dims == ("satellite", "epoch")
    np.testing.assert_array_equal(data["iterations"], outcome.scalars["iterations"][outcome.fleet.row])
    good = data["status"].values != results.FAILED
    assert found["failed"]["count"] == (~good).sum() > 0
    assert found["not_converged"]["count"] == (data["status"].values == 1).sum() > 0

    chip = data["node_max_c"].sel(node="chip").values.astype(float)
    quantities = {(one["name"], one["unit"]): one for one in found["quantities"]}
    one = quantities["chip hottest", "C"]
    assert one["fleet_mean"] == pytest.approx(chip[good].mean(), rel=1e-12)
    assert one["worst"] == chip[good].max()
    assert one["percentile_95"] == pytest.approx(np.percentile(chip[good], 95), rel=1e-12)
    satellite = data["satellite"].values.tolist().index(one["satellite"])
    epoch = [str(day)[:10] for day in data["epoch"].values].index(one["epoch"][:10])
    assert chip[satellite, epoch] == one["worst"]
    coldest = quantities["loop coldest", "C"]
    assert coldest["percentile_95"] == pytest.approx(np.percentile(data["coolant_min_c"].values[good], 5))

    head = [one["name"] for one in found["fleet"]["headlines"]].index("chip hottest")
    kept = np.where(good, chip, -np.inf)
    assert [one["worst"][head] for one in found["fleet"]["epochs"]] == kept.max(axis=0).tolist()
    for one in found["fleet"]["planes"]:
        assert one["worst"][head] == kept[outcome.fleet.plane == one["plane"] - 1].max()
    worst = found["fleet"]["worst_satellites"]
    name = found["fleet"]["nearest_limit"]
    limit = next(one for one in limits.limits_of(outcome.case, NODES) if one.name == name)
    with np.errstate(over="ignore"):  # of masked rows
        margins = np.where(good, limit.margins(outcome.scalars)[outcome.fleet.row], np.inf).min(axis=1)
    assert [one["margin"] for one in worst] == sorted(margins)[:10]
    heat = np.abs(data["heat_residual"].values)[good].max()
    assert found["energy"]["heat_residual"] == heat


@pytest.mark.parametrize("order", ["drawn", "rising", "falling", "ties"])
@pytest.mark.parametrize("share", [5, 95])
def test_percentiles_of_many_rows_stay_within_their_bound(monkeypatch, order, share):
    """20,000 rows of one to three satellites where 512 are kept: the share below is right to the bound."""
    monkeypatch.setattr(reductions, "KEPT", 512)
    draw = np.random.default_rng(7)
    values = draw.lognormal(size=20_000)
    values = {
        "drawn": values,
        "rising": np.sort(values),
        "falling": -np.sort(values),
        "ties": values.round(),
    }[order]
    members = draw.integers(1, 4, len(values))
    seen = Percentile(lambda scalars: scalars["x"], share)
    for part in np.array_split(np.arange(len(values)), 37):
        good = np.ones(len(part), bool)
        seen.add(reductions.Block({"x": values[part]}, part, part, part, members[part], good))
    fleet = np.repeat(values, members)
    bound = 50 * np.log2(2 * len(values) / 512) / 512
    below, upto = (100 * np.mean(side) for side in (fleet < seen.value, fleet <= seen.value))
    assert below - bound <= share <= upto + bound
    assert sum(level is not None for level in seen._levels) + len(seen._loose) < 10


def test_percentiles_of_few_rows_are_numpys():
    draw = np.random.default_rng(8)
    values, members = draw.normal(size=1001), draw.integers(1, 9, 1001)
    for share in (0, 5, 50, 95, 100):
        seen = Percentile(lambda scalars: scalars["x"], share)
        good = values > -1
        seen.add(reductions.Block({"x": values}, np.arange(1001), *[np.zeros(1001, int)] * 2, members, good))
        wanted = np.percentile(np.repeat(values[good], members[good]), share)
        assert seen.value == pytest.approx(wanted, rel=1e-12)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path):
    """Two million rows, whose scalars take 600 MB: summarised and written in a process of its own."""
    epochs, satellites = 100, 20_000
    outcome_of(tmp_path, np.arange(satellites), epochs, 1 << 13, np.random.default_rng(9))
    script = f"""
import sys, resource, time
sys.path.insert(0, {str(__file__).rpartition("/")[0]!r})
import numpy as np
import test_reductions as here
from dawndusk.solver import results, run, summary
from pathlib import Path
path = Path({str(tmp_path)!r})
fleet, rows = here.fleet_of(np.arange({satellites}), {epochs}), {satellites * epochs}
outcome = run.Outcome(path, here.cases.load("project_sunrise"), fleet, None, results.Scalars(path, rows),
                      run.Walls(), rows)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.process_time()
summary.summarise(outcome, headroom=False)
middle = time.process_time()
between = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
results.finish(path, fleet, outcome.scalars, {{}})
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(middle - start, time.process_time() - middle, between - before, after - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    summarising, writing, summarised, grown = (float(x) for x in done.stdout.split())
    print(
        f"summary {summarising:.1f} s, {summarised / 1024:.0f} MiB; dataset {grown / 1024:.0f} MiB, {writing:.1f} s"
    )
    # KiB. The percentiles' heaps (22 figures of a few levels of half a megabyte), a block, a region.
    assert grown < 200 << 10
