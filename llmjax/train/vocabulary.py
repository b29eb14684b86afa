"""Training on the rows of the token embedding that the training texts use, and no others.

Of GPT-2's 50,257 tokens a small data set uses a quarter. The others get no gradient from a classifier, yet the
optimizer would read and write them at every step, and a next-token loss would compute their logits. Leaving them out
gives the same classifier (the embedding has no weight decay unless asked for) several times faster for small models; a
next-token loss then chooses among the tokens in use.

What a fresh model makes of a token that it never saw is noise. Where one token was put in the place of any other while
training, its row says what an unknown token means, and can stand for them all.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from llmjax.data.tokenizer import Encoded
from llmjax.models.params import Params, vocabulary_table


@dataclass(frozen=True)
class Vocabulary:
    """The tokens in use, ascending, and the whole embedding that their rows are taken from and put back into.

    unknown: the token whose row the tokens not in use get; None: they keep their own.
    """

    used_U: Int32[np.ndarray, "U"]
    whole_VD: Float[Array, "V D"]
    unknown: int | None = None

    def __len__(self) -> int:
        return len(self.used_U)

    def narrow(self, params: Params) -> Params:
        """Returns `params` with the embedding rows of the tokens in use only."""
        table = vocabulary_table(params)
        return params | {table: {"embedding": params[table]["embedding"][self.used_U]}}

    def widen(self, params: Params) -> Params:
        """Returns narrow `params` with the whole embedding; rows not in use are as `unknown` says."""
        table = vocabulary_table(params)
        rows_UD, whole_VD = params[table]["embedding"], jnp.asarray(self.whole_VD)
        if self.unknown is not None:
            whole_VD = jnp.broadcast_to(rows_UD[self.number(self.unknown)], whole_VD.shape)
        return params | {table: {"embedding": whole_VD.at[self.used_U].set(rows_UD)}}

    def renumber(self, encoded: Encoded) -> Encoded:
        """Returns texts of tokens in use with each token's place among them in its stead."""
        number = {"tokens_T": np.searchsorted(self.used_U, encoded.tokens_T).astype(np.int32)}
        return replace(encoded, **number, pad_id=self.number(encoded.pad_id))

    def number(self, token: int) -> int:
        """Returns the place of a token in use."""
        place = int(np.searchsorted(self.used_U, token))
        assert self.used_U[place] == token, token
        return place


def vocabulary_of(encoded: Encoded, params: Params, replacement: int, unknown: int | None = None) -> Vocabulary:
    """Returns the tokens of `encoded`, its padding, and `replacement`, over the embedding of `params`."""
    used_U = np.unique(np.concatenate([encoded.tokens_T, [encoded.pad_id, replacement]])).astype(np.int32)
    return Vocabulary(used_U, jax.device_get(params[vocabulary_table(params)]["embedding"]), unknown)
