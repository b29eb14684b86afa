"""Several processes that are one run: joining them, what they must agree on, and what one of them does alone.

Every process runs the same program on its own devices; JAX and its collectives join the devices of all. Process 0 alone
writes files and prints.
"""

import functools
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from llmjax.errors import UserError
from llmjax.parallel.watch import Watch, watch

T = TypeVar("T")
SECONDS = 120  # that a process waits for the others to come
HEARTBEAT = 60  # seconds without a sign of life after which a host counts as lost


@dataclass(frozen=True)
class ProcessConfig:
    """Which process of how many this is; the defaults leave it to TPU VMs, Slurm and Open MPI to tell.

    coordinator: "HOST:PORT" of process 0, which listens there.
    """

    coordinator: str = ""
    processes: int = 0
    process: int = -1


class Who(NamedTuple):
    """A process of the run, as it is named to people."""

    index: int
    host: str
    pid: int

    def __str__(self) -> str:
        return f"process {self.index} (pid {self.pid} on {self.host})"


def join(config: ProcessConfig, chip_here: bool) -> bool:
    """Joins this process to the others of its run, before JAX computes anything; returns whether it did.

    Args:
        chip_here: whether this host may have a TPU, which then knows of the hosts beside it.

    Raises:
        UserError: the settings are incomplete, or the others did not come in time.
    """
    given = (config.coordinator != "", config.processes > 0, config.process >= 0)
    if not any(given):
        return (launched() or chip_here) and _join_cluster()
    if not all(given):
        raise UserError(
            "mesh.coordinator=HOST:PORT, mesh.processes=COUNT and mesh.process=INDEX belong together: give all three."
        )
    host, colon, port = config.coordinator.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 2**16):
        raise UserError(f"mesh.coordinator={config.coordinator!r} must be HOST:PORT, of the host of process 0.")
    if config.process >= config.processes:
        raise UserError(f"mesh.process={config.process} must be below mesh.processes={config.processes}.")
    if config.process:
        _reach(host, int(port))
    missing = f"mesh.processes={config.processes}: not all came to {config.coordinator} within {SECONDS} s"
    _initialize(config.coordinator, missing, num_processes=config.processes, process_id=config.process)
    return True


def launched() -> bool:
    """Whether Slurm or Open MPI started this process as one of several."""
    counts = (os.environ.get(name, "") for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    return any(count.isdecimal() and int(count) > 1 for count in counts)


def _join_cluster() -> bool:
    try:
        _initialize(None, f"the other processes did not come within {SECONDS} s")
    except ValueError:  # a TPU, and nobody who knows of other hosts
        return False
    return True


def _initialize(coordinator: str | None, missing: str, **options: Any) -> None:
    try:
        jax.distributed.initialize(
            coordinator, initialization_timeout=SECONDS, heartbeat_timeout_seconds=HEARTBEAT, **options
        )
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"{missing} ({str(error).splitlines()[0][:200]}).") from error
    _keep_output_apart()


def _keep_output_apart() -> None:
    """Leaves standard output to Python: what libraries print there, as the CPU's collectives do, goes to the other."""
    sys.stdout.flush()
    ours, theirs = sys.stdout.fileno(), sys.stderr.fileno()
    lines = 1 if sys.stdout.isatty() else -1
    kept = os.fdopen(os.dup(ours), "w", lines, encoding=sys.stdout.encoding, errors=sys.stdout.errors)
    os.dup2(theirs, ours)
    sys.stdout = kept


def _reach(host: str, port: int) -> None:
    """Waits until somebody listens there."""
    end = time.monotonic() + SECONDS
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                reason = error.strerror or str(error)
                raise UserError(
                    f"mesh.coordinator={host}:{port}: process 0 did not answer within {SECONDS} s ({reason}): is it "
                    "running, and is the port open?"
                ) from error
        time.sleep(0.5)


