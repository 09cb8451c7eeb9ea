"""The case schema: every key documented, and every refusal worded as a user meets it."""

import copy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from dawndusk.solver import case as cases
from dawndusk.solver import schema
from dawndusk.solver.coolants import COOLANTS

DOCS = Path(__file__).parent.parent / "docs" / "case_format.md"

FULL = tomllib.loads(
    """
    [epoch]
    start = 2027-06-21T00:00:00Z
    [orbit]
    kind = "sun_synchronous"
    altitude_km = 650
    [array]
    area_m2 = 105
    efficiency = 0.2
    emissivity_back = 0.8
    back_solar_absorptance = 0.3
    areal_heat_capacity_j_m2_k = 1500
    areal_mass_kg_m2 = 1.6
    [battery]
    capacity_kwh = 12
    charge_limit_kw = 6
    discharge_limit_kw = 24
    heat_capacity_kj_k = 80
    to_structure_w_k = 30
    [bus]
    base_load_kw = 1
    [payload]
    power_kw = 16
    packages = 50
    junction_resistance_k_w = 0.08
    chip_heat_capacity_j_k = 100
    cold_plate_heat_capacity_kj_k = 50
    throttle_start_c = 85
    throttle_end_c = 95
    [loop]
    coolant = "ammonia"
    mass_flow_kg_s = 0.3
    cold_plate_conductance_w_k = 2000
    wall_conductance_w_m_k = 20
    [radiator]
    area_m2 = 28
    length_m = 4
    tube_pitch_m = 0.1
    thickness_mm = 1
    conductivity_w_m_k = 167
    density_kg_m3 = 2700
    specific_heat_j_kg_k = 900
    emissivity = 0.88
    solar_absorptance_begin = 0.14
    solar_absorptance_end = 0.22
    [structure]
    area_m2 = 20
    [heaters.battery]
    node = "battery"
    setpoint_c = 5
    gain_w_k = 10
    max_kw = 0.2
    [nodes.mast]
    heat_capacity_kj_k = 5
    [[links]]
    from = "mast"
    to = "structure"
    conductance_w_k = 1.0
    """
)


def edited(*edits: str) -> dict:
    """The full case with `key=value` set, `-key` taken out."""
    data = copy.deepcopy(FULL)
    for edit in edits:
        if edit.startswith("-"):
            *path, last = edit[1:].split(".")
            place = data
            for part in path:
                place = place[int(part) if part.isdecimal() else part]
            del place[last]
        else:
            cases.override(data, edit)
    return data


WALKER = (
    "-orbit",
    "orbit.kind=walker",
    "orbit.altitude_km=550",
    "orbit.inclination_deg=53",
    "orbit.planes=6",
    "orbit.satellites_per_plane=10",
)
ELEMENTS = ("-orbit", "orbit.kind=elements", "orbit.altitude_km=550", "orbit.inclination_deg=53")
PERPENDICULAR = (
    "radiator.array_view=perpendicular",
    "radiator.shared_edge_m=7",
    "radiator.array_depth_m=7.5",
)
TUBE = ("-loop.wall_conductance_w_m_k", "loop.tube_diameter_mm=6")
OWN_COOLANT = (
    "-loop.coolant",
    "loop.specific_heat_j_kg_k=4200",
    "loop.density_kg_m3=1000",
    "loop.freezing_c=-20",
    "loop.boiling_c=100",
)
BARE = ("-payload", "-bus", "-heaters", "-battery", "-array", "-loop")
NODES = "structure, chip, cold_plate, battery, array, mast"

