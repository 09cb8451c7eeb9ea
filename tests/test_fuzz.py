"""Any case file, right or wrong, runs to finite numbers or ends with one readable message.

Cases are drawn from the JSON Schema of the models, so that a new key is tried as soon as it is there: sections from
nothing, and shipped cases with some keys changed to anything that the schema admits, or to what it does not.
"""

import json
import math
import os
import re
import string
import tomllib
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import jax
import numpy as np
import pytest
from dawndusk.solver import build, cli, devices, results, run, tle
from dawndusk.solver import case as cases
from dawndusk.solver.schema import SMALLEST, Case
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plate import RADIATOR
from typer.testing import CliRunner

# DAWNDUSK_FUZZ=5000 tries that many cases of a fresh seed, in place of the same few in each run.
TRIES = int(os.environ.get("DAWNDUSK_FUZZ", 0))
COMMON = {
    "deadline": None,
    "database": None,
    "suppress_health_check": [
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
    ],
}


def tries(count):
    return settings(max_examples=TRIES or count, derandomize=not TRIES, **COMMON)


SCHEMA = Case.model_json_schema(by_alias=True)
DEFINITIONS = SCHEMA["$defs"]
TLES = json.loads((Path(__file__).parent / "reference" / "eclipse_tle.json").read_text())["cases"]
SETS = [line for one in TLES for line in (one["name"], one["l1"], one["l2"])]
PLATE = {
    "orbit": {"kind": "sun_synchronous", "altitude_km": 650},
    "radiator": RADIATOR,
}
BASES = [PLATE, *(tomllib.loads(path.read_text()) for path in cases.shipped().values())]
BASES.append(PLATE | {"orbit": {"kind": "tle", "file": "fleet.tle"}})


# ------------------------------------------------------------------------------ what the schema admits


def numbers(low, high, open_low=False, open_high=False):
    """Numbers of a range: its ends, what is next to them, every order of magnitude, and any."""
    if open_low:
        low = SMALLEST if low == 0 else math.nextafter(low, math.inf)
    if open_high:
        high = math.nextafter(high, -math.inf)
    anything = st.floats(low, high).filter(lambda x: x == 0 or abs(x) >= SMALLEST)
    picks = [st.sampled_from([low, high]), anything]
    if high > 0:
        smallest = max(low, high * 1e-9)
        scale = st.floats(math.log(smallest), math.log(high)) if smallest < high else st.just(math.log(high))
        picks.append(scale.map(lambda x: min(max(math.exp(x), low), high)))
    if low <= 0 <= high:
        picks.append(st.just(0.0))
    return st.one_of(picks)


def dates():
    zones = st.none() | st.integers(-1439, 1439).map(lambda m: timezone(timedelta(minutes=m)))
    return st.datetimes(datetime(1972, 1, 2), datetime(2099, 12, 30)) | st.datetimes(
        datetime(1972, 1, 2), datetime(2099, 12, 30), timezones=zones.map(lambda zone: zone or UTC)
    )


