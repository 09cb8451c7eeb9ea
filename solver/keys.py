"""The continuous keys of a case: what a study may vary, by the names that case files and `--set` give them.

    continuous(case)["radiator.area_m2"].value
    changed(case, {"radiator.area_m2": 25.0})

A pair for the radiator's two faces is one key, `radiator.emissivity`, where both are equal, and one for each face,
`radiator.emissivity.0`, where they are not. Numbers that a case leaves out are no keys of it, but for those of the
environment's level and the chip's limit, which have a value of their own.
"""

import difflib
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BeforeValidator

from . import case as cases
from .case import CaseError, show
from .schema import DEFAULT_CHIP_LIMIT_C, INLINED, LEVELS, Case, Section

T = TypeVar("T")
# What says what is looked at, not what is looked for, and the sections that hold studies themselves.
NOT_OF_A_DESIGN = ("epoch", "run", *cases.STUDIED)
# What a level of the environment stands for.
OF_LEVEL = ("environment.solar_flux_w_m2", "environment.albedo", "environment.earth_infrared_w_m2")


@dataclass(frozen=True)
class Key:
    """A key that can vary.

    Attributes:
        name: Dotted.
        value: In the unit of its name.
        unit: "" if it has none.
        meaning: In words.
        low, high: Its range by the schema, infinite where it is open.
        low_open, high_open: Whether the bound itself is left out.
    """

    name: str
    value: float
    unit: str
    meaning: str
    low: float
    high: float
    low_open: bool
    high_open: bool

    def holds(self, value: float) -> bool:
        """Whether a value lies within the range."""
        above = self.low < value if self.low_open else self.low <= value
        below = value < self.high if self.high_open else value <= self.high
        return above and below

    @property
    def range(self) -> str:
        """In words."""
        low = f"{'>' if self.low_open else '>='} {self.low:g}" if math.isfinite(self.low) else ""
        high = f"{'<' if self.high_open else '<='} {self.high:g}" if math.isfinite(self.high) else ""
        return ", ".join(filter(None, (low, high))) or "any number"


def resolved(case: Case) -> Case:
    """The case with what its environment and its chip limit stand for written out: it means the same."""
    e = case.environment
    solar, albedo, infrared = LEVELS[e.level]
    update: dict[str, Any] = {}
    if e.solar_flux_w_m2 is None:
        scaled = e.level == "nominal" if e.scale_with_distance is None else e.scale_with_distance
        update |= {"solar_flux_w_m2": solar, "scale_with_distance": scaled}
    if e.earth == "uniform":
        update |= {} if e.albedo is not None else {"albedo": albedo}
        update |= {} if e.earth_infrared_w_m2 is not None else {"earth_infrared_w_m2": infrared}
    out = case.model_copy(update={"environment": e.model_copy(update=update)})
    if out.payload is not None and out.payload.chip and out.payload.max_chip_temperature_c is None:
        payload = out.payload.model_copy(update={"max_chip_temperature_c": DEFAULT_CHIP_LIMIT_C})
        out = out.model_copy(update={"payload": payload})
    return out


def continuous(case: Case) -> dict[str, Key]:
    """Every key of a case that can vary, in the order of the case file."""
    return {key.name: key for key in _numbers(resolved(case))}


def find(case: Case, name: str) -> Key:
    """A key by its name.

    Raises:
        CaseError: there is none of that name, or it cannot vary.
    """
    known = continuous(case)
    if name not in known:
        face = next((key for key in _numbers(resolved(case), each_face=True) if key.name == name), None)
        if face is None:
            raise CaseError(f"{case.source}: {name}: {_why_not(case, name, known)}")
        return face
    return known[name]


def changed(case: Case, values: Mapping[str, float]) -> Case:
    """The case with other values of some of its keys, checked anew.

    Raises:
        CaseError: a key that cannot vary, a value out of its range, or one that does not fit the others.
    """
    own, known = {name: float(value) for name, value in values.items()}, continuous(case)
    for name, value in own.items():
        key = known[name] if name in known else find(case, name)
        if not key.holds(value):
            raise CaseError(f"{case.source}: {name}: got {show(value)}; must be {key.range}")
    data = put(resolved(case), own).model_dump(by_alias=True, exclude_none=True)
    return cases.validate(data, case.source)


def put(case: T, values: Mapping[str, Any]) -> T:
    """A section of a case, or all of it, with other values, unchecked: they may be traced. Dotted keys below it."""
    grouped: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        first, _, rest = name.partition(".")
        grouped.setdefault(first, {})[rest] = value
    for first, below in grouped.items():
        case = _replaced(case, first, below)
    return case


def _replaced(section: Any, part: str, below: Mapping[str, Any]) -> Any:
    old = (
        section[part]
        if isinstance(section, dict)
        else section[int(part)]
        if isinstance(section, tuple)
        else None
    )
    old = getattr(section, part) if old is None else old
    if "" in below:
        new = (below[""],) * 2 if isinstance(old, tuple) else below[""]
    else:
        new = put(old, below)
    if isinstance(section, dict):
        return {**section, part: new}
    if isinstance(section, tuple):
        return (*section[: int(part)], new, *section[int(part) + 1 :])
    return section.model_copy(update={part: new})


