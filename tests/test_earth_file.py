"""Cases with an Earth that varies: tables read and refused, means and scales, hash, rows of a fleet, a run."""

import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr
from dawndusk.kernels import earth
from dawndusk.kernels.revolution import revolution_loads
from dawndusk.solver import build as builder
from dawndusk.solver import case as cases
from dawndusk.solver import check, earth_file
from dawndusk.solver.build import advance, build
from plate import SECTION

PLATE = f"""
title = "plate"
[epoch]
start = 2027-06-21T00:00:00Z
count = 2
span_days = 365.25
[orbit]
kind = "sun_synchronous"
altitude_km = 650
[environment]
earth = "grid"
earth_file = "ground.csv"
{SECTION}
"""

LATITUDES = np.arange(-80.0, 81, 20)
LONGITUDES = np.arange(-135.0, 180, 90)


def table(longitudes=(None,)):
    """Rows of a table: brighter in January than in July, and towards the east."""
    rows = []
    for month in range(1, 13):
        for latitude in LATITUDES:
            for k, longitude in enumerate(longitudes):
                albedo = 0.3 + 0.002 * abs(latitude) + 0.01 * abs(month - 7) + 0.02 * k
                infrared = 260 - 0.8 * abs(latitude) + month - 4 * k
                rows.append([month, latitude, longitude, round(albedo, 6), round(infrared, 4)])
    return rows


def as_text(rows):
    with_longitude = rows[0][2] is not None
    heading = [
        "month",
        "latitude_deg",
        *(["longitude_deg"] if with_longitude else []),
        "albedo",
        "infrared_w_m2",
    ]
    lines = [",".join(str(x) for x in row if x is not None) for row in rows]
    return "\n".join(["# made by hand", ",".join(heading), *lines, ""])


def case_file(folder: Path, text: str | None = None) -> Path:
    (folder / "ground.csv").write_text(as_text(table()) if text is None else text)
    file = folder / "mine.toml"
    file.write_text(PLATE)
    return file


def refusal(path, overrides=()):
    with pytest.raises(cases.CaseError) as caught:
        build(cases.load(path, overrides))
    return str(caught.value)


# ------------------------------------------------------------------------------------------------- files


def test_table_is_read_whatever_its_order(tmp_path):
    rows = table(LONGITUDES)
    (tmp_path / "a.csv").write_text(as_text(rows))
    (tmp_path / "b.csv").write_text(as_text(rows[::-1]))
    a, b = (earth_file.read(tmp_path / name) for name in ("a.csv", "b.csv"))
    assert a.albedo.shape == a.infrared_w_m2.shape == (12, 9, 4)
    np.testing.assert_array_equal(a.latitude_deg, LATITUDES)
    np.testing.assert_array_equal(a.longitude_deg, LONGITUDES)
    assert a.albedo[6, 0, 3] == 0.3 + 0.002 * 80 + 0.02 * 3 and a.infrared_w_m2[6, 4, 1] == 260 + 7 - 4
    np.testing.assert_array_equal(a.albedo, b.albedo)


@pytest.mark.parametrize("longitudes", [(None,), LONGITUDES])
def test_netcdf_is_the_same_table(tmp_path, longitudes):
    (tmp_path / "a.csv").write_text(as_text(table(longitudes)))
    ours = earth_file.read(tmp_path / "a.csv")
    axes = {"month": np.arange(1, 13), "latitude_deg": LATITUDES[::-1], "longitude_deg": ours.longitude_deg}
    values = {name: (tuple(axes), getattr(ours, name)[:, ::-1]) for name in ("albedo", "infrared_w_m2")}
    data = xr.Dataset(values, coords=axes)
    if longitudes[0] is None:
        data = data.isel(longitude_deg=0, drop=True)
    data.to_netcdf(tmp_path / "a.nc", engine="scipy")
    theirs = earth_file.read(tmp_path / "a.nc")
    for name in ("latitude_deg", "longitude_deg", "albedo", "infrared_w_m2"):
        np.testing.assert_array_equal(getattr(theirs, name), getattr(ours, name))


GOOD = as_text(table())
WIDE = as_text(table(LONGITUDES))


