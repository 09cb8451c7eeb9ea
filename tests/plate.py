"""The radiator of the smallest cases: what a case file must say of one, and no more."""

RADIATOR = {
    "area_m2": 4,
    "length_m": 2,
    "tube_pitch_m": 0.2,
    "thickness_mm": 1,
    "conductivity_w_m_k": 167,
    "density_kg_m3": 2700,
    "specific_heat_j_kg_k": 896,
    "emissivity": 0.88,
    "solar_absorptance_begin": 0.14,
}
SECTION = "\n".join(["[radiator]", *(f"{key} = {value}" for key, value in RADIATOR.items())])
