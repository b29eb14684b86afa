"""Child processes that end with their parent."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LOOKS_EVERY = 0.5  # seconds


@contextmanager
def child(command: list[str], **options: Any) -> Iterator["subprocess.Popen[Any]"]:
    """`subprocess.Popen` as a context that waits for the process, or kills it where an exception ends the block."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def leave_with_parent() -> None:
    """Lets a child process end soon after its parent was killed: nobody waits for what it computes any more."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOKS_EVERY)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