def without(start):
    return "\n".join(line for line in GOOD.splitlines() if not line.startswith(start))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            "no column month; the heading must name month, latitude_deg, longitude_deg, albedo, infrared_w_m2",
        ),
        (
            GOOD.replace("albedo", "reflectance"),
            "no column albedo; the heading must name month, latitude_deg",
        ),
        (GOOD.replace("1,-60.0,", "1,-60.0,9,"), "line 4: 5 entries; the heading has 4"),
        (GOOD.replace("7,0.0,0.3,", "7,0.0,bright,"), "line 61: albedo: got 'bright'; must be a number"),
        (GOOD.replace("7,0.0,0.3,", "nan,0.0,0.3,"), "line 61: month and place must be finite numbers"),
        (
            GOOD.replace("7,0.0,0.3,", "7,0.0,nan,"),
            "albedo: got nan in month 7 at latitude 0; must be from 0 to 1; give",
        ),
        (
            GOOD.replace("7,0.0,0.3,", "7,0.0,1.3,"),
            "albedo: got 1.3 in month 7 at latitude 0; must be from 0 to 1",
        ),
        (
            GOOD.replace(",0.3,267.0", ",0.3,-267.0"),
            "infrared_w_m2: got -267 in month 7 at latitude 0; must be from 0 to 500",
        ),
        (without("12,"), "month: got 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11; must be all of 1 to 12"),
        (without("7,0.0"), "month 7 at latitude 0 is missing; every cell must be there once in every month"),
        (GOOD + "7,0.0,0.3,267.0\n", "month 7 at latitude 0 is given 2 times; every cell must be there once"),
        (GOOD.replace(",80.0,", ",95.0,"), "latitude_deg: got 95; must be from -90 to 90"),
        (
            GOOD.replace(",80.0,", ",61.0,"),
            "latitude_deg: no row for 29 deg after 61; rows must be at most 30 deg",
        ),
        (
            GOOD.replace(",-80.0,", ",-61.0,"),
            "latitude_deg: no row for 29 deg before -61; rows must be at most 30",
        ),
        (
            GOOD.replace(",20.0,", ",35.0,"),
            "latitude_deg: no row for 35 deg after 0; rows must be at most 30 deg",
        ),
        (
            WIDE.replace(",135.0,", ",100.0,"),
            "longitude_deg: steps of 55 to 125 deg; must be equal all round",
        ),
    ],
)
def test_bad_table_is_refused_in_one_line(tmp_path, text, message):
    said = refusal(case_file(tmp_path, text))
    assert said.startswith(f"ground.csv: {message}") and "\n" not in said


def test_file_that_cannot_be_read(tmp_path):
    file = case_file(tmp_path)
    said = refusal(file, ["environment.earth_file=none.csv"])
    assert said == f"{file}: environment.earth_file: got 'none.csv'; no such file or directory"
    assert refusal(file, ["environment.earth_file=none.nc"]).endswith(
        "got 'none.nc'; no such file or directory"
    )
    assert (
        refusal(file, ["environment.earth_file=mine.toml"])
        == "mine.toml: got a file .toml; must be .csv or .nc"
    )
    (tmp_path / "text.nc").write_text(GOOD)
    assert refusal(file, ["environment.earth_file=text.nc"]).startswith("text.nc: cannot be read as NetCDF: ")
    (tmp_path / "bad.csv").write_bytes(b"\xff\xfe\xff")
    assert refusal(file, ["environment.earth_file=bad.csv"]) == "bad.csv: not a text file"


def test_case_counts_by_the_table_not_its_path(tmp_path):
    (tmp_path / "b").mkdir()
    one = cases.load(case_file(tmp_path))
    other = case_file(tmp_path / "b")
    (tmp_path / "b" / "ground.csv").rename(tmp_path / "b" / "moved.csv")
    assert cases.case_hash(cases.load(other, ["environment.earth_file=moved.csv"])) == cases.case_hash(one)
    brighter = cases.load(case_file(tmp_path, GOOD.replace("7,0.0,0.3,", "7,0.0,0.31,")))
    assert cases.case_hash(brighter) != cases.case_hash(one)
    # The resolved case holds the table: it needs no file.
    again = cases.validate(tomllib.loads(cases.to_toml(one)), folder=tmp_path / "nowhere")
    assert cases.case_hash(again) == cases.case_hash(one)


def test_table_in_a_resolved_case_is_checked(tmp_path):
    data = tomllib.loads(cases.to_toml(cases.load(case_file(tmp_path))))
    data["environment"]["earth_table"]["albedo"].pop()
    with pytest.raises(
        cases.CaseError, match=r"environment.earth_table.albedo: got 8 rows; latitude_deg has 9"
    ):
        cases.validate(data)


# ------------------------------------------------------------------------------------------------- fleets


def test_grid_is_averaged_over_longitude(tmp_path):
    case = cases.load(case_file(tmp_path, WIDE))
    known = [row for row in table(LONGITUDES) if row[0] == 3 and row[1] == 40]
    at = case.environment.earth_table.latitude_deg.index(40)
    assert case.environment.earth_table.albedo[at][2] == pytest.approx(np.mean([row[3] for row in known]))
    assert case.environment.earth_table.infrared_w_m2[at][2] == pytest.approx(
        np.mean([row[4] for row in known])
    )


def test_rows_have_their_season(tmp_path):
    fleet = build(cases.load(case_file(tmp_path)), np.float64)
    zonal = fleet.revolutions.earth.zonal
    assert zonal.shape == (2, 2, 7) and fleet.revolutions.earth.tesseral is None
    # 21 June is 0.18 of the way from June (0.01 above July) to July, 21 December that from December to January.
    np.testing.assert_allclose(zonal[1, 0, 0] - zonal[0, 0, 0], 0.01 * (5.18 - 0.82), atol=6e-4)
    loads = jax.eval_shape(jax.vmap(lambda r: revolution_loads(r, 16), out_axes=-1), fleet.revolutions)
    assert loads.incident.shape == (16, 3, 3, 2)
    assert advance(fleet, 1000, np.arange(2)).earth.zonal.shape == zonal.shape


