"""Devices and precision, and the split of one batch of rows over the devices of this machine."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# Rows per device and chunk. On a CPU 128-256 panels of 32 x 16 cells fit a core's second-level cache; an
# accelerator wants enough rows to fill every lane.
ROWS_PER_DEVICE = {"cpu": 128, "gpu": 4096, "tpu": 1024}
LANES = 16  # numbers in the widest vector register
PRECISIONS = {"single": "float32", "double": "float64"}
# What makes XLA's loops on a CPU fast: the sweeps of a march compiled as one function each instead of being
# dispatched operation by operation (twice the speed), and whole vector registers. Other devices ignore them.
CPU_FLAGS = {
    "xla_backend_extra_options": "xla_cpu_small_while_loop_byte_threshold=100000000",
    "xla_cpu_prefer_vector_width": 512,
    # Devices that wait for each other end the process after 40 s by default: on a busy machine that is no fault.
    "xla_cpu_collective_call_terminate_timeout_seconds": 100_000,
}
GIB = 1 << 30
_PLATFORMS = {"cpu": "cpu", "gpu": "cuda,cpu", "tpu": "tpu,cpu"}


class DeviceError(RuntimeError):
    """The device that was asked for is not there."""


def configure(
    device: str | None = None,
    precision: str = "single",
    cache: bool = True,
    join: Callable[[], Any] = lambda: None,
) -> Any:
    """Choose platform, precision, host devices and compilation cache. Call before JAX first computes.

    Args:
        device, precision: As on the command line.
        cache: Whether compiled programs are kept between runs.
        join: What finds the other processes of a run, when all is set and before JAX looks for devices.

    Returns:
        What `join` gives.

    One XLA host device per core: code inside scan and while uses one core, so a batch split over as many
    host devices as there are cores is what fills the machine. Two at least: XLA compiles for a single one what
    rounds otherwise, and a run's numbers are to be the same on every machine of a kind.

    Raises:
        DeviceError: the platform has no device here.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    wanted = {"xla_force_host_platform_device_count": max(2, cores()), **CPU_FLAGS}
    extra = [f"--{name}={value}" for name, value in wanted.items() if name not in flags]
    os.environ["XLA_FLAGS"] = " ".join([*flags.split(), *extra])
    # XLA logs what a user can do nothing about (cached code, missing plugins) to standard error.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    import jax

    if device is not None:
        jax.config.update("jax_platforms", _PLATFORMS[device])
    if precision == "double":
        jax.config.update("jax_enable_x64", True)
    if not cache:
        jax.config.update("jax_enable_compilation_cache", False)
    elif not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(cache_dir()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    joined = join()
    check(device)
    return joined


def check(device: str | None) -> None:
    """Raise DeviceError unless JAX's default device is of the kind asked for."""
    import jax

    try:
        found = jax.default_backend()
    except RuntimeError as error:
        raise DeviceError(_absent(device or "device", str(error).splitlines()[0])) from None
    if device is not None and found != device:
        raise DeviceError(_absent(device, f"JAX finds {found} only"))


def _absent(device: str, detail: str) -> str:
    extra = {"gpu": "; for NVIDIA: pip install 'dawndusk[cuda13]'", "tpu": "; pip install 'dawndusk[tpu]'"}
    return f"no {device} on this machine ({detail}){extra.get(device, '')}; or run with --device cpu"


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cache_dir() -> Path:
    """Where compiled programs are kept between runs."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "dawndusk" / "xla"


def describe() -> dict[str, Any]:
    """Platform, kind, number and memory of the devices a run uses, and the most that was in use so far.

    That of one device; of CPU devices, which share the machine's, the process's.
    """
    import jax

    devices = jax.local_devices()
    found = {
        "platform": devices[0].platform,
        "kind": devices[0].device_kind,
        "count": len(devices),
        "memory_gib": round(memory() / GIB, 3),
    }
    used = _most_in_use(devices[0])
    return found if used is None else found | {"peak_memory_gib": round(used / GIB, 3)}


def memory() -> int:
    """Memory of one device [bytes]; on a CPU its share of the machine's."""
    import jax

    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    return machine_memory() // jax.local_device_count()


def all_memory() -> int:
    """Memory of all of this process's devices [bytes]."""
    import jax

    return memory() * jax.local_device_count()


def machine_memory() -> int:
    """Memory of the machine, or as much of it as a container gives its processes [bytes]."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return physical
    return min(physical, int(limit)) if limit.isdecimal() else physical


def _most_in_use(device: Any) -> int | None:
    stats = device.memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    try:
        import resource
    except ImportError:  # not on this system
        return None
    # In KiB, on a Mac in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def chunk_rows(
    rows: int,
    per_device: int | None = None,
    at_least: int = 1,
    full: Mapping[str, int] = ROWS_PER_DEVICE,
) -> int:
    """Rows that a process solves at once, the same number on each of its devices.

    That number is `per_device` (all rows, if they are fewer), or as many as fill a device (`full`, by platform); for
    a small run half its rows, rounded up to a power of two and to whole vector registers. It follows from the run
    alone, whatever the number of devices: XLA's code for another number of rows rounds differently.
    """
    import jax

    count = jax.local_device_count()
    if per_device is not None:
        return min(count * per_device, even(max(rows, 1)))
    most = full.get(jax.default_backend(), full["gpu"])
    half = 1 << (max(rows, 2) // 2 - 1).bit_length()
    return even(max(count * min(most, max(LANES, half)), at_least))


def even(rows: int) -> int:
    """Rows, or as many more as make equal shares of the devices."""
    import jax

    count = jax.local_device_count()
    return -(-rows // count) * count


def sharded(function: Callable, over: Sequence[Any] | None = None) -> Callable:
    """`function` over all local devices, rows split evenly; jitted. Every leaf has the rows first.

    Args:
        function: Of pytrees, to pytrees.
        over: Devices to split over instead, such as those of a machine that is only compiled for.
    """
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(jax.local_devices() if over is None else over), ("rows",))
    rows = PartitionSpec("rows")
    # Rows never talk to each other: no collectives, and nothing for the varying-axes check to find.
    mapped = jax.shard_map(function, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)
    split = NamedSharding(mesh, rows)
    return jax.jit(mapped, in_shardings=split, out_shardings=split)
