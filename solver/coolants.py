"""Coolants that a case may name: properties of the liquid over its range of use, each with state and source.

A case holds its properties constant, at 40 C unless it names another temperature: between 20 and 60 C the specific
heat of ammonia moves by +-5 %, that of water and glycol by less than 3 %, but viscosity by 20 % (ammonia), 50 %
(water) or a factor of 2 (glycol). A property at the absolute temperature T is

    y(T) = y(40 C) exp(c1 z + c2 z^2 + c3 z^3 + c4 z^4 + c5 z^5),    z = 313.15 K/T - 1

with coefficients fitted to the source at every kelvin. It is within 0.2 % of it over the whole range.
"""

import math
from dataclasses import dataclass

REFERENCE_C = 40.0  # the middle of a 20-60 C loop
_ZERO_CELSIUS = 273.15  # K
Coefficients = tuple[float, float, float, float, float]


@dataclass(frozen=True)
class Coolant:
    """A liquid coolant.

    Attributes:
        specific_heat_j_kg_k: [J/kg/K] at 40 C.
        density_kg_m3: [kg/m3] at 40 C.
        viscosity_pa_s: Dynamic [Pa s] at 40 C.
        conductivity_w_m_k: [W/m/K] at 40 C.
        freezing_c: [C].
        boiling_c: [C] at the pressure named in `source`.
        coldest_c, hottest_c: Between which the coefficients hold [C].
        coefficients: c1 to c5 of each of the first four.
        source: Pressure, state and origin of the numbers.
    """

    specific_heat_j_kg_k: float
    density_kg_m3: float
    viscosity_pa_s: float
    conductivity_w_m_k: float
    freezing_c: float
    boiling_c: float
    coldest_c: float
    hottest_c: float
    coefficients: dict[str, Coefficients]
    source: str

    def property(self, name: str, temperature_c: float) -> float:
        """One of the attributes by name, at a temperature within the range if it depends on it."""
        value = getattr(self, name)
        z = (REFERENCE_C + _ZERO_CELSIUS) / (temperature_c + _ZERO_CELSIUS) - 1
        terms = (c * z**k for k, c in enumerate(self.coefficients.get(name, ()), start=1))
        return value * math.e ** sum(terms)  # an operator, which takes a traced temperature too


COOLANTS: dict[str, Coolant] = {
    "ammonia": Coolant(
        specific_heat_j_kg_k=4933.0,
        density_kg_m3=579.6,
        viscosity_pa_s=1.141e-4,
        conductivity_w_m_k=0.4438,
        freezing_c=-77.65,
        boiling_c=78.4,
        coldest_c=-75.0,
        hottest_c=75.0,
        coefficients={
            "specific_heat_j_kg_k": (-0.7815, 3.5424, -11.3452, 18.6387, -11.7337),
            "density_kg_m3": (0.8803, -2.0794, 4.8617, -7.2387, 4.4442),
            "viscosity_pa_s": (2.9770, -2.4976, 6.2000, -6.9240, 3.4473),
            "conductivity_w_m_k": (1.9535, -3.2898, 5.9637, -7.7957, 4.5170),
        },
        source="saturated liquid, boiling at 4.0 MPa (49.4 C at 2.0 MPa); equation of state of"
        " Gao et al., J. Phys. Chem. Ref. Data 52, 013102 (2023), viscosity of Fenghour et al., ibid. 24, 1649"
        " (1995), conductivity of Tufeu et al., Ber. Bunsenges. Phys. Chem. 88, 422 (1984), through CoolProp 8",
    ),
    "propylene_glycol_50": Coolant(
        specific_heat_j_kg_k=3607.0,
        density_kg_m3=1025.0,
        viscosity_pa_s=2.914e-3,
        conductivity_w_m_k=0.3695,
        freezing_c=-32.2,
        boiling_c=120.2,
        coldest_c=-30.0,
        hottest_c=100.0,
        coefficients={
            "specific_heat_j_kg_k": (-0.3327, 0.2683, -0.2290, 0.2071, -0.1442),
            "density_kg_m3": (0.2201, -0.3913, 0.2089, 0.4153, -0.8569),
            "viscosity_pa_s": (10.3019, 17.2077, 13.4641, -104.6304, 149.6258),
            "conductivity_w_m_k": (-0.4358, 0.4801, -0.5482, 0.6239, -0.4924),
        },
        source="50 % by mass in water; Melinder, Properties of Secondary Working Fluids, IIR (2010),"
        " through CoolProp 8; boiling at 0.2 MPa is that of water, which the glycol only raises",
    ),
    "water": Coolant(
        specific_heat_j_kg_k=4180.0,
        density_kg_m3=992.2,
        viscosity_pa_s=6.527e-4,
        conductivity_w_m_k=0.6285,
        freezing_c=0.0,
        boiling_c=120.2,
        coldest_c=1.0,
        hottest_c=119.0,
        coefficients={
            "specific_heat_j_kg_k": (-0.0072, 0.2667, 0.6508, 5.4652, 3.2823),
            "density_kg_m3": (0.1208, -0.4952, 0.3534, -1.3155, 1.3582),
            "viscosity_pa_s": (5.8854, 4.9983, 8.6025, 24.0909, 35.9376),
            "conductivity_w_m_k": (-0.6509, -1.0730, -0.3478, -6.8093, -7.8942),
        },
        source="liquid, boiling at 0.2 MPa; IAPWS-95, Wagner and Pruss, J. Phys. Chem. Ref. Data 31, 387 (2002),"
        " viscosity and conductivity of Huber et al., ibid. 38, 101 (2009) and 41, 033102 (2012), through CoolProp 8",
    ),
}
