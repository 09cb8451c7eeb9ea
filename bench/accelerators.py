"""Compiles the solver for an H100, a TPU v5e and a TPU v6e on a machine that has none, and checks what comes out.

    make accelerators
    .venv-accelerators/bin/python bench/accelerators.py --only transient@v5e --keep dumps
    .venv-accelerators/bin/python bench/accelerators.py --record     # budgets in accelerators.json afresh

The compilers are the real ones, so that what does not lower, does not fit or spills shows here. Numbers and speed
do not: for those the counts stand, of kernels launched and of bundles issued, which are the same from run to run.
Every row of `ROWS` is compiled for each of its targets in a process of its own, so that a compiler that hangs or
dies takes that row with it and no other.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import compiler_dumps as dumps

BUDGETS = Path(__file__).with_suffix(".json")
# Over its budget by more than this a measure fails; below it by more than that the budget is to be lowered.
OVER, UNDER = 0.05, 0.10
TIMEOUT = 120.0  # s a row; some ask for more, for a machine that has much else to do
SATELLITES = 1024  # on each device


# --- targets -----------------------------------------------------------------------------------------------

# What XLA asks of a GPU, as an H100 SXM answers.
_H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  name: "NVIDIA H100 80GB HBM3" device_vendor: "NVIDIA Corporation"
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800
  device_memory_size: 84942979072 device_address_bits: 64
  driver_version: "13.0.0" runtime_version: "13.0.0" compile_time_toolkit_version: "13.0.0" dnn_version: "9.10.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
"""


@dataclass(frozen=True)
class Target:
    """A device to compile for.

    Attributes:
        name: As in rows and budgets.
        platform: Of JAX, "cuda" or "tpu".
        topologies: Topology by number of devices.
        memory: Of one device [bytes].
        rate: Upper bound of a Pallas kernel: global memory traffic [bytes/s] on a GPU, bundles [1/s] on a TPU.
        issue: Of a GPU, instructions of all its threads [1/s].
        vector_memory: On the chip, of a TPU [bytes].
        config: Text proto of the device, of a GPU.
    """

    name: str
    platform: str
    topologies: dict[int, str]
    memory: int
    rate: float
    vector_memory: int = 0
    config: str = ""
    issue: float = 0.0

    def devices(self, count: int) -> list[Any]:
        """Devices that exist for the compiler only."""
        from jax.experimental import topologies

        where = self.topologies[count]
        if self.platform == "cuda":
            found = topologies.get_topology_desc(platform="cuda", target_config=self.config, topology=where)
        else:
            found = topologies.get_topology_desc(platform="tpu", topology_name=where)
        return list(found.devices)[:count]


TARGETS = {
    target.name: target
    for target in (
        # 80 GB as the driver reports them; 3.35 TB/s: NVIDIA H100 SXM data sheet.
        Target(
            "h100",
            "cuda",
            {1: "1x1x1", 8: "1x1x8"},
            84_942_979_072,
            3.35e12,
            config=_H100,
            issue=132 * 128 * 1.98e9,
        ),
        # HBM: Google Cloud TPU pages. Clocks from peak bfloat16 rates of the same pages: 197 TFLOP/s over four
        # arrays of 128 x 128, 918 TFLOP/s over as many multipliers as four arrays of 256 x 256 have.
        Target("v5e", "tpu", {1: "v5e:2x2", 8: "v5e:2x4"}, 16 << 30, 1.5e9, 128 << 20),
        Target("v6e", "tpu", {1: "v6e:2x2", 8: "v6e:2x4"}, 32 << 30, 1.75e9, 128 << 20),
    )
}


