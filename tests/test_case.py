"""Case files: found, read, overridden and hashed; each trouble is one line that names the way out."""

import json
import os
import tomllib
from pathlib import Path

import pytest
from dawndusk.solver import case as cases
from dawndusk.solver import schema, tle
from plate import SECTION

ROOT = Path(__file__).parent.parent
TLES = json.loads((Path(__file__).parent / "reference" / "eclipse_tle.json").read_text())["cases"]

PLATE = f"""
title = "plate"
[orbit]
kind = "sun_synchronous"
altitude_km = 650
{SECTION}
"""


@pytest.fixture
def plate(tmp_path):
    file = tmp_path / "plate.toml"
    file.write_text(PLATE)
    return file


def refusal(path, overrides=()) -> str:
    with pytest.raises(cases.CaseError) as caught:
        cases.load(path, overrides)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize("file", sorted((ROOT / "cases").rglob("*.toml")), ids=lambda file: file.stem)
def test_shipped_case_is_valid_and_found_by_name(file, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    by_file = cases.case_hash(cases.load(file))
    assert cases.case_hash(cases.load(file.stem)) == by_file
    inside = file.relative_to(ROOT / "cases")
    for path in (inside, inside.with_suffix(""), Path("cases") / inside):
        assert cases.case_hash(cases.load(path)) == by_file


def test_file_goes_before_a_shipped_case_of_the_same_name(monkeypatch, plate):
    monkeypatch.chdir(plate.parent)
    (plate.parent / "cases").mkdir()
    plate.rename(plate.parent / "cases" / "suncatcher.toml")
    assert cases.load("cases/suncatcher.toml").title == "plate"


def test_missing_file(tmp_path):
    assert refusal(tmp_path / "mine.toml").startswith(f"{tmp_path}/mine.toml: no such file")
    text = refusal("suncacher")
    assert text.startswith("suncacher: no such file; did you mean suncatcher?; shipped cases: ")


def test_folder(tmp_path):
    assert refusal(tmp_path) == f"{tmp_path}: is a folder; give a case file"


def test_bad_toml_names_the_line(plate):
    plate.write_text(PLATE.replace("area_m2 = 4", "area_m2 4"))
    assert refusal(plate).startswith(f"{plate}: not valid TOML: expected '=' after a key")
    assert "(at line 7, column 9)" in refusal(plate)


def test_key_given_twice(plate):
    plate.write_text(PLATE + "emissivity = 0.9\n")
    assert "not valid TOML: cannot overwrite a value (at line 16" in refusal(plate)


def test_not_text(plate):
    plate.write_bytes(b"title = '\xff'")
    assert refusal(plate) == f"{plate}: byte 9 is not UTF-8 text"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 5000, "not valid TOML: tables or lists are nested too deeply"),
        ("9" * 5000, "not valid TOML: a number has too many digits"),
        ("0x" + "f" * 5000, "epoch.count: got a number of 6021 digits; must be <= 20000"),
        ("07:30:00", "epoch.count: got 07:30:00; must be a whole number"),
        ("'" + "x" * 5000 + "'", f"epoch.count: got '{'x' * 57}...'; must be a whole number"),
        (str([1] * 500), f"epoch.count: got [{'1, ' * 60}...]; must be a whole number"),
    ],
)
def test_endless_values_are_refused_in_short(plate, text, message):
    plate.write_text(f"{PLATE}[epoch]\ncount = {text}\n")
    assert refusal(plate) == f"{plate}: {message}"


def test_numbers_that_single_precision_cannot_hold(plate):
    plate.write_text(PLATE.replace("area_m2 = 4", "area_m2 = 5e-324"))
    assert refusal(plate) == f"{plate}: radiator.area_m2: got 4.94066e-324; must be 0 or from 1e-30 in size"


@pytest.mark.parametrize("start", ["0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00"])
def test_dates_beyond_the_calendar(plate, start):
    plate.write_text(f"{PLATE}[epoch]\nstart = {start}\n")
    assert refusal(plate) == f"{plate}: epoch.start: got {start}; must be from 1972 up to 2100"


