"""A catalogue of ten thousand element sets: loaded in seconds, its bad sets named and left out, the others run."""

import json
import time

import numpy as np
import pytest
import xarray as xr
from dawndusk.solver import case as cases
from dawndusk.solver import cli, constellation, results, tle
from plate import SECTION
from typer.testing import CliRunner

COUNT = 10_000
START = "2024-03-20T12:00:00Z"
PLATE = f"""
[epoch]
start = 2024-03-20T12:00:00Z
[orbit]
kind = "tle"
file = "catalogue.tle"
{SECTION}
heat_w_m2 = 400
[run]
cells = [4, 6]
steps = 16
error_estimate = false
"""
# Revolutions a day, inclination [deg] and eccentricity, from .. to, and the share of the catalogue.
LEO, MEO, GEO, MOLNIYA, REENTERING = (
    ((12.5, 15.6), (28.0, 98.7), (0.0, 0.002)),
    ((1.9, 2.2), (54.0, 65.0), (0.0, 0.01)),
    ((1.0, 1.005), (0.0, 5.0), (0.0, 0.0005)),
    ((2.004, 2.008), (62.8, 63.6), (0.66, 0.72)),
    ((16.4, 16.45), (28.0, 98.7), (0.0, 0.001)),
)
KINDS, SHARES = (LEO, MEO, GEO, MOLNIYA, REENTERING), (0.8, 0.07, 0.08, 0.04, 0.01)


def catalogue(count, seed=1):
    """Lines of `count` element sets with names, all within two days before START; and the kind of each."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(len(KINDS), count, p=SHARES)
    lines = []
    for k, kind in enumerate(kinds):
        motion, inclination, eccentricity = (rng.uniform(*bounds) for bounds in KINDS[kind])
        node, perigee, anomaly = rng.uniform(0, 359.9, 3)
        # What comes down has a drag term of 0.1 per Earth radius, the rest 1e-5 to 9e-5.
        drag = " 10000+0" if KINDS[kind] is REENTERING else f" {rng.integers(10_000, 90_000)}-4"
        number = 10_000 + k
        one = f"1 {number}U 24001A   24{rng.uniform(78, 80):012.8f}  .00000100  00000-0 {drag} 0  999"
        two = (
            f"2 {number} {inclination:8.4f} {node:8.4f} {1e7 * eccentricity:07.0f} {perigee:8.4f} {anomaly:8.4f}"
            f" {motion:11.8f}    1"
        )
        lines += [f"OBJECT {k}", *(line + str(tle.checksum(line)) for line in (one, two))]
    return lines, kinds


def written(folder, lines):
    (folder / "catalogue.tle").write_text("\n".join(lines) + "\n")
    file = folder / "mine.toml"
    file.write_text(PLATE)
    return file


def test_catalogue_of_ten_thousand(tmp_path):
    lines, kinds = catalogue(COUNT)
    bad = 3 * 4321 + 2
    lines[bad] = lines[bad].replace(".", ",", 1)
    file = written(tmp_path, lines)
    start = time.process_time()
    case = cases.load(file, ["epoch.count=2", "epoch.span_days=40"])
    digest = cases.case_hash(case)
    resolved = tmp_path / "resolved.toml"
    resolved.write_text(cases.to_toml(case))
    assert cases.case_hash(cases.load(resolved)) == digest
    found = constellation.constellation(case)
    # Three seconds alone on one core; a machine that does other things besides may take several times that.
    assert time.process_time() - start < 20
    first, *lost = found.left_out
    assert first.startswith(f"catalogue.tle: line {bad + 1}: inclination: got '") and "columns 9-16" in first
    # Those that come down within twenty days, and nothing else.
    reentering = [k for k in range(COUNT) if KINDS[kinds[k]] is REENTERING]
    assert [line.split(": ")[2] for line in lost] == [f"OBJECT {k}" for k in reentering]
    kept = sorted(set(range(COUNT)) - set(reentering) - {4321})
    assert found.names == tuple(f"OBJECT {k}" for k in kept)
    assert found.planes.raan.shape == (len(kept), 2)
    assert all(np.isfinite(getattr(found.planes, name)).all() for name in constellation.ELEMENTS)


def test_sets_are_averaged_alike_in_any_company():
    """Blocks are for memory alone."""
    lines, _ = catalogue(50)
    sets, _ = tle.parse(lines)
    day, fraction = np.full(70, 2460390.0), np.linspace(0, 3, 70)
    together, lost = tle.elements(sets, day, fraction)
    assert len(sets) * len(day) * tle.SAMPLES > 2 * tle.BLOCK
    for k in set(range(50)) - set(lost):
        alone, _ = tle.elements(sets[k : k + 1], day, fraction)
        assert all(np.array_equal(alone[name][0], together[name][k]) for name in alone)


@pytest.mark.slow
def test_run_of_a_catalogue_with_a_bad_set(tmp_path):
    lines, kinds = catalogue(200)
    assert KINDS[kinds[0]] is not REENTERING
    lines[1] = lines[1][:-1] + str((int(lines[1][-1]) + 1) % 10)
    file, out = written(tmp_path, lines), tmp_path / "out"

    def run(case):
        return CliRunner().invoke(
            cli.app,
            ["run", str(case), "--out", str(out), "--set", "epoch.span_days=4", "--set", "epoch.count=2"],
        )

    result = run(file)
    assert result.exit_code == 0, result.output
    gone = 1 + sum(KINDS[kind] is REENTERING for kind in kinds)
    said = result.stderr.splitlines()
    assert len(said) == gone and all(
        line.startswith("warning: left out: catalogue.tle: line ") for line in said
    )
    assert said[0].startswith("warning: left out: catalogue.tle: line 2: checksum is ")
    assert f"warning: element sets left out: {gone}, catalogue.tle: line 2: " in " ".join(
        result.stdout.split()
    )
    summary = json.loads((out / "summary.json").read_text())
    assert summary["left_out"] == [line.removeprefix("warning: left out: ") for line in said]
    assert summary["satellites"] == 200 - gone and summary["failed"]["count"] == 0
    with xr.open_zarr(out / results.DATASET) as data:
        assert data.attrs["left_out"].split("\n") == summary["left_out"]
        assert data.sizes["satellite"] == 200 - gone and np.isfinite(data["panel_max_c"]).all()
    # The resolved case stands alone, and is the same run.
    (tmp_path / "catalogue.tle").unlink()
    again = run(out / "case.toml")
    assert again.exit_code == 0, again.output
    assert json.loads((out / "summary.json").read_text())["wall_s"]["rows_solved_now"] == 0