# --- rows --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One program to compile.

    Attributes:
        name: For the table and the budgets.
        make: From the target, a function and its abstract arguments. On several devices the arguments have the
            satellites first in every leaf, as `devices.sharded` wants them.
        targets: Names.
        devices: Number of them.
        cell_steps: Per satellite, of one execution with each loop of unknown length taken once.
        revolutions: The same in revolutions.
        pallas: Pallas kernels launched in a revolution; None where none is expected.
        counted: Whether what these issue is counted; dumps of a large program take longer than its compilation.
        timeout: [s].
        threads: Of a GPU that share a satellite in its Pallas kernels.
    """

    name: str
    make: Callable[[Target], tuple[Callable, tuple]]
    targets: tuple[str, ...] = ("h100", "v5e", "v6e")
    devices: int = 1
    cell_steps: int = 32 * 16 * 128
    revolutions: int = 1
    pallas: float | None = None
    counted: bool = True
    timeout: float = TIMEOUT
    threads: int = 1


def flagship() -> Any:
    """One satellite of the flagship case, with everything on: loop, chips, battery, array, heater."""
    from dawndusk.solver import build, case

    overrides = ["orbit.satellites=1", "epoch.count=1", "run.cells=[32, 16]", "run.steps=128"]
    return build.build(case.load(case.find("suncatcher.toml"), overrides))


def march_arguments() -> tuple:
    """Parameters, loads and state of `SATELLITES`, shapes only."""
    import jax
    from dawndusk.kernels import revolution

    fleet = flagship()

    def widened(axis, tree):
        return jax.tree.map(lambda leaf: _shape(leaf, SATELLITES, axis), tree)

    loads = jax.eval_shape(
        jax.vmap(lambda row: revolution.revolution_loads(row, 128), out_axes=-1),
        widened(0, fleet.revolutions),
    )
    return widened(-1, fleet.params), loads, widened(-1, fleet.state)


def _shape(leaf, count: int, axis: int):
    import jax
    import numpy as np

    shape = list(np.shape(leaf))
    shape[axis] = count
    return jax.ShapeDtypeStruct(tuple(shape), leaf.dtype)


def transient(_target):
    from dawndusk.kernels import march

    return march.transient, march_arguments()


def search_march(bypass: bool, _target):
    """A revolution as the search for the periodic orbit marches it."""
    from dawndusk.kernels import march

    params, *rest = march_arguments()
    return march._summary_march, (replace(params, coolant=replace(params.coolant, bypass=bypass)), *rest)


def cyclic(_target):
    from dawndusk.kernels import march

    return march.cyclic, march_arguments()


def hottest_gradient(solve: str, _target):
    """Of each satellite's hottest panel temperature with respect to all of its parameters."""
    import jax
    import jax.numpy as jnp
    from dawndusk.kernels import march

    def total(params, loads, state):
        # Satellites do not know of each other: the gradient of the sum is each one's own.
        return jnp.sum(jnp.max(getattr(march, solve)(params, loads, state)[-1].panel_max, axis=0))

    return jax.grad(total), march_arguments()


def fluxes(_target):
    """Orbit-averaged fluxes; a cell-step is one of the nodes of a revolution."""
    import jax
    from dawndusk.kernels import orbit_average

    rows = jax.tree.map(lambda leaf: _shape(leaf, SATELLITES, 0), flagship().revolutions)
    return orbit_average.fleet_fluxes, (rows,)


def whole_solve(_target):
    """What `dawndusk run` compiles for the flagship case: loads, periodic orbit and quantities."""
    import jax
    import numpy as np
    from dawndusk.solver import run

    fleet = flagship()
    rows = SATELLITES * 8
    structures = [jax.tree.structure(tree) for tree in (fleet.revolutions, fleet.params, fleet.state)]
    revolutions = [_shape(leaf, rows, 0) for leaf in jax.tree.leaves(fleet.revolutions)]
    params, state = (
        [_shape(np.moveaxis(np.asarray(leaf), -1, 0), rows, 0) for leaf in jax.tree.leaves(tree)]
        for tree in (fleet.params, fleet.state)
    )
    change = (jax.ShapeDtypeStruct((rows,), np.float32), jax.ShapeDtypeStruct((rows,), bool))
    solve = partial(run.solve_rows, structures=structures, mode="orbit", steps=128, save="summary")
    return solve, (revolutions, params, state, change)