def test_knocke_follows_date_and_distance():
    data = tomllib.loads(PLATE)
    data["environment"] = {"earth": "knocke"}
    revolutions = build(cases.validate(data), np.float64).revolutions
    june, december = revolutions.earth.zonal
    np.testing.assert_allclose([june[0, 1], december[0, 1]], [-0.1, 0.1], rtol=2e-3)
    np.testing.assert_allclose(revolutions.earth.zonal[:, 0, 0], 0.34)
    np.testing.assert_allclose(revolutions.earth.zonal[:, 1, 0], 0.68 * revolutions.solar_flux / 4)


@pytest.mark.parametrize("kind", ["knocke", "grid"])
def test_given_means_scale_the_pattern(tmp_path, kind):
    file = case_file(tmp_path)
    overrides = ["environment.scale_with_distance=false", f"environment.earth={kind}"]
    if kind == "knocke":
        file.write_text(PLATE.replace('earth_file = "ground.csv"', ""))
    plain = build(cases.load(file, overrides), np.float64).revolutions.earth.zonal
    given = [*overrides, "environment.albedo=0.25", "environment.earth_infrared_w_m2=250"]
    scaled = build(cases.load(file, given), np.float64).revolutions.earth.zonal
    ratio = (scaled / np.where(plain == 0, 1, plain))[:, :, 0]
    np.testing.assert_allclose(scaled, ratio[..., None] * plain, atol=1e-12)
    np.testing.assert_allclose(ratio[0], ratio[1])
    # The mean of the two epochs, half a year apart, stands in for that of the year: exact for Knocke.
    np.testing.assert_allclose(
        scaled[:, :, 0].mean(axis=0), [0.25, 250], rtol=1e-12 if kind == "knocke" else 0.05
    )


def test_scale_that_reflects_more_than_all_is_refused(tmp_path):
    file = case_file(tmp_path)
    file.write_text(PLATE.replace('"grid"', '"knocke"').replace('earth_file = "ground.csv"', "albedo = 0.5"))
    said = refusal(file)
    assert said == (
        f"{file}: environment.albedo: got 0.5 with earth = 'knocke', which then reflects 1.07 somewhere;"
        " must be <= 0.4658"
    )
    assert build(cases.load(file, ["environment.albedo=0.46"])).revolutions.earth is not None


def test_uniform_earth_has_no_model():
    data = tomllib.loads(PLATE)
    del data["environment"]
    assert build(cases.validate(data)).revolutions.earth is None


@pytest.mark.slow
def test_loads_are_those_of_the_series(tmp_path):
    """A table of one value is the uniform Earth; the table's own loads differ."""
    flat = "\n".join(
        ",".join([*line.split(",")[:2], "0.3", "237"]) if line[0].isdigit() else line
        for line in GOOD.splitlines()
    )
    loads_of = jax.jit(jax.vmap(lambda r: revolution_loads(r, 16), out_axes=-1))
    data = tomllib.loads(PLATE)
    del data["environment"]
    uniform = loads_of(build(cases.validate(data), np.float64).revolutions)
    for text, same in ((flat, True), (GOOD, False)):
        loads = loads_of(build(cases.load(case_file(tmp_path, text)), np.float64).revolutions)
        error = max(np.abs(np.asarray(a - b)).max() for a, b in zip(*map(jax.tree.leaves, (loads, uniform))))
        assert (error < 1e-6) == same


def test_check_shows_the_earth(tmp_path):
    case = cases.load(case_file(tmp_path, WIDE))
    text = check._earth(case, build(case).revolutions)["Earth"]
    assert text.startswith("grid: mean albedo 0.4")
    assert "9 latitudes, averaged over longitude, as a series of degree 6 with rms errors" in text
    assert not any("table" in key for key, _, _ in check.keys(case))


def test_series_of_a_table_is_near_it(tmp_path):
    grid = cases.load(case_file(tmp_path)).environment.earth_table
    months = builder.earth_months(grid)
    place = np.stack([0 * LATITUDES, np.cos(np.radians(LATITUDES)), np.sin(np.radians(LATITUDES))])
    january = np.asarray(earth.ground(earth.Earth(jax.numpy.asarray(months[0])), jax.numpy.asarray(place)))
    # A kink at the equator of 0.004 per degree; degree 6.
    np.testing.assert_allclose(january[0], np.asarray(grid.albedo)[:, 0], atol=0.02)


def test_a_table_in_the_case_that_is_too_short_is_said_in_words():
    changes = [
        'environment={earth = "grid", earth_file = "x.csv"}',
        "environment.earth_table={latitude_deg = [0]}",
    ]
    data = tomllib.loads(PLATE)
    for change in (
        *changes,
        "environment.earth_table.albedo=[[]]",
        "environment.earth_table.infrared_w_m2=[[]]",
    ):
        cases.override(data, change)
    with pytest.raises(cases.CaseError) as caught:
        cases.validate(data, "mine.toml")
    assert "environment.earth_table.infrared_w_m2.0: got 0 entries; must be at least 12" in str(caught.value)
