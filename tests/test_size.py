"""Cases too large for the machine are refused before any work, by a bound that what runs does not meet."""

import shutil
import tomllib

import jax
import numpy as np
import pytest
from dawndusk.solver import build, constellation, devices, results, size
from dawndusk.solver import case as cases
from dawndusk.solver import run as runner
from plate import SECTION

PLATE = f"""
[orbit]
kind = "walker"
altitude_km = 550
inclination_deg = 53
planes = 20
satellites_per_plane = 30
[epoch]
count = 50
{SECTION}
"""


def plate(*changes):
    data = tomllib.loads(PLATE)
    for change in changes:
        cases.override(data, change)
    return cases.validate(data, "mine.toml")


@pytest.fixture
def no_work(monkeypatch):
    """The orbits of a refused case are never computed."""

    def touched(*_):
        raise AssertionError("work was begun")

    monkeypatch.setattr("dawndusk.solver.constellation._planes", touched)


def test_gigantic_fleet_is_refused_with_keys_count_and_bound(no_work, tmp_path):
    huge = plate("orbit.planes=100000", "orbit.satellites_per_plane=100000", "epoch.count=20000")
    for start in (lambda: build.build(huge), lambda: runner.run(huge, tmp_path)):
        with pytest.raises(cases.CaseError) as caught:
            start()
        assert str(caught.value).startswith(
            "mine.toml: orbit.planes x orbit.satellites_per_plane x epoch.count: got 100,000 x 100,000 x 20,000,"
            " 200,000,000,000,000 satellites at epochs, which take at least 801.6 TB of memory; this machine has "
        )


@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ([], 20 * 50),
        (["spread={}"], 20 * 30 * 50),
        (["orbit={kind='cluster', altitude_km=650, satellites=7, radius_km=1}"], 50),
        (["orbit={kind='elements', altitude_km=650, inclination_deg=53}"], 50),
        (["orbit={kind='sun_synchronous', altitude_km=650, satellites_per_plane=3}", "spread={}"], 150),
    ],
)
def test_counted_rows_are_those_of_the_fleet(changes, rows):
    case = plate(*changes)
    fleet = build.build(case)
    assert size.rows(case) == rows == runner.row_count(fleet)
    assert np.prod(list(size.counts(case).values())) == np.asarray(fleet.row).size


def test_bound_is_what_the_arrays_take(monkeypatch):
    """Thrice the fleet's own large arrays are enough, a tenth of them is not."""
    case = plate("orbit.planes=2", "spread={}", "epoch.count=500")
    fleet = build.build(case)
    orbits = sum(leaf.nbytes for leaf in jax.tree.leaves(constellation.constellation(case).planes))
    held = fleet.row.nbytes + orbits + sum(len(name) + 57 for name in fleet.names)
    monkeypatch.setattr(devices, "machine_memory", lambda: 3 * held)
    size.refuse_fleet(case)
    monkeypatch.setattr(devices, "machine_memory", lambda: held // 10)
    with pytest.raises(cases.CaseError, match="got 2 x 30 x 500, 30,000 satellites at epochs"):
        size.refuse_fleet(case)


def test_results_that_no_disk_holds_are_refused(no_work, monkeypatch, tmp_path):
    case = plate("run.save=cells", "run.steps=20000", "run.cells=[100, 100]", "epoch.count=20000")
    monkeypatch.setattr(devices, "machine_memory", lambda: 10**15)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: (10**15, 0, 5 * 10**12))
    out = tmp_path / "deep" / "down"
    with pytest.raises(cases.CaseError) as caught:
        runner.run(case, out)
    said = str(caught.value)
    # 400,000 rows of 2e8 numbers of 4 bytes, a tenth of it: 32 TB and the rest.
    assert said.startswith(
        "mine.toml: run.save: got 'cells' with 400,000 distinct revolutions, run.steps = 20,000"
    )
    assert "take at least 32.1 TB; 5.0 TB are free in " in said
    # Enough, or a file system that does not say.
    for total, free in ((10**15, 50 * 10**12), (0, 0)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, known=(total, 0, free): known)
        size.refuse_results(case, 4, out)


def test_rows_that_no_memory_holds_are_refused(no_work, tmp_path):
    case = plate("run.save=cells", "run.steps=20000", "run.cells=[1024, 512]")
    with pytest.raises(
        cases.CaseError, match=r"mine.toml: run.steps: got 20,000 with run.cells = \[1024, 512\]"
    ):
        runner.run(case, tmp_path)
    long = plate("run.mode=transient", "run.save=nodes", "run.revolutions=100000", "run.steps=20000")
    with pytest.raises(
        cases.CaseError, match=r"run\.revolutions = 100,000 and run\.save = 'nodes': 32 rows at once"
    ):
        runner.run(long, tmp_path)


@pytest.mark.slow
def test_bound_of_the_disk_is_below_what_a_run_writes(monkeypatch, tmp_path):
    case = plate(
        "orbit.planes=1", "epoch.count=8", "run.cells=[4, 6]", "run.steps=16", "run.save=cells",
        "run.error_estimate=false",
    )  # fmt: skip
    runner.run(case, tmp_path)
    used = sum(
        file.stat().st_size
        for folder in ("rows", results.DATASET)
        for file in (tmp_path / folder).rglob("*")
        if file.is_file()
    )
    monkeypatch.setattr(shutil, "disk_usage", lambda path: (10**15, 0, used))
    size.refuse_results(case, 4, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: (10**15, 0, used // 20))
    with pytest.raises(cases.CaseError, match="results take at least"):
        size.refuse_results(case, 4, tmp_path)


def test_chunk_is_never_more_than_the_run():
    assert devices.chunk_rows(10, per_device=10**9) == devices.even(10)