def canary(target):
    """A kernel whose counts are known, so that a change in the compilers' dumps shows as one.

    Each step of 128 it reads and writes 32 numbers a satellite.
    """
    import jax
    import jax.numpy as jnp
    from jax import lax

    x = jax.ShapeDtypeStruct((32, SATELLITES // 128, 128), jnp.float32)
    if target.platform == "tpu":
        from jax.experimental import pallas as pl

        def body(x_ref, y_ref):
            def row(i, carry):
                y_ref[i] = 0.5 * (x_ref[i] + carry)
                return y_ref[i]

            def step(_, carry):
                return lax.fori_loop(0, 32, row, carry)

            lax.fori_loop(0, 128, step, x_ref[0])

        return pl.pallas_call(body, out_shape=x, name="canary"), (x,)

    from jax.experimental.pallas import mosaic_gpu as plgpu

    def thread(x_ref, y_ref):
        block = lax.axis_index("block")

        def row(i, carry):
            y_ref[i, block] = 0.5 * (x_ref[i, block] + carry)
            return y_ref[i, block]

        def step(_, carry):
            return lax.fori_loop(0, 32, row, carry)

        lax.fori_loop(0, 128, step, x_ref[0, block])

    return plgpu.kernel(thread, out_type=x, grid=(SATELLITES // 128,), grid_names=("block",)), (x,)


def sheet_march(extremes: bool, kind: str, _target):
    """A panel by itself through a revolution, and what it has been on the way; `kind`: of its conduction along x."""
    import jax
    import jax.numpy as jnp
    from dawndusk.kernels import adi
    from dawndusk.kernels.sheet import Sheet

    def shape(*axes):
        return jax.ShapeDtypeStruct((*axes, SATELLITES), jnp.float32)

    one, row = shape(1, 1), shape(128)
    along = shape(1, 2) if kind == "heat pipe" else one
    sheet = Sheet(one, along, one, (one,), one, (), (), (), (), 32, 16)
    return partial(adi.transient, extremes=extremes), (shape(32, 16), one, row, row, sheet)


ROWS = (
    Row("canary", canary, cell_steps=32 * 128, pallas=1),
    Row("sheet", partial(sheet_march, False, "uniform"), pallas=1, threads=16),
    Row("sheet and extremes", partial(sheet_march, True, "uniform"), pallas=1, threads=16),
    Row("sheet, heat pipe", partial(sheet_march, False, "heat pipe"), pallas=1, threads=16),
    Row("march", partial(search_march, False), pallas=1, threads=16),
    Row("march, bypass", partial(search_march, True), targets=("v5e",), pallas=1),
    Row("transient", transient),
    # Of two revolutions one is the search's.
    Row(
        "cyclic",
        cyclic,
        revolutions=2,
        cell_steps=2 * 32 * 16 * 128,
        pallas=0.5,
        counted=False,
        timeout=2 * TIMEOUT,
    ),
    Row(
        "solve on 8",
        whole_solve,
        devices=8,
        revolutions=2,
        cell_steps=2 * 32 * 16 * 128,
        pallas=0.5,
        counted=False,
        timeout=2 * TIMEOUT,
    ),
    Row("fluxes", fluxes, cell_steps=32),
    Row("gradient of transient", partial(hottest_gradient, "transient")),
    # One TPU stands for both: these take longest, and what differs between the two shows in the rows above.
    Row(
        "gradient of cyclic",
        partial(hottest_gradient, "cyclic"),
        targets=("h100", "v5e"),
        pallas=1,
        counted=False,
        timeout=3 * TIMEOUT,
    ),
)


# --- one row, in a process of its own ----------------------------------------------------------------------


def environment(row: Row, target: Target, folder: Path) -> dict[str, str]:
    """Of a compile whose dumps go to `folder`."""
    new = {
        "JAX_PLATFORMS": "cpu",
        # A program out of the cache leaves no dumps.
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "JAX_ENABLE_X64": "false",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "XLA_FLAGS": "",
        # libtpu looks for a TPU virtual machine around it unless told what to be.
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": "v5litepod-8",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    if target.platform == "tpu":
        # The bundles of hundreds of XLA's own fusions would take longer to write than all else.
        dump = f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true"
        new["LIBTPU_INIT_ARGS"] = (
            f"{dump} --xla_jf_dump_llo_pass_label_regex=final_bundles" if row.pallas and row.counted else ""
        )
    else:
        new["XLA_FLAGS"] = f"--xla_dump_to={folder} --xla_dump_hlo_module_re=program"
        new["MOSAIC_GPU_DUMP_TO"] = str(folder)
        # XLA looks for ptxas in CUDA_ROOT first, Pallas on PATH.
        toolkit = _reporting_toolkit(folder)
        new["CUDA_ROOT"] = str(toolkit)
        new["PATH"] = f"{toolkit / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return os.environ | new


def _reporting_toolkit(folder: Path) -> Path:
    """A CUDA toolkit whose ptxas leaves a report of each kernel it compiles, XLA's as well as Pallas'."""
    wheels = sorted(Path(sys.prefix).glob("lib/python*/site-packages/nvidia/*/bin/ptxas"))
    real = wheels[0] if wheels else shutil.which("ptxas")
    if real is None:
        raise FileNotFoundError(
            "no ptxas on PATH nor in .venv-accelerators; remove that and make accelerators again"
        )
    toolkit = folder / "toolkit"
    script = toolkit / "bin" / "ptxas"
    script.parent.mkdir(parents=True)
    # The device library; a toolkit whose ptxas is a link elsewhere is found by XLA itself.
    library = Path(real).resolve().parent.parent / "nvvm"
    if library.is_dir():
        (toolkit / "nvvm").symlink_to(library)
    # XLA reads what ptxas prints on standard error: it is handed on.
    script.write_text(
        f"""#!/bin/sh
report="{folder}/$$.ptxas-v"
"{real}" -v "$@" 2>"$report"
status=$?
cat "$report" >&2
exit $status
"""
    )
    script.chmod(0o755)
    return toolkit


def compile_row(row: Row, target: Target, folder: Path) -> dict[str, Any]:
    """Measures of one compiled program."""
    import jax
    from dawndusk.solver import devices
    from jax.experimental import serialize_executable

    over = target.devices(row.devices)
    function, arguments = row.make(target)

    def program(*arguments):
        return function(*arguments)

    if row.devices == 1:
        one = jax.sharding.SingleDeviceSharding(over[0])
        jitted = jax.jit(program, in_shardings=one, out_shardings=one)
    else:
        jitted = devices.sharded(program, over)
    lowered = jitted.lower(*arguments)
    start = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    hlo = compiled.as_text()
    (folder / "compiled.hlo.txt").write_text(hlo)
    memory = compiled.memory_analysis()
    size = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
        - memory.alias_size_in_bytes
    )
    calls = dumps.custom_calls(hlo)
    kernels = [name for name, called in calls.items() if called in ("tpu_custom_call", "mosaic_gpu_v2")]
    found = {
        "compile_s": seconds,
        "memory": size,
        "wide_types": dumps.wide_types(hlo),
        "rough_products": dumps.rough_products(lowered.as_text()),
        "collectives": dumps.collectives(hlo),
        "library_calls": sorted(set(calls.values()) - {"tpu_custom_call", "mosaic_gpu_v2"}),
    }
    work = row.cell_steps * SATELLITES
    if target.platform == "cuda":
        payload = serialize_executable.serialize(compiled)[0]
        found |= {"cubin": b"\x7fELF" in payload} | _gpu_measures(row, folder, kernels)
    else:
        found |= _tpu_measures(row, folder, hlo, kernels, work / 1024)
    return found


def _gpu_measures(row: Row, folder: Path, kernels: list[str]) -> dict[str, Any]:
    def dump(ending: str) -> str:
        files = sorted(folder.glob(f"*{ending}"))
        if len(files) != 1:
            raise dumps.DumpError(f"{len(files)} dumps *{ending}")
        return files[0].read_text()

    after = "thunk_sequence_after_thunk_passes.txt"
    thunks = dump(after if list(folder.glob(f"*{after}")) else "thunk_sequence.txt")
    launched = dumps.launches(thunks, dump("thunk_metadata.txt"), dump("gpu_after_optimizations.txt"))
    reports = [path.read_text() for path in folder.glob("*.ptxas-v")]
    built = [kernel for report in reports for kernel in dumps.ptxas_kernels(report)]
    if not built:
        raise dumps.DumpError("no report of ptxas")
    found: dict[str, Any] = {
        "launches": launched.count / row.revolutions,
        "registers": max(kernel.registers for kernel in built),
        "spills": sorted(
            f"{kernel.name}: {kernel.spilled} bytes" for kernel in built if kernel.spilled and kernel.ours
        ),
        "spilling_kernels": sum(kernel.spilled > 0 for kernel in built),
    }
    if kernels:
        found["pallas"] = sum(launched.by_name[name] for name in kernels) / row.revolutions
    if kernels and row.counted:
        # The module of each Pallas kernel, as against those that XLA writes itself.
        modules = [path for path in folder.glob("*.ptx") if not path.name.startswith("module_")]
        if len(modules) != len(kernels):
            raise dumps.DumpError(f"{len(modules)} PTX modules of {len(kernels)} Pallas kernels")
        counts = {launched.by_name[name] for name in kernels}
        if len(counts) != 1:
            raise dumps.DumpError(
                "Pallas kernels launched unequally often: which module is whose is not known"
            )
        times = counts.pop() * row.threads / row.cell_steps
        found["bytes"] = times * sum(dumps.global_bytes(path.read_text()) for path in modules)
        found["instructions"] = times * sum(dumps.issued(path.read_text()) for path in modules)
    return found


def _tpu_measures(row: Row, folder: Path, hlo: str, kernels: list[str], work: float) -> dict[str, Any]:
    times = dumps.executions(hlo)
    if not kernels:
        return {"cycles": dumps.estimated_cycles(hlo) / work}
    launched = {"pallas": sum(times[name] for name in kernels) / row.revolutions}
    if not row.counted:
        return launched
    total = spilled = 0
    for name in kernels:
        files = [
            path
            for path in folder.glob(f"*-{name}-*-final_bundles.txt")
            if "schedule-analysis" not in path.name
        ]
        if len(files) != 1:
            raise dumps.DumpError(f"{len(files)} dumps of the bundles of {name}")
        text = files[0].read_text()
        total += times[name] * dumps.bundle_count(text)
        spilled += dumps.spilled_words(text)
    return launched | {
        "bundles": total / work,
        "spilled_words": spilled,
        "vector_memory": max(dumps.vmem_bytes(hlo, name) for name in kernels),
    }


# --- judgement ---------------------------------------------------------------------------------------------

# Measures that are held to a recorded budget.
BUDGETED = ("bundles", "bytes", "instructions")


def failures(row: Row, target: Target, found: dict[str, Any], budget: dict[str, float]) -> list[str]:
    """What is wrong with the measures of a row: measure, got, allowed."""
    wrong = []

    def check(good: bool, measure: str, got: Any, allowed: Any) -> None:
        if not good:
            wrong.append(f"{measure}: got {got}, allowed {allowed}")

    for measure in ("wide_types", "rough_products", "collectives", "spills"):
        got = found.get(measure, [])
        check(
            not got,
            measure,
            "; ".join(got[:4]) + (f" and {len(got) - 4} more" if len(got) > 4 else ""),
            "none",
        )
    check(found["memory"] <= target.memory, "memory", f"{found['memory']:,} bytes", f"{target.memory:,}")
    check(found.get("cubin", True), "cubin", "none in the executable", "one")
    if row.pallas is not None or "pallas" in found:
        check(found.get("pallas", 0) == row.pallas, "pallas", found.get("pallas", 0), row.pallas)
    used = found.get("vector_memory", 0)
    check(
        used <= target.vector_memory or not used,
        "vector_memory",
        f"{used:,} bytes",
        f"{target.vector_memory:,}",
    )
    for measure in BUDGETED:
        if measure in found:
            limit = budget.get(measure)
            check(
                limit is not None, measure, f"{found[measure]:.4g}", "no budget recorded; run with --record"
            )
            if limit is not None:
                check(
                    found[measure] <= limit * (1 + OVER),
                    measure,
                    f"{found[measure]:.4g}",
                    f"{limit:.4g} + 5 %",
                )
    return wrong


def loose(found: dict[str, Any], budget: dict[str, float]) -> list[str]:
    """Budgets that are to be lowered."""
    return [
        f"{measure}: {found[measure]:.4g}, over 10 % below its budget {budget[measure]:.4g}: lower that (--record)"
        for measure in BUDGETED
        if measure in found and measure in budget and found[measure] < budget[measure] * (1 - UNDER)
    ]


# --- all rows ----------------------------------------------------------------------------------------------


def attempt(row: Row, target: Target, folder: Path, timeout: float) -> dict[str, Any] | str:
    """Measures of a row, or why there are none."""
    folder.mkdir(parents=True)
    command = [sys.executable, __file__, "--child", row.name, target.name, str(folder)]
    process = subprocess.Popen(
        command,
        env=environment(row, target, folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        return f"compile: still going after {timeout:.0f} s, stopped"
    finally:
        # With what the compiler has started.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    result = folder / "measures.json"
    if process.returncode or not result.exists():
        last = [line for line in output.strip().splitlines() if line.strip()][-6:]
        return f"compile: exit status {process.returncode}\n    " + "\n    ".join(line[:300] for line in last)
    return json.loads(result.read_text())


COLUMNS = (
    ("compile [s]", lambda m: f"{m['compile_s']:.1f}"),
    ("memory [MiB]", lambda m: f"{m['memory'] / 2**20:,.0f}"),
    ("launches/rev", lambda m: f"{m['launches']:,.0f}"),
    ("Pallas/rev", lambda m: f"{m['pallas']:g}"),
    ("registers", lambda m: f"{m['registers']}"),
    # Kernels on a GPU, XLA's own among them, which only XLA can mend; words on a TPU.
    ("spills", lambda m: f"{m.get('spilled_words', m.get('spilling_kernels', '-'))}"),
    ("bytes/cell-step", lambda m: f"{m['bytes']:.1f}"),
    ("instr./cell-step", lambda m: f"{m['instructions']:.1f}"),
    ("bundles/1024", lambda m: f"{m['bundles']:.2f}"),
    ("est. cycles/1024", lambda m: f"{m['cycles']:,.0f}"),
    ("at most [G/s]", lambda m: f"{m['ceiling']:,.1f}"),
    ("library calls", lambda m: f"{len(m['library_calls'])}"),
)


def table(lines: list[tuple[Row, Target, Any, list[str]]]) -> str:
    """Aligned, one line a row; bundles and cycles are per cell-step of 1,024 satellites."""
    cells = [["program", "target", *(title for title, _ in COLUMNS), ""]]
    for row, target, found, wrong in lines:
        shown = []
        for _, show in COLUMNS:
            try:
                shown.append(show(found) if isinstance(found, dict) else "-")
            except KeyError:
                shown.append("-")
        cells.append([row.name, target.name, *shown, "FAILED" if wrong else "ok"])
    widths = [max(map(len, column)) for column in zip(*cells)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths))
        )
        for line in cells
    )


def _cores() -> int:
    """Rows to compile at once: each wants a core and up to 3 GB."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 4)


def main() -> int:
    """Compile, print, judge; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="rows whose 'name@target' contains this")
    parser.add_argument("--timeout", type=float, help="seconds a row may take, instead of its own limit")
    parser.add_argument("--jobs", type=int, default=_cores(), help="rows compiled at once")
    parser.add_argument("--keep", type=Path, help="folder for the dumps; they are removed without")
    parser.add_argument("--record", action="store_true", help="write the measures as the new budgets")
    parser.add_argument("--child", nargs=3, metavar=("ROW", "TARGET", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, target, folder = options.child
        row = next(row for row in ROWS if row.name == name)
        found = compile_row(row, TARGETS[target], Path(folder))
        (Path(folder) / "measures.json").write_text(json.dumps(found))
        return 0

    every = [(f"{row.name}@{name}", row, TARGETS[name]) for row in ROWS for name in row.targets]
    chosen = [(key, row, target) for key, row, target in every if options.only in key]
    if not chosen:
        parser.error(f"no row contains {options.only!r}")
    budgets = json.loads(BUDGETS.read_text()) if BUDGETS.exists() else {}
    lines, trouble, hints = [], [], []

    def measured(key: str, row: Row, target: Target, root: Path) -> dict[str, Any] | str:
        folder = root / key.replace(" ", "_")
        shutil.rmtree(folder, ignore_errors=True)
        found = attempt(row, target, folder, options.timeout or row.timeout)
        print(
            f"{key}: {'did not compile' if isinstance(found, str) else 'compiled'}",
            file=sys.stderr,
            flush=True,
        )
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
        return found

    with (
        tempfile.TemporaryDirectory(prefix="accelerators-") as scratch,
        ThreadPoolExecutor(options.jobs) as pool,
    ):
        root = (options.keep or Path(scratch)).absolute()
        # The longest first, so that none is left over at the end.
        started = {
            key: pool.submit(measured, key, row, target, root) for key, row, target in reversed(chosen)
        }
        results = {key: future.result() for key, future in started.items()}
    for key, row, target in chosen:
        found = results[key]
        if isinstance(found, str):
            wrong = [found]
        else:
            if options.record:
                budgets[key] = {m: float(f"{found[m]:.4g}") for m in BUDGETED if m in found}
            budget = budgets.get(key, {})
            wrong = failures(row, target, found, budget)
            hints += [f"{key}: {hint}" for hint in loose(found, budget)]
            needed = {target.rate: found.get("bundles", 0) / 1024 or found.get("bytes", 0)}
            needed[target.issue] = found.get("instructions", 0)
            if any(needed.values()):
                found["ceiling"] = min(rate / per for rate, per in needed.items() if per) / 1e9
        lines.append((row, target, found, wrong))
        trouble += [f"{key}: {fault}" for fault in wrong]
    if options.record:
        BUDGETS.write_text(json.dumps({k: v for k, v in sorted(budgets.items()) if v}, indent=2) + "\n")
    print("\n" + table(lines))
    for line in (*hints, *trouble):
        print(line)
    return bool(trouble)


if __name__ == "__main__":
    sys.exit(main())
