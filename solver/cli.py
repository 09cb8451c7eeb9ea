"""The command line: run, study, sensitivity, size, check, plot, schema.

Nothing here imports JAX before `devices.configure` has set it up, so that `--help` is instant and one XLA
host device a core can still be asked for.
"""

import enum
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

BAD_INPUT, INFEASIBLE, INTERRUPTED = 1, 3, 130
PIPE_WIDTH = 120

app = typer.Typer(
    help="Orbital thermal and power solver for fleets of satellites.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Precision(enum.StrEnum):
    """Of all numbers of a run."""

    single = "single"
    double = "double"


class Device(enum.StrEnum):
    """Kind of device."""

    cpu = "cpu"
    gpu = "gpu"
    tpu = "tpu"


class Only(enum.StrEnum):
    """Parts of a run."""

    flux = "flux"


CaseFile = Annotated[
    str, typer.Argument(metavar="CASE.toml", help="Case file, or the name of a shipped case.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, such as orbit.altitude_km=600."),
]
PrecisionOption = Annotated[Precision, typer.Option(help="float32 or float64.")]
DeviceOption = Annotated[Device | None, typer.Option(help="Where to compute; JAX's choice if not given.")]


def main() -> None:
    """Entry point of `dawndusk` and `python -m dawndusk`."""
    app(prog_name="dawndusk")


def _version(value: bool) -> None:
    if value:
        from dawndusk import __version__

        typer.echo(__version__)
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


@contextmanager
def _readable() -> Iterator[None]:
    """One readable message and exit code 1 for what a user can put right, never a traceback."""
    from .case import CaseError
    from .devices import DeviceError
    from .results import RunDirectoryError

    try:
        yield
    except (CaseError, DeviceError, RunDirectoryError) as error:
        _fail(str(error), BAD_INPUT)
    except OSError as error:
        _fail(f"{error.filename or 'file'}: {(error.strerror or str(error)).lower()}", BAD_INPUT)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)
    except (MemoryError, RuntimeError) as error:
        # JAX's own: the device's memory, most likely.
        if isinstance(error, RuntimeError) and not type(error).__module__.startswith("jax"):
            raise
        _fail(
            f"{(str(error) or 'out of memory').splitlines()[0]}; a smaller --chunk needs less memory",
            BAD_INPUT,
        )


def _warning(message: str) -> None:
    typer.echo(f"warning: {message}", err=True)


def _fail(message: str, code: int) -> None:
    typer.echo(f"error: {message}" if code != INTERRUPTED else message, err=True)
    raise typer.Exit(code)


@app.command()
def run(
    case: CaseFile,
    set_: Sets = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; runs/<case name> if not given.")] = None,
    only: Annotated[
        Only | None,
        typer.Option(help="Fluxes and eclipses of all satellites at all epochs, no temperatures."),
    ] = None,
    precision: PrecisionOption = Precision.single,
    device: DeviceOption = None,
    chunk: Annotated[int | None, typer.Option(min=1, help="Rows solved at once on each device.")] = None,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Keep compiled programs for later.")
    ] = True,
    distributed: Annotated[
        bool,
        typer.Option("--distributed", help="One of several processes; a cluster that JAX knows tells which."),
    ] = False,
    coordinator: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where the first process listens.")
    ] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Number of processes.")] = None,
    process_index: Annotated[int | None, typer.Option(min=0, help="Which of them this one is.")] = None,
) -> None:
    """Run a case, or go on with an interrupted run, and write its results and pictures."""
    with _readable():
        from . import case as cases
        from . import devices

        loaded = cases.load(case, set_ or ())
        join = _joining(distributed, coordinator, processes, process_index)
        if coordinator is not None:
            typer.echo(f"process {process_index} of {processes}, waiting for all at {coordinator}", err=True)
        joined = devices.configure(device, precision, cache, join)
        out = out or Path("runs") / Path(case).stem
        with _quiet():
            code = _run(loaded, out, only, precision, chunk, joined)
    if code:
        raise typer.Exit(code)


def _joining(distributed: bool, *where: Any) -> Any:
    """What finds the other processes of the run."""
    from . import processes

    names = ("--coordinator", "--processes", "--process-index")
    given = [name for name, value in zip(names, where) if value is not None]
    if given and not distributed:
        raise typer.BadParameter(f"{given[0]} goes with --distributed")
    if given and len(given) < len(names):
        raise typer.BadParameter(f"{', '.join(names)} go together; got {', '.join(given)} only")
    if given and where[2] >= where[1]:
        raise typer.BadParameter(f"--process-index: got {where[2]}; must be below --processes, {where[1]}")
    return (lambda: processes.join(*where)) if distributed else (lambda: processes.ALONE)


