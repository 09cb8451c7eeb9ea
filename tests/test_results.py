"""The run directory: what is written can be read, resumed, refused; nothing is NaN."""

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from dawndusk.solver import results

NODES = ("structure", "chip")
STEPS, CELLS = 5, (4, 6)
PLAN = {"case_hash": "abc", "precision": "single", "rows": 4, "chunk": 2, "version": "1", "solves": "x"}


def make_fleet(row):
    row = np.array(row)
    panel = SimpleNamespace(nx=CELLS[0], ny=CELLS[1], passes=1, length=np.full(4, 2.0), width=np.full(4, 0.1))
    return SimpleNamespace(
        row=row,
        group=row[:, 0] // row.shape[1],
        names=[f"sat-{i}" for i in range(row.shape[0])],
        epochs=[datetime(2027, 1 + k, 1, tzinfo=UTC) for k in range(row.shape[1])],
        params=SimpleNamespace(network=SimpleNamespace(names=NODES), panel=panel),
    )


def make_values(rows, status=0):
    """A few quantities of each kind, each row telling its own number."""
    rows = np.asarray(rows, np.float32)
    shape = lambda *more: np.broadcast_to(rows.reshape(-1, *[1] * len(more)), (len(rows), *more)).copy()  # noqa: E731
    return {
        "status": np.full(len(rows), status, np.int32),
        "panel_max_c": shape(),
        "node_max_c": shape(2),
        "panel_hottest_c": shape(CELLS[0] * CELLS[1]),
        "panel_max_series_c": shape(STEPS),
        "node_c": shape(STEPS, 2),
    }


def test_dataset_broadcasts_rows_to_satellites_and_epochs(tmp_path):
    fleet = make_fleet([[0, 1], [0, 1], [2, 3]])
    results.begin(tmp_path, fleet, PLAN, "title = 'x'\n")
    results.write_rows(tmp_path, 0, make_values([0, 1]), 4, 2)
    results.write_rows(tmp_path, 2, make_values([2, 3]), 4, 2)
    results.finish(tmp_path, fleet, results.Scalars(tmp_path, 4), {"case_hash": "abc"})

    with xr.open_zarr(tmp_path / results.DATASET) as data:
        assert data["panel_max_c"].dims == ("satellite", "epoch")
        np.testing.assert_array_equal(data["panel_max_c"], fleet.row)
        assert data["node_c"].dims == ("revolution", "time", "node")
        assert data["panel_max_c"].attrs["units"] == "degC"
        assert data["panel_max_c"].attrs["long_name"]
        assert data.attrs["case_hash"] == "abc" and "jax_version" in data.attrs
        assert data["node"].values.tolist() == list(NODES)
        assert data["epoch"].values[1] == np.datetime64("2027-02-01")
        assert set(data.sizes) >= {"satellite", "epoch", "time", "face", "node", "cell"}
    whole = results.open_run(tmp_path)
    assert whole["node_c"].dims == ("satellite", "epoch", "time", "node")
    np.testing.assert_array_equal(whole["node_c"].isel(time=0, node=0), fleet.row)
    np.testing.assert_array_equal(whole["panel_hottest_c"].isel(cell=-1), fleet.row)


@pytest.mark.parametrize(
    "which",
    [
        {"satellite": 2},
        {"satellite": [2, 0], "epoch": 1},
        {"epoch": slice(None, None, -1), "time": slice(1, 3)},
        {"satellite": slice(0, 0)},
        {"satellite": [0, 1, 0], "time": 4, "node": [1]},
    ],
)
def test_any_part_of_a_run_is_read_by_satellites(tmp_path, which):
    """Satellites that share rows, in any order: what is read is what the whole has there."""
    fleet = make_fleet([[2, 3], [0, 1], [2, 3]])
    results.begin(tmp_path, fleet, PLAN, "")
    values = make_values([0, 1, 2, 3])
    values["node_c"] = np.random.default_rng(3).normal(size=values["node_c"].shape).astype(np.float32)
    results.write_rows(tmp_path, 0, values, 4, 4)
    whole = xr.DataArray(values["node_c"][fleet.row], dims=("satellite", "epoch", "time", "node"))
    lazy = results.open_run(tmp_path)["node_c"].isel(which)
    np.testing.assert_array_equal(lazy.values, whole.isel(which).values)