# What is changed in the full case -> the one line that says what is wrong, without the name of the file.
REFUSALS = [
    # numbers, strings, lists and tables that are none
    (["battery.capacity_kwh=-5"], "battery.capacity_kwh: got -5; must be > 0"),
    (["battery.capacity_kwh=true"], "battery.capacity_kwh: got true; must be a number"),
    (["battery.capacity_kwh='12'"], "battery.capacity_kwh: got '12'; must be a number"),
    (["battery.capacity_kwh=nan"], "battery.capacity_kwh: got nan; must be a finite number"),
    (["battery.capacity_kwh=inf"], "battery.capacity_kwh: got inf; must be a finite number"),
    (["run.steps=12.5"], "run.steps: got 12.5; must be a whole number"),
    (["run.steps=8"], "run.steps: got 8; must be >= 16"),
    (["payload.chip=1"], "payload.chip: got 1; must be true or false"),
    (["title=3"], "title: got 3; must be a string"),
    (["radiator=3"], "radiator: got 3; must be a table, [radiator]"),
    (["links=3"], "links: got 3; must be a list"),
    (["radiator.emissivity=[0.9]"], "radiator.emissivity.1: missing; must be a list of two numbers"),
    (["radiator.emissivity='high'"], "radiator.emissivity: got 'high'; must be a list of two numbers"),
    (["radiator.emissivity=[0.9, 1.5]"], "radiator.emissivity.1: got 1.5; must be <= 1"),
    (["radiator.sides=3"], "radiator.sides: got 3; must be 1 or 2"),
    (["radiator.normal='x'"], "radiator.normal: got 'x'; must be '+x', '-x', '+y', '-y', '+z' or '-z'"),
    (["radiator.array_view='perp'"], "radiator.array_view: got 'perp'; must be 'none' or 'perpendicular'"),
    (["radiator.array_view=[0.1, 2]"], "radiator.array_view.1: got 2; must be <= 1"),
    # what is missing, and what is not known
    (["-radiator"], "radiator: missing; a case needs a table [radiator]"),
    (["-orbit"], "orbit: missing; a case needs a table [orbit]"),
    (["-radiator.area_m2"], "radiator.area_m2: missing; area of one side [m2]"),
    (["-links.0.from"], "links.0.from: missing; node"),
    (["-battery.capacity_kwh", "battery.capacity_wh=5"], "battery.capacity_wh: unknown key; did you mean"),
    (["payload.power_w=5"], "payload.power_w: unknown key; did you mean power_kw?"),
    (["batery.capacity_kwh=5"], "batery: unknown key; did you mean battery?"),
    (["ltan_h=6"], "ltan_h: unknown key; ltan_h belongs into [orbit]"),
    (["bus.xyz=6"], "bus.xyz: unknown key; the keys here are base_load_kw, conversion_efficiency, transm"),
    (["heaters.battery.nod='array'"], "heaters.battery.nod: unknown key; did you mean node?"),
    (["links.0.conductance=2"], "links.0.conductance: unknown key; did you mean conductance_w_k?"),
    (["environment.incident.solar=2"], "environment.incident.solar: unknown key; did you mean solar_w_m2?"),
    (["nodes.Mast.heat_capacity_kj_k=1"], "nodes.Mast: is no name; must be lower-case letters"),
    # epoch
    (["epoch.start=5"], "epoch.start: got 5; must be a date and time such as 2027-06-21T00:00:00Z"),
    (["epoch.start='soon'"], "epoch.start: got 'soon'; must be a date and time such as 2027-06-21T00:00:00Z"),
    (["epoch.start=1965-01-01"], "epoch.start: got 1965-01-01; must be from 1972"),
    (["epoch.count=0"], "epoch.count: got 0; must be >= 1"),
    # orbit
    (["-orbit.kind"], "orbit.kind: missing; must be one of 'sun_synchronous', 'cluster', 'walker'"),
    (
        ["orbit.kind=walkers"],
        "orbit.kind: got 'walkers'; must be one of 'sun_synchronous', 'cluster', 'walker'",
    ),
    (["orbit.ltan_h=24"], "orbit.ltan_h: got 24; must be < 24"),
    (["orbit.altitude_km=100"], "orbit.altitude_km: got 100; must be >= 200"),
    (["orbit.altitude_km=7000"], "orbit.altitude_km: got 7000; must be <= 5974"),
    (["orbit.inclination_deg=98"], "orbit.inclination_deg: kind = 'sun_synchronous' has no such key; only"),
    (["orbit.eccentricity=0.1"], "orbit.eccentricity: got 0.1 with altitude_km = 650: perigee at -52.8 km"),
    (["orbit.planes=4"], "orbit.altitude_max_km: missing; planes = 4 are spread from altitude_km to it"),
    (["orbit.altitude_max_km=900"], "orbit.altitude_max_km: got 900 with planes = 1; needs planes > 1"),
    (
        ["orbit.planes=4", "orbit.altitude_max_km=600"],
        "orbit.altitude_max_km: got 600; must be > altitude_km = 650",
    ),
    ([*WALKER, "orbit.phasing=6"], "orbit.phasing: got 6; must be < planes = 6"),
    ([*ELEMENTS, "orbit.beta_deg=30", "orbit.raan_deg=10"], "orbit.beta_deg: got 30 beside raan_deg = 10"),
    (["-orbit", "orbit.kind=tle"], "orbit.file: missing; path of the file, relative to the case file"),
    # environment and attitude
    (["environment.level=warm"], "environment.level: got 'warm'; must be 'nominal', 'hot' or 'cold'"),
    (["environment.albedo=1.2"], "environment.albedo: got 1.2; must be <= 1"),
    (["environment.earth=flat"], "environment.earth: got 'flat'; must be 'uniform', 'knocke' or 'grid'"),
    (["environment.earth=grid"], "environment.earth_file: missing; earth = 'grid' needs it"),
    (
        ["environment.earth_file=a.csv"],
        "environment.earth_file: got 'a.csv' with earth = 'uniform'; only 'grid' has it",
    ),
    (
        ["environment.earth=knocke", "environment.level=hot"],
        "environment.level: got 'hot' with earth = 'knocke'; the levels are those of a uniform Earth: give solar_",
    ),
    (["environment.incident.solar_w_m2=-1"], "environment.incident.solar_w_m2.0: got -1; must be >= 0"),
    (
        ["attitude.pointing=nadir", "attitude.roll=nadir"],
        "attitude.roll: got 'nadir' with pointing = 'nadir'; only pointing = 'sun' has it",
    ),
    (["attitude.yaw_steering=true"], "attitude.yaw_steering: got true with pointing = 'sun'; only pointing"),
    (
        ["attitude.pointing=inertial"],
        "attitude.ra_deg: missing; pointing or roll 'inertial' needs ra_deg and",
    ),
    (["attitude.dec_deg=20"], "attitude.dec_deg: got 20; only pointing or roll 'inertial' has it"),
    (["attitude.roll_deg=20"], "attitude.roll_deg: got 20 with pointing = 'sun'; only pointing = 'inertial'"),
    # array, battery, bus
    (["array.efficiency=0.9"], "array.efficiency: got 0.9; must be < solar_absorptance = 0.88: cells cannot"),
    (
        ["array.drive=two_axis", "array.axis='+y'"],
        "array.axis: got '+y' with drive = 'two_axis', which has no axis of the body",
    ),
    (["-bus", "-payload", "-heaters", "-array", "-loop"], "battery: a battery needs an [array] that charges"),
    (["battery.min_soc=0.95", "battery.max_soc=0.9"], "battery.min_soc: got 0.95; must be < max_soc = 0.9"),
    (["battery.initial_soc=0.1"], "battery.initial_soc: got 0.1; must be > min_soc = 0.2"),
    (
        ["battery.initial_soc=0.95", "battery.max_soc=0.9"],
        "battery.initial_soc: got 0.95; must be <= max_soc = 0.9",
    ),
    (["battery.charge_limit_kw=0"], "battery.charge_limit_kw: got 0; must be > 0"),
    (
        ["-battery.charge_limit_kw"],
        "battery.charge_limit_kw: got neither of charge_limit_kw and charge_rate_per_h",
    ),
    (["battery.discharge_rate_per_h=2"], "battery.discharge_limit_kw: got both of discharge_limit_kw and"),
    (
        ["battery.mass_kg=100", "battery.specific_energy_wh_kg=150"],
        "battery.specific_energy_wh_kg: got 150 beside mass_kg = 100; give one of the two",
    ),
    (
        ["battery.min_temperature_c=50"],
        "battery.min_temperature_c: got 50; must be < max_temperature_c = 45",
    ),
    (["battery.cycle_fade=1e-5"], "battery.cycles_per_year: got 0 with cycle_fade = 1e-05; give both or"),
    (
        ["environment.life=end", "battery.calendar_fade_per_year=0.2"],
        "battery.calendar_fade_per_year: got 0.2 with cycle_fade = 0 and cycles_per_year = 0: nothing is left"
        " after mass.life_years = 5",
    ),
    ([*BARE, "bus.base_load_kw=1"], "bus: needs an [array] that feeds it; heat from elsewhere is nodes.NAME"),
    # payload
    (
        ["-payload.packages"],
        "payload.packages: missing; the chip node needs it (or set payload.chip = false)",
    ),
    (["payload.chip=false"], "payload.packages: got 50 with chip = false, which has no chip node"),
    (["payload.throttle_start_c=95"], "payload.throttle_start_c: got 95; must be < throttle_end_c = 95"),
    (["-payload.throttle_end_c"], "payload.throttle_end_c: missing; throttle_start_c = 85 needs it"),
    (["-payload.throttle_start_c"], "payload.throttle_start_c: missing; throttle_end_c = 95 needs it"),
    (
        ["-payload.throttle_start_c", "-payload.throttle_end_c", "payload.throttle_floor=0.5"],
        "payload.throttle_floor: got 0.5; needs throttle_start_c and throttle_end_c",
    ),
    (
        ["payload.windows=[{start=0.5, end=0.2, demand=1}]"],
        "payload.windows.0.start: got 0.5; must be < end = 0.2 (across noon: two windows)",
    ),
    (
        ["payload.windows=[{start=0.4, end=0.6, demand=1}, {start=0.1, end=0.5, demand=0}]"],
        "payload.windows: 0.1..0.5 and 0.4..0.6 overlap",
    ),
    (["payload.windows=" + str([{}] * 17).replace("{}", "{start=0.1,end=0.2,demand=1}")], "at most 16"),
    (["-loop"], 'payload: its heat has no way to the radiator: give a [loop], or a link from = "cold_plate"'),
    (
        [*BARE[1:-1], "-loop"],
        "payload: needs an [array] that feeds it; heat from elsewhere is nodes.NAME.heat_w",
    ),
    # loop
    (["-loop.coolant"], "loop.specific_heat_j_kg_k: missing; give it or coolant = one of 'ammonia', 'propyl"),
    (
        ["loop.coolant=amonia"],
        "loop.coolant: got 'amonia'; must be 'ammonia', 'propylene_glycol_50' or 'water'",
    ),
    (
        ["-loop.wall_conductance_w_m_k"],
        "loop.wall_conductance_w_m_k: got neither of wall_conductance_w_m_k and tube_diameter_mm; give one of",
    ),
    (
        ["loop.tube_diameter_mm=6"],
        "loop.wall_conductance_w_m_k: got both of wall_conductance_w_m_k and tube_diameter_mm; give one of the",
    ),
    (["loop.bond_conductance_w_m_k=40"], "loop.bond_conductance_w_m_k: got 40; only tube_diameter_mm has it"),
    (["loop.viscosity_pa_s=1e-3"], "loop.viscosity_pa_s: got 0.001; only tube_diameter_mm has it"),
    (["loop.conductivity_w_m_k=0.5"], "loop.conductivity_w_m_k: got 0.5; only tube_diameter_mm has it"),
    (
        [*OWN_COOLANT, *TUBE],
        "loop.viscosity_pa_s: missing; give it or coolant = one of 'ammonia', 'propylene_glycol_50', 'water'",
    ),
    (
        [*OWN_COOLANT, *TUBE, "loop.viscosity_pa_s=1e-3"],
        "loop.conductivity_w_m_k: missing; give it or coolant = one of 'ammonia', 'propylene_glycol_50', 'water'",
    ),
    (
        [*OWN_COOLANT, *TUBE, "loop.viscosity_pa_s=1e-3", "loop.conductivity_w_m_k=80"],
        "loop.tube_diameter_mm: its film needs a Prandtl number from 0.5, the coolant has 0.0525; give wall_conduct",
    ),
    (
        [*TUBE, "loop.tube_diameter_mm=100"],
        "loop.tube_diameter_mm: got 100; must be < radiator.tube_pitch_m = 0.1, in mm 100",
    ),
    (
        [*OWN_COOLANT, "loop.property_temperature_c=20"],
        "loop.property_temperature_c: got 20; only a coolant of the table has it",
    ),
    (
        ["loop.coolant=water", "loop.property_temperature_c=130"],
        "loop.property_temperature_c: got 130; the table has water from 1 to 119",
    ),
    (["loop.freezing_c=90"], "loop.freezing_c: got 90; must be < boiling_c = 78.4"),
    (
        ["loop.coolant=water", "loop.bypass_setpoint_c=0"],
        "loop.bypass_setpoint_c: got 0; must lie between freezing_c = 0 and boiling_c = 120.2",
    ),
    (
        ["loop.max_temperature_c=90"],
        "loop.max_temperature_c: got 90; must lie between freezing_c = -77.65 and boiling_c = 78.4",
    ),
    (
        ["loop.max_temperature_c=20", "loop.min_temperature_c=30"],
        "loop.min_temperature_c: got 30; must be < max_temperature_c = 20",
    ),
    (["loop.feed=heat_pipes"], "loop.evaporator_fraction: missing; feed = 'heat_pipes' needs it"),
    (["loop.evaporator_fraction=0.2"], "loop.evaporator_fraction: got 0.2; only feed = 'heat_pipes' has it"),
    (
        ["loop.feed=heat_pipes", "loop.evaporator_fraction=0.2"],
        "radiator.strip_conductance_w_m: got 0; loop.feed = 'heat_pipes' needs that of a pipe",
    ),
    (
        ["-loop.cold_plate_conductance_w_k"],
        "loop.cold_plate_conductance_w_k: missing; a [payload] on a [loop]",
    ),
    (
        ["-payload"],
        "loop.cold_plate_conductance_w_k: got 2000, but the case has no [payload], so no cold plate",
    ),
    (["-payload", "-loop.cold_plate_conductance_w_k"], "loop: nothing is on it: give a [payload], or a link"),
    (
        [*BARE[:-1], "loop.pressure_drop_kpa=10"],
        "loop.pressure_drop_kpa: got 10: the pump needs an [array] that feeds it",
    ),
    # radiator
    (
        ["radiator.areal_mass_kg_m2=5", "radiator.tube_mass_kg_m=0.2"],
        "radiator.tube_mass_kg_m: got 0.2 beside areal_mass_kg_m2 = 5, which is the mass of everything",
    ),
    (
        ["radiator.heat_pipe_capability_w_m=100"],
        "radiator.heat_pipe_capability_w_m: got 100 with strip_conductance_w_m = 0, that of no pipe",
    ),
    (
        ["radiator.area_m2=0.1"],
        "radiator.area_m2: got 0.1; must be >= 0.2, half a pitch along the length (length_m = 4, tube",
    ),
    (
        ["radiator.tube_layout=serpentine"],
        "radiator.tube_passes: missing; tube_layout = 'serpentine' needs it",
    ),
    (
        ["radiator.tube_layout=u", "radiator.tube_passes=2"],
        "radiator.tube_passes: got 2; only tube_layout = 'serpentine' has it",
    ),
    (
        ["radiator.tube_layout=serpentine", "radiator.tube_passes=9"],
        "radiator.tube_passes: got 9; must be <= 8",
    ),
    (
        ["radiator.tube_layout=u", "radiator.area_m2=0.7"],
        "radiator.area_m2: got 0.7; must be >= 0.8, 2 pitches along the length (length_m = 4, tube",
    ),
    (
        [
            "radiator.tube_layout=u",
            "radiator.strip_conductance_w_m=1",
            "radiator.heat_pipe_capability_w_m=9",
        ],
        "radiator.heat_pipe_capability_w_m: got 9 with tube_layout = 'u', which no heat pipe has",
    ),
    (
        [*BARE, "radiator.tube_layout=u"],
        "radiator.tube_layout: got 'u'; needs a [loop] with feed = 'tubes', heat pipes and bare panels are",
    ),
    (
        [
            "loop.feed=heat_pipes",
            "loop.evaporator_fraction=0.2",
            "radiator.strip_conductance_w_m=1",
            "radiator.tube_layout=u",
        ],
        "radiator.tube_layout: got 'u'; needs a [loop] with feed = 'tubes', heat pipes and bare panels are",
    ),
    (["radiator.emissivity=0"], "radiator.emissivity: got 0 on face 0; must be > 0"),
    (
        ["radiator.conductivity_slopes_per_k=[-0.004]"],
        "radiator.conductivity_slopes_per_k: got [-0.004]: -0.2 times conductivity at 600 K; must be > 0 from 100",
    ),
    (
        ["radiator.emissivity=0.8", "radiator.emissivity_slopes_per_k=[0.001]"],
        "radiator.emissivity_slopes_per_k: got [0.001]: emissivity 1.04 at 600 K; must be <= 1 from 100 to 600 K",
    ),
    (
        ["radiator.emissivity=0.1", "radiator.emissivity_slopes_per_k=[0.006]"],
        "radiator.emissivity_slopes_per_k: got [0.006]: -0.2 times emissivity at 100 K; must be > 0 from 100 to",
    ),
    (
        ["radiator.neighbours=[{geometry='parallel', temperature_c=0, emissivity=0.8}]"],
        "radiator.neighbours.0.gap_m: missing; geometry = 'parallel' needs it",
    ),
    (
        ["radiator.neighbours=[{geometry='parallel', gap_m=1, depth_m=2, temperature_c=0, emissivity=0.8}]"],
        "radiator.neighbours.0.depth_m: got 2; only geometry = 'perpendicular' has it",
    ),
    (
        [
            "radiator.sides=1",
            "radiator.neighbours=[{geometry='parallel', gap_m=1, face=1, temperature_c=0, emissivity=0.8}]",
        ],
        "radiator.neighbours.0.face: got 1 with sides = 1; must be 0",
    ),
    (
        [
            "radiator.neighbours=[{geometry='given', view_factor=0.5, area_m2=1, temperature_c=0, emissivity=0.8}]"
        ],
        "radiator.neighbours.0.area_m2: got 1: by reciprocity it would see the radiator with ",
    ),
    (
        ["radiator.sides=1", "radiator.emissivity=[0.8, 0.9]"],
        "radiator.emissivity: got [0.8, 0.9] with sides = 1",
    ),
    (
        ["radiator.sides=1", "radiator.body_view=0.1"],
        "radiator.body_view: got [0.1, 0.1] with sides = 1; the sec",
    ),
    (
        ["environment.life=end", "-radiator.solar_absorptance_end"],
        "radiator.solar_absorptance_end: missing; env",
    ),
    (
        ["environment.life=end", "radiator.solar_absorptance_end=0.1"],
        "radiator.solar_absorptance_end: got 0.1 on face 0; must be >= solar_absorptance_begin = 0.14",
    ),
    (
        ["radiator.array_view=perpendicular"],
        "radiator.shared_edge_m: missing; array_view = 'perpendicular' needs",
    ),
    (["radiator.array_depth_m=2"], "radiator.array_depth_m: got 2; only array_view = 'perpendicular' has it"),
    (
        [*PERPENDICULAR, "radiator.array_depth_m=9"],
        "radiator.array_depth_m: got 9 with shared_edge_m = 7: 126 m2 of array on 2 side(s); must be <="
        " array.area_m2 = 105",
    ),
    ([*BARE, "radiator.array_view=0.1"], "radiator.array_view: got [0.1, 0.1], but the case has no [array]"),
    (
        ["radiator.array_view=0.6", "radiator.body_view=0.5"],
        "radiator.body_view: got 0.5 on face 0 beside array_view = 0.6; the sum 1.1 must be <= 1",
    ),
    (
        ["radiator.array_view=0.9", "array.area_m2=40"],
        "radiator.array_view: got [0.9, 0.9]: by reciprocity the array's back would see the radiator with",
    ),
    (
        ["radiator.body_view=0.5"],
        "radiator.body_view: got [0.5, 0.5]: by reciprocity the body would see the radi",
    ),
    # structure, heaters, nodes, links
    (
        ["structure.face_areas_m2=[1,1,1,1,1,1]"],
        "structure.area_m2: got 20 beside face_areas_m2, which add up to 6",
    ),
    (
        ["-structure.area_m2", "structure.face_areas_m2=[0,0,0,0,0,0]"],
        "structure.face_areas_m2: got only zeros; at least one face must have area",
    ),
    (["structure.face_areas_m2=[1,1]"], "structure.face_areas_m2.2: missing; must be a list of six numbers"),
    (
        ["heaters.battery.node='tank'"],
        f"heaters.battery.node: got 'tank'; the nodes of this case are {NODES}",
    ),
    (
        ["heaters.two={node='battery', setpoint_c=0, gain_w_k=1, max_kw=1}"],
        "heaters.two.node: got 'battery', which heaters.battery has already; one heater a node",
    ),
    (["nodes.chip.heat_capacity_kj_k=1"], "nodes.chip: the name 'chip' is taken; choose another"),
    (["nodes.panel.heat_capacity_kj_k=1"], "nodes.panel: the name 'panel' is taken; choose another"),
    (
        ["nodes.tank.heat_capacity_kj_k=1"],
        "nodes.tank: its heat has no way out: give radiating_area_m2 or a link",
    ),
    (
        ["links.0.to='tank'"],
        f"links.0.to: got 'tank'; the nodes of this case are {NODES}, panel, loop, space",
    ),
    (["links.0.to='mast'"], "links.0.to: got 'mast', the node that it comes from"),
    (["links.0.from='panel'"], "links.0.from: got 'panel'; write the link from a node to 'panel'"),
    (
        ["links.0.radiative_m2=1"],
        "links.0.conductance_w_k: got both of conductance_w_k and radiative_m2; give",
    ),
    (
        ["-links.0.conductance_w_k"],
        "links.0.conductance_w_k: got neither of conductance_w_k and radiative_m2",
    ),
    (["links.0.to='space'"], "links.0.conductance_w_k: got 1; a link to space is a radiative_m2"),
    (
        ["links.0.to='loop'", "-links.0.conductance_w_k", "links.0.radiative_m2=1"],
        "links.0.radiative_m2: got 1; a link to the loop is a conductance_w_k",
    ),
    ([*BARE, "links.0.to='loop'"], "links.0.to: got 'loop', but the case has no [loop]"),
    # uncertainty
    (["uncertainty.seed=1"], "uncertainty.of: missing"),
    (["uncertainty.of=[]"], "uncertainty.of: got 0 entries; must be at least 1"),
    (["uncertainty.of=[{sigma=1}]"], "uncertainty.of.0.key: missing; key of the case"),
    (
        ["uncertainty.of=[{key='array.area_m2'}]"],
        "uncertainty.of.0.sigma: missing; distribution = 'normal' needs one of sigma, sigma_percent",
    ),
    (
        ["uncertainty.of=[{key='array.area_m2', sigma=2, sigma_percent=3}]"],
        "uncertainty.of.0.sigma: got 2 beside sigma_percent = 3; distribution = 'normal' needs one of",
    ),
    (["uncertainty.of=[{key='array.area_m2', sigma=0}]"], "uncertainty.of.0.sigma: got 0; must be > 0"),
    (
        ["uncertainty.of=[{key='array.area_m2', sigma=1, low=100}]"],
        "uncertainty.of.0.low: got 100 with distribution = 'normal'; it has sigma or sigma_percent",
    ),
    (
        ["uncertainty.of=[{key='array.area_m2', distribution='uniform', sigma=1}]"],
        "uncertainty.of.0.sigma: got 1 with distribution = 'uniform'; it has low and high",
    ),
    (
        ["uncertainty.of=[{key='array.area_m2', distribution='triangular', high=110}]"],
        "uncertainty.of.0.low: missing; distribution = 'triangular' needs it",
    ),
    (
        ["uncertainty.of=[{key='array.area_m2', distribution='uniform', low=110, high=100}]"],
        "uncertainty.of.0.low: got 110; must be < high = 100",
    ),
    (
        ["uncertainty.of=[{key='array.area_m2', distribution='beta'}]"],
        "uncertainty.of.0.distribution: got 'beta'; must be 'normal', 'uniform', 'triangular' or 'lognormal'",
    ),
    (
        ["uncertainty.of=[{key='array.area_m2', sigma=1}, {key='array.area_m2', sigma=2}]"],
        "uncertainty.of.1.key: got 'array.area_m2' again; a key has one distribution",
    ),
    # spread, mass, limits, run
    (["spread.radiator_emissivity=0.6"], "spread.radiator_emissivity: got 0.6; must be <= 0.5"),
    (["spread.seed=-1"], "spread.seed: got -1; must be >= 0"),
    (["mass.life_years=0"], "mass.life_years: got 0; must be > 0"),
    ([*BARE, "mass.loop_kg_kw=5"], "mass.loop_kg_kw: got 5, but the case has no [loop]"),
    (["limits.uncertainty_k=-1"], "limits.uncertainty_k: got -1; must be >= 0"),
    (["run.cells=[32, 5]"], "run.cells.1: got 5; must be >= 6"),
    (["run.cells=[32]"], "run.cells.1: missing; must be a list of two whole numbers, [along, across]"),
    (["run.cells=32"], "run.cells: got 32; must be a list of two whole numbers, [along, across]"),
    (["run.mode=cyclic"], "run.mode: got 'cyclic'; must be 'orbit', 'transient' or 'steady'"),
    (["run.revolutions=5"], "run.revolutions: got 5 with mode = 'orbit'; only mode = 'transient' has it"),
]


