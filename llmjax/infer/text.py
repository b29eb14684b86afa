"""Generated tokens to text as it comes: no half characters, stop strings cut off exactly."""

from collections.abc import Sequence
from typing import Any

_REPLACEMENT = "\ufffd"


def continuation(tokenizer: Any, prompt_ids: Sequence[int], new_ids: Sequence[int]) -> str:
    """Returns the text that `new_ids` add after `prompt_ids`, with the blanks that a tokenizer puts between words."""
    before = _decode(tokenizer, prompt_ids)
    whole = _decode(tokenizer, [*prompt_ids, *new_ids])
    return whole[len(before) :] if whole.startswith(before) else _decode(tokenizer, new_ids)


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


def find_stop(text: str, stop: Sequence[str]) -> int:
    """Returns where the first stop string begins in `text`, or -1."""
    return min((at for at in map(text.find, stop) if at >= 0), default=-1)


def settled(text: str, stop: Sequence[str]) -> int:
    """Returns how much of `text` no later token can change or cut off.

    A trailing replacement character may be the first bytes of a character that is not whole yet; an ending that begins
    a stop string may turn out to be one.
    """
    whole = text.rstrip(_REPLACEMENT)
    longest = max((len(word) for word in stop), default=1)
    for size in range(min(longest - 1, len(whole)), 0, -1):
        if any(word.startswith(whole[-size:]) for word in stop):
            return len(whole) - size
    return len(whole)