def meet_others(settings: Mapping[str, Any]) -> Watch | None:
    """Introduces the processes to one another: they must have the same settings, and from now on watch each other.

    What is printed to standard output is process 0's alone from here on.

    Raises:
        UserError: a process has another setting than process 0; the line names both.
    """
    if not several():
        return None
    listener = socket.create_server(("", 0)) if leads() else None
    place = [*listener.getsockname(), secrets.token_hex(8)] if listener else []
    found, everybody = _introduced(settings, place)
    _, port, secret = found[0]["listens"]
    watching = watch(everybody, jax.process_index(), listener, (found[0]["host"], port), secret)
    if not leads():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    return watching


def agree(settings: Mapping[str, Any]) -> None:
    """Raises `UserError` in every process where one has another setting than process 0."""
    if several():
        _introduced(settings)


def _introduced(settings: Mapping[str, Any], listens: Sequence[Any] = ()) -> tuple[list[dict[str, Any]], list[Who]]:
    """What every process says of itself, and who they are; refuses other settings than process 0's."""
    own = {"host": socket.gethostname(), "pid": os.getpid(), "settings": dict(settings), "listens": list(listens)}
    found = gathered(own)
    everybody = [Who(index, one["host"], one["pid"]) for index, one in enumerate(found)]
    _same([one["settings"] for one in found], everybody)
    return found, everybody


def _same(settings: list[dict[str, Any]], everybody: list[Who]) -> None:
    first = settings[0]
    for who, own in zip(everybody, settings, strict=True):
        for name in [*first, *own]:
            if own.get(name) != first.get(name):
                raise UserError(
                    f"{who} has {name}={own.get(name)!r}, {everybody[0]} has {first.get(name)!r}: start all processes "
                    "with the same settings, on the same data."
                )


def gathered(value: Any) -> list[Any]:
    """Returns what every process gave, anything that JSON can say, in their order."""
    from jax.experimental.multihost_utils import process_allgather

    own = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(np.max(process_allgather(np.array(len(own)))))
    rows = np.asarray(process_allgather(np.pad(own, (0, size - len(own)), constant_values=ord(" "))))
    return [json.loads(bytes(row)) for row in rows.reshape(jax.process_count(), size).astype(np.uint8)]


def several() -> bool:
    """Whether this run has more than one process."""
    return jax.process_count() > 1


def leads() -> bool:
    """Whether this process writes files and prints."""
    return jax.process_index() == 0


def own(path: Path) -> Path:
    """Returns where this process writes what belongs at `path`: there, or nowhere."""
    return path if leads() else Path(os.devnull)


def wait_for_all(what: str) -> None:
    """Returns when every process has come here."""
    if several():
        from jax.experimental.multihost_utils import sync_global_devices

        sync_global_devices(what)


def one_first(work: Callable[[], T]) -> T:
    """Returns what `work` gives in every process; process 0's turn comes first, so the others find what it kept."""
    if leads():
        found = work()
        wait_for_all("one first")
        return found
    wait_for_all("one first")
    return work()


def fetched(array: Any) -> np.ndarray:
    """Returns an array's values, also where other processes hold parts of it; all processes must ask."""
    if isinstance(array, jax.Array) and not (array.is_fully_addressable or array.is_fully_replicated):
        from jax.experimental.multihost_utils import process_allgather

        return np.asarray(process_allgather(array, tiled=True))
    return np.asarray(array)


def fetched_tree(tree: Any) -> Any:
    """Returns a tree of arrays as NumPy ones where they are of several processes, else as it is."""
    return jax.tree.map(fetched, tree) if several() else tree


def largest(value: int) -> jax.Array:
    """Returns the largest of all processes' values, as a scalar that is computed while the caller goes on."""
    reduce, each = _largest()
    return reduce(jax.make_array_from_process_local_data(each, np.full(jax.local_device_count(), value, np.int32)))


@functools.cache
def _largest() -> tuple[Any, NamedSharding]:
    mesh = jax.make_mesh((jax.device_count(),), ("all",), axis_types=(AxisType.Auto,), devices=jax.devices())
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.jit(jnp.max, out_shardings=whole), NamedSharding(mesh, PartitionSpec("all"))
