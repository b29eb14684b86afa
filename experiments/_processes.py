"""A job in several processes: joined before it begins, and ended together."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ml_collections import ConfigDict

from experiments._settings import leaves
from llmjax.backend import accelerators, settle
from llmjax.errors import UserError

OWN = ("coordinator", "processes", "process")  # of the mesh's settings: what says which process this is


@contextmanager
def joined(config: ConfigDict) -> Iterator[None]:
    """Makes this process one of its run's, where the settings or the machine say that there are several.

    An error of one ends all of them: that one says it, the others name that one.

    Raises:
        UserError: the others did not come, or have other settings.
    """
    mesh: Any = config.get("mesh", {})
    if "processes" not in mesh:
        yield
        return
    from llmjax.parallel.processes import ProcessConfig, join, meet_others, wait_for_all

    alone = not join(ProcessConfig(**{name: mesh[name] for name in OWN}), bool(accelerators().get("libtpu")))
    settle()
    settings = {name: value for name, value in leaves(config).items() if name.removeprefix("mesh.") not in OWN}
    watching = None if alone else meet_others(settings)
    if watching is None:
        yield
        return
    try:
        yield
        wait_for_all("end")
    except BaseException as error:
        from llmjax.train.loop import Stopped

        if not isinstance(error, Stopped):  # which all of them are, after the same step
            watching.fail(2 if isinstance(error, UserError) else getattr(error, "code", 1) or 1)
            raise
        watching.leave()
        raise
    watching.leave()
