"""Texts -> vectors of length 1 in a file, and the texts nearest to a query."""

import sys
import time
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from experiments._mesh import on_devices
from experiments._settings import values_of
from llmjax.data import load_tokenizer
from llmjax.errors import UserError
from llmjax.infer.embed import Embedder, load_embedder, nearest, write_vectors
from llmjax.infer.texts import check_file, read_file, read_lines
from llmjax.models.families import from_size
from llmjax.models.params import init_params
from llmjax.parallel.processes import leads

HOW = "pass --config.input=FILE, or pipe texts in, one a line"


def run(config: ConfigDict, workdir: str) -> None:
    """Embeds the configured texts, writes the vectors, and prints what is nearest to the query, if there is one."""
    values = values_of(config)
    source = check_file(values["input"]) if values["input"] else None
    if not source and sys.stdin.isatty():
        raise UserError(f"no text was given: {HOW}.")
    output = Path(values["output"]).expanduser() if values["output"] else Path(workdir) / "embeddings.npy"
    if output.suffix not in (".npy", ".parquet"):
        raise UserError(f"output {str(output)!r}: its name must end in .npy or .parquet.")
    with on_devices(values["mesh"]):
        _embed(values, source, output)


def _embed(values: dict[str, Any], source: Path | None, output: Path) -> None:
    embedder = _load(values["checkpoint"], values["tokenizer"], values["dtype"])
    if source:
        texts = list(read_file(source, values["column"], lambda _: None))
    else:
        texts = list(read_lines(sys.stdin.buffer, "standard input", lambda _: None))
    if not texts:
        raise UserError(f"no text came in: {HOW}.")
    start = time.perf_counter()
    vectors_ND, cut = embedder.embed(texts)
    seconds = time.perf_counter() - start
    if leads():
        write_vectors(output, texts, vectors_ND)
    print(
        f"{len(texts):,} texts as vectors of {vectors_ND.shape[1]} numbers in {seconds:.1f} s: {output}",
        file=sys.stderr,
    )
    if cut:
        print(f"warning: {cut:,} texts were longer than {embedder.context} tokens and cut there", file=sys.stderr)
    if values["query"]:
        query_D = embedder.embed([values["query"]])[0][0]
        for row, cosine in nearest(vectors_ND, query_D, values["nearest"]):
            print(f"{cosine:.4f}  {texts[row]}")


def _load(checkpoint: str, tokenizer: str, dtype: str) -> Embedder:
    kind, _, size = checkpoint.partition(":")
    if kind != "random":
        return load_embedder(checkpoint, tokenizer, dtype=dtype)
    print(f"{checkpoint}: a model of random weights: its vectors mean nothing", file=sys.stderr)
    words = load_tokenizer(tokenizer or "gpt2")
    shape = from_size(size, vocab_size=len(words), dtype=dtype)
    return Embedder(shape, init_params(shape, "none", jax.random.key(0)), words, shape.context)