@pytest.mark.parametrize(("edits", "message"), REFUSALS, ids=[message[:60] for _, message in REFUSALS])
def test_refusal_names_key_value_and_way_out(edits, message):
    with pytest.raises(cases.CaseError) as caught:
        cases.validate(edited(*edits), "cases/mine.toml")
    line = caught.value.lines[0]
    assert line.startswith("cases/mine.toml: ")
    assert message in line
    assert "\n" not in line


ACCEPTED = [
    [],
    [*BARE, "-nodes", "-links"],
    WALKER,
    [*WALKER, "orbit.pattern=star"],
    [*ELEMENTS, "orbit.beta_deg=30"],
    ["orbit.kind=cluster", "orbit.satellites=81", "orbit.radius_km=1"],
    PERPENDICULAR,
    ["radiator.sides=1", "radiator.array_view=[0.2, 0]"],
    ["loop.feed=heat_pipes", "loop.evaporator_fraction=0.2", "radiator.strip_conductance_w_m=1"],
    [
        "-loop",
        "links.0={from='cold_plate', to='panel', conductance_w_k=500}",
        "nodes.mast.radiating_area_m2=1",
    ],
    ["-payload", "-loop.cold_plate_conductance_w_k", "links.0.to='loop'"],
    ["payload.windows=[{start=0.0, end=0.5, demand=1}, {start=0.5, end=1.0, demand=0}]"],
    ["epoch.start=2027-06-21"],
    ["run.mode=transient", "run.revolutions=5"],
    ["environment.earth=knocke", "environment.albedo=0.3", "environment.earth_infrared_w_m2=240"],
    ["attitude.roll=inertial", "attitude.ra_deg=270", "attitude.dec_deg=66.56"],
    [
        "uncertainty.of=[{key='array.area_m2', sigma_percent=1},"
        " {key='radiator.emissivity', distribution='uniform', low=0.86, high=0.9}]"
    ],
]