def test_failed_rows_are_masked_and_the_others_kept(tmp_path):
    fleet = make_fleet([[0], [1], [2], [3]])
    results.begin(tmp_path, fleet, PLAN, "")
    values = make_values([0, 1, 2, 3])
    values["status"][1] = results.FAILED
    for name in ("panel_max_c", "node_max_c", "node_c"):
        values[name][1] = np.nan
    results.write_rows(tmp_path, 0, values, 4, 4)
    scalars = results.Scalars(tmp_path, 4)
    assert np.isfinite(scalars["panel_max_c"]).all()
    results.finish(tmp_path, fleet, scalars, {})

    with xr.open_zarr(tmp_path / results.DATASET, mask_and_scale=False) as raw:
        for name in ("panel_max_c", "node_max_c", "node_c"):
            stored = raw[name].values
            assert np.isfinite(stored).all()
            assert (stored[1] == np.float32(results.FILL)).all() and (stored[2] == 2).all()
        np.testing.assert_array_equal(raw["status"].values[:, 0], [0, 2, 0, 0])


def begun(path, chunks):
    """A run of four rows that has done some of its chunks of two."""
    results.begin(path, make_fleet([[0], [1], [2], [3]]), PLAN, "")
    for first in chunks:
        results.write_rows(path, first, make_values([first, first + 1]), 4, 2)


def test_a_run_goes_on_where_a_mark_is_missing(tmp_path):
    begun(tmp_path, [0])
    # Killed between the series and the mark of the next chunk: the mark decides.
    results.write_rows(tmp_path, 2, make_values([7, 7]), 4, 2)
    (tmp_path / "rows" / "000000002-000000004.npz").unlink()

    assert results.kept_plan(tmp_path, PLAN) == PLAN
    assert results.unfinished(tmp_path, 4, 2) == [2] and results.rows_marked(tmp_path) == 2
    assert results.Scalars(tmp_path, 4)["status"].tolist() == [0, 0, results.NOT_RUN, results.NOT_RUN]
    results.write_rows(tmp_path, 2, make_values([2, 3]), 4, 2)
    assert results.unfinished(tmp_path, 4, 2) == []
    assert results.Scalars(tmp_path, 4)["panel_max_c"].tolist() == [0, 1, 2, 3]


def cut(path):
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: cut(path / "rows" / "000000000-000000002.npz"),
        lambda path: (path / "rows" / "000000000-000000002.npz").write_bytes(b""),
        lambda path: cut(path / results.DATASET / "node_c" / "0.0.0"),
        lambda path: (path / results.DATASET / "panel_hottest_c" / "0.0").unlink(),
    ],
    ids=["mark cut", "mark empty", "series cut", "map gone"],
)
def test_what_is_cut_short_is_solved_again(tmp_path, spoil):
    begun(tmp_path, [0, 2])
    assert results.unfinished(tmp_path, 4, 2) == []
    spoil(tmp_path)
    assert results.unfinished(tmp_path, 4, 2) == [0]
    assert results.rows_marked(tmp_path) == 2


def test_processes_share_the_chunks(tmp_path):
    begun(tmp_path, [2])
    assert results.unfinished(tmp_path, 4, 2, process=0, processes=2) == [0]
    assert results.unfinished(tmp_path, 4, 2, process=1, processes=2) == []
    assert results.unfinished(tmp_path, 9, 2, process=1, processes=3) == [8]


def test_an_unfinished_run_can_be_read(tmp_path):
    begun(tmp_path, [])
    assert results.open_run(tmp_path).sizes["satellite"] == 4
    results.write_rows(tmp_path, 2, make_values([2, 3]), 4, 2)
    data = results.open_run(tmp_path)
    assert data["status"].values[:, 0].tolist() == [results.NOT_RUN, results.NOT_RUN, 0, 0]
    assert np.isnan(data["panel_max_c"].values[:2]).all() and data["panel_max_c"].values[2:, 0].tolist() == [
        2,
        3,
    ]
    assert data["node_c"].isel(time=0, node=0).values[2:, 0].tolist() == [2, 3]


