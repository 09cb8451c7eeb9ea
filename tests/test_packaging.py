"""The layout: what may import what, what is packaged, and what an import costs."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
KERNELS = sorted((ROOT / "kernels").rglob("*.py"))
SOLVER = sorted((ROOT / "solver").rglob("*.py"))


def imports(path: Path) -> list[tuple[int, str, tuple[str, ...]]]:
    """Every import of a file, wherever it stands: (level, module, names); level 0 is absolute."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
        if isinstance(node, ast.Import):
            found += [(0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or "", tuple(alias.name for alias in node.names)))
    return found


def requirement_name(requirement: str) -> str:
    for stop in "[<>=!~; ":
        requirement = requirement.split(stop)[0]
    return requirement.lower().replace("-", "_")


@pytest.mark.parametrize("path", KERNELS, ids=lambda p: p.stem)
def test_kernels_import_only_jax_numpy_jaxtyping_and_each_other(path):
    allowed = {"jax", "numpy", "jaxtyping"} | set(sys.stdlib_module_names)
    for level, module, names in imports(path):
        if level == 0:
            assert module.split(".")[0] in allowed, f"{path.name} imports {module}"
        else:
            assert level == 1, f"{path.name} reaches out of kernels: {module} {names}"


@pytest.mark.parametrize("path", SOLVER, ids=lambda p: p.stem)
def test_solver_imports_kernels_relatively(path):
    # `dawndusk` itself gives the version; _package, which is `dawndusk`, has no other way to the solver.
    for level, module, _ in imports(path):
        if level == 0 and path.parent.name != "_package":
            assert not module.startswith("dawndusk."), f"{path.name} imports {module}; write `from ..kernels`"


@pytest.mark.parametrize("path", SOLVER, ids=lambda p: p.stem)
def test_plotting_and_datasets_are_imported_where_they_are_used(path):
    heavy = {"matplotlib", "xarray", "zarr"}
    for node in ast.parse(path.read_text()).body:  # module level only
        if isinstance(node, ast.Import):
            assert not heavy & {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert (node.module or "").split(".")[0] not in heavy


def test_every_folder_with_python_is_packaged():
    folder_of = PYPROJECT["tool"]["setuptools"]["package-dir"]
    packaged = PYPROJECT["tool"]["setuptools"]["packages"]
    assert sorted(folder_of) == sorted(packaged)
    on_disk = {
        str(path.parent.relative_to(ROOT))
        for top in ("kernels", "solver", "cases")
        for path in (ROOT / top).rglob("*.py")
    }
    assert on_disk == set(folder_of.values())


def test_every_case_is_package_data():
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["dawndusk.cases"]
    packed = {path for pattern in patterns for path in (ROOT / "cases").glob(pattern)}
    there = {p for p in (ROOT / "cases").rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    assert packed == there
    assert {ROOT / "cases" / "suncatcher.toml", ROOT / "cases" / "studies" / "ai1_radiator.toml"} <= packed


MODULES = {"bsk": "Basilisk"}  # of packages that have another name


def test_what_is_imported_is_declared():
    """A module that happens to be installed here must not be needed there."""
    project = PYPROJECT["project"]
    runtime = {requirement_name(r) for r in project["dependencies"]}
    dev = {requirement_name(r) for r in project["optional-dependencies"]["dev"]}
    own = {"dawndusk"} | set(sys.stdlib_module_names)
    own |= {"jaxlib", "pydantic_core"}  # come with jax and pydantic, at the version that these choose
    for path in [*KERNELS, *SOLVER]:
        used = {module.split(".")[0] for level, module, _ in imports(path) if level == 0}
        assert used <= runtime | own, f"{path}: {used - runtime - own} not in dependencies"
    # Benches are scripts that share code, and so do tests.
    own |= {path.stem for folder in ("bench", "tests") for path in (ROOT / folder).glob("*.py")}
    for path in [*(ROOT / "tests").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]:
        used = {module.split(".")[0] for level, module, _ in imports(path) if level == 0}
        if path.parent.name == "bench":
            benched = {requirement_name(r) for r in project["optional-dependencies"]["bench"]}
            used -= {MODULES.get(name, name) for name in benched}
        assert used <= runtime | dev | own, f"{path}: {used - runtime - dev - own} not in the dev extra"


def loaded_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(out.stdout.split())


def test_import_costs_no_more_than_import_jax():
    """Counted in modules, which is exact, where a time would depend on the machine."""
    ours = {name.split(".")[0] for name in loaded_by("import dawndusk") - loaded_by("import jax")}
    # __editable___*: the finder that an editable install puts in front of the import.
    assert {name for name in ours if not name.startswith("__editable__")} <= {"dawndusk"}


def test_kernels_import_neither_solver_nor_plotting():
    names = [f"dawndusk.kernels.{path.stem}" for path in KERNELS if path.stem != "__init__"]
    loaded = loaded_by("import " + ", ".join(["dawndusk.kernels", *names]))
    assert not loaded & {"dawndusk.solver", "matplotlib", "xarray", "pydantic"}


def test_versions_agree():
    import dawndusk

    assert dawndusk.__version__ == PYPROJECT["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## {dawndusk.__version__}" in changelog


def test_code_map_names_every_file():
    text = (ROOT / "docs" / "code_map.md").read_text()
    named = set(re.findall(r"^\| `([a-z_]+\.py)` \|", text, re.MULTILINE))
    there = {p.name for p in [*KERNELS, *SOLVER] if p.parent.name != "_package"} - {"__init__.py"}
    assert named == there


def test_readme_example_runs(capsys):
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    exec(code, {})
    factor, slope = map(float, capsys.readouterr().out.split())
    # F of an edge-on plate at 650 km over a sphere of 6371 km; less of the Earth from higher up.
    assert abs(factor - 0.240574) < 1e-6
    assert slope < 0


def test_readme_names_every_case():
    text = (ROOT / "README.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == {
        path.stem for path in (ROOT / "cases").rglob("*.toml")
    }
