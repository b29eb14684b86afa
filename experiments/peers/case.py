"""What the benchmark measures: cases, and what a contestant answers. No imports beyond Python's own."""

from typing import NamedTuple

PROMPT = 8  # tokens before the new ones in a decode case
MATRIX = 2048  # side of the matrices whose product is the machine's matmul limit


class Case(NamedTuple):
    """One thing to time.

    kind: "decode" (`tokens` new tokens after a prompt of `PROMPT`, whole call), "prefill" (a prompt of `tokens` to its
    first new token), "classify" and "train" (`batch` texts of `tokens` tokens: class probabilities; one AdamW step).
    width: "float32", "16-bit" or "8-bit": the weights' width; each contestant has its own formats of it.
    """

    kind: str
    batch: int
    tokens: int
    width: str

    @property
    def name(self) -> str:
        """How the case is chosen and reported, e.g. "decode-1-float32"."""
        return f"{self.kind}-{self.batch}-{self.width}"

    @property
    def total(self) -> int:
        """Tokens that the rate counts: new ones in decoding, else all that are read."""
        return self.batch * self.tokens


class Timing(NamedTuple):
    """A contestant's answer: seconds of the work, and of what came once before it (compiling, allocating)."""

    seconds: float
    once: float


def prompt_tokens(case: Case, vocabulary: int) -> list[list[int]]:
    """Returns the same token ids for every contestant: `batch` rows, `PROMPT` long in decode cases, else `tokens`."""
    length = PROMPT if case.kind == "decode" else case.tokens
    return [[(7 + 31 * row + 13 * at) % (vocabulary - 1) for at in range(length)] for row in range(case.batch)]