def test_odd_keys_are_quoted(plate):
    plate.write_text(PLATE + '"a\\nb" = 1\n"x.y" = 1\n')
    lines = refusal(plate).splitlines()
    assert lines[0].startswith(f"{plate}: radiator.'a\\nb': unknown key")
    assert lines[1].startswith(f"{plate}: radiator.'x.y': unknown key")


def test_key_with_a_bracket(plate):
    """Which marks a branch of a union in the checker's own words."""
    plate.write_text('"[x" = 1\n' + PLATE + '"literal[x" = 1\n')
    lines = sorted(refusal(plate).splitlines())
    assert lines[0].startswith(f"{plate}: '[x': unknown key")
    assert lines[1].startswith(f"{plate}: radiator.'literal[x': unknown key")


def test_start_that_is_no_date_is_cut_short(plate):
    text = str([1] * 500)
    assert refusal(plate, [f"epoch.start={text}"]) == (
        f"{plate}: epoch.start: got [{'1, ' * 60}...]; must be a date and time such as 2027-06-21T00:00:00Z"
        " (from --set)"
    )


def test_list_of_tables_is_named_as_one(plate):
    plate.write_text(f"{PLATE}neighbours = {{}}\n")
    assert refusal(plate).endswith(
        "neighbours: got a table; must be a list of tables, [[radiator.neighbours]]"
    )


def test_byte_order_mark_is_harmless(plate):
    plate.write_bytes(b"\xef\xbb\xbf" + PLATE.encode())
    assert cases.load(plate).title == "plate"


# -------------------------------------------------------------------------------------------- overrides


@pytest.mark.parametrize(
    ("item", "value"),
    [
        ("a.b=5", 5),
        ("a.b = 5.5", 5.5),
        ("a.b=true", True),
        ("a.b=word", "word"),
        ("a.b='two words'", "two words"),
        ("a.b=two words", "two words"),
        ("a.b=../path/file.tle", "../path/file.tle"),
        ("a.b=[1, 2]", [1, 2]),
        ("a.b={c = 1}", {"c": 1}),
        ("a.b=x=y", "x=y"),
        ("a.b=-1e3", -1000.0),
    ],
)
def test_override_takes_toml_and_bare_words(item, value):
    data = {}
    assert cases.override(data, item) == "a.b"
    assert data == {"a": {"b": value}}


def test_override_reaches_into_lists():
    data = {"links": [{"to": "panel"}, {"to": "space"}]}
    cases.override(data, "links.1.to=structure")
    assert data["links"][1] == {"to": "structure"}


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("orbit.altitude_km", "--set orbit.altitude_km: must be key=value, such as orbit.altitude_km=650"),
        ("=5", "--set =5: must be key=value"),
        ("orbit..km=5", "--set orbit..km=5: must be key=value"),
        ("title.x=5", "--set title.x=5: title is 'plate', not a table"),
        ("radiator.emissivity=[1", "--set radiator.emissivity=[1: '[1' is not a TOML value"),
        ("run.cells=", "--set run.cells=: '' is not a TOML value"),
        ("title=\udcff", "--set 'title=\\udcff': is not UTF-8 text"),
        ("a\nb", "--set 'a\\nb': must be key=value"),
        (
            "epoch.count=" + "[" * 5000,
            f"--set 'epoch.count={'[' * 45}...': '{'[' * 57}...' is not a TOML value",
        ),
    ],
)
def test_bad_override(plate, item, message):
    assert refusal(plate, [item]).startswith(message)


def test_override_of_an_entry_that_is_not_there(plate):
    plate.write_text(PLATE + '[[links]]\nfrom = "structure"\nto = "panel"\nconductance_w_k = 1\n')
    assert refusal(plate, ["links.1.to=space"]) == "--set links.1.to=space: links has entries 0 to 0"


def test_error_from_the_command_line_says_so(plate):
    assert refusal(plate, ["radiator.area_m2=-1"]) == (
        f"{plate}: radiator.area_m2: got -1; must be > 0 (from --set)"
    )


def test_misspelt_key_comes_before_the_missing_one(plate):
    plate.write_text(PLATE.replace("area_m2", "area_m3"))
    lines = refusal(plate).splitlines()
    assert lines[0].endswith("radiator.area_m3: unknown key; did you mean area_m2?")
    assert lines[1].endswith("radiator.area_m2: missing; area of one side [m2]")


