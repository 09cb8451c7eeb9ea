"""The case file as frozen models: every key with its unit, range and default. Imports no jax.

Units are those of the key name (`altitude_km`, `power_kw`); `build.py` converts them to SI, nothing else
does. `case.py` turns the errors raised here into one line each. The tables of docs/case_format.md are made
from these models by `markdown()`.
"""

import itertools
import re
import types
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    Strict,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from .coolants import COOLANTS, REFERENCE_C

# Earth and limits of the orbit models; km because they meet case keys.
EARTH_RADIUS_KM = 6378.137  # as kernels.constants
DEFAULT_CHIP_LIMIT_C = 95.0
SMALLEST_PRANDTL = 0.5  # below it, in liquid metals, Gnielinski's correlation does not hold
MOST_PASSES = 8  # of a tube: the work of a step grows with their cube
LOWEST_PERIGEE_KM = 150.0  # below it drag ends the orbit within days: no periodic revolution exists
# cos i = -1 in the first-order J2 condition (Vallado 2013, section 11.4.1) with the constants of the kernels.
SUN_SYNCHRONOUS_LIMIT_KM = 5974.0

LARGEST = 1e12  # of a bound whose key says what is possible
SMALLEST = 1e-30  # but for 0: single precision holds no less than 1e-38, and quotients need some room


def _held(value: float) -> float:
    if 0 < abs(value) < SMALLEST:
        raise refuse("", f"got {value:g}; must be 0 or from {SMALLEST:g} in size")
    return value


Number = Annotated[float, Strict(), AfterValidator(_held)]
Whole = Annotated[int, Strict()]
Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]


def _named(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_. -]{1,100}", value):
        raise refuse("", "is no name of a key, a figure or a limit: at most 100 letters, digits and . _ -")
    return value


Named = Annotated[str, Strict(), AfterValidator(_named)]  # something that a study finds by its name
BodyAxis = Literal["+x", "-x", "+y", "-y", "+z", "-z"]
NodeName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]

BUILT_IN_NODES = ("structure", "chip", "cold_plate", "battery", "array")
SINKS = ("panel", "loop", "space")


