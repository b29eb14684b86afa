"""Errors for people."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the person at the keyboard can mend.

    Its message is one clear line: the value, where it came from and what to do. `launch.py` prints the line and exits
    with status 2; no traceback is shown.
    """


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the valid name nearest to `name`, or "" when none is near."""
    near = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def no_numbers(what: str) -> UserError:
    """Returns the error of a model whose outputs, `what`, are NaN or infinite."""
    return UserError(
        f"{what} are not finite numbers: the model's weights hold NaN or infinity, or values beyond their format. "
        "Train it again, or copy its files again."
    )
