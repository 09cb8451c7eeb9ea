"""Physical constants, SI, each with its source; and what a search reports."""

import math

SIGMA = 5.670374419e-8  # W/m2/K4, Stefan-Boltzmann, CODATA 2018 (exact in the 2019 SI, rounded)
ZERO_CELSIUS = 273.15  # K, definition
SPACE_TEMPERATURE = 2.7255  # K, cosmic background, Fixsen 2009

AU = 149_597_870_700.0  # m, IAU 2012 B2
R_SUN = 695_700_000.0  # m, nominal solar radius, IAU 2015 B3
SOLAR_CONSTANT = 1361.0  # W/m2 at 1 au, nominal total solar irradiance, IAU 2015 B3

MU_EARTH = 3.986004418e14  # m3/s2, IERS Conventions 2010, with atmosphere
R_EARTH = 6_378_137.0  # m, equatorial radius, WGS 84
J2_EARTH = 1.0826266835531513e-3  # -, WGS 84 normalised C20 = -0.484166774985e-3 times -sqrt(5)

DAY = 86_400.0  # s
TROPICAL_YEAR = 365.2421897 * DAY  # s, mean tropical year at J2000, Laskar 1986
MEAN_SUN_RATE = 2 * math.pi / TROPICAL_YEAR  # rad/s, right ascension of the mean Sun
J2000 = 2_451_545.0  # Julian date (TT) of the epoch J2000.0
JULIAN_CENTURY = 36_525.0  # days

# Status of a solution that is searched for.
CONVERGED, NOT_CONVERGED, NOT_FINITE = 0, 1, 2