def _both_faces(value: Any) -> Any:
    """One number means the same on both faces."""
    return (value, value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Faces = Annotated[tuple[Number, Number], BeforeValidator(_both_faces)]
Fraction = Annotated[Number, Field(ge=0.0, le=1.0)]
FacesFraction = Annotated[tuple[Fraction, Fraction], BeforeValidator(_both_faces)]
Flux = Annotated[Number, Field(ge=0.0, le=5000.0)]
FacesFlux = Annotated[tuple[Flux, Flux], BeforeValidator(_both_faces)]


Slope = Annotated[Number, Field(ge=-0.1, le=0.1)]
Slopes = Annotated[tuple[Slope, ...], Field(max_length=3)]


# Keys that loading fills in from a file, so that the case is complete without it; not written by users.
INLINED = ("lines", "earth_table")


def refuse(key: str, message: str) -> PydanticCustomError:
    """An error at `key` (dotted, below the model that raises it), for a check between keys."""
    # Braces would be read as a template of the message.
    text = message.replace("{", "{{").replace("}", "}}")
    return PydanticCustomError("case_check", text, {"key": key})


def key(doc: str, unit: str = "", default: Any = ..., **limits: Any) -> Any:
    """A field whose description ends with its unit in brackets."""
    return Field(default, description=f"{doc} [{unit}]" if unit else doc, **limits)


def polynomial(slopes: tuple[float, ...], T: float) -> float:
    """1 + c1 u + c2 u^2 ..., u = T - 300 K: as kernels.panel."""
    return 1 + sum(c * (T - 300) ** k for k, c in enumerate(slopes, 1))


class Section(BaseModel):
    """A table of the case file: frozen, finite numbers only, no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# ------------------------------------------------------------------------------------------------ epoch


def _no_date() -> PydanticCustomError:
    return PydanticCustomError("no_date", "must be a date and time such as 2027-06-21T00:00:00Z")


def _utc(value: Any) -> Any:
    """TOML dates and offset date-times; a time without offset is UTC. Numbers are not dates."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise _no_date() from None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if not isinstance(value, datetime):
        raise _no_date()
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:  # before the year 1, or after 9999
        raise refuse("", f"got {value.isoformat()}; must be from 1972 up to 2100") from None


class Epoch(Section):
    """Instants at which a revolution is solved: start + k * span / count, k = 0 .. count - 1.

    An epoch is the middle of its revolution: the Sun, the node and the perigee are those of that instant.
    """

    start: Annotated[datetime, BeforeValidator(_utc)] = key(
        "First epoch, UTC; 1972 to 2100", default=datetime(2027, 6, 21, tzinfo=UTC)
    )
    count: Whole = key("Number of epochs", "-", 1, ge=1, le=20_000)
    span_days: Number = key("Time over which the epochs are spread evenly", "day", 365.25, gt=0, le=36525)

    @field_validator("start")
    @classmethod
    def _range(cls, value: datetime) -> datetime:
        if not 1972 <= value.year < 2100:
            raise refuse(
                "", f"got {value:%Y-%m-%d}; must be from 1972 (start of UTC leap seconds) up to 2100"
            )
        return value


# ------------------------------------------------------------------------------------------------ orbit


class _Mean(Section):
    """Keys common to all orbits that are given by elements."""

    altitude_km: Number = key(
        "Semi-major axis less the Earth's equatorial radius 6378.137 km", "km", ge=200, le=40000
    )
    eccentricity: Number = key("Mean eccentricity", "-", 0.0, ge=0.0, lt=0.95)
    arg_perigee_deg: Number = key("Argument of perigee at the first epoch", "deg", 0.0, ge=-360, le=360)

    @model_validator(mode="after")
    def _perigee(self):
        lowest = (EARTH_RADIUS_KM + self.altitude_km) * (1 - self.eccentricity) - EARTH_RADIUS_KM
        if lowest < LOWEST_PERIGEE_KM:
            raise refuse(
                "eccentricity",
                f"got {self.eccentricity:g} with altitude_km ="
                f" {self.altitude_km:g}: perigee at {lowest:.1f} km;"
                f" must stay above {LOWEST_PERIGEE_KM:g} km",
            )
        return self


class _SunSynchronous(_Mean):
    altitude_km: Number = key(
        "Semi-major axis less 6378.137 km; a sun-synchronous orbit exists up to 5974 km",
        "km",
        ge=200,
        le=SUN_SYNCHRONOUS_LIMIT_KM,
    )
    ltan_h: Number = key(
        "Local mean solar time of the ascending node; dawn-dusk 6 or 18", "h", 18.0, ge=0, lt=24
    )


class SunSynchronousOrbit(_SunSynchronous):
    """Planes at one local time of the node; inclination from the first-order J2 condition."""

    kind: Literal["sun_synchronous"]
    planes: Whole = key(
        "Number of planes, at altitudes spread evenly from altitude_km to altitude_max_km",
        "-",
        1,
        ge=1,
        le=1_000_000,
    )
    altitude_max_km: Number | None = key(
        "Altitude of the last plane; needed when planes > 1", "km", None, ge=200, le=SUN_SYNCHRONOUS_LIMIT_KM
    )
    satellites_per_plane: Whole = key("Satellites in each plane, evenly spaced", "-", 1, ge=1, le=1_000_000)

    @model_validator(mode="after")
    def _planes(self):
        if self.planes > 1 and self.altitude_max_km is None:
            raise refuse(
                "altitude_max_km", f"missing; planes = {self.planes} are spread from altitude_km to it"
            )
        if self.altitude_max_km is not None:
            if self.planes == 1:
                raise refuse(
                    "altitude_max_km", f"got {self.altitude_max_km:g} with planes = 1; needs planes > 1"
                )
            if self.altitude_max_km <= self.altitude_km:
                raise refuse(
                    "altitude_max_km",
                    f"got {self.altitude_max_km:g}; must be > altitude_km = {self.altitude_km:g}",
                )
        return self


class ClusterOrbit(_SunSynchronous):
    """Satellites in close formation on one sun-synchronous orbit.

    A square lattice in the space of relative eccentricity vectors: each satellite moves around the centre on
    a 2:1 ellipse in the orbit plane (Clohessy and Wiltshire 1960), none leaves radius_km.
    One periodic revolution, that of the centre, serves all.
    """

    kind: Literal["cluster"]
    satellites: Whole = key("Number of satellites", "-", ge=1, le=1_000_000)
    radius_km: Number = key("Largest distance of a satellite from the centre", "km", gt=0, le=50)


class WalkerOrbit(_Mean):
    """Walker constellation i: t/p/f of planes with one inclination and altitude (Walker 1984)."""

    kind: Literal["walker"]
    inclination_deg: Number = key("Inclination", "deg", ge=0, le=180)
    planes: Whole = key("Number of planes p", "-", ge=1, le=100_000)
    satellites_per_plane: Whole = key("Satellites in each plane, t/p", "-", ge=1, le=100_000)
    pattern: Literal["delta", "star"] = key(
        "Nodes spread over 360 deg (delta) or 180 deg (star)", default="delta"
    )
    phasing: Whole = key(
        "Walker's f: satellites of the next plane are ahead by f * 360 deg / t; below planes",
        "-",
        0,
        ge=0,
        lt=100_000,
    )
    raan_deg: Number = key(
        "Right ascension of the first node at the first epoch", "deg", 0.0, ge=-360, le=360
    )

    @model_validator(mode="after")
    def _phasing(self):
        if self.phasing >= self.planes:
            raise refuse("phasing", f"got {self.phasing}; must be < planes = {self.planes}")
        return self


class ElementsOrbit(_Mean):
    """One satellite by its mean elements at the first epoch, moved by secular J2 rates afterwards."""

    kind: Literal["elements"]
    inclination_deg: Number = key("Inclination", "deg", ge=0, le=180)
    raan_deg: Number | None = key(
        "Right ascension of the ascending node; 0 if neither it nor beta_deg is given",
        "deg",
        None,
        ge=-360,
        le=360,
    )
    mean_anomaly_deg: Number = key("Mean anomaly at the first epoch", "deg", 0.0, ge=-360, le=360)
    beta_deg: Number | None = key(
        "Beta angle at the first epoch, in place of raan_deg: the node is placed so that it is met",
        "deg",
        None,
        ge=-90,
        le=90,
    )

    @model_validator(mode="after")
    def _node(self):
        if self.beta_deg is not None and self.raan_deg is not None:
            raise refuse(
                "beta_deg", f"got {self.beta_deg:g} beside raan_deg = {self.raan_deg:g}; give one of the two"
            )
        return self


class TleOrbit(Section):
    """A file of two-line element sets, with or without name lines, propagated by SGP4."""

    kind: Literal["tle"]
    file: Text = key("Path of the file, relative to the case file", min_length=1)
    lines: tuple[Text, ...] | None = key(
        "The text of the file; filled in on loading, so that the case is complete without it", default=None
    )


Orbit = Annotated[
    SunSynchronousOrbit | ClusterOrbit | WalkerOrbit | ElementsOrbit | TleOrbit, Field(discriminator="kind")
]


# ------------------------------------------------------------------------------------------ environment


class Incident(Section):
    """Prescribed flux on the two radiator faces, all revolution long, in place of the computed one."""

    solar_w_m2: FacesFlux = key("Solar band, direct; [face 0, face 1] or one number", "W/m2", (0.0, 0.0))
    albedo_w_m2: FacesFlux = key("Solar band, from the Earth; [face 0, face 1]", "W/m2", (0.0, 0.0))
    infrared_w_m2: FacesFlux = key("Infrared; [face 0, face 1]", "W/m2", (0.0, 0.0))


# Solar flux at 1 au, Bond albedo, outgoing longwave. Hot and cold: NASA SSP 41000; nominal: TSIS-1 1361,
# albedo and longwave of the generic range .25-.35, 218-258.
LEVELS = {
    "nominal": (1361.0, 0.30, 237.0),
    "hot": (1423.0, 0.40, 286.0),
    "cold": (1321.0, 0.20, 206.0),
}


YEAR = Field(min_length=12, max_length=12)


class EarthTable(Section):
    """Means along the parallels of a table of the Earth."""

    latitude_deg: tuple[Number, ...] = key("Of the rows, ascending", "deg")
    albedo: tuple[Annotated[tuple[Fraction, ...], YEAR], ...] = key("Twelve months for each row", "-")
    infrared_w_m2: tuple[Annotated[tuple[Flux, ...], YEAR], ...] = key("Likewise, emitted", "W/m2")

    @model_validator(mode="after")
    def _rows(self):
        for name in ("albedo", "infrared_w_m2"):
            if len(getattr(self, name)) != len(self.latitude_deg):
                raise refuse(
                    name, f"got {len(getattr(self, name))} rows; latitude_deg has {len(self.latitude_deg)}"
                )
        return self


class Environment(Section):
    """Sun and Earth."""

    level: Literal["nominal", "hot", "cold"] = key(
        "nominal: 1361 W/m2, .30, 237 W/m2; hot: 1423, .40, 286; cold: 1321, .20, 206 (NASA SSP 41000)",
        default="nominal",
    )
    solar_flux_w_m2: Number | None = key("Solar flux in place of the level's", "W/m2", None, ge=500, le=3000)
    scale_with_distance: Flag | None = key(
        "Multiply the solar flux by (1 au / distance)^2; by default only for level"
        " nominal with no solar_flux_w_m2",
        default=None,
    )
    albedo: Number | None = key("Bond albedo in place of the level's", "-", None, ge=0, le=1)
    earth_infrared_w_m2: Number | None = key(
        "Earth's outgoing infrared in place of the level's", "W/m2", None, ge=0, le=500
    )
    earth: Literal["uniform", "knocke", "grid"] = key(
        "uniform: one albedo and one infrared flux; knocke: by latitude and season (Knocke 1988); grid: a table by"
        " latitude and month. For the last two albedo and earth_infrared_w_m2 are means over globe and year, to which"
        " they are scaled, and level is nominal",
        default="uniform",
    )
    earth_file: Text | None = key(
        "Table for earth grid, .csv or .nc, relative to the case file", default=None, min_length=1
    )
    earth_table: EarthTable | None = key("The table of the file, mean over longitude", default=None)
    earth_radius_km: Number = key(
        "Radius of the sphere that reflects and radiates; the shadow always has 6378.137 km",
        "km",
        EARTH_RADIUS_KM,
        ge=6300,
        le=6500,
    )
    space_temperature_k: Number = key("Temperature of the sky", "K", 2.7255, ge=0, le=300)
    life: Literal["beginning", "end"] = key(
        "Surfaces, cells and battery as new, or after mass.life_years", default="beginning"
    )
    incident: Incident | None = key("Prescribed flux on the radiator", default=None)

    @model_validator(mode="after")
    def _earth(self):
        if self.earth != "grid" and self.earth_file is not None:
            raise refuse(
                "earth_file", f"got {self.earth_file!r} with earth = '{self.earth}'; only 'grid' has it"
            )
        if self.earth == "uniform":
            return self
        if self.level != "nominal":
            raise refuse(
                "level",
                f"got '{self.level}' with earth = '{self.earth}'; the levels are those of a uniform Earth: give"
                " solar_flux_w_m2, albedo and earth_infrared_w_m2, to which this one is scaled",
            )
        if self.earth == "grid" and self.earth_table is None:
            raise refuse("earth_file", "missing; earth = 'grid' needs it")
        return self


# --------------------------------------------------------------------------------------------- attitude


class Attitude(Section):
    """How the body axes point.

    sun: +z to the Sun, +x by `roll`. nadir: +z down, +x along the velocity, or on the Sun's side with
    yaw_steering. velocity: +x along the velocity, +z down. inertial: +z to (ra_deg, dec_deg), +x to the
    north turned by roll_deg about +z.
    """

    pointing: Literal["sun", "nadir", "inertial", "velocity"] = key("Pointing law", default="sun")
    roll: Literal["along_track", "nadir", "inertial"] | None = key(
        "Sun pointing only: +x along the velocity (default), to nadir, or to"
        " (ra_deg, dec_deg), as near as it gets",
        default=None,
    )
    yaw_steering: Flag | None = key(
        "Nadir pointing only: turn about nadir so that the Sun stays in the +x half of the x-z plane",
        default=None,
    )
    ra_deg: Number | None = key(
        "Right ascension of +z (pointing inertial) or of +x (roll inertial)", "deg", None, ge=-360, le=360
    )
    dec_deg: Number | None = key("Declination, likewise", "deg", None, ge=-90, le=90)
    roll_deg: Number | None = key(
        "Pointing inertial only: turn about +z; 0 if not given", "deg", None, ge=-360, le=360
    )

    @model_validator(mode="after")
    def _used(self):
        inertial = self.pointing == "inertial" or self.roll == "inertial"
        if self.roll is not None and self.pointing != "sun":
            raise refuse(
                "roll", f"got '{self.roll}' with pointing = '{self.pointing}'; only pointing = 'sun' has it"
            )
        if self.yaw_steering is not None and self.pointing != "nadir":
            raise refuse(
                "yaw_steering",
                f"got {str(self.yaw_steering).lower()} with pointing = '{self.pointing}';"
                " only pointing = 'nadir' has it",
            )
        for name in ("ra_deg", "dec_deg"):
            value = getattr(self, name)
            if inertial and value is None:
                raise refuse(name, "missing; pointing or roll 'inertial' needs ra_deg and dec_deg")
            if not inertial and value is not None:
                raise refuse(name, f"got {value:g}; only pointing or roll 'inertial' has it")
        if self.roll_deg is not None and self.pointing != "inertial":
            raise refuse(
                "roll_deg",
                f"got {self.roll_deg:g} with pointing = '{self.pointing}'; only pointing = 'inertial' has it",
            )
        return self


# ------------------------------------------------------------------------------------------------ power


class Array(Section):
    """Solar array."""

    area_m2: Number = key("Area of the cells", "m2", gt=0, le=1e8)
    efficiency: Number = key(
        "Efficiency at the reference temperature, beginning of life, of the whole area", "-", gt=0, lt=1
    )
    temperature_coefficient_per_k: Number = key(
        "Relative change of the efficiency with temperature", "1/K", -0.0025, ge=-0.02, le=0.0
    )
    reference_temperature_c: Number = key(
        "Temperature at which the efficiency holds", "C", 28.0, ge=-100, le=150
    )
    annual_degradation: Number = key("Share of the efficiency lost per year", "1/year", 0.0, ge=0, lt=0.5)
    drive: Literal["fixed", "one_axis", "two_axis"] = key(
        "fixed: front along axis; one_axis: turns about axis; two_axis: always to the Sun", default="fixed"
    )
    axis: BodyAxis | None = key(
        "Body axis: the front's normal (fixed, default +z) or the drive's axis (one_axis, default +y)",
        default=None,
    )
    solar_absorptance: Number = key(
        "Solar absorptance of the front, electrical part included", "-", 0.88, gt=0, le=1
    )
    emissivity_front: Number = key("Infrared emissivity of the front", "-", 0.80, gt=0, le=1)
    emissivity_back: Number = key("Infrared emissivity of the back", "-", gt=0, le=1)
    back_solar_absorptance: Number = key("Solar absorptance of the back", "-", ge=0, le=1)
    areal_heat_capacity_j_m2_k: Number = key("Heat capacity per area", "J/m2/K", gt=0, le=1e6)
    areal_mass_kg_m2: Number = key("Mass per area, with its structure", "kg/m2", gt=0, le=100)
    max_temperature_c: Number = key("Highest allowed temperature", "C", 150.0, ge=-100, le=300)

    @model_validator(mode="after")
    def _energy(self):
        if self.efficiency >= self.solar_absorptance:
            raise refuse(
                "efficiency",
                f"got {self.efficiency:g}; must be < solar_absorptance = {self.solar_absorptance:g}:"
                " cells cannot convert more than they absorb",
            )
        if self.drive == "two_axis" and self.axis is not None:
            raise refuse("axis", f"got '{self.axis}' with drive = 'two_axis', which has no axis of the body")
        return self


class Battery(Section):
    """Battery between its charge limits."""

    capacity_kwh: Number = key("Capacity from empty to full, beginning of life", "kWh", gt=0, le=1e7)
    min_soc: Number = key("Lowest state of charge used", "-", 0.2, ge=0, lt=1)
    max_soc: Number = key("Highest state of charge used", "-", 1.0, gt=0, le=1)
    initial_soc: Number = key("State of charge at the start", "-", 0.6, ge=0, le=1)
    charge_efficiency: Number = key("Stored energy per energy taken from the bus", "-", 0.97, gt=0, le=1)
    discharge_efficiency: Number = key("Energy to the bus per energy drawn", "-", 0.97, gt=0, le=1)
    charge_limit_kw: Number | None = key(
        "Largest power taken from the bus; give it or charge_rate_per_h", "kW", None, gt=0, le=1e7
    )
    discharge_limit_kw: Number | None = key(
        "Largest power given to the bus; give it or discharge_rate_per_h", "kW", None, gt=0, le=1e7
    )
    charge_rate_per_h: Number | None = key(
        "Largest power taken from the bus per capacity_kwh, in place of charge_limit_kw",
        "1/h",
        None,
        gt=0,
        le=1000,
    )
    discharge_rate_per_h: Number | None = key(
        "Largest power given to the bus per capacity_kwh, in place of discharge_limit_kw",
        "1/h",
        None,
        gt=0,
        le=1000,
    )
    calendar_fade_per_year: Number = key("Share of the capacity lost per year", "1/year", 0.0, ge=0, lt=0.5)
    cycle_fade: Number = key("Share of the capacity lost per cycle", "-", 0.0, ge=0, lt=0.01)
    cycles_per_year: Number = key("Cycles a year, for cycle_fade", "1/year", 0.0, ge=0, le=10000)
    heat_capacity_kj_k: Number = key("Heat capacity of the battery node", "kJ/K", gt=0, le=1e7)
    to_structure_w_k: Number = key("Conductance to the structure", "W/K", gt=0, le=1e6)
    min_temperature_c: Number = key("Lowest allowed temperature", "C", 0.0, ge=-100, le=100)
    max_temperature_c: Number = key("Highest allowed temperature", "C", 45.0, ge=-100, le=200)
    mass_kg: Number | None = key(
        "Mass; by default that of capacity_kwh at specific_energy_wh_kg", "kg", None, gt=0, le=1e8
    )
    specific_energy_wh_kg: Number | None = key(
        "Capacity per mass, with packaging; 150 if neither it nor mass_kg is given",
        "Wh/kg",
        None,
        gt=0,
        le=2000,
    )

    def power_limit_kw(self, way: Literal["charge", "discharge"]) -> float:
        """Largest power, given or from the rate and the capacity at the beginning of life."""
        given = getattr(self, f"{way}_limit_kw")
        return self.capacity_kwh * getattr(self, f"{way}_rate_per_h") if given is None else given

    @model_validator(mode="after")
    def _sizes(self):
        for way in ("charge", "discharge"):
            given = [getattr(self, f"{way}_{name}") for name in ("limit_kw", "rate_per_h")]
            if (given[0] is None) == (given[1] is None):
                have = "neither" if given[0] is None else "both"
                raise refuse(
                    f"{way}_limit_kw",
                    f"got {have} of {way}_limit_kw and {way}_rate_per_h; give one of the two",
                )
        if self.mass_kg is not None and self.specific_energy_wh_kg is not None:
            raise refuse(
                "specific_energy_wh_kg",
                f"got {self.specific_energy_wh_kg:g} beside mass_kg = {self.mass_kg:g}; give one of the two",
            )
        return self

    @model_validator(mode="after")
    def _order(self):
        if self.min_soc >= self.max_soc:
            raise refuse("min_soc", f"got {self.min_soc:g}; must be < max_soc = {self.max_soc:g}")
        if self.initial_soc <= self.min_soc:
            raise refuse("initial_soc", f"got {self.initial_soc:g}; must be > min_soc = {self.min_soc:g}")
        if self.initial_soc > self.max_soc:
            raise refuse("initial_soc", f"got {self.initial_soc:g}; must be <= max_soc = {self.max_soc:g}")
        if self.min_temperature_c >= self.max_temperature_c:
            raise refuse(
                "min_temperature_c",
                f"got {self.min_temperature_c:g}; must be < max_temperature_c = {self.max_temperature_c:g}",
            )
        if (self.cycle_fade > 0) != (self.cycles_per_year > 0):
            raise refuse(
                "cycles_per_year",
                f"got {self.cycles_per_year:g} with cycle_fade = {self.cycle_fade:g}; give both or neither",
            )
        return self


class Bus(Section):
    """Power bus."""

    base_load_kw: Number = key(
        "Load of the platform; its heat goes into the structure", "kW", 0.0, ge=0, le=1e7
    )
    conversion_efficiency: Number = key(
        "Power on the bus per power of the array; the loss heats the structure", "-", 1.0, gt=0, le=1
    )
    transmitted_kw: Number = key(
        "Radio or laser power that leaves the satellite, on top of base_load_kw", "kW", 0.0, ge=0, le=1e7
    )


class Window(Section):
    """A part of the revolution with a demand of its own."""

    start: Number = key("Begin, as a fraction of the revolution after orbit noon", "-", ge=0, lt=1)
    end: Number = key("End, likewise; for a window across noon give two", "-", gt=0, le=1)
    demand: Number = key("Demand inside", "-", ge=0, le=1)

    @model_validator(mode="after")
    def _order(self):
        if self.start >= self.end:
            raise refuse(
                "start", f"got {self.start:g}; must be < end = {self.end:g} (across noon: two windows)"
            )
        return self


class Payload(Section):
    """Compute: chips on a cold plate."""

    power_kw: Number = key("Electrical power at full demand", "kW", gt=0, le=1e7)
    chip: Flag = key("Have a chip node; false: all heat enters the cold plate", default=True)
    chip_fraction: Number | None = key(
        "Share of the power that heats the chips, the rest the cold plate; 1 if not given",
        "-",
        None,
        ge=0,
        le=1,
    )
    packages: Whole | None = key("Number of chip packages", "-", None, ge=1, le=100_000_000)
    junction_resistance_k_w: Number | None = key(
        "Thermal resistance of one package, junction to cold plate", "K/W", None, gt=0, le=1000
    )
    chip_heat_capacity_j_k: Number | None = key("Heat capacity of one package", "J/K", None, gt=0, le=1e6)
    cold_plate_heat_capacity_kj_k: Number = key("Heat capacity of the cold plates", "kJ/K", gt=0, le=1e7)
    max_chip_temperature_c: Number | None = key(
        "Highest allowed junction temperature; 95 if not given", "C", None, ge=-50, le=300
    )
    throttle_start_c: Number | None = key(
        "Junction (cold plate without chip) temperature at which power is first cut; none: no throttling",
        "C",
        None,
        ge=-50,
        le=300,
    )
    throttle_end_c: Number | None = key(
        "Temperature at which the floor is reached", "C", None, ge=-50, le=300
    )
    throttle_floor: Number | None = key(
        "Share of the power left at throttle_end_c; 0 if not given", "-", None, ge=0, le=1
    )
    demand: Number = key("Demand outside windows, as a share of power_kw", "-", 1.0, ge=0, le=1)
    eclipse_demand: Number = key(
        "Factor on the demand while less than half of the Sun is seen", "-", 1.0, ge=0, le=1
    )
    windows: tuple[Window, ...] = key(
        "Parts of the revolution with another demand", default=(), max_length=16
    )

    @model_validator(mode="after")
    def _chip(self):
        names = ("packages", "junction_resistance_k_w", "chip_heat_capacity_j_k")
        if self.chip:
            for name in names:
                if getattr(self, name) is None:
                    raise refuse(name, "missing; the chip node needs it (or set payload.chip = false)")
        else:
            for name in (*names, "chip_fraction", "max_chip_temperature_c"):
                if getattr(self, name) is not None:
                    raise refuse(
                        name, f"got {getattr(self, name):g} with chip = false, which has no chip node"
                    )
        start, end = self.throttle_start_c, self.throttle_end_c
        if (start is None) != (end is None):
            name, other = (
                ("throttle_start_c", "throttle_end_c")
                if start is None
                else ("throttle_end_c", "throttle_start_c")
            )
            raise refuse(name, f"missing; {other} = {getattr(self, other):g} needs it")
        if start is None and self.throttle_floor is not None:
            raise refuse(
                "throttle_floor", f"got {self.throttle_floor:g}; needs throttle_start_c and throttle_end_c"
            )
        if start is not None and start >= end:
            raise refuse("throttle_start_c", f"got {start:g}; must be < throttle_end_c = {end:g}")
        order = sorted(self.windows, key=lambda w: w.start)
        for a, b in itertools.pairwise(order):
            if b.start < a.end:
                raise refuse("windows", f"{a.start:g}..{a.end:g} and {b.start:g}..{b.end:g} overlap")
        return self


# ---------------------------------------------------------------------------------------------- thermal


class Loop(Section):
    """Pumped coolant loop: cold plate to radiator and back."""

    coolant: Literal[tuple(COOLANTS)] | None = key(  # pyright: ignore[reportInvalidTypeForm]
        "Coolant of the table above; or give the properties", default=None
    )
    property_temperature_c: Number | None = key(
        "Temperature at which the table's properties are taken; 40 if not given", "C", None, ge=-200, le=300
    )
    specific_heat_j_kg_k: Number | None = key(
        "Specific heat, in place of the table's", "J/kg/K", None, ge=500, le=20000
    )
    density_kg_m3: Number | None = key("Density, in place of the table's", "kg/m3", None, ge=100, le=5000)
    viscosity_pa_s: Number | None = key(
        "tube_diameter_mm only: dynamic viscosity, in place of the table's", "Pa s", None, ge=1e-6, le=100
    )
    conductivity_w_m_k: Number | None = key(
        "tube_diameter_mm only: thermal conductivity of the coolant, in place of the table's",
        "W/m/K",
        None,
        ge=0.01,
        le=200,
    )
    freezing_c: Number | None = key("Freezing point, in place of the table's", "C", None, ge=-200, le=100)
    boiling_c: Number | None = key(
        "Boiling point at the loop's pressure, in place of the table's", "C", None, ge=-100, le=500
    )
    mass_flow_kg_s: Number = key("Mass flow of the whole loop", "kg/s", gt=0, le=1e6)
    cold_plate_conductance_w_k: Number | None = key(
        "UA from cold plate to coolant; needed with a payload", "W/K", None, gt=0, le=1e9
    )
    wall_conductance_w_m_k: Number | None = key(
        "From coolant (or heat pipe's fluid) to the panel, per metre of one tube or pipe; give it or"
        " tube_diameter_mm",
        "W/m/K",
        None,
        gt=0,
        le=1e5,
    )
    tube_diameter_mm: Number | None = key(
        "Inner (hydraulic) diameter of a tube, from which the film's conductance follows with the flow",
        "mm",
        None,
        ge=0.1,
        le=1000,
    )
    bond_conductance_w_m_k: Number | None = key(
        "tube_diameter_mm only: from the tube's inner wall to the panel, in series with the film, per metre;"
        " none: perfect",
        "W/m/K",
        None,
        gt=0,
        le=1e5,
    )
    pressure_drop_kpa: Number = key("Pressure drop around the loop", "kPa", 0.0, ge=0, le=5000)
    pump_efficiency: Number = key("Hydraulic power per electrical power of the pump", "-", 0.5, gt=0, le=1)
    bypass_setpoint_c: Number | None = key(
        "Supply temperature below which coolant bypasses the radiator; none: no bypass",
        "C",
        None,
        ge=-150,
        le=300,
    )
    feed: Literal["tubes", "heat_pipes"] = key(
        "Coolant runs along each tube, or past one end of heat pipes that carry the heat along",
        default="tubes",
    )
    evaporator_fraction: Number | None = key(
        "heat_pipes only: share of the pipe's length that the coolant meets", "-", None, gt=0, le=1
    )
    min_temperature_c: Number | None = key(
        "Lowest allowed coolant temperature; freezing point if not given", "C", None, ge=-200, le=300
    )
    max_temperature_c: Number | None = key(
        "Highest allowed coolant temperature; boiling point if not given", "C", None, ge=-150, le=500
    )

    def property(self, name: str) -> float:
        """A property by its key, `specific_heat_j_kg_k` or `boiling_c` say: given, or from the table."""
        value = getattr(self, name)
        if value is not None:
            return value
        at = REFERENCE_C if self.property_temperature_c is None else self.property_temperature_c
        return COOLANTS[self.coolant].property(name, at)

    def pump_kw(self) -> float:
        """Electrical power of the pump."""
        flow = self.mass_flow_kg_s / self.property("density_kg_m3")
        return self.pressure_drop_kpa * flow / self.pump_efficiency

    @model_validator(mode="after")
    def _properties(self):
        needed = ["specific_heat_j_kg_k", "density_kg_m3", "freezing_c", "boiling_c"]
        if self.tube_diameter_mm is not None:
            needed += ["viscosity_pa_s", "conductivity_w_m_k"]
        for name in needed:
            if self.coolant is None and getattr(self, name) is None:
                raise refuse(
                    name, f"missing; give it or coolant = one of {', '.join(repr(c) for c in COOLANTS)}"
                )
        at = self.property_temperature_c
        if at is not None and self.coolant is None:
            raise refuse("property_temperature_c", f"got {at:g}; only a coolant of the table has it")
        if at is not None:
            low, high = COOLANTS[self.coolant].coldest_c, COOLANTS[self.coolant].hottest_c
            if not low <= at <= high:
                raise refuse(
                    "property_temperature_c",
                    f"got {at:g}; the table has {self.coolant} from {low:g} to {high:g}",
                )
        return self

    @model_validator(mode="after")
    def _tube(self):
        if (self.wall_conductance_w_m_k is None) == (self.tube_diameter_mm is None):
            have = "neither" if self.tube_diameter_mm is None else "both"
            raise refuse(
                "wall_conductance_w_m_k",
                f"got {have} of wall_conductance_w_m_k and tube_diameter_mm; give one of the two",
            )
        for name in ("bond_conductance_w_m_k", "viscosity_pa_s", "conductivity_w_m_k"):
            value = getattr(self, name)
            if self.tube_diameter_mm is None and value is not None:
                raise refuse(name, f"got {value:g}; only tube_diameter_mm has it")
        if self.tube_diameter_mm is not None:
            names = ("viscosity_pa_s", "specific_heat_j_kg_k", "conductivity_w_m_k")
            viscosity, specific_heat, conductivity = (self.property(name) for name in names)
            prandtl = viscosity * specific_heat / conductivity
            if prandtl < SMALLEST_PRANDTL:
                raise refuse(
                    "tube_diameter_mm",
                    f"its film needs a Prandtl number from {SMALLEST_PRANDTL:g}, the coolant has {prandtl:.3g};"
                    " give wall_conductance_w_m_k",
                )
        return self

    @model_validator(mode="after")
    def _checks(self):
        freezing, boiling = self.property("freezing_c"), self.property("boiling_c")
        if freezing >= boiling:
            raise refuse("freezing_c", f"got {freezing:g}; must be < boiling_c = {boiling:g}")
        for name in ("bypass_setpoint_c", "min_temperature_c", "max_temperature_c"):
            value = getattr(self, name)
            inside = value is None or (
                freezing < value < boiling if name == "bypass_setpoint_c" else freezing <= value <= boiling
            )
            if not inside:
                raise refuse(
                    name,
                    f"got {value:g}; must lie between freezing_c = {freezing:g} and boiling_c = {boiling:g}",
                )
        low, high = self.min_temperature_c, self.max_temperature_c
        if low is not None and high is not None and low >= high:
            raise refuse("min_temperature_c", f"got {low:g}; must be < max_temperature_c = {high:g}")
        if self.feed == "heat_pipes" and self.evaporator_fraction is None:
            raise refuse("evaporator_fraction", "missing; feed = 'heat_pipes' needs it")
        if self.feed == "tubes" and self.evaporator_fraction is not None:
            raise refuse(
                "evaporator_fraction", f"got {self.evaporator_fraction:g}; only feed = 'heat_pipes' has it"
            )
        return self


class Neighbour(Section):
    """A surface whose temperature is known and that a face of the radiator sees."""

    geometry: Literal["parallel", "perpendicular", "given"] = key(
        "parallel: opposite the whole face, of its size, length_m by radiator.area_m2 / length_m; perpendicular: a"
        " rectangle along one edge of the face; given: by view_factor and area_m2"
    )
    face: Literal[0, 1] = key("Face of the radiator that sees it", default=0)
    gap_m: Number | None = key("parallel only: distance", "m", None, gt=0, le=1e5)
    shared_edge_m: Number | None = key(
        "perpendicular only: length of the common edge", "m", None, gt=0, le=1e5
    )
    depth_m: Number | None = key("perpendicular only: extent away from the edge", "m", None, gt=0, le=1e5)
    view_factor: Number | None = key("given only: from the face to the surface", "-", None, gt=0, le=1)
    area_m2: Number | None = key("given only: area of the surface", "m2", None, gt=0, le=1e8)
    temperature_c: Number = key("Temperature", "C", ge=-273.15, le=1000)
    emissivity: Number = key("Infrared emissivity", "-", gt=0, le=1)

    @model_validator(mode="after")
    def _used(self):
        for name, geometry in (
            ("gap_m", "parallel"),
            ("shared_edge_m", "perpendicular"),
            ("depth_m", "perpendicular"),
            ("view_factor", "given"),
            ("area_m2", "given"),
        ):
            value = getattr(self, name)
            if geometry == self.geometry and value is None:
                raise refuse(name, f"missing; geometry = '{geometry}' needs it")
            if geometry != self.geometry and value is not None:
                raise refuse(name, f"got {value:g}; only geometry = '{geometry}' has it")
        return self


class Radiator(Section):
    """Flat radiator: one panel with tubes or heat pipes along its length, at one pitch.

    Face 0 looks along `normal`, face 1 the other way. x runs along the tubes, y across.
    """

    area_m2: Number = key("Area of one side", "m2", gt=0, le=1e8)
    sides: Literal[1, 2] = key("Sides that radiate: 1 (face 0 only) or 2", default=2)
    normal: BodyAxis = key("Body axis along which face 0 looks", default="+x")
    length_m: Number = key("Length along the tubes", "m", gt=0, le=1e5)
    tube_pitch_m: Number = key("Distance from tube to tube, or from pass to pass", "m", gt=0, le=100)
    tube_layout: Literal["straight", "u", "serpentine"] = key(
        "Tubes cross the length once, forth and back, or forth and back tube_passes times in all",
        default="straight",
    )
    tube_passes: Whole | None = key(
        "serpentine only: times that a tube crosses the length", "-", None, ge=2, le=MOST_PASSES
    )
    thickness_mm: Number = key("Thickness of the sheet that conducts", "mm", gt=0, le=500)
    conductivity_w_m_k: Number = key("Conductivity of the sheet (along the tubes)", "W/m/K", gt=0, le=5000)
    conductivity_across_w_m_k: Number | None = key(
        "Conductivity across the tubes; by default the same", "W/m/K", None, gt=0, le=5000
    )
    conductivity_slopes_per_k: Slopes = key(
        "c1, c2 ... of conductivity times 1 + c1 u + c2 u^2 ..., u = T - 300 K, along and across; > 0 from 100 to"
        " 600 K",
        "1/K, 1/K2 ...",
        (),
    )
    density_kg_m3: Number = key("Density of the sheet", "kg/m3", gt=0, le=25000)
    specific_heat_j_kg_k: Number = key("Specific heat of the sheet", "J/kg/K", gt=0, le=10000)
    strip_conductance_w_m: Number = key(
        "Conductivity times cross-section of one tube wall or heat pipe, along it", "W m/K", 0.0, ge=0, le=1e6
    )
    heat_pipe_capability_w_m: Number | None = key(
        "Transport capability of one heat pipe, power times effective length; none: no such limit is judged",
        "W m",
        None,
        gt=0,
        le=1e6,
    )
    emissivity: FacesFraction = key(
        "Infrared emissivity, at 300 K if it depends on temperature; [face 0, face 1] or one number", "-"
    )
    emissivity_slopes_per_k: Slopes = key(
        "c1, c2 ... of emissivity towards space times 1 + c1 u + c2 u^2 ..., u = T - 300 K, on both faces; within 0"
        " and 1 from 100 to 600 K",
        "1/K, 1/K2 ...",
        (),
    )
    solar_absorptance_begin: FacesFraction = key(
        "Solar absorptance at the beginning of life; [face 0, face 1] or one number", "-"
    )
    solar_absorptance_end: FacesFraction | None = key(
        'Solar absorptance at the end of life; needed with environment.life = "end"', "-", None
    )
    areal_mass_kg_m2: Number | None = key(
        "Mass per area of one side, with tubes and fluid; by default that of the sheet, the tubes and the rest",
        "kg/m2",
        None,
        gt=0,
        le=500,
    )
    tube_mass_kg_m: Number = key(
        "Mass of one tube or heat pipe with its fluid, per metre", "kg/m", 0.0, ge=0, le=1000
    )
    fixed_areal_mass_kg_m2: Number = key(
        "Mass per area of one side that follows neither the sheet nor the tubes", "kg/m2", 0.0, ge=0, le=500
    )
    areal_heat_capacity_j_m2_k: Number = key(
        "Heat capacity of tubes and fluid per area, added to the sheet's", "J/m2/K", 0.0, ge=0, le=1e7
    )
    heat_w_m2: Number = key("Internal heat of the panel, uniform", "W/m2", 0.0, ge=0, le=1e5)
    array_view: Literal["none", "perpendicular"] | FacesFraction = key(
        "What the faces see of the array's back: none; perpendicular (common edge, half of the array on each"
        " side); or the view factors [face 0, face 1]",
        default="none",
        union_mode="left_to_right",
    )
    shared_edge_m: Number | None = key(
        "perpendicular only: length of the common edge", "m", None, gt=0, le=1e5
    )
    array_depth_m: Number | None = key(
        "perpendicular only: depth of the array on each side of the edge", "m", None, gt=0, le=1e5
    )
    body_view: FacesFraction = key(
        "View factor from each face to the satellite's body; [face 0, face 1]", "-", (0.0, 0.0)
    )
    neighbours: tuple[Neighbour, ...] = key("Surfaces of known temperature that the faces see", default=())
    max_temperature_c: Number = key("Highest allowed panel temperature", "C", 120.0, ge=-100, le=500)

    @property
    def areal_mass(self) -> float:
        """Mass per area of one side [kg/m2]: as given, or of sheet, tubes and what is beside them."""
        if self.areal_mass_kg_m2 is not None:
            return self.areal_mass_kg_m2
        sheet = self.density_kg_m3 * self.thickness_mm / 1e3
        return sheet + self.tube_mass_kg_m / self.tube_pitch_m + self.fixed_areal_mass_kg_m2

    @property
    def passes(self) -> int:
        """Times that a tube crosses the length."""
        return {"straight": 1, "u": 2, "serpentine": self.tube_passes}[self.tube_layout]

    @staticmethod
    def range_of(slopes: tuple[float, ...]) -> tuple[tuple[float, int], tuple[float, int]]:
        """Least and greatest value of 1 + c1 u + c2 u^2 ... from 100 to 600 K, and the temperatures [K] there."""
        values = [(polynomial(slopes, T), T) for T in range(100, 601)]
        return min(values), max(values)

    @model_validator(mode="after")
    def _layout(self):
        serpentine = self.tube_layout == "serpentine"
        if serpentine and self.tube_passes is None:
            raise refuse("tube_passes", "missing; tube_layout = 'serpentine' needs it")
        if not serpentine and self.tube_passes is not None:
            raise refuse("tube_passes", f"got {self.tube_passes}; only tube_layout = 'serpentine' has it")
        if self.passes > 1 and self.heat_pipe_capability_w_m is not None:
            raise refuse(
                "heat_pipe_capability_w_m",
                f"got {self.heat_pipe_capability_w_m:g} with tube_layout = '{self.tube_layout}', which no heat"
                " pipe has",
            )
        for name in ("tube_mass_kg_m", "fixed_areal_mass_kg_m2"):
            if self.areal_mass_kg_m2 is not None and getattr(self, name) > 0:
                raise refuse(
                    name,
                    f"got {getattr(self, name):g} beside areal_mass_kg_m2 = {self.areal_mass_kg_m2:g}, which is"
                    " the mass of everything",
                )
        return self

    @model_validator(mode="after")
    def _checks(self):
        pitches = 0.5 if self.passes == 1 else self.passes
        least = self.length_m * self.tube_pitch_m * pitches
        if self.area_m2 < least * (1 - 1e-9):
            strip = "half a pitch" if self.passes == 1 else f"{pitches} pitches"
            raise refuse(
                "area_m2",
                f"got {self.area_m2:g}; must be >= {least:g}, {strip} along the length"
                f" (length_m = {self.length_m:g}, tube_pitch_m = {self.tube_pitch_m:g})",
            )
        if self.heat_pipe_capability_w_m is not None and self.strip_conductance_w_m <= 0:
            raise refuse(
                "heat_pipe_capability_w_m",
                f"got {self.heat_pipe_capability_w_m:g} with strip_conductance_w_m = 0, that of no pipe",
            )
        faces = range(self.sides)
        for face in faces:
            if self.emissivity[face] <= 0:
                raise refuse("emissivity", f"got {self.emissivity[face]:g} on face {face}; must be > 0")
        for name, most in (("conductivity", None), ("emissivity", max(self.emissivity))):
            slopes = getattr(self, f"{name}_slopes_per_k")
            (least, cold), (greatest, hot) = self.range_of(slopes)
            if least <= 0:
                raise refuse(
                    f"{name}_slopes_per_k",
                    f"got {list(slopes)}: {least:.3g} times {name} at {cold} K; must be > 0 from 100 to 600 K",
                )
            if most is not None and most * greatest > 1 + 1e-12:
                raise refuse(
                    f"{name}_slopes_per_k",
                    f"got {list(slopes)}: {name} {most * greatest:.3g} at {hot} K; must be <= 1 from 100 to 600 K",
                )
        if self.sides == 1:
            for name in ("emissivity", "solar_absorptance_begin", "solar_absorptance_end"):
                pair = getattr(self, name)
                if pair is not None and pair[0] != pair[1]:
                    raise refuse(name, f"got {list(pair)} with sides = 1; give one number")
            for name in ("array_view", "body_view"):
                pair = getattr(self, name)
                if isinstance(pair, tuple) and pair[1] > 0:
                    raise refuse(name, f"got {list(pair)} with sides = 1; the second must be 0")
        for i, neighbour in enumerate(self.neighbours):
            if neighbour.face >= self.sides:
                raise refuse(
                    f"neighbours.{i}.face", f"got {neighbour.face} with sides = {self.sides}; must be 0"
                )
            if neighbour.view_factor is not None and neighbour.area_m2 is not None:
                back = neighbour.view_factor * self.area_m2 / neighbour.area_m2
                if back > 1 + 1e-9:
                    raise refuse(
                        f"neighbours.{i}.area_m2",
                        f"got {neighbour.area_m2:g}: by reciprocity it would see the radiator with {back:.3g} > 1"
                        f" (view_factor = {neighbour.view_factor:g}, radiator.area_m2 = {self.area_m2:g})",
                    )
        perpendicular = self.array_view == "perpendicular"
        for name in ("shared_edge_m", "array_depth_m"):
            value = getattr(self, name)
            if perpendicular and value is None:
                raise refuse(name, "missing; array_view = 'perpendicular' needs it")
            if not perpendicular and value is not None:
                raise refuse(name, f"got {value:g}; only array_view = 'perpendicular' has it")
        if isinstance(self.array_view, tuple):
            for face in faces:
                total = self.array_view[face] + self.body_view[face]
                if total > 1:
                    raise refuse(
                        "body_view",
                        f"got {self.body_view[face]:g} on face {face} beside array_view"
                        f" = {self.array_view[face]:g};"
                        f" the sum {total:g} must be <= 1",
                    )
        return self


Area = Annotated[Number, Field(ge=0.0, le=1e8)]


class Structure(Section):
    """The satellite's body: one node with six outer faces."""

    mass_kg: Number = key("Mass of everything not counted elsewhere", "kg", 100.0, gt=0, le=1e9)
    mass_share: Number = key(
        "Structure that carries everything else, per mass of that; added to mass_kg", "-", 0.0, ge=0, le=10
    )
    heat_capacity_kj_k: Number = key("Heat capacity", "kJ/K", 90.0, gt=0, le=1e9)
    area_m2: Number | None = key(
        "Outer area, one sixth on each side; 6 if face_areas_m2 is not given", "m2", None, gt=0, le=1e8
    )
    face_areas_m2: tuple[Area, Area, Area, Area, Area, Area] | None = key(
        "Outer areas in the order +x, -x, +y, -y, +z, -z, in place of area_m2", "m2", None
    )
    emissivity: Number = key("Infrared emissivity of the outer surface", "-", 0.80, gt=0, le=1)
    solar_absorptance: Number = key("Solar absorptance of the outer surface", "-", 0.40, ge=0, le=1)
    mli_effective_emittance: Number | None = key(
        "Effective emittance of insulation under the outer surface; none: bare (typical of blankets: 0.05)",
        "-",
        None,
        gt=0,
        le=1,
    )

    @model_validator(mode="after")
    def _areas(self):
        if self.area_m2 is not None and self.face_areas_m2 is not None:
            raise refuse(
                "area_m2",
                f"got {self.area_m2:g} beside face_areas_m2, which add up to {sum(self.face_areas_m2):g}",
            )
        if self.face_areas_m2 is not None and sum(self.face_areas_m2) <= 0:
            raise refuse("face_areas_m2", "got only zeros; at least one face must have area")
        return self

    @property
    def faces(self) -> tuple[float, ...]:
        """Areas [m2] in the order +x -x +y -y +z -z."""
        if self.face_areas_m2 is not None:
            return self.face_areas_m2
        return ((6.0 if self.area_m2 is None else self.area_m2) / 6,) * 6


class Heater(Section):
    """Electric heater of one node: power = gain * (setpoint - T), between 0 and its maximum."""

    node: Text = key("Node that it heats")
    setpoint_c: Number = key("Temperature above which it is off", "C", ge=-200, le=200)
    gain_w_k: Number = key("Power per kelvin below the setpoint", "W/K", gt=0, le=1e6)
    max_kw: Number = key("Largest power", "kW", gt=0, le=1e6)


class Node(Section):
    """An extra lumped node."""

    heat_capacity_kj_k: Number = key("Heat capacity", "kJ/K", gt=0, le=1e9)
    heat_w: Number = key("Constant heat that the bus does not pay for", "W", 0.0, ge=-1e9, le=1e9)
    radiating_area_m2: Number = key("Area to space times its effective emissivity", "m2", 0.0, ge=0, le=1e8)
    start_temperature_c: Number | None = key(
        "Temperature at the start; run.start_temperature_c if not given", "C", None, ge=-270, le=1000
    )


class Link(Section):
    """Conductive or radiative link between two nodes, or from a node to the panel, the loop or space."""

    source: Text = key("Node", alias="from")
    to: Text = key('Another node, "panel" (spread evenly over it), "loop" (UA to the coolant) or "space"')
    conductance_w_k: Number | None = key("Conductance", "W/K", None, gt=0, le=1e9)
    radiative_m2: Number | None = key(
        "Effective radiative area: heat = sigma * area * (T1^4 - T2^4)", "m2", None, gt=0, le=1e8
    )

    @model_validator(mode="after")
    def _one(self):
        if (self.conductance_w_k is None) == (self.radiative_m2 is None):
            have = "neither" if self.conductance_w_k is None else "both"
            raise refuse(
                "conductance_w_k", f"got {have} of conductance_w_k and radiative_m2; give one of the two"
            )
        if self.source == self.to:
            raise refuse("to", f"got '{self.to}', the node that it comes from")
        if self.source in SINKS:
            raise refuse("from", f"got '{self.source}'; write the link from a node to '{self.source}'")
        if self.to == "loop" and self.radiative_m2 is not None:
            raise refuse(
                "radiative_m2", f"got {self.radiative_m2:g}; a link to the loop is a conductance_w_k"
            )
        if self.to == "space" and self.conductance_w_k is not None:
            raise refuse(
                "conductance_w_k", f"got {self.conductance_w_k:g}; a link to space is a radiative_m2"
            )
        return self


# -------------------------------------------------------------------------------------------------- run


class Spread(Section):
    """Manufacturing spread: every satellite draws its own numbers, and is solved on its own.

    Normal draws of the relative deviation, cut at 3 sigma and at the physical limits.
    """

    seed: Whole = key("Seed of the draws", "-", 0, ge=0, lt=2**63)
    radiator_absorptance: Number = key("Relative 1-sigma of the solar absorptance", "-", 0.0, ge=0, le=0.5)
    radiator_emissivity: Number = key("Relative 1-sigma of the infrared emissivity", "-", 0.0, ge=0, le=0.5)
    array_efficiency: Number = key("Relative 1-sigma of the cell efficiency", "-", 0.0, ge=0, le=0.5)
    payload_power: Number = key("Relative 1-sigma of the payload's power", "-", 0.0, ge=0, le=0.5)


class Uncertain(Section):
    """One key that is not known exactly: its distribution, around what the case gives for it."""

    name: Named = key(
        "Key of the case that varies continuously, written as after --set", min_length=1, alias="key"
    )
    distribution: Literal["normal", "uniform", "triangular", "lognormal"] = key(
        "normal: around the case's value, cut at 3 sigma; lognormal: the same of its logarithm, whose median is the"
        " case's value; uniform: between low and high; triangular: likewise, most likely the case's value",
        default="normal",
    )
    sigma: Number | None = key(
        "normal, lognormal: standard deviation before the cut, in the unit of the key",
        "as key",
        None,
        gt=0,
        le=1e12,
    )
    sigma_percent: Number | None = key(
        "In place of sigma: per cent of the case's value", "%", None, gt=0, le=100
    )
    low: Number | None = key("uniform, triangular: least value", "as key", None, ge=-1e12, le=1e12)
    high: Number | None = key("uniform, triangular: greatest value", "as key", None, ge=-1e12, le=1e12)

    @model_validator(mode="after")
    def _numbers(self):
        spreads = ("sigma", "sigma_percent"), ("low", "high")
        own, other = spreads if self.distribution in ("normal", "lognormal") else spreads[::-1]
        for name in other:
            if getattr(self, name) is not None:
                raise refuse(
                    name,
                    f"got {getattr(self, name):g} with distribution = '{self.distribution}'; it has"
                    f" {' or '.join(own) if own[0] == 'sigma' else ' and '.join(own)}",
                )
        given = [name for name in own if getattr(self, name) is not None]
        if own[0] == "sigma" and len(given) != 1:
            text = (
                "missing"
                if not given
                else f"got {self.sigma:g} beside sigma_percent = {self.sigma_percent:g}"
            )
            raise refuse(
                "sigma", f"{text}; distribution = '{self.distribution}' needs one of sigma, sigma_percent"
            )
        if own[0] == "low":
            for name in own:
                if name not in given:
                    raise refuse(name, f"missing; distribution = '{self.distribution}' needs it")
            if self.low >= self.high:
                raise refuse("low", f"got {self.low:g}; must be < high = {self.high:g}")
        return self


class Uncertainty(Section):
    """What `dawndusk study --samples` draws; without influence on a run."""

    seed: Whole = key("Seed of the samples", "-", 0, ge=0, lt=2**63)
    of: tuple[Uncertain, ...] = key("The keys, independent of each other", min_length=1, max_length=1000)

    @model_validator(mode="after")
    def _once(self):
        names = [one.name for one in self.of]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise refuse(f"of.{i}.key", f"got '{name}' again; a key has one distribution")
        return self


class Mass(Section):
    """Masses that follow from nothing else, the launch price and the life."""

    payload_kg: Number = key("Payload with its cold plates", "kg", 0.0, ge=0, le=1e9)
    payload_kg_kw: Number = key(
        "Payload per payload.power_kw, added to payload_kg", "kg/kW", 0.0, ge=0, le=1e6
    )
    loop_kg: Number = key("Pump, plumbing and fluid outside the panel", "kg", 0.0, ge=0, le=1e9)
    loop_kg_kw: Number = key(
        "Pump, plumbing and fluid per electrical power of the pump, added to loop_kg",
        "kg/kW",
        0.0,
        ge=0,
        le=1e6,
    )
    total_kg: Number | None = key("Whole satellite, in place of the sum", "kg", None, gt=0, le=1e9)
    launch_price_usd_kg: Number = key("Launch price", "USD/kg", 1500.0, ge=0, le=1e6)
    life_years: Number = key('Life; environment.life = "end" is this old', "year", 5.0, gt=0, le=50)


class Limits(Section):
    """How margins are judged."""

    uncertainty_k: Number = key(
        "Temperature margin below which a limit counts as at risk", "K", 5.0, ge=0, le=50
    )


class Run(Section):
    """What is solved, how finely, and what is kept."""

    mode: Literal["orbit", "transient", "steady"] = key(
        "orbit: periodic revolution; transient: revolutions from the start; steady: orbit-mean loads",
        default="orbit",
    )
    steps: Whole = key("Time steps of a revolution", "-", 128, ge=16, le=20000)
    cells: tuple[Annotated[Whole, Field(ge=4, le=1024)], Annotated[Whole, Field(ge=6, le=512)]] = key(
        "Cells of the panel: along the tubes (4 or more), across half a pitch (6 or more); of tubes that go forth"
        " and back on each side of every pass",
        "-",
        (32, 16),
    )
    revolutions: Whole = key("transient only: number of revolutions", "-", 1, ge=1, le=100_000)
    start_temperature_c: Number = key("Temperature of everything at the start", "C", 20.0, ge=-270, le=500)
    save: Literal["summary", "nodes", "cells"] = key(
        "Keep extremes and totals; also node histories; also panel maps", default="summary"
    )

    error_estimate: Flag = key(
        "Estimate how far grid and time step put the extremes off, from coarser ones", default=True
    )

    @model_validator(mode="after")
    def _revolutions(self):
        if self.mode != "transient" and self.revolutions != 1:
            raise refuse(
                "revolutions",
                f"got {self.revolutions} with mode = '{self.mode}'; only mode = 'transient' has it",
            )
        return self


# ----------------------------------------------------------------------------------------------- sizing


class SizingVariable(Section):
    """A key of the case that sizing may change."""

    name: Named = key(
        "Dotted, as after --set: radiator.area_m2; its value in the case is where the first search starts",
        alias="key",
        min_length=1,
    )
    min: Number = key("Least value, in the key's unit", ge=-LARGEST, le=LARGEST)
    max: Number = key("Greatest value, likewise", ge=-LARGEST, le=LARGEST)
    per: Literal["epoch"] | None = key(
        "A value for each epoch; only what changes in flight may have it, the payload's power and demands",
        default=None,
    )

    @model_validator(mode="after")
    def _order(self):
        if self.min >= self.max:
            raise refuse("min", f"got {self.min:g}; must be < max = {self.max:g} ('{self.name}')")
        return self


class SizingConstraint(Section):
    """A figure that must stay within bounds, besides the limits of the case."""

    figure: Named = key("Figure, such as depth_of_discharge or compute_percent", alias="of", min_length=1)
    min: Number | None = key("Least value, in the figure's unit", "", None, ge=-LARGEST, le=LARGEST)
    max: Number | None = key("Greatest value, likewise", "", None, ge=-LARGEST, le=LARGEST)

    @model_validator(mode="after")
    def _bounds(self):
        if self.min is None and self.max is None:
            raise refuse("min", f"missing; '{self.figure}' needs min, max or both")
        if self.min is not None and self.max is not None and self.min >= self.max:
            raise refuse("min", f"got {self.min:g}; must be < max = {self.max:g} ('{self.figure}')")
        return self


def _no_repeats(values: tuple[str, ...]) -> tuple[str, ...]:
    twice = [value for i, value in enumerate(values) if value in values[:i]]
    if twice:
        raise refuse("", f"got '{twice[0]}' twice")
    return values


class Sizing(Section):
    """What `dawndusk size` changes, for what, and under which conditions; no part of the case's hash."""

    objective: Named = key(
        "Figure to be made as small, or as large, as it is good: mass, radiator_area, price_per_kwh, compute_per_kg,"
        " delivered_compute ...",
        min_length=1,
    )
    environments: Annotated[tuple[Literal["nominal", "hot", "cold"], ...], AfterValidator(_no_repeats)] = key(
        "Levels of the environment that must all be met, besides the case's own", default=()
    )
    lives: Annotated[tuple[Literal["beginning", "end"], ...], AfterValidator(_no_repeats)] = key(
        "Times of life that must all be met, besides the case's own", default=()
    )
    epochs: Whole | None = key(
        "Number of epochs over epoch.span_days, in place of epoch.count", "-", None, ge=1, le=20_000
    )
    starts: Whole = key(
        "Searches: the first starts at the case, the others at points drawn between the bounds",
        "-",
        3,
        ge=1,
        le=100,
    )
    seed: Whole = key("Of those draws", "-", 0, ge=0, lt=2**63)
    smooth: Number = key(
        "Width of smooth extremes, in the unit of each figure, with which each search begins; it ends with exact"
        " ones. 0: exact from the start",
        "",
        0.0,
        ge=0,
        le=100,
    )
    ignore: tuple[Named, ...] = key("Limits of the case that need not be met, by name", default=())
    variables: Annotated[tuple[SizingVariable, ...], Field(min_length=1)] = key("What is changed")
    constraints: tuple[SizingConstraint, ...] = key("Figures to be held, besides the limits", default=())

    @model_validator(mode="after")
    def _once(self):
        names = [variable.name for variable in self.variables]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise refuse(f"variables.{i}.key", f"got '{name}' twice")
        return self


# ------------------------------------------------------------------------------------------------- case


class Case(Section):
    """A whole case. `radiator` and `orbit` must be given; everything else has defaults or is left out."""

    title: Text = key("One line that says what the case is", default="")
    epoch: Epoch = Epoch()
    orbit: Orbit
    environment: Environment = Environment()
    attitude: Attitude = Attitude()
    array: Array | None = None
    battery: Battery | None = None
    bus: Bus | None = None
    payload: Payload | None = None
    loop: Loop | None = None
    radiator: Radiator
    structure: Structure = Structure()
    heaters: dict[NodeName, Heater] = {}
    nodes: dict[NodeName, Node] = {}
    links: tuple[Link, ...] = ()
    spread: Spread | None = None
    uncertainty: Uncertainty | None = None
    mass: Mass = Mass()
    limits: Limits = Limits()
    run: Run = Run()
    sizing: Sizing | None = None

    # Where the case came from, for messages; no part of the case, nor of its hash.
    _source: str = PrivateAttr(default="case")

    @property
    def source(self) -> str:
        """File that the case was read from."""
        return self._source

    @property
    def node_names(self) -> tuple[str, ...]:
        """Nodes of the thermal network, in the order of the arrays."""
        present = {
            "structure": True,
            "chip": self.payload is not None and self.payload.chip,
            "cold_plate": self.payload is not None,
            "battery": self.battery is not None,
            "array": self.array is not None,
        }
        return (*(name for name in BUILT_IN_NODES if present[name]), *self.nodes)

    @model_validator(mode="after")
    def _names(self):
        for name in self.nodes:
            if name in BUILT_IN_NODES or name in SINKS:
                raise refuse(f"nodes.{name}", f"the name '{name}' is taken; choose another")
        known = self.node_names
        for i, link in enumerate(self.links):
            for end, name, allowed in (("from", link.source, known), ("to", link.to, known + SINKS)):
                if name not in allowed:
                    raise refuse(f"links.{i}.{end}", _no_node(name, allowed))
            if link.to == "loop" and self.loop is None:
                raise refuse(f"links.{i}.to", "got 'loop', but the case has no [loop]")
        heated: dict[str, str] = {}
        for name, heater in self.heaters.items():
            if heater.node not in known:
                raise refuse(f"heaters.{name}.node", _no_node(heater.node, known))
            if heater.node in heated:
                raise refuse(
                    f"heaters.{name}.node",
                    f"got '{heater.node}', which heaters.{heated[heater.node]} has"
                    " already; one heater a node",
                )
            heated[heater.node] = name
        return self

    @model_validator(mode="after")
    def _sections(self):
        if self.battery is not None and self.array is None:
            raise refuse("battery", "a battery needs an [array] that charges it")
        if self.array is None:
            need = "needs an [array] that feeds it"
            heat = "heat from elsewhere is nodes.NAME.heat_w or radiator.heat_w_m2"
            loads = {"payload": self.payload, "bus": self.bus, "heaters": self.heaters}
            for name, load in loads.items():
                if load:
                    raise refuse(name, f"{need}; {heat}")
            if self.loop is not None and self.loop.pressure_drop_kpa > 0:
                raise refuse(
                    "loop.pressure_drop_kpa",
                    f"got {self.loop.pressure_drop_kpa:g}: the pump {need}",
                )
        for name, section in (("payload", self.payload), ("loop", self.loop)):
            value = getattr(self.mass, f"{name}_kg_kw")
            if section is None and value > 0:
                raise refuse(f"mass.{name}_kg_kw", f"got {value:g}, but the case has no [{name}]")
        radiator = self.radiator
        if radiator.array_view != "none" and self.array is None:
            raise refuse(
                "radiator.array_view", f"got {_show(radiator.array_view)}, but the case has no [array]"
            )
        if self.environment.life == "end" and radiator.solar_absorptance_end is None:
            raise refuse("radiator.solar_absorptance_end", 'missing; environment.life = "end" needs it')
        if self.environment.life == "end" and radiator.solar_absorptance_end is not None:
            for face, (begin, end) in enumerate(
                zip(radiator.solar_absorptance_begin, radiator.solar_absorptance_end)
            ):
                if end < begin:
                    raise refuse(
                        "radiator.solar_absorptance_end",
                        f"got {end:g} on face {face}; must be >= solar_absorptance_begin = {begin:g}",
                    )
        if self.environment.life == "end" and self.battery is not None:
            b, years = self.battery, self.mass.life_years
            if b.calendar_fade_per_year * years + b.cycle_fade * b.cycles_per_year * years >= 1:
                raise refuse(
                    "battery.calendar_fade_per_year",
                    f"got {b.calendar_fade_per_year:g} with cycle_fade ="
                    f" {b.cycle_fade:g} and cycles_per_year ="
                    f" {b.cycles_per_year:g}: nothing is left after mass.life_years = {years:g}",
                )
        return self

    @model_validator(mode="after")
    def _views(self):
        r = self.radiator
        if self.array is None:
            pass
        elif r.array_view == "perpendicular":
            seen = r.shared_edge_m * r.array_depth_m * r.sides
            if seen > self.array.area_m2 * (1 + 1e-9):
                raise refuse(
                    "radiator.array_depth_m",
                    f"got {r.array_depth_m:g} with shared_edge_m ="
                    f" {r.shared_edge_m:g}: {seen:g} m2 of array on"
                    f" {r.sides} side(s); must be <= array.area_m2 = {self.array.area_m2:g}",
                )
        elif r.array_view != "none":
            back = sum(r.array_view) * r.area_m2 / self.array.area_m2
            if back > 1:
                raise refuse(
                    "radiator.array_view",
                    f"got {list(r.array_view)}: by reciprocity the array's back would see the radiator with"
                    f" {back:.3g} > 1 (radiator.area_m2 = {r.area_m2:g},"
                    f" array.area_m2 = {self.array.area_m2:g})",
                )
        body = sum(r.body_view) * r.area_m2 / sum(self.structure.faces)
        if body > 1:
            raise refuse(
                "radiator.body_view",
                f"got {list(r.body_view)}: by reciprocity the body would see the radiator with {body:.3g} > 1"
                f" (radiator.area_m2 = {r.area_m2:g}, structure's faces {sum(self.structure.faces):g} m2)",
            )
        return self

    @model_validator(mode="after")
    def _heat_paths(self):
        loop = self.loop
        on_loop = {link.source for link in self.links if link.to == "loop"}
        layout = self.radiator.tube_layout
        if layout != "straight" and (loop is None or loop.feed != "tubes"):
            raise refuse(
                "radiator.tube_layout",
                f"got '{layout}'; needs a [loop] with feed = 'tubes', heat pipes and bare panels are straight",
            )
        if loop is not None:
            if self.payload is not None and loop.cold_plate_conductance_w_k is None:
                raise refuse("loop.cold_plate_conductance_w_k", "missing; a [payload] on a [loop] needs it")
            if self.payload is None and loop.cold_plate_conductance_w_k is not None:
                raise refuse(
                    "loop.cold_plate_conductance_w_k",
                    f"got {loop.cold_plate_conductance_w_k:g}, but the case has no"
                    " [payload], so no cold plate",
                )
            if self.payload is None and not on_loop:
                raise refuse("loop", 'nothing is on it: give a [payload], or a link to = "loop"')
            if loop.feed == "heat_pipes" and self.radiator.strip_conductance_w_m <= 0:
                raise refuse(
                    "radiator.strip_conductance_w_m",
                    f"got {self.radiator.strip_conductance_w_m:g}; loop.feed ="
                    " 'heat_pipes' needs that of a pipe",
                )
            bore, pitch = loop.tube_diameter_mm, self.radiator.tube_pitch_m
            if bore is not None and bore >= 1e3 * pitch:
                raise refuse(
                    "loop.tube_diameter_mm",
                    f"got {bore:g}; must be < radiator.tube_pitch_m = {pitch:g}, in mm {1e3 * pitch:g}",
                )
            if self.payload is not None:
                on_loop.add("cold_plate")
        # Every node must lose its heat somewhere, or the periodic state does not exist.
        edges: dict[str, set[str]] = {name: set() for name in self.node_names}
        pairs = [("chip", "cold_plate"), ("battery", "structure")]
        pairs += [(link.source, link.to) for link in self.links if link.to not in SINKS]
        for a, b in pairs:
            if a in edges and b in edges:
                edges[a].add(b)
                edges[b].add(a)
        to_panel = on_loop | {link.source for link in self.links if link.to == "panel"}
        to_space = {link.source for link in self.links if link.to == "space"} | {"structure", "array"}
        to_space |= {name for name, node in self.nodes.items() if node.radiating_area_m2 > 0}
        for name in self.node_names:
            reached, frontier = {name}, [name]
            while frontier:
                new = edges[frontier.pop()] - reached
                reached |= new
                frontier += new
            if name in ("chip", "cold_plate") and not reached & to_panel:
                raise refuse(
                    "payload",
                    "its heat has no way to the radiator: give a [loop], or a link from"
                    ' = "cold_plate", to = "panel"',
                )
            if not reached & (to_panel | to_space):
                raise refuse(
                    f"nodes.{name}",
                    "its heat has no way out: give radiating_area_m2 or a link to a node, panel or space",
                )
        return self


def _no_node(name: str, allowed: tuple[str, ...]) -> str:
    return f"got '{name}'; the nodes of this case are {', '.join(allowed)}"


def _show(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else str(list(value) if isinstance(value, tuple) else value)


# --------------------------------------------------------------------------------------- key reference

# Heading of each table in the reference, in the order of a case file.
TABLES: tuple[tuple[str, type[Section]], ...] = (
    ("[epoch]", Epoch),
    ('[orbit] kind = "sun_synchronous"', SunSynchronousOrbit),
    ('[orbit] kind = "cluster"', ClusterOrbit),
    ('[orbit] kind = "walker"', WalkerOrbit),
    ('[orbit] kind = "elements"', ElementsOrbit),
    ('[orbit] kind = "tle"', TleOrbit),
    ("[environment]", Environment),
    ("[environment.incident]", Incident),
    ("[attitude]", Attitude),
    ("[array]", Array),
    ("[battery]", Battery),
    ("[bus]", Bus),
    ("[payload]", Payload),
    ("[[payload.windows]]", Window),
    ("[loop]", Loop),
    ("[radiator]", Radiator),
    ("[[radiator.neighbours]]", Neighbour),
    ("[structure]", Structure),
    ("[heaters.NAME]", Heater),
    ("[nodes.NAME]", Node),
    ("[[links]]", Link),
    ("[spread]", Spread),
    ("[uncertainty]", Uncertainty),
    ("[[uncertainty.of]]", Uncertain),
    ("[mass]", Mass),
    ("[limits]", Limits),
    ("[run]", Run),
    ("[sizing]", Sizing),
    ("[[sizing.variables]]", SizingVariable),
    ("[[sizing.constraints]]", SizingConstraint),
)


def _bounds(metadata: list[Any]) -> str:
    parts = []
    for sign, name in ((">", "gt"), ("≥", "ge"), ("<", "lt"), ("≤", "le")):
        for item in metadata:
            value = getattr(item, name, None)
            if value is not None:
                parts.append(f"{sign} {value:g}")
    return ", ".join(parts)


def _kind(annotation: Any, metadata: list[Any]) -> str:
    """What a key takes, in words."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(args[0], [*args[1:], *metadata])
    if origin is Literal:
        return ", ".join(f'"{a}"' if isinstance(a, str) else f"{a}" for a in args)
    if origin is Union or isinstance(annotation, types.UnionType):
        return " or ".join(_kind(a, metadata) for a in args if a is not type(None))
    for item in metadata:  # pydantic keeps the bounds of a nested Field on the FieldInfo
        metadata = [*metadata, *getattr(item, "metadata", [])]
    if origin is tuple:
        if len(args) == 2 and args[1] is Ellipsis:
            inner = get_args(args[0])[0] if get_origin(args[0]) is Annotated else args[0]
            if get_origin(inner) is Annotated or inner is float:
                return "list of " + _kind(args[0], []).replace("number", "numbers")
            if get_origin(inner) is Literal:
                return "list of " + _kind(inner, [])
            return "list of strings" if inner is str else "list of tables"
        inner = [_kind(a, []) for a in args]
        return f"{len(inner)} × {inner[0]}" if len(set(inner)) == 1 else "[" + "; ".join(inner) + "]"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "table"
    words = {
        float: "number",
        int: "whole number",
        str: "string",
        bool: "true, false",
        datetime: "date and time",
    }
    bounds = _bounds(metadata)
    return words[annotation] + (f" {bounds}" if bounds else "")


def _default(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return "[" + ", ".join(_default(v) for v in value) + "]"
    return f"{value:g}"


def markdown(model: type[Section]) -> str:
    """The keys of one table of the case file as Markdown: key, values with range, default, meaning."""
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    # `kind` first: pydantic puts inherited keys before it.
    for name, info in sorted(model.model_fields.items(), key=lambda item: item[0] != "kind"):
        if name in INLINED:
            continue
        default = "**needed**" if info.is_required() else _default(info.default)
        kind = _kind(info.annotation, list(info.metadata))
        rows.append(f"| `{info.alias or name}` | {kind} | {default} | {info.description or 'which orbit'} |")
    return "\n".join(rows)


def update_reference(text: str) -> str:
    """The reference text with the table under each `<!-- keys: HEADING -->` mark made anew."""
    for heading, model in TABLES:
        mark = f"<!-- keys: {heading} -->"
        pattern = re.compile(re.escape(mark) + r"\n\n(?:\|[^\n]*\n)*")
        if not pattern.search(text):
            raise ValueError(f"no mark {mark}")
        table = f"{mark}\n\n{markdown(model)}\n"
        text = pattern.sub(lambda _, table=table: table, text)
    return text
