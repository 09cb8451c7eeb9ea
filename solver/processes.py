"""The processes of one run, on one machine or on several that share a file system.

Each solves every n-th chunk of rows on its own devices and writes it into its own regions of the one store: rows
never talk to each other, so that all there is to agree on is the plan. JAX's distributed runtime numbers the
processes and notices when one is lost.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import results
from .devices import DeviceError

PATIENCE = 7 * 86400  # s that the others wait for the first one to write the summary


@dataclass(frozen=True)
class Processes:
    """This process and how many there are; the first one writes what there is one of."""

    index: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.index == 0


ALONE = Processes()


def join(coordinator: str | None = None, count: int | None = None, index: int | None = None) -> Processes:
    """Become one of the processes of a run. Call before JAX first computes.

    Args:
        coordinator: Address and port of the first process.
        count: Processes in all.
        index: Of this one. All three None: as the cluster says, if it is of a kind that JAX knows.

    Raises:
        DeviceError: they cannot find each other.
    """
    import jax

    # What one process brings does not depend on the others: they go on without one that is lost.
    jax.config.update("jax_enable_recoverability", True)
    try:
        jax.distributed.initialize(coordinator, count, index, shutdown_timeout_seconds=PATIENCE)
    except (ValueError, RuntimeError) as error:
        if coordinator is None:
            raise DeviceError(
                "--distributed: JAX finds no cluster that it knows around this process; say where the others are, "
                "with --coordinator HOST:PORT --processes N --process-index I"
            ) from None
        raise DeviceError(f"--coordinator {coordinator}: {str(error).splitlines()[0]}") from None
    return Processes(jax.process_index(), jax.process_count())


@contextmanager
def together(processes: Processes) -> Iterator[None]:
    """A block that all processes enter and that each leaves as all have come through it, or none does.

    Raises:
        RunDirectoryError: one of the others did not, and says why.
    """
    well = False
    try:
        yield
        well = True
    finally:
        if not _all(well, processes) and well:
            raise results.RunDirectoryError("another process of this run has stopped, and says why")


def _all(ok: bool, processes: Processes) -> bool:
    import numpy as np

    if processes.count == 1:
        return ok
    from jax.experimental import multihost_utils

    return bool(np.all(multihost_utils.process_allgather(np.array(ok))))


def wait_for_others(
    path: Path, rows: int, processes: Processes, progress: Callable[[int, int], None], every: float = 0.5
) -> None:
    """Wait until all rows are there, or nobody is left who could bring them."""
    others = set(range(1, processes.count))
    while others:
        # In this order: what a process brings it marks before it ends.
        others = {other for other in others if not _ended(path, other)}
        done = results.rows_marked(path)
        progress(done, rows)
        if done == rows:
            return
        time.sleep(every)


def _ended(path: Path, other: int) -> bool:
    try:
        with results.claim(path, other):
            return True
    except results.RunDirectoryError:
        return False
