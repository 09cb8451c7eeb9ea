"""Fleets of distinct satellites through whole runs: cost against size, full size, one process against two.

    python bench/fleet.py growth [SATELLITES ...]   500, 1,000, 2,500 and 10,000 if not given
    python bench/fleet.py full [SATELLITES]         51,600 by `dawndusk run`, from start to pictures
    python bench/fleet.py processes [SATELLITES]    two processes of a core each against one with two devices

Project Sunrise, every satellite its own, 32 x 16 cells, 128 steps, float32, one epoch. Every run is a process of its
own, so that memory is its own; times are the run's, from the first row to the last with compilation left out. CPU
seconds stand beside them: on a machine that does other work the wall clock says little.
"""

import json
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLANES = 20
SIZES = (500, 1_000, 2_500, 10_000)
FILING = 51_600


def case_options(satellites: int) -> list[str]:
    """The case, at so many satellites."""
    if satellites % PLANES:
        raise SystemExit(f"{satellites} satellites: must be a multiple of {PLANES}, the planes of the case")
    return ["project_sunrise", "--set", f"orbit.satellites_per_plane={satellites // PLANES}"]


def growth(sizes: tuple[int, ...]) -> None:
    """Time and memory of a satellite against how many there are."""
    print(f"{'satellites':>10} {'wall s':>8} {'CPU s':>8} {'ms each':>8} {'CPU ms each':>12} {'peak GiB':>9}")
    first = None
    for count in sizes:
        done = subprocess.run(
            [sys.executable, __file__, "one", str(count)], capture_output=True, text=True, check=True
        )
        found = json.loads(done.stdout.splitlines()[-1])
        wall, cpu = found["wall_s"], found["cpu_s"]
        first = first or cpu / count
        print(
            f"{count:>10,} {wall:>8.2f} {cpu:>8.2f} {1e3 * wall / count:>8.3f} {1e3 * cpu / count:>12.3f}"
            f" {found['peak_gib']:>9.2f}   {cpu / count / first:.2f} x the first"
        )


def one(satellites: int) -> None:
    """One run in this process, as `dawndusk run` makes it; its time by wall clock and CPU as JSON."""
    from dawndusk.solver import devices

    devices.configure("cpu")
    from dawndusk.solver import case, run

    name, _, override = case_options(satellites)
    marks = []
    with tempfile.TemporaryDirectory() as folder:
        outcome = run.run(
            case.load(name, [override]),
            Path(folder),
            progress=lambda done, rows: marks.append((time.perf_counter(), time.process_time())),
        )
    (start, cpu_start), (end, cpu_end) = marks[0], marks[-1]
    peak = outcome.devices["peak_memory_gib"]
    print(json.dumps({"wall_s": end - start, "cpu_s": cpu_end - cpu_start, "peak_gib": peak}))


def full(satellites: int) -> None:
    """The whole command, and what it leaves on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "dawndusk", "run", *case_options(satellites), "--out", str(out)],
            check=True,
        )
        wall = time.perf_counter() - start
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = json.loads((out / "summary.json").read_text())
        store, marks = (
            sum(f.stat().st_size for f in (out / part).rglob("*") if f.is_file())
            for part in ("results.zarr", "rows")
        )
    walls = ", ".join(
        f"{name} {value:.1f}" for name, value in found["wall_s"].items() if name != "rows_solved_now"
    )
    print(
        f"{satellites:,} satellites: {wall:.1f} s in all, {spent.ru_utime + spent.ru_stime:.1f} s of CPU; {walls};"
        f" {found['rows_per_s']:,.0f} revolutions/s; {found['device']['peak_memory_gib']:.2f} GiB at most;"
        f" results.zarr {store / satellites:,.0f} bytes a satellite, marks {marks / satellites:,.0f}"
    )


def processes(satellites: int) -> None:
    """Rows a second of one process with a device for each core, and of as many processes with a core each."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    with tempfile.TemporaryDirectory() as folder:
        rates = []
        for count in (1, len(cores)):
            # Once to compile, once to be timed.
            for turn in ("first", "timed"):
                out = Path(folder) / f"{count}-{turn}"
                _run_together(satellites, out, count, cores)
            rates.append(_rate(out, count))
    print(
        f"{satellites:,} satellites, rows/s: one process on {len(cores)} cores {rates[0]:,.0f},"
        f" {len(cores)} processes of a core each {rates[1]:,.0f}, ratio {rates[1] / rates[0]:.2f}"
    )


def _run_together(satellites: int, out: Path, count: int, cores: list[int]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "dawndusk", "run", *case_options(satellites), "--out", str(out)]
    command += ["--set", "run.error_estimate=false"]
    join = ["--distributed", "--coordinator", where, "--processes", str(count), "--process-index"]
    started = [
        subprocess.Popen(
            [*command, *([*join, str(k)] if count > 1 else [])],
            stdout=subprocess.DEVNULL,
            preexec_fn=lambda k=k: os.sched_setaffinity(0, cores if count == 1 else {cores[k]}),
        )
        for k in range(count)
    ]
    if any(process.wait() for process in started):
        raise SystemExit("a process of the run has failed")


def _rate(out: Path, count: int) -> float:
    """Rows a second of all processes, each from its first mark to its last."""
    chunk = json.loads((out / "plan.json").read_text())["chunk"]
    total = 0.0
    for k in range(count):
        times = []
        for mark in (out / "rows").glob("*.npz"):
            first, last = (int(part) for part in re.findall(r"\d+", mark.stem))
            if first // chunk % count == k:
                times.append((mark.stat().st_mtime_ns / 1e9, last - first))
        times.sort()
        total += sum(rows for _, rows in times[1:]) / (times[-1][0] - times[0][0])
    return total


def main() -> None:
    what, *numbers = sys.argv[1:] or [""]
    counts = [int(number) for number in numbers]
    if what == "growth":
        growth(tuple(counts) or SIZES)
    elif what == "one":
        one(counts[0])
    elif what == "full":
        full(counts[0] if counts else FILING)
    elif what == "processes":
        processes(counts[0] if counts else 10_000)
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