# ------------------------------------------------------------------------------------------------- hash


def test_hash_is_of_the_resolved_case():
    data = tomllib.loads(PLATE)
    first = cases.case_hash(cases.validate(data))
    turned = dict(reversed(data.items())) | {"run": {"steps": 128}, "epoch": {"span_days": 365.25}}
    turned["radiator"] = dict(reversed(data["radiator"].items())) | {
        "emissivity": [0.88, 0.88],
        "area_m2": 4.0,
    }
    assert cases.case_hash(cases.validate(turned)) == first
    assert len(first) == 16 and int(first, 16) >= 0
    data["radiator"]["area_m2"] = 4.0000001
    assert cases.case_hash(cases.validate(data)) != first


def test_what_is_studied_does_not_change_the_hash():
    data = tomllib.loads(PLATE)
    first = cases.case_hash(cases.validate(data))
    data["uncertainty"] = {"of": [{"key": "radiator.area_m2", "sigma_percent": 1}]}
    studied = cases.validate(data)
    assert cases.case_hash(studied) == first
    assert cases.validate(tomllib.loads(cases.to_toml(studied))).uncertainty == studied.uncertainty


def test_hash_is_kept_between_versions():
    # Results are found by it: a change here must be meant, and told in the changelog.
    assert cases.case_hash(cases.validate(tomllib.loads(PLATE))) == "766970a18d06d416"


@pytest.mark.parametrize("name", sorted(cases.shipped()))
def test_resolved_case_as_toml_is_the_same_case(name):
    case = cases.load(name)
    again = cases.validate(tomllib.loads(cases.to_toml(case)))
    assert cases.case_hash(again) == cases.case_hash(case)


def test_toml_keeps_odd_text():
    data = tomllib.loads(PLATE) | {"title": 'quote " back \\ tab \t µ'}
    case = cases.validate(data)
    assert cases.validate(tomllib.loads(cases.to_toml(case))).title == data["title"]


# -------------------------------------------------------------------------------------------- TLE files

L1, L2 = TLES[0]["l1"], TLES[0]["l2"]


def tle_case(folder: Path, text: str) -> Path:
    (folder / "fleet.tle").write_text(text)
    file = folder / "mine.toml"
    plate = PLATE.replace('kind = "sun_synchronous"\naltitude_km = 650', 'kind = "tle"\nfile = "fleet.tle"')
    file.write_text(plate)
    return file


def test_tle_file_lies_beside_the_case(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    case = cases.load(tle_case(tmp_path, f"NAME A\n{L1}\n{L2}\n"))
    assert isinstance(case.orbit, schema.TleOrbit)
    assert case.orbit.lines == ("NAME A", L1, L2)


def test_tle_case_counts_by_its_text_not_its_path(tmp_path):
    (tmp_path / "b").mkdir()
    one = cases.load(tle_case(tmp_path, f"{L1}\n{L2}\n"))
    file = tle_case(tmp_path / "b", f"{L1}\n{L2}\n")
    (tmp_path / "b" / "fleet.tle").rename(tmp_path / "b" / "other.tle")
    assert cases.case_hash(cases.load(file, ["orbit.file=other.tle"])) == cases.case_hash(one)
    # The resolved case holds the sets: it needs no file.
    assert cases.case_hash(cases.validate(tomllib.loads(cases.to_toml(one)))) == cases.case_hash(one)


def test_tle_file_missing(tmp_path):
    file = tle_case(tmp_path, "")
    assert (
        refusal(file, ["orbit.file=none.tle"])
        == f"{file}: orbit.file: got 'none.tle'; no such file or directory"
    )


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("5", "orbit.lines: got 5; must be a list"),
        ("'x'", "orbit.lines: got 'x'; must be a list"),
        ("[1, 2]", "orbit.lines.0: got 1; must be a string"),
        ("[]", "no element set in the file"),
    ],
)
def test_lines_that_are_none(tmp_path, lines, message):
    assert message in refusal(tle_case(tmp_path, ""), [f"orbit.lines={lines}"])


