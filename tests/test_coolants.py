"""The coolant table against the program that its coefficients were fitted to."""

import csv
import itertools
from pathlib import Path

import pytest
from dawndusk.solver.coolants import COOLANTS, REFERENCE_C

REFERENCE = Path(__file__).parent / "reference" / "coolants.csv"
NAMES = ("specific_heat_j_kg_k", "density_kg_m3", "viscosity_pa_s", "conductivity_w_m_k")


def points():
    with REFERENCE.open(encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


@pytest.mark.parametrize("name", COOLANTS)
def test_table_follows_its_source(name):
    """Within 0.2 % over the whole range, and at 40 C to the digits that the table gives."""
    coolant = COOLANTS[name]
    rows = [row for row in points() if row["coolant"] == name]
    temperatures = [float(row["temperature_c"]) for row in rows]
    assert (min(temperatures), max(temperatures)) == (coolant.coldest_c, coolant.hottest_c)
    for row, at in zip(rows, temperatures):
        for key in NAMES:
            assert coolant.property(key, at) == pytest.approx(float(row[key]), rel=2e-3), (key, at)
            if at == REFERENCE_C:
                assert coolant.property(key, at) == getattr(coolant, key)
                assert getattr(coolant, key) == pytest.approx(float(row[key]), rel=5e-4)


@pytest.mark.parametrize("name", COOLANTS)
def test_viscosity_falls_between_the_points_too(name):
    """A polynomial that swings between its points would show here."""
    coolant = COOLANTS[name]
    steps = int(coolant.hottest_c - coolant.coldest_c)
    every = [coolant.property("viscosity_pa_s", coolant.coldest_c + k) for k in range(steps + 1)]
    assert all(a > b for a, b in itertools.pairwise(every))
    assert coolant.property("boiling_c", coolant.coldest_c) == coolant.boiling_c
