"""Case files: read, override, validate, and say in one line each what is wrong.

    case = load("cases/mine.toml", ["battery.capacity_kwh=12"])

Every trouble raises CaseError, whose text is one line for each error: `file: key: got value; must be ...`.
"""

import difflib
import hashlib
import json
import math
import re
import tomllib
import types
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import ValidationError

from . import earth_file, tle
from .schema import INLINED, Case, Section

HASH_DIGITS = 16
STUDIES = "studies"  # folder, among the shipped cases, of those that are made to be sized and varied
STUDIED = ("sizing", "uncertainty")  # sections that are of studies alone
MOST_LINES = 20  # of bad lines, or of keys, named before it says how many more
MOST_SHOWN = 60  # characters, or entries of a list, of a value in a message


class CaseError(ValueError):
    """A case that cannot be run. `lines` holds one message for each error."""

    def __init__(self, *lines: str):
        super().__init__("\n".join(lines))
        self.lines = lines


def load(path: str | Path, overrides: Iterable[str] = ()) -> Case:
    """The validated case of a file, or of a shipped case by its name.

    Args:
        path: A TOML file, or the name of a shipped case ("suncatcher", "cases/suncatcher.toml").
        overrides: `key=value`, the key dotted, the value as in TOML; a bare word is a string.

    Raises:
        CaseError: one line for each error.
    """
    file = find(path)
    source = str(path) if Path(path).suffix else str(file)
    try:
        data = _toml_data(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise CaseError(f"{source}: cannot be read: {_lower(error.strerror or '')}") from None
    except UnicodeDecodeError as error:
        raise CaseError(f"{source}: byte {error.start} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise CaseError(f"{source}: not valid TOML: {_lower(str(error))}") from None
    changed = [override(data, item) for item in overrides]
    return validate(data, source, file.parent, changed)


def _toml_data(text: str) -> dict[str, Any]:
    """Tables of a TOML text; whatever stops the parser is a TOMLDecodeError."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise tomllib.TOMLDecodeError("tables or lists are nested too deeply") from None
    except ValueError:  # of Python's own conversion, which takes 4300 digits
        raise tomllib.TOMLDecodeError("a number has too many digits") from None


def validate(
    data: Mapping[str, Any], source: str = "case", folder: Path | None = None, changed: Sequence[str] = ()
) -> Case:
    """The case of a mapping as TOML gives it.

    Args:
        data: Sections and keys.
        source: File named in messages.
        folder: Where relative paths of the case start; the working directory if None.
        changed: Keys that the command line has set, marked in messages.
    """
    data = _with_earth(_with_tle(data, source, folder or Path()), source, folder or Path())
    try:
        case = Case.model_validate(data)
    except ValidationError as error:
        raise CaseError(*_messages(error, source, changed)) from None
    case._source = source
    return case


def case_hash(case: Case) -> str:
    """First 16 hexadecimal digits of SHA-256 over the resolved case as canonical JSON.

    Defaults are written out, keys that have none and are not given are left out, keys sorted, 600 and 600.0 are one
    number. Where a file of element sets or a table of the Earth lies does not count, what it holds does. What a study
    asks of a case (`STUDIED`) does not change what a run of it solves, and does not count.
    """
    data = case.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=set(STUDIED))
    data["orbit"].pop("file", None)
    data["environment"].pop("earth_file", None)
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]


def to_toml(case: Case) -> str:
    """The resolved case as TOML, defaults written out; it loads to a case with the same hash."""
    data = case.model_dump(by_alias=True, exclude_none=True)
    return _toml(data)


# ------------------------------------------------------------------------------------------------ files


def shipped() -> dict[str, Path]:
    """Cases that come with dawndusk, by name; those of studies last."""
    folder = Path(str(resources.files("dawndusk.cases")))
    return {file.stem: file for where in (folder, folder / STUDIES) for file in sorted(where.glob("*.toml"))}


def find(path: str | Path) -> Path:
    """The file that a path or the name of a shipped case means."""
    file = Path(path)
    try:
        if file.is_file():
            return file
        if file.is_dir():
            raise CaseError(f"{path}: is a folder; give a case file")
    except OSError as error:
        raise CaseError(f"{_brief(str(path))}: cannot be read: {_lower(error.strerror or '')}") from None
    cases = shipped()
    # "suncatcher", "suncatcher.toml", "cases/suncatcher.toml" and "studies/ai1_radiator" from any folder.
    if file.suffix in ("", ".toml") and file.stem in cases:
        found = cases[file.stem]
        inside = (Path(), Path(STUDIES)) if found.parent.name == STUDIES else (Path(),)
        if file.parent in (*inside, *(Path("cases") / folder for folder in inside)):
            return found
    near = difflib.get_close_matches(file.stem, cases, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    names = f"; shipped cases: {', '.join(cases)}" if cases else ""
    raise CaseError(f"{path}: no such file{hint}{names}")


def _with_tle(data: Mapping[str, Any], source: str, folder: Path) -> Mapping[str, Any]:
    """The case with the text of its TLE file in it.

    Raises:
        CaseError: it cannot be read, or has more bad element sets than good ones.
    """
    orbit = data.get("orbit")
    if not isinstance(orbit, Mapping) or orbit.get("kind") != "tle" or not isinstance(orbit.get("file"), str):
        return data
    if "lines" not in orbit:
        found = _named_file(orbit["file"], folder, f"{source}: orbit.file")
        try:
            text = found.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise CaseError(f"{source}: orbit.file: got {show(orbit['file'])}; not a text file") from None
        orbit = {**orbit, "lines": text.splitlines()}
    lines = orbit["lines"]
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        return data  # the models say what is wrong
    try:
        tle.parse(lines)
    except tle.TleError as error:
        name = _brief(orbit["file"])
        raise CaseError(*first_of([f"{name}: {line}" for line in error.lines])) from None
    return {**data, "orbit": orbit}


def _named_file(name: str, folder: Path, key: str) -> Path:
    """A file that a case names, which can be read to its end."""
    found = Path(name) if Path(name).is_absolute() else folder / name
    got = f"{key}: got {show(name)}; "
    try:
        # A pipe or a device may never end.
        endless = found.exists() and not found.is_file()
        if not endless:
            found.open("rb").close()
    except OSError as error:
        raise CaseError(got + _lower(error.strerror or "cannot be read")) from None
    except ValueError:  # a zero byte
        raise CaseError(f"{got}no path has such characters") from None
    if endless:
        raise CaseError(f"{got}is not a file")
    return found


def first_of(lines: Sequence[str]) -> list[str]:
    """The first lines of a list, and how many more there are."""
    more = len(lines) - MOST_LINES
    return [*lines[:MOST_LINES], *([f"and {more:,} more"] if more > 0 else [])]


def _with_earth(data: Mapping[str, Any], source: str, folder: Path) -> Mapping[str, Any]:
    """The case with its table of the Earth in it, averaged over longitude: a revolution that repeats knows none."""
    section = data.get("environment")
    if not isinstance(section, Mapping) or section.get("earth") != "grid" or "earth_table" in section:
        return data
    name = section.get("earth_file")
    if not isinstance(name, str):
        return data
    file = _named_file(name, folder, f"{source}: environment.earth_file")
    try:
        grid = earth_file.read(file)
    except earth_file.EarthFileError as error:
        raise CaseError(f"{name}: {error}") from None
    table = {
        "latitude_deg": grid.latitude_deg.tolist(),
        "albedo": grid.albedo.mean(axis=2).round(6).T.tolist(),
        "infrared_w_m2": grid.infrared_w_m2.mean(axis=2).round(4).T.tolist(),
    }
    return {**data, "environment": {**section, "earth_table": table}}


# -------------------------------------------------------------------------------------------- overrides


def override(data: dict[str, Any], item: str) -> str:
    """Set one `key=value` in a case as TOML gives it, in place; returns the key.

    Raises:
        CaseError: no "=", or a key that leads through something that is not a table.
    """
    key, equals, text = item.partition("=")
    key, said = key.strip(), f"--set {_brief(item)}"
    if not item.isascii() and "\udc80" <= max(item) <= "\udcff":
        raise CaseError(f"{said}: is not UTF-8 text")
    if not equals or not key or not all(part.strip() for part in key.split(".")):
        raise CaseError(f"{said}: must be key=value, such as orbit.altitude_km=650")
    parts = [part.strip() for part in key.split(".")]
    place: Any = data
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        if isinstance(place, list):
            if not part.isdecimal() or int(part) >= len(place):
                have = f"entries 0 to {len(place) - 1}" if place else "no entries"
                raise CaseError(f"{said}: {dotted(parts[:i])} has {have}")
            key_here: Any = int(part)
        elif not isinstance(place, dict):
            raise CaseError(f"{said}: {dotted(parts[:i])} is {show(place)}, not a table")
        else:
            key_here = part
            if not last:
                place.setdefault(part, {})
        if last:
            place[key_here] = _value(text.strip(), said)
        else:
            place = place[key_here]
    return key


def _value(text: str, said: str) -> Any:
    """A TOML value; a bare word or path is a string."""
    try:
        parsed = _toml_data(f"value = {text}")
    except tomllib.TOMLDecodeError:
        parsed = {}
    if list(parsed) == ["value"]:
        return parsed["value"]
    if text and text[0] not in "[{\"'" and "\n" not in text:
        return text
    raise CaseError(f"{said}: {show(text)} is not a TOML value")


# --------------------------------------------------------------------------------------------- messages


def _messages(error: ValidationError, source: str, changed: Sequence[str]) -> list[str]:
    lines: dict[str, str] = {}
    # A misspelt key first: it explains the missing one that follows.
    for detail in sorted(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden"):
        place = _place(detail)
        if place is None:
            continue
        key, text = _text(detail, place)
        origin = " (from --set)" if any(key == c or key.startswith(f"{c}.") for c in changed) else ""
        # One line for each key: the first thing that is wrong with it.
        lines.setdefault(key, f"{source}: {key}: {text}{origin}" if key else f"{source}: {text}{origin}")
    return list(lines.values())


_BRANCH = re.compile(r"[\w-]*\[")  # of a union, or the mark of a table's key


def _place(detail: Mapping[str, Any]) -> tuple[str | int, ...] | None:
    """Path of keys without pydantic's marks for the branch of a union; None for a branch not meant."""
    path: list[str | int] = []
    for i, part in enumerate(detail["loc"]):
        if i == 1 and path == ["orbit"] and part in _KINDS:
            continue
        last = i == len(detail["loc"]) - 1
        if (
            isinstance(part, str)
            and _BRANCH.match(part)
            and not (last and detail["type"] == "extra_forbidden")
        ):
            # array_view: a string or two numbers; keep the complaint about what was written.
            if part.startswith("literal[") and not isinstance(detail["input"], str):
                return None
            if part.startswith("function-before[") and isinstance(detail["input"], str):
                return None
            continue
        path.append(part)
    return tuple(path)


def _text(detail: Mapping[str, Any], place: tuple[str | int, ...]) -> tuple[str, str]:
    """Key and message of one of pydantic's errors."""
    kind, context, value = detail["type"], detail.get("ctx", {}), detail["input"]
    key = dotted(place)
    got = f"got {show(value)}; "
    match kind:
        case "case_check":
            below = context["key"]
            return ".".join(filter(None, (key, below))), detail["msg"]
        case "greater_than":
            return key, f"{got}must be > {context['gt']:g}"
        case "greater_than_equal":
            return key, f"{got}must be >= {context['ge']:g}"
        case "less_than":
            return key, f"{got}must be < {context['lt']:g}"
        case "less_than_equal":
            return key, f"{got}must be <= {context['le']:g}"
        case "missing":
            return key, f"missing; {_meaning(place)}"
        case "extra_forbidden":
            return key, _unknown(place, detail["loc"])
        case "literal_error":
            return key, f"{got}must be {context['expected']}{_near(value, context['expected'])}"
        case "union_tag_not_found":
            return f"{key}.kind", f"missing; must be one of {', '.join(repr(k) for k in _KINDS)}"
        case "union_tag_invalid":
            expected = context["expected_tags"]
            return (
                f"{key}.kind",
                f"got {show(context['tag'])}; must be one of {expected}{_near(context['tag'], expected)}",
            )
        case "float_type" | "float_parsing":
            return key, f"{got}must be a number"
        case "finite_number":
            return key, f"{got}must be a finite number"
        case "int_type" | "int_from_float" | "int_parsing":
            return key, f"{got}must be a whole number"
        case "bool_type" | "bool_parsing":
            return key, f"{got}must be true or false"
        case "string_type":
            return key, f"{got}must be a string"
        case "string_too_short":
            return key, f"{got}must not be empty"
        case "string_pattern_mismatch":
            return key, "is no name; must be lower-case letters, digits and _, a letter first"
        case "string_too_long":
            return key, f"is too long a name; at most {context['max_length']} characters"
        case "too_short":
            return key, f"got {context['actual_length']} entries; must be at least {context['min_length']}"
        case "too_long":
            return key, f"got {context['actual_length']} entries; must be at most {context['max_length']}"
        case "tuple_type" | "list_type":
            return key, f"{got}must be a list{_or_number(place)}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return key, f"{got}must be a table, [{key}]"
    return key, f"{got}{_lower(detail['msg'])}"


def show(value: Any) -> str:
    """A value as it stands in a case file, cut short where it is long."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, int):
        digits = int(abs(value).bit_length() * math.log10(2)) + 1
        return str(value) if digits <= 30 else f"a number of {digits} digits"
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        shown = [show(v) for v in value[:MOST_SHOWN]]
        return "[" + ", ".join([*shown, *(["..."] if len(value) > MOST_SHOWN else [])]) + "]"
    return repr(value if len(value) <= MOST_SHOWN else value[: MOST_SHOWN - 3] + "...")


def dotted(place: Sequence[str | int]) -> str:
    """A key as it is written after --set; parts that TOML would quote, quoted."""
    return ".".join(part if re.fullmatch(r"[\w-]{1,60}", part) else show(part) for part in map(str, place))


def _brief(text: str) -> str:
    """Text as it is where it can be read at a glance, else quoted and cut short."""
    return text if text.isprintable() and len(text) <= MOST_SHOWN else show(text)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _near(value: Any, expected: str) -> str:
    near = difflib.get_close_matches(
        str(value), expected.replace(" or ", ", ").replace("'", "").split(", "), 1
    )
    return f"; did you mean '{near[0]}'?" if near else ""


def _sections(annotation: Any) -> list[type[Section]]:
    """The section models that an annotation may hold."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    if get_origin(annotation) in (Annotated, Union, types.UnionType, tuple, dict):
        return [model for arg in get_args(annotation) for model in _sections(arg)]
    return []


_KINDS: dict[str, type[Section]] = {
    get_args(model.model_fields["kind"].annotation)[0]: model
    for model in _sections(Case.model_fields["orbit"].annotation)
}


def _keys(model: type[Section]) -> dict[str, Any]:
    return {info.alias or name: info for name, info in model.model_fields.items() if name not in INLINED}


def _models(place: Sequence[str | int]) -> list[type[Section]]:
    """Models that may describe the table at a place."""
    models: list[type[Section]] = [Case]
    skip = False
    for part in place:
        if skip or isinstance(part, int):  # the name of a node or heater, the index of a link
            skip = False
            continue
        models = [
            m for model in models if part in _keys(model) for m in _sections(_keys(model)[part].annotation)
        ]
        skip = part in ("nodes", "heaters")
    return models


def _unknown(place: Sequence[str | int], location: Sequence[Any]) -> str:
    """Message for a key that no model has, with the nearest right name."""
    name = str(place[-1])
    models = _models(place[:-1])
    if place[0] == "orbit":
        own = _KINDS[location[1]]
        others = [kind for kind, model in _KINDS.items() if model is not own and name in _keys(model)]
        if others:
            return f"kind = {location[1]!r} has no such key; only {', '.join(map(repr, others))} has it"
        models = [own]
    known = sorted({key for model in models for key in _keys(model)})
    near = difflib.get_close_matches(name, known, 1, cutoff=0.5)
    if near:
        return f"unknown key; did you mean {near[0]}?"
    if len(place) == 1:
        for section, info in _keys(Case).items():
            if any(name in _keys(model) for model in _sections(info.annotation)):
                return f"unknown key; {name} belongs into [{section}]"
    more = len(known) - MOST_LINES
    named = ", ".join(known[:MOST_LINES]) + (f" and {more} more" if more > 0 else "")
    return f"unknown key; the keys here are {named}"


def _meaning(place: Sequence[str | int]) -> str:
    """What a missing key or section is."""
    if isinstance(place[-1], int):
        return f"must be a list{_or_number(place[:-1])}"
    for model in _models(place[:-1]):
        info = _keys(model).get(str(place[-1]))
        if info is not None:
            if info.description:
                return _lower(info.description) if info.description[1:2].islower() else info.description
            return f"a case needs a table [{place[-1]}]"
    return "needed"


def _or_number(place: Sequence[str | int]) -> str:
    """How a list key is written."""
    if _models(place):
        return f" of tables, [[{dotted(place)}]]"
    if str(place[-1]).endswith("_slopes_per_k"):
        return " of numbers"
    if "radiator" in place or "incident" in place:
        return " of two numbers [face 0, face 1], or one number"
    if place[-1] == "cells":
        return " of two whole numbers, [along, across]"
    if place[-1] == "face_areas_m2":
        return " of six numbers, +x -x +y -y +z -z"
    return ""


# ------------------------------------------------------------------------------------------------- TOML


def _toml(data: Mapping[str, Any], prefix: str = "") -> str:
    """Tables as TOML text: plain keys first, then tables, then lists of tables."""
    plain = {k: v for k, v in data.items() if not isinstance(v, Mapping) and not _is_tables(v)}
    text = "".join(f"{key} = {_toml_value(value)}\n" for key, value in plain.items())
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            inner = _toml(value, f"{prefix}{key}.")
            # A table of tables alone (heaters, nodes) needs no heading of its own.
            heading = "" if all(isinstance(v, Mapping) for v in value.values()) else f"\n[{prefix}{key}]\n"
            text += heading + inner
        elif _is_tables(value):
            text += "".join(f"\n[[{prefix}{key}]]\n{_toml(entry)}" for entry in value)
    return text


def _is_tables(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping)


def _toml_value(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    return str(value).lower() if isinstance(value, bool) else repr(value)