def _run(case: Any, out: Path, only: Only | None, precision: str, chunk: int | None, processes: Any) -> int:
    from . import accuracy, flux, flux_summary, plots, summary
    from . import run as runner

    console = _console()
    kind, show = (flux.FluxSolver, flux_summary.show) if only else (runner.Solver, summary.show)
    with _progress(processes.first) as report:
        outcome = runner.run(
            case,
            out,
            kind=kind,
            precision=precision,
            chunk=chunk,
            progress=report,
            warn=_warning if processes.first else lambda message: None,
            processes=processes,
        )
    if not processes.first:
        return INTERRUPTED if outcome.interrupted else 0
    if only:
        flux.conclude(outcome)
        found = flux_summary.summarise(outcome)
    else:
        if not outcome.interrupted:
            outcome.accuracy = accuracy.estimate(outcome)
        runner.conclude(outcome)
        found = summary.summarise(outcome)
    summary.write(out, found)
    pictures = plots.plot(out) if found["complete"] and found.keys() & {"quantities", "eclipse"} else []
    show(found, console)
    names = ", ".join(["results.zarr", "summary.json", "case.toml", *(picture.name for picture in pictures)])
    console.print(f"{out}: {names}")
    for message in found["infeasible"]:
        typer.echo(f"infeasible: {message}", err=True)
    if outcome.interrupted:
        typer.echo(f"interrupted; the same command goes on from {found['rows_solved']} rows", err=True)
        return INTERRUPTED
    return INFEASIBLE if found["infeasible"] else 0


def _console() -> Any:
    """Standard output; in a pipe as wide as the tables are. Brackets in a user's words are no markup."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = max(console.width, PIPE_WIDTH)
    return console


@contextmanager
def _progress(shown: bool = True, what: str = "revolutions", before: str = "compiling") -> Iterator[Any]:
    """A bar with rate and time left on a terminal; nothing in a pipe. It counts `what`, and first says `before`."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, disable=not (shown and console.is_terminal), transient=True
    ) as bar:
        task = bar.add_task(before, total=None, rate="")
        start = None

        def report(done: int, rows: int) -> None:
            nonlocal start
            if start is None:
                start = done
            speed = bar.tasks[0].speed
            words = what if done > start else before
            bar.update(
                task, completed=done, total=rows, description=words, rate=f"{speed:.3g}/s" if speed else ""
            )

        yield report


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep other packages' warnings off the terminal: the summary has its own."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Scheme(enum.StrEnum):
    """How the designs of a study are chosen."""

    grid = "grid"
    latin = "latin"
    sobol = "sobol"


class Environment(enum.StrEnum):
    """Levels of the environment."""

    nominal = "nominal"
    hot = "hot"
    cold = "cold"


class Life(enum.StrEnum):
    """Ends of the life."""

    beginning = "beginning"
    end = "end"


Environments = Annotated[
    list[Environment] | None,
    typer.Option("--environment", help="Judge in this environment; several: by the worst of them."),
]
Lives = Annotated[
    list[Life] | None, typer.Option("--life", help="Judge at this end of the life; both: by the worse.")
]


@app.command()
def study(
    case: CaseFile,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=LOW:HIGH:COUNT",
            help="Sweep a key; also LOW:HIGH:COUNT:log and VALUE,VALUE. Without COUNT for latin and sobol.",
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=2, help="Draw so many samples of the case's [uncertainty].")
    ] = None,
    design: Annotated[
        Scheme | None, typer.Option(help="Sweeps: grid if not given; samples: latin or sobol, latin.")
    ] = None,
    points: Annotated[int | None, typer.Option(min=2, help="Designs of a sweep by latin or sobol.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of latin and sobol; 0, or that of [uncertainty], if not given.")
    ] = None,
    of: Annotated[str | None, typer.Option(help="Figure to choose the best design by, and to draw.")] = None,
    environment: Environments = None,
    life: Lives = None,
    set_: Sets = None,
    out: Annotated[Path | None, typer.Option(help="Directory; runs/<case name>_study if not given.")] = None,
    precision: PrecisionOption = Precision.single,
    device: DeviceOption = None,
) -> None:
    """Solve many designs of a case: keys swept through ranges, or samples of what is uncertain."""
    with _readable():
        from . import case as cases
        from . import devices

        if bool(vary) == (samples is not None):
            raise typer.BadParameter("give --vary KEY=LOW:HIGH:COUNT, or --samples N; not both")
        loaded = cases.load(case, set_ or ())
        devices.configure(device, precision)
        from . import differentiable, sweep, uncertainty

        if samples is None:
            kind, designs = sweep, sweep.designs(loaded, vary or (), design or Scheme.grid, points, seed or 0)
        else:
            if design is Scheme.grid or points is not None:
                given = "--points" if points is not None else "--design grid"
                raise typer.BadParameter(f"{given} goes with --vary")
            kind, designs = uncertainty, uncertainty.designs(loaded, samples, design or Scheme.latin, seed)
        conditions = differentiable.conditions(environment or (), life or ())
        out = out or Path("runs") / f"{Path(case).stem}_study"
        with _quiet():
            code = _study(kind, loaded, designs, out, of, conditions, precision)
    if code:
        raise typer.Exit(code)