def test_a_directory_belongs_to_one_run_at_a_time(tmp_path):
    with results.claim(tmp_path):
        with pytest.raises(results.RunDirectoryError, match="another run is at work here"):
            with results.claim(tmp_path):
                pass
        with results.claim(tmp_path, 1):
            pass
    with results.claim(tmp_path):
        pass


@pytest.mark.parametrize(("key", "word"), [("case_hash", "another case"), ("precision", "another precision")])
def test_another_run_is_refused(tmp_path, key, word):
    begun(tmp_path, [])
    with pytest.raises(results.RunDirectoryError, match=word):
        results.kept_plan(tmp_path, PLAN | {key: "other"})
    assert json.loads((tmp_path / "plan.json").read_text()) == PLAN


def test_what_is_no_run_directory_says_so(tmp_path):
    with pytest.raises(results.RunDirectoryError, match="not a run directory"):
        results.open_run(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(results.RunDirectoryError, match="is a file"):
        with results.claim(tmp_path / "file"):
            pass


def refused(path):
    with pytest.raises(results.RunDirectoryError) as caught, results.claim(path):
        pass
    assert str(path) in str(caught.value) and str(caught.value).endswith("choose another --out")
    return str(caught.value)


def test_directory_of_other_files_is_left_alone(tmp_path):
    """A user's own case.toml above all: a run writes one of that name."""
    mine = tmp_path / "case.toml"
    mine.write_text("mine")
    assert "holds case.toml but no run to go on with" in refused(tmp_path)
    (tmp_path / "thesis.tex").write_text("mine too")
    assert "holds case.toml and more but no run" in refused(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["case.toml", "thesis.tex"]
    assert mine.read_text() == "mine"


def test_directory_that_a_kill_left_half_begun_is_taken(tmp_path):
    with results.claim(tmp_path):
        results.write_text(tmp_path / "case.toml", "")
        (tmp_path / "rows").mkdir()
    with results.claim(tmp_path):
        pass
    (tmp_path / "notes.txt").write_text("")
    assert "holds notes.txt" in refused(tmp_path)
    # Beside a run that has begun a user may keep what he likes.
    results.write_text(tmp_path / "plan.json", json.dumps(PLAN))
    with results.claim(tmp_path):
        pass


def test_place_that_cannot_be_written_is_said_so(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    assert "is a file" in refused(file)
    assert "cannot be written: not a directory" in refused(file / "below")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    assert "cannot be written: file exists" in refused(tmp_path / "nowhere")
    refused(Path("/proc/dawndusk"))  # read-only for root, too
    assert file.read_text() == "" and not (tmp_path / "gone").exists()


def test_links_in_a_run_directory_are_not_followed(tmp_path):
    """What a run writes replaces a link of that name, never the file that it points to."""
    foreign = tmp_path / "foreign"
    foreign.write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.json").symlink_to(foreign)
    results.write_text(tmp_path / "out" / "summary.json", "ours")
    assert foreign.read_text() == "mine" and (tmp_path / "out" / "summary.json").read_text() == "ours"


@pytest.mark.parametrize("text", ["", "[]", "{}", "\x00", '{"rows": "x", "chunk": 1}', '{"rows": null}'])
def test_plan_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(results.RunDirectoryError, match=r"plan\.json is not the plan of a run"):
        results.kept_plan(tmp_path, PLAN)


def test_foreign_files_among_the_marks_do_not_count(tmp_path):
    (tmp_path / "rows").mkdir()
    for name in ("a-b.npz", "1-2-3.npz", "-.npz"):
        (tmp_path / "rows" / name).write_text("")
    assert results.rows_marked(tmp_path) == 0


def test_damaged_dataset_is_said_so(tmp_path):
    (tmp_path / results.DATASET / results.HOTTEST).mkdir(parents=True)
    for name in (".zgroup", ".zmetadata", f"{results.HOTTEST}/.zgroup"):
        (tmp_path / results.DATASET / name).write_text("garbage")
    with pytest.raises(results.RunDirectoryError, match=r"results.zarr is damaged"):
        results.open_run(tmp_path)
    with pytest.raises(results.RunDirectoryError, match=r"results.zarr is damaged"):
        results.open_featured(tmp_path, results.HOTTEST)