def test_tle_file_that_is_none(tmp_path):
    """A folder, a pipe that never ends, a path that cannot be."""
    file = tle_case(tmp_path, "")
    os.mkfifo(tmp_path / "pipe")
    for name, said in (
        (".", "got '.'; is not a file"),
        ("pipe", "got 'pipe'; is not a file"),
        ("x\\u0000y", "got 'x\\x00y'; no path has such characters"),
        ("x" * 5000, f"got '{'x' * 57}...'; file name too long"),
    ):
        assert refusal(file, [f'orbit.file="{name}"']) == f"{file}: orbit.file: {said}"


def bad(line: str, start: int, text: str) -> str:
    """A line with other characters from column `start` (from 0), its checksum made right."""
    line = line[:start] + text + line[start + len(text) :]
    return line[:68] + str(tle.checksum(line))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no element set in the file"),
        (f"{L1}\n{L2[:-1]}9\n", "line 2: checksum is 9; the digits add up to 3"),
        (f"{L1[:60]}\n{L2}\n", "line 1: 60 characters long; must be 69"),
        (f"{L1[:40]}é{L1[41:]}\n{L2}\n", "line 1: has a character that is not printable ASCII"),
        (f"{L1[:40]}\0{L1[41:]}\n{L2}\n", "line 1: has a character that is not printable ASCII"),
        (f"A\n{L1}\n", "line 2: is not followed by its line 2"),
        (f"{L1}\nB\n{L2}\n", "line 1: is not followed by its line 2"),
        (f"{L2}\n", "line 1: a line 2 without its line 1 before it"),
        (f"{L1}\n{TLES[1]['l2']}\n", "line 2: catalogue number 70003; line 1 has 70001"),
        (f"{L1}\n{bad(L2, 8, ' 53.x500')}\n", "line 2: inclination: got '53.x500' in columns 9-16"),
        (
            f"{L1}\n{bad(L2, 8, '253.0500')}\n",
            "line 2: inclination: got 253.0500; must lie between 0 and 180",
        ),
        (f"{L1}\n{bad(L2, 26, '1 29310')}\n", "line 2: eccentricity: got '1 29310' in columns 27-33"),
        (f"{L1}\n{bad(L2, 7, '5')}\n", "line 2: got '5' in column 8; must be blank"),
        (f"{bad(L1, 20, '000.50000000')}\n{L2}\n", "line 1: epoch day: got 000.50000000; must lie between 1"),
        (f"{bad(L1, 53, ' 1x834-4')}\n{L2}\n", "line 1: drag term: got '1x834-4' in columns 54-61"),
        (f"{L1}\n{bad(L2, 52, '00.00000000')}\n", "line 2: mean motion: got 00.00000000; must be > 0"),
        (f"{L1}\n{bad(L2, 52, '1_.00000000')}\n", "line 2: mean motion: got '1_.00000000'"),
    ],
)
def test_bad_tle_line_is_named(tmp_path, text, message):
    """Alone it ends the case; among good ones the case runs without it, and names the same line."""
    assert refusal(tle_case(tmp_path, text)).splitlines()[0].startswith(f"fleet.tle: {message}")
    good = "\n".join(line for one in TLES[1:4] for line in (one["l1"], one["l2"]))
    case = cases.load(tle_case(tmp_path, f"{text}{good}\n"))
    assert isinstance(case.orbit, schema.TleOrbit)
    sets, wrong = tle.parse(case.orbit.lines)
    assert [one.line1 for one in sets] == [one["l1"] for one in TLES[1:4]]
    assert not text or wrong[0].startswith(message)


def test_tle_file_with_more_bad_sets_than_good_ones_is_refused(tmp_path):
    """It is damaged, or something else; what is wrong with the first twenty is said."""
    wrong = f"{L1}\n{L2[:-1]}9\n"
    assert cases.load(tle_case(tmp_path, f"{wrong}{L1}\n{L2}\n"))
    lines = refusal(tle_case(tmp_path, f"{wrong * 30}{L1}\n{L2}\n")).splitlines()
    assert len(lines) == 21 and lines[-1] == "and 10 more"
    assert lines[19] == "fleet.tle: line 40: checksum is 9; the digits add up to 3"
