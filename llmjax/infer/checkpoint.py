"""Where a language model and its tokenizer are read from, and its weights in the form that inference reads."""

import functools
from pathlib import Path
from typing import Any

import jax

from llmjax.adapt.folders import load_model
from llmjax.data.tokenizer import load_tokenizer
from llmjax.errors import UserError
from llmjax.infer.kept import kept
from llmjax.json_file import read_json
from llmjax.kernels.formats import Format, Groups, Rows
from llmjax.models.config import ModelConfig
from llmjax.models.folders import TOKENIZER_FILES, adapter_base, is_gguf, resolve_folder, tokenizer_home
from llmjax.models.layout import place_model, table_of
from llmjax.models.params import Params, prepare
from llmjax.models.weights import map_pretrained
from llmjax.parallel.layout import place
from llmjax.parallel.mesh import current, on_mesh
from llmjax.schema import many, maybe, text


def language_model_folder(path: str | Path, tokenizer: str = "") -> Path:
    """Returns the folder of a language model (or its GGUF file): a folder, a run's workdir, or a name that is fetched.

    Raises:
        UserError: nothing there, a classifier, or no tokenizer saved with it while `tokenizer` names none.
    """
    folder = resolve_folder(path)
    if is_gguf(folder):  # holds its tokenizer; what it lacks is named when it is read
        return folder
    config = folder / "config.json"
    wanted = {"architectures": maybe(many(text()))}
    names = (read_json(config, schema=wanted).get("architectures") or ()) if config.exists() else ()
    if any("Classification" in name for name in names):
        raise UserError(
            f"{folder}: holds a classifier ({', '.join(names)}), which cannot continue texts; use it with"
            " configs/classify.py, or name a language model, e.g. openai-community/gpt2."
        )
    home = tokenizer_home(folder)
    if not tokenizer and not is_gguf(home) and not any((home / name).exists() for name in TOKENIZER_FILES):
        raise UserError(
            f"{folder}: has no tokenizer files; name the tokenizer that the model was trained with"
            " (--config.tokenizer=gpt2 is GPT-2's own)."
        )
    return folder


def folder_tokenizer(folder: Path, tokenizer: str = "") -> Any:
    """Returns the named tokenizer, or the one saved in `folder`."""
    return load_tokenizer(tokenizer or str(tokenizer_home(folder)))


def load_prepared(folder: Path, format: Format, mesh: Any = None) -> Params:
    """Returns a folder's language model `arranged`, on a mesh where one is given; int4 takes a file's own 4-bit groups
    over, and an adapter is merged into its base first.
    """
    if adapter_base(folder) is not None:
        config, params = load_model(folder, "lm")
    else:
        config, params = map_pretrained(folder, "lm", packed=format == "int4")
    with on_mesh(mesh):  # one in use belongs to its thread
        return jax.block_until_ready(arranged(params, config, format))


def arranged(params: Params, config: ModelConfig, format: Format) -> Params:
    """Returns parameters as `prepare` arranges them, where the mesh in use wants them; alone by a program that is kept
    between runs.
    """
    if current() is not None:
        return place(prepare(place_model(params, config), config, format), table_of(config))
    leaves, structure = jax.tree.flatten(params)
    return _arranging(config, format, structure, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves))(params)


@functools.lru_cache(maxsize=8)
def _arranging(config: ModelConfig, format: Format, structure: Any, leaves: tuple[Any, ...]) -> Any:
    """Returns the compiled program that arranges parameters of such a tree."""
    identity = repr((config, format, structure.unflatten(leaves)))
    shapes = structure.unflatten([jax.ShapeDtypeStruct(*leaf) for leaf in leaves])
    return kept(identity, lambda: (prepare.lower(shapes, config, format).compile(),), (Rows, Groups))[0]