def _study(
    kind: Any, case: Any, designs: Any, out: Path, of: str | None, conditions: Any, precision: str
) -> int:
    from . import study as studies
    from . import study_plots, uncertainty

    with _progress(what="designs checked", before="checking") as report:
        studies.check(case, designs, report)
    with _progress(what="designs") as report:
        outcome = studies.solve(
            case, designs, out, of=of, conditions=conditions, precision=precision, progress=report
        )
    with _progress(before="gradient" if kind is uncertainty else "summary"):
        found = kind.summarise(outcome, of)
    studies.write(outcome, found)
    pictures = study_plots.plot(out) if found["complete"] else []
    console = _console()
    kind.show(found, console)
    names = ", ".join(["results.zarr", "summary.json", "case.toml", *(picture.name for picture in pictures)])
    console.print(f"{out}: {names}")
    if outcome.interrupted:
        done = found["solved"] + found["failed"]
        typer.echo(f"interrupted; the same command goes on from {done} {found['what']}", err=True)
        return INTERRUPTED
    return 0


@app.command()
def check(
    case: Annotated[
        str | None, typer.Argument(metavar="[CASE.toml]", help="Case file, or the name of a shipped case.")
    ] = None,
    set_: Sets = None,
    precision: PrecisionOption = Precision.single,
    device: DeviceOption = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Compile the case and time a few chunks: memory, rows/s, duration."),
    ] = False,
) -> None:
    """Validate a case and show what it means; without a case, show the shipped cases and the devices."""
    with _readable():
        from . import case as cases
        from . import devices

        console = _console()
        if measure and case is None:
            raise typer.BadParameter("--measure goes with a case")
        loaded = None if case is None else cases.load(case, set_ or ())
        devices.configure(device, precision)
        from . import check as checking

        with _quiet():
            if loaded is None:
                checking.show_installation(console)
            else:
                checking.show_case(loaded, precision, console, measure)


@app.command()
def plot(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Directory of a finished run.")],
) -> None:
    """Draw the pictures of a run again."""
    with _readable(), _quiet():
        from . import plots

        for picture in plots.plot(run_dir):
            typer.echo(picture)


@app.command()
def sensitivity(
    case: CaseFile,
    of: Annotated[
        list[str] | None,
        typer.Option(metavar="FIGURE", help="Figure of merit; repeatable. The least margin if not given."),
    ] = None,
    top: Annotated[
        int, typer.Option(min=1, help="Keys shown of each figure; sensitivity.json has all.")
    ] = 20,
    environment: Environments = None,
    life: Lives = None,
    set_: Sets = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory; runs/<case name>_sensitivity if not given.")
    ] = None,
    precision: PrecisionOption = Precision.double,
    device: DeviceOption = None,
) -> None:
    """Rank the keys of a case by what they do to a figure: exact derivatives to all of them in one reverse pass."""
    with _readable():
        from . import case as cases
        from . import devices

        loaded = cases.load(case, set_ or ())
        devices.configure(device, precision)
        from . import sensitivity as sensitivities
        from .differentiable import conditions
        from .results import taken

        out = out or Path("runs") / f"{Path(case).stem}_sensitivity"
        judged, dtype = conditions(environment or (), life or ()), devices.PRECISIONS[precision]
        with _quiet(), taken(out, sensitivities.JSON):
            with _progress() as report:
                found = sensitivities.sensitivities(loaded, of or (), judged, dtype, report)
            names = sensitivities.write(out, loaded, found)
        console = _console()
        sensitivities.show(found, console, top)
        console.print(f"{out}: {', '.join(names)}")


@app.command()
def size(
    case: CaseFile,
    set_: Sets = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory of the results; runs/<case name>_size if not given.")
    ] = None,
    starts: Annotated[
        int | None, typer.Option(min=1, max=100, help="Searches, in place of sizing.starts.")
    ] = None,
    device: DeviceOption = None,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Keep compiled programs for later.")
    ] = True,
) -> None:
    """Size a case: the values of its [sizing] variables that make the objective best within all limits."""
    with _readable():
        from . import case as cases
        from . import devices

        given = [] if starts is None else [f"sizing.starts={starts}"]
        loaded = cases.load(case, [*(set_ or ()), *given])
        devices.configure(device, Precision.double, cache)
        from . import sizing, sizing_report
        from .results import taken

        out = out or Path("runs") / f"{Path(case).stem}_size"
        with _quiet(), taken(out, sizing_report.JSON):
            with _searching() as report:
                found = sizing.size(loaded, report)
            told, console = sizing_report.report(found), _console()
            names = sizing_report.write(out, found, told)
        sizing_report.show(told, console)
        console.print(f"{out}: {', '.join(names)}")
    for message in told["infeasible"]:
        typer.echo(f"infeasible: {message}", err=True)
    if told["infeasible"]:
        raise typer.Exit(INFEASIBLE)


@contextmanager
def _searching() -> Iterator[Any]:
    """A line on a terminal that says where each search stands; nothing in a pipe."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("compiling")

        def report(start: int, calls: int, objective: float, margin: float) -> None:
            words = f"search {start + 1}, call {calls}: objective {abs(objective):.6g}, worst margin {margin:+.2g}"
            bar.update(task, description=words)

        yield report


@app.command()
def schema() -> None:
    """Print the JSON Schema of case files, for editors."""
    from .schema import Case

    json.dump(Case.model_json_schema(by_alias=True), sys.stdout, indent=1)
    sys.stdout.write("\n")
