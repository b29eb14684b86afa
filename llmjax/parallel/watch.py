"""Processes that watch each other: when one ends before its time, the others end too, with a line that names it.

JAX alone notices a dead process by its missing heartbeats, and collectives wait for it until then. The operating
system closes the connections of a process that ends: each process holds one to process 0, which passes on what it sees.
"""

import atexit
import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LEAVING = b"bye\n"
STATUS = 1
GRACE = 2  # seconds for this process to say its own error, where both have the same


@dataclass(frozen=True)
class Watch:
    """The connections by which this process would be missed."""

    connections: list[socket.socket]

    def leave(self) -> None:
        """Says that this process ends as it should."""
        for connection in self.connections:
            _send(connection, LEAVING)

    def fail(self, status: int) -> None:
        """Lets the others know that this process ends with an error, and at its end wait for none of them."""
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        atexit.register(_exit, status)  # before JAX's own, which waits for all processes


def watch(
    everybody: Sequence[Any], here: int, listener: socket.socket | None, lead: tuple[str, int], secret: str
) -> Watch:
    """Starts watching the other processes, until this one ends.

    Args:
        everybody: the processes, by index, as they are named to people.
        here: this process's index.
        listener: of process 0, a socket that listens.
        lead: host and port of that socket.
        secret: a word that only the run's processes know.
    """
    connections: list[socket.socket] = []
    if listener is not None:
        threading.Thread(target=_lead, args=(everybody, listener, connections, secret), daemon=True).start()
        return Watch(connections)
    try:
        connection = socket.create_connection(lead, timeout=20)
        connection.settimeout(None)
        connection.sendall(f"{secret} {here}\n".encode())
    except OSError as error:
        print(f"warning: {everybody[0]} cannot be watched ({error}): should it end, JAX notices later", file=sys.stderr)
        return Watch(connections)
    connections.append(connection)
    threading.Thread(target=_follow, args=(everybody[0], connection), daemon=True).start()
    return Watch(connections)


def _lead(everybody: Sequence[Any], listener: socket.socket, connections: list[socket.socket], secret: str) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_attend, args=(everybody, connections, connection, secret), daemon=True).start()


def _attend(everybody: Sequence[Any], connections: list[socket.socket], connection: socket.socket, secret: str) -> None:
    stream = connection.makefile("rb")
    told, _, index = _line(stream).decode(errors="replace").strip().partition(" ")
    if told != secret or not index.isdecimal():
        return
    connections.append(connection)
    if _line(stream) == LEAVING:
        return
    ended = str(everybody[int(index)])
    for other in connections:
        _send(other, f"{ended}\n".encode())
    _end(ended)


def _follow(lead: Any, connection: socket.socket) -> None:
    said = _line(connection.makefile("rb"))
    if said != LEAVING:
        _end(said.decode(errors="replace").strip() or str(lead))


def _line(stream: Any) -> bytes:
    """Returns the next line; "" where the other end is gone."""
    try:
        return stream.readline()
    except OSError:
        return b""


def _send(connection: socket.socket, line: bytes) -> None:
    with contextlib.suppress(OSError):  # it is gone as well
        connection.sendall(line)


def _exit(status: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _end(ended: str) -> None:
    time.sleep(GRACE)
    line = f"\nerror: {ended} ended, so this one ends too; the same commands go on from the last checkpoint.\n"
    os.write(2, line.encode())
    os._exit(STATUS)
