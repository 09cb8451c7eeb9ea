"""Coolants that a case may name: constant properties, each with its state and source.

Properties are taken at 40 C, the middle of a 20-60 C loop, and held constant: over that range the
specific heat of ammonia moves by +-4 %, that of water and glycol by less than 3 %.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Coolant:
    """A liquid coolant.

    Attributes:
        specific_heat_j_kg_k: [J/kg/K] at 40 C.
        density_kg_m3: [kg/m3] at 40 C.
        freezing_c: [C].
        boiling_c: [C] at the pressure named in `source`.
        source: Pressure, state and origin of the numbers.
    """

    specific_heat_j_kg_k: float
    density_kg_m3: float
    freezing_c: float
    boiling_c: float
    source: str


COOLANTS: dict[str, Coolant] = {
    "ammonia": Coolant(
        specific_heat_j_kg_k=4933.0,
        density_kg_m3=579.6,
        freezing_c=-77.65,
        boiling_c=78.4,
        source="saturated liquid at 40 C, boiling at 4.0 MPa (49.4 C at 2.0 MPa); equation of state of"
        " Gao et al., J. Phys. Chem. Ref. Data 52, 013102 (2023), through CoolProp 8",
    ),
    "propylene_glycol_50": Coolant(
        specific_heat_j_kg_k=3607.0,
        density_kg_m3=1025.0,
        freezing_c=-32.2,
        boiling_c=120.2,
        source="50 % by mass in water at 40 C; Melinder, Properties of Secondary Working Fluids, IIR (2010),"
        " through CoolProp 8; boiling at 0.2 MPa is that of water, which the glycol only raises",
    ),
    "water": Coolant(
        specific_heat_j_kg_k=4180.0,
        density_kg_m3=992.2,
        freezing_c=0.0,
        boiling_c=120.2,
        source="liquid at 40 C, boiling at 0.2 MPa; IAPWS-95, Wagner and Pruss,"
        " J. Phys. Chem. Ref. Data 31, 387 (2002), through CoolProp 8",
    ),
}