@pytest.mark.parametrize("edits", ACCEPTED, ids=[" ".join(e)[:60] or "full" for e in ACCEPTED])
def test_accepted(edits):
    cases.validate(edited(*edits))


def test_every_error_of_a_file_is_reported_at_once():
    with pytest.raises(cases.CaseError) as caught:
        cases.validate(edited("run.steps=1", "battery.capacity_kwh=0", "loop.coolant=beer"))
    assert len(caught.value.lines) == 3


def test_every_key_has_a_meaning_and_every_number_a_range():
    for heading, model in schema.TABLES:
        for name, info in model.model_fields.items():
            if name == "kind" or name in schema.INLINED:
                continue
            assert info.description, f"{heading} {name}"
            words = schema._kind(info.annotation, list(info.metadata))
            if "number" in words:
                assert any(sign in words for sign in "<>≤≥"), f"{heading} {name}: {words}"


def test_case_is_frozen():
    case = cases.validate(FULL)
    with pytest.raises(ValueError, match="frozen"):
        case.radiator.area_m2 = 5.0


def test_schema_does_not_import_jax():
    # Its users check files in tools and editors where a second of start-up matters.
    code = "import sys, dawndusk.solver.schema; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_reference_holds_every_key():
    text = DOCS.read_text(encoding="utf-8")
    assert schema.update_reference(text) == text, "renew docs/case_format.md: python tests/test_schema.py"
    for name, coolant in COOLANTS.items():
        numbers = (coolant.specific_heat_j_kg_k, coolant.density_kg_m3)
        numbers += (coolant.viscosity_pa_s, coolant.conductivity_w_m_k, coolant.freezing_c, coolant.boiling_c)
        row = " | ".join(f"{number:g}" for number in numbers)
        assert f"| `{name}` | {row} | {coolant.source} |" in text


if __name__ == "__main__":
    DOCS.write_text(schema.update_reference(DOCS.read_text(encoding="utf-8")), encoding="utf-8")