def resolved(schema):
    return DEFINITIONS[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema


def options(schema):
    """The alternatives of a schema, None left out."""
    schema = resolved(schema)
    found = schema.get("anyOf") or schema.get("oneOf") or [schema]
    return [resolved(one) for one in found if one.get("type") != "null"]


def right(schema):
    """Values that the schema admits."""
    alternatives = options(schema)
    if len(alternatives) > 1:
        return st.one_of([right(one) for one in alternatives])
    schema = alternatives[0]
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    match schema["type"]:
        case "number":
            low, high = schema.get("minimum"), schema.get("maximum")
            open_low, open_high = low is None, high is None
            low = schema.get("exclusiveMinimum", -1e308) if open_low else low
            high = schema.get("exclusiveMaximum", 1e308) if open_high else high
            return numbers(float(low), float(high), open_low, open_high)
        case "integer":
            low, high = schema["minimum"], schema.get("maximum", 10**30)
            return (
                st.sampled_from([low, low + 1, high])
                | st.integers(low, min(high, low + 5))
                | st.integers(low, high)
            )
        case "boolean":
            return st.booleans()
        case "string":
            return dates() if schema.get("format") == "date-time" else st.sampled_from(WORDS)
        case "array":
            if "prefixItems" in schema:
                pair = st.tuples(*map(right, schema["prefixItems"])).map(list)
                first = right(schema["prefixItems"][0])
                return pair | first if len(schema["prefixItems"]) == 2 else pair
            return st.lists(right(schema["items"]), max_size=3)
        case "object" if "patternProperties" in schema:
            inner = next(iter(schema["patternProperties"].values()))
            return st.dictionaries(st.sampled_from(["boom", "tank", "chip"]), right(inner), max_size=3)
        case "object":
            keys = {key: right(one) for key, one in schema["properties"].items() if key != "lines"}
            needed = {key: keys.pop(key) for key in schema.get("required", ())}
            return st.fixed_dictionaries(needed, optional=keys)
    raise NotImplementedError(schema)


WORDS = ["structure", "panel", "loop", "space", "chip", "battery", "fleet.tle", "title", "tank", "[/] $x_$ µ"]
# What no key takes, or only some do.
ODD = st.one_of(
    st.sampled_from(
        [
            *(True, False, -1, 0, 1, 10**30, 10**400, -(10**400), 0.5, -0.0, 1e308, -1e308, 5e-324),
            *(math.nan, math.inf, -math.inf, "", "x", "nan", "2027-06-21", "\n", "\x00", "x" * 5000, "[/b]"),
            *([], {}, [[]], [{}], [1, "x"], [1, 2, 3], {"a": {"b": 1}}, [[1, 2], [3, 4]], [1] * 3000),
            *(datetime(1, 1, 1), datetime(9999, 12, 31, tzinfo=timezone(-timedelta(hours=23)))),
            *(datetime(2027, 6, 21).date(), datetime(2027, 6, 21).time()),
        ]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.floats(),
    st.integers(),
)


def places(schema=SCHEMA, prefix=()):
    """Paths of all keys of the schema, with the schema of each."""
    for key, one in schema.get("properties", {}).items():
        yield (*prefix, key), one
        for inner in options(one):
            yield from places(inner, (*prefix, key))
            for entry in inner.get("patternProperties", {}).values():
                yield from places(resolved(entry), (*prefix, key, "tank"))
            if "items" in inner:
                yield from places(resolved(inner["items"]), (*prefix, key, 0))


PLACES = [(path, one) for path, one in places() if path[-1] != "lines"]
REMOVED = object()


@st.composite
def changes(draw, wrong=True):
    """A key and what it is set to."""
    path, schema = draw(st.sampled_from(PLACES))
    if not wrong:
        return path, draw(right(schema))
    kind = draw(st.integers(0, 5))
    if kind == 0:
        return path, draw(ODD)
    if kind == 1:
        return path, REMOVED
    if kind == 2:
        text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
        return (*path[:-1], draw(text | st.sampled_from(["area_m", "lines", "kind"]))), draw(ODD)
    return path, draw(right(schema))


def changed(data, path, value):
    """A copy of nested tables and lists with one key set; missing tables are made."""
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(head, int):
        new = list(data) if isinstance(data, list) else []
        new[head : head + 1] = [changed(new[head] if head < len(new) else {}, rest, value)]
        return new
    new = dict(data) if isinstance(data, dict) else {}
    if value is REMOVED and not rest:
        new.pop(head, None)
    else:
        new[head] = changed(new.get(head, {}), rest, value)
    return new


@st.composite
def tables(draw, wrong=True):
    """Cases as TOML would give them."""
    if draw(st.integers(0, 9)) == 0:
        data = draw(right(SCHEMA))
    else:
        data = draw(st.sampled_from(BASES))
    for path, value in draw(st.lists(changes(wrong), max_size=5)):
        data = changed(data, path, value)
    return data


# ------------------------------------------------------------------------------------------------ files


def toml(value):
    """A value as TOML text; huge numbers and not-a-numbers too."""
    if isinstance(value, dict):
        inner = ", ".join(f"{toml(str(key))} = {toml(one)}" for key, one in value.items())
        return "{" + inner + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value) if abs(value) < 10**4000 else hex(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return value.isoformat() if hasattr(value, "isoformat") else repr(value)


def written(data):
    return "".join(f"{toml(str(key))} = {toml(value)}\n" for key, value in data.items())


@st.composite
def damaged(draw, text):
    """Bytes of a text, most often as they are, else cut, mixed up or not UTF-8."""
    raw = text.encode()
    kind = draw(st.integers(0, 14))
    at = draw(st.integers(0, len(raw)))
    if kind == 0:
        return raw[:at] + draw(st.binary(min_size=1, max_size=8)) + raw[at:]
    if kind == 1:
        return raw[:at]
    if kind == 2:
        lines = raw.splitlines(keepends=True)
        return raw + draw(st.sampled_from(lines)) if lines else raw
    if kind == 3:
        return draw(
            st.sampled_from([text.encode("utf-16"), b"\xef\xbb\xbf" + raw, raw.replace(b"\n", b"\r")])
        )
    if kind == 4:
        endless = ["deep = " + "[" * 5000, "deep = " + "{a = " * 3000, "a." * 3000 + "b = 1"]
        endless += ["long = " + "9" * 5000, "long = 0x" + "f" * 5000]
        return raw + draw(st.sampled_from(endless)).encode()
    return raw


@st.composite
def case_files(draw, wrong=True):
    return draw(damaged(written(draw(tables(wrong)))) if wrong else tables(wrong).map(written))


@st.composite
def tle_files(draw):
    lines = list(SETS)
    for _ in range(draw(st.integers(0, 4))):
        k = draw(st.integers(0, len(lines) - 1))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            del lines[k : k + 1]
            lines = lines or [""]
        elif kind == 1:
            lines[k] = draw(
                st.text(max_size=80).filter(lambda text: text.isprintable()) | st.sampled_from(SETS)
            )
        elif len(lines[k]) == 69:
            at = draw(st.integers(2, 67))
            new = lines[k][:at] + draw(st.sampled_from(string.printable[:95] + "٣é\x00")) + lines[k][at + 1 :]
            # A right checksum takes the change past the first check.
            lines[k] = new[:68] + (str(tle.checksum(new)) if kind == 2 else new[68])
    return draw(damaged("\n".join(lines)))


@st.composite
def overrides(draw):
    path, value = draw(changes())
    key = ".".join(str(part) for part in path)
    if draw(st.integers(0, 9)) == 0:
        return draw(
            st.text(max_size=20) | st.sampled_from(["a." * 2000 + "b=1", "=", ".=", "title=\udcff", "run="])
        )
    return f"{key}={toml(None.__class__.__name__ if value is REMOVED else value)}"


# -------------------------------------------------------------------------------------------- judgement

# Words of Python and its libraries that a user of a solver has no business with.
JARGON = re.compile(
    r"traceback|pydantic|validation|input should|errno|nonetype|<class|object at 0x|function-|literal\[|jax|tracer"
    r"|numpy|datetime\.|exception|\bdict\b|\btuple\b|\bstr\b|union|overflow|codec",
    re.IGNORECASE,
)
LONGEST = 600


def judge(lines):
    """Every line names file or option, can be read, and speaks of the case."""
    assert lines
    for line in lines:
        assert len(line) < LONGEST, line
        assert line.isprintable(), repr(line)
        # What is quoted from the user's own input may hold any words.
        own = re.sub(r"'[^']*'|\"[^\"]*\"", "", line)
        assert not JARGON.search(own), line
        assert re.match(r"(mine\.toml|fleet\.tle|--set|/|\S*\.tle|and [\d,]+ more)", line), line


def size(case):
    """Satellites at epochs, as many as a try has time for at most."""
    orbit = case.orbit
    satellites = getattr(orbit, "planes", 1) * getattr(orbit, "satellites_per_plane", 1)
    return satellites * getattr(orbit, "satellites", 1) * case.epoch.count


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz")
    before = Path.cwd()
    os.chdir(path)
    yield path
    os.chdir(before)


def tried(folder, raw, tle_raw, sets):
    """Load, hash, write, load again, and build; the built fleet if it was right."""
    (folder / "mine.toml").write_bytes(raw)
    (folder / "fleet.tle").write_bytes(tle_raw)
    try:
        case = cases.load("mine.toml", sets)
        digest = cases.case_hash(case)
        Path("resolved.toml").write_text(cases.to_toml(case), encoding="utf-8")
        assert cases.case_hash(cases.load("resolved.toml")) == digest
        if size(case) > 2000:
            return None
        fleet = build.build(case, np.float64)
    except cases.CaseError as error:
        judge(error.lines)
        return None
    for leaf in jax.tree.leaves((fleet.revolutions, fleet.params, fleet.state)):
        # Bonds of tubes are infinite where there is none.
        assert not np.isnan(leaf).any()
    judge([*fleet.left_out, "/"])
    return fleet


TLE_TEXT = "\n".join(SETS).encode()
inputs = st.one_of(
    st.tuples(case_files(), st.just(TLE_TEXT), st.just([])),
    st.tuples(case_files(), st.just(TLE_TEXT), st.lists(overrides(), max_size=3)),
    st.tuples(st.just(written(BASES[-1]).encode()), tle_files(), st.just([])),
)


@tries(100)
@given(inputs)
def test_any_input_is_built_or_refused_in_words(folder, given):
    tried(folder, *given)


@pytest.mark.slow
@tries(2000)
@given(inputs)
def test_two_thousand_inputs_are_built_or_refused_in_words(folder, given):
    tried(folder, *given)


@tries(40)
@given(inputs, st.sampled_from(["run", "check"]))
def test_command_line_ends_with_one_message(folder, given, verb):
    raw, tle_raw, sets = given
    (folder / "mine.toml").write_bytes(raw)
    (folder / "fleet.tle").write_bytes(tle_raw)
    try:
        cases.load("mine.toml", sets)
        return  # what is right is run below
    except cases.CaseError as error:
        lines = error.lines
    options = [word for item in sets for word in ("--set", item)]
    result = CliRunner().invoke(cli.app, [verb, "mine.toml", *options])
    assert isinstance(result.exception, SystemExit) and result.exit_code == cli.BAD_INPUT
    assert result.stdout == "" and result.stderr == "error: " + "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------------------ runs

QUICK = {"cells": [4, 6], "steps": 16, "error_estimate": False}


def shipped(name, **sections):
    """A shipped case on the coarsest grid, some keys changed."""
    data = tomllib.loads(cases.shipped()[name].read_text())
    for section, keys in ({"run": QUICK} | sections).items():
        data[section] = data.get(section, {}) | keys
    return data


# One structure each, so that one program solves all its numbers.
SHAPES = {
    "plate": PLATE | {"run": QUICK},
    "transient plate": PLATE | {"run": QUICK | {"mode": "transient", "revolutions": 3}},
    "loop, battery and windows": shipped("starlink_ai"),
    "bypass": shipped("iss_eatcs"),
    "serpentine": shipped("suncatcher", radiator={"tube_layout": "serpentine", "tube_passes": 2}),
    "heat pipes, steady": shipped("suncatcher_prototype", run=QUICK | {"mode": "steady"}),
}


def numeric(data):
    """Keys of a case with a number that leaves the shapes of its arrays alone, and the schema of each."""
    counts = {"planes", "satellites", "satellites_per_plane", "phasing", "tube_passes"}
    for path, schema in PLACES:
        here = data
        try:
            for part in path:
                here = here[part]
        except (KeyError, IndexError, TypeError):
            continue
        one = options(schema)[0]
        number = isinstance(here, int | float) and one.get("type", "array") in ("number", "array")
        if number and path[0] not in ("run", "epoch", "spread") and path[-1] not in counts:
            yield path, one["prefixItems"][0] if "prefixItems" in one else one


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_any_numbers_are_solved_or_flagged(name):
    """Extreme designs may fail, and say so; what is called converged is finite, physical and closes its energy.

    Heat: trapezoids of T^4 over 16 steps, where a panel without thermal mass follows the Sun at once, and the
    summary warns. The bus has rounding alone.
    """
    keys = list(numeric(SHAPES[name]))
    programs, tried = {}, {0: 0, 1: 0, 2: 0}
    number = st.sampled_from(keys).flatmap(lambda key: st.tuples(st.just(key[0]), right(key[1])))

    @tries(150)
    @given(st.lists(number, min_size=1, max_size=4))
    def solve(numbers):
        data = SHAPES[name]
        for path, value in numbers:
            data = changed(data, path, value)
        try:
            case = cases.validate(data, "mine.toml")
            fleet = build.build(case, np.float64)
        except cases.CaseError as error:
            return judge(error.lines)
        solver = run.Solver(case, fleet, devices.even(2), run.Walls())
        structure = jax.tree.structure((fleet.revolutions, fleet.params, fleet.state))
        solver._program = programs.get(structure)
        found = solver.solve(np.array([0]), series=True)
        programs[structure] = solver._program
        status = int(found["status"][0])
        tried[status] += 1
        if status == results.FAILED:
            return None
        assert all(np.isfinite(value).all() for value in found.values())
        if status == 0:
            assert min(found["panel_min_c"][0], found["node_min_c"].min()) >= -273.15
            drawn = found["array_taken_kw"][0] + found["battery_discharge_kw"][0]
            # 1e-13 of a battery is what its double holds of a revolution's change.
            capacity = 0 if case.battery is None else case.battery.capacity_kwh
            rounding = 1e-13 * capacity / (found["period_min"][0] / 60)
            assert abs(found["bus_residual"][0]) * drawn <= 1e-6 * drawn + rounding
            assert abs(found["heat_residual"][0]) < 0.5
        return None

    solve()
    assert len(programs) == 1
    assert tried[0] > 20, tried
