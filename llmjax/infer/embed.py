"""Texts as vectors: the mean of a model's hidden states over real tokens, of length 1. Shape letters: B, L, D."""

import dataclasses
import functools
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from llmjax.adapt.folders import load_model
from llmjax.data.tokenizer import encode, load_tokenizer, pad_id
from llmjax.errors import UserError
from llmjax.files import atomic_write
from llmjax.infer.classify import CHUNK, batches
from llmjax.infer.memory import check_forward
from llmjax.models.config import ModelConfig
from llmjax.models.families import make_model
from llmjax.models.folders import resolve_folder, tokenizer_home
from llmjax.models.layout import place_model
from llmjax.models.params import Params
from llmjax.parallel.layout import place_rows
from llmjax.parallel.processes import fetched


def embed(
    params: Params, tokens_BL: Int[Array, "B L"], lengths_B: Int[Array, "B"], *, config: ModelConfig
) -> Float[Array, "B D"]:
    """Returns a vector of length 1 a text: the mean over its tokens, as sentence-transformers pools and normalises.

    Args:
        params: of head "none".
        tokens_BL: texts, padded on the right.
        lengths_B: how many tokens of each are real: 1 to L.
    """
    mask_BL = jnp.arange(tokens_BL.shape[1])[None, :] < lengths_B[:, None]
    hidden_BLD: Any = make_model(config, "none").apply({"params": params}, tokens_BL, mask_BL)
    mean_BD = jnp.sum(hidden_BLD * mask_BL[..., None], axis=1) / lengths_B[:, None]
    return mean_BD / jnp.maximum(jnp.linalg.norm(mean_BD, axis=-1, keepdims=True), 1e-12)


@dataclasses.dataclass(frozen=True, eq=False)
class Embedder:
    """A loaded model with its tokenizer: a value; make one with `load_embedder`.

    context: tokens of a text that are read.
    """

    config: ModelConfig
    params: Params
    tokenizer: Any
    context: int

    def embed(self, texts: Sequence[str]) -> tuple[Float[np.ndarray, "N D"], int]:
        """Returns a vector of length 1 a text, in order, and how many texts were cut to the context.

        A text that gives no token is read as the padding token alone.
        """
        apply = _compiled(self.config)
        vectors, cut = [np.zeros((0, self.config.width), np.float32)], 0
        for start in range(0, len(texts), CHUNK):
            encoded = encode(self.tokenizer, texts[start : start + CHUNK], self.context, pad_id(self.tokenizer))
            part_ND = np.empty((len(encoded), self.config.width), np.float32)
            for rows_R, tokens_BL, lengths_B in batches(encoded, self.context):
                check_forward(self.config, *tokens_BL.shape)
                part_ND[rows_R] = fetched(apply(self.params, *place_rows((tokens_BL, lengths_B))))[: len(rows_R)]
            vectors.append(part_ND)
            cut += encoded.truncated
        return np.concatenate(vectors), cut


@functools.lru_cache(maxsize=8)
def _compiled(config: ModelConfig) -> Any:
    return jax.jit(functools.partial(embed, config=config))


def load_embedder(path: str | Path, tokenizer: str = "", **overrides: Any) -> Embedder:
    """Loads a model to embed texts with, as sentence-transformers or transformers wrote it.

    Args:
        path: a folder, a hub id, or a name such as "minilm".
        tokenizer: "gpt2", a folder or a hub id; empty = the one saved beside the weights.
        **overrides: fields of the config that take precedence over config.json (`dtype="bfloat16"`, ...).

    Raises:
        UserError: there is no such model, or it pools other than by the mean.
    """
    folder = resolve_folder(path)
    pooling = _read(folder / "1_Pooling" / "config.json")
    others = [name for name, on in pooling.items() if name.startswith("pooling_mode_") and on is True]
    if pooling and others != ["pooling_mode_mean_tokens"]:
        raise UserError(f"{folder}: pools by {', '.join(others) or 'nothing'}; only the mean over tokens is known.")
    config, params = load_model(folder, "none", **overrides)
    longest = _read(folder / "sentence_bert_config.json").get("max_seq_length") or config.context
    words, context = load_tokenizer(tokenizer or str(tokenizer_home(folder))), min(config.context, int(longest))
    return Embedder(config, place_model(params, config), words, context)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{file}: is no JSON object: copy or download it again.")
    return found


def nearest(
    vectors_ND: Float[np.ndarray, "N D"], query_D: Float[np.ndarray, "D"], count: int
) -> list[tuple[int, float]]:
    """Returns the rows of the `count` vectors nearest to the query, nearest first, with their cosines."""
    cosines_N = vectors_ND @ query_D
    rows = np.argsort(-cosines_N, kind="stable")[:count]
    return [(int(row), float(cosines_N[row])) for row in rows]


def write_vectors(file: Path, texts: Sequence[str], vectors_ND: Float[np.ndarray, "N D"]) -> None:
    """Writes vectors as .npy, or texts and vectors as columns `text` and `embedding` of a .parquet: whole or not."""
    data = io.BytesIO()
    if file.suffix == ".npy":
        np.save(data, vectors_ND)
    else:
        import pyarrow
        import pyarrow.parquet

        flat = pyarrow.array(vectors_ND.reshape(-1))
        lists = pyarrow.FixedSizeListArray.from_arrays(flat, vectors_ND.shape[1])
        pyarrow.parquet.write_table(pyarrow.table({"text": list(texts), "embedding": lists}), data)
    atomic_write(file, data.getvalue())