# ------------------------------------------------------------------------------------------------ the walk


def _numbers(case: Case, each_face: bool = False) -> Iterator[Key]:
    for name, info in Case.model_fields.items():
        section = getattr(case, name)
        if name not in NOT_OF_A_DESIGN and not isinstance(section, str):
            yield from _below(section, name, info, [], each_face)


def _below(value: Any, name: str, info: Any, bounds: list[Any], each_face: bool) -> Iterator[Key]:
    """Keys at and below one value of a section; a pair of equals is one, or with `each_face` two."""
    if isinstance(value, Section):
        for part, field in type(value).model_fields.items():
            if part not in INLINED:
                yield from _below(getattr(value, part), f"{name}.{part}", field, _bounds(field), each_face)
    elif isinstance(value, dict):
        for part, inner in value.items():
            yield from _below(inner, f"{name}.{part}", info, bounds, each_face)
    elif isinstance(value, tuple):
        both = len(value) == 2 and _is_number(value[0]) and _is_pair(info)
        if both and value[0] == value[1] and not each_face:
            yield _key(name, value[0], info, bounds)
            return
        for k, inner in enumerate(value):
            yield from _below(inner, f"{name}.{k}", info, bounds, each_face)
    elif _is_number(value):
        yield _key(name, value, info, bounds)


def _is_number(value: Any) -> bool:
    return isinstance(value, float)


def _is_pair(info: Any) -> bool:
    """Whether one number may stand for both of two."""
    parts = [*info.metadata, *_nested(info.annotation)]
    return any(isinstance(part, BeforeValidator) for part in parts)


def _key(name: str, value: float, info: Any, bounds: list[Any]) -> Key:
    unit = re.search(r" \[([^\]]+)\]$", info.description or "")
    meaning = (info.description or name)[: unit.start()] if unit else info.description or name
    limits = {}
    for sign in ("gt", "ge", "lt", "le"):
        found = [getattr(one, sign) for one in bounds if getattr(one, sign, None) is not None]
        limits[sign] = float(found[0]) if found else None
    low_open, high_open = limits["gt"] is not None, limits["lt"] is not None
    low = limits["gt"] if low_open else limits["ge"]
    high = limits["lt"] if high_open else limits["le"]
    return Key(
        name,
        value,
        "" if unit is None or unit[1] == "-" else unit[1],
        meaning,
        -math.inf if low is None else low,
        math.inf if high is None else high,
        low_open,
        high_open,
    )


def _bounds(info: Any) -> list[Any]:
    """What says the range of a field: its own metadata, else that of the numbers in it."""
    own = [part for one in info.metadata for part in (one, *getattr(one, "metadata", []))]
    return own if any(_limits(own)) else list(_nested(info.annotation))


def _limits(parts: list[Any]) -> Iterator[bool]:
    return (getattr(part, sign, None) is not None for part in parts for sign in ("gt", "ge", "lt", "le"))


def _nested(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Annotated:
        for one in annotation.__metadata__:
            yield from (one, *getattr(one, "metadata", []))
    if get_origin(annotation) in (Annotated, Union, UnionType, tuple):
        for part in get_args(annotation):
            yield from _nested(part)


# ------------------------------------------------------------------------------------------------ messages


def _why_not(case: Case, name: str, known: Mapping[str, Key]) -> str:
    """What keeps a name from being one of the keys that can vary."""
    place: Any = case
    parts = name.split(".")
    for k, part in enumerate(parts):
        if isinstance(place, Section) and part in type(place).model_fields:
            place = getattr(place, part)
        elif isinstance(place, dict) and part in place:
            place = place[part]
        elif isinstance(place, tuple) and part.isdecimal() and int(part) < len(place):
            place = place[int(part)]
        else:
            near = difflib.get_close_matches(name, known, 1, cutoff=0.5)
            return "no such key" + (f"; did you mean {near[0]}?" if near else "")
        if place is None:
            return (
                f"not given in the case{'' if k == len(parts) - 1 else ' (' + '.'.join(parts[: k + 1]) + ')'}"
            )
    if parts[0] in NOT_OF_A_DESIGN:
        return f"cannot vary; [{parts[0]}] says what is looked at, not what the satellite is"
    below = list(itertools.islice((key for key in known if key.startswith(f"{name}.")), 4))
    if below:
        return f"cannot vary as a whole; give one of {', '.join(below)}"
    if isinstance(place, tuple):
        return f"cannot vary; it has no numbers: {show(list(place))}"
    kind = "a whole number" if isinstance(place, int) and not isinstance(place, bool) else "no number"
    return f"got {show(place)}; cannot vary, it is {kind}"
