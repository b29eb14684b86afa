"""`hf:CONFIG`: any PyTorch model of transformers, by its config alone -> a function that JAX compiles.

No weight exists. torchax runs a PyTorch model's own code on JAX's tracers; the parameters stay on torch's meta device,
which has shapes alone. What the model's code computes by numbers (a loop until a value is reached) cannot be traced so,
and says so. Needs the extra `hf`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmjax.errors import UserError, did_you_mean
from llmjax.inputs.function import Call, theirs

# Of a config: no cache; attention as transformers writes it out; a mixture's experts as products of batches, as a loop
# over those that tokens chose cannot be traced.
_SETTINGS = {
    "use_cache": False, "return_dict": True, "_attn_implementation": "eager", "_experts_implementation": "batched_mm",
}  # fmt: skip
_SECONDS = 16_000  # samples of sound for each of `length`: models of raw sound hear 16 kHz


def read_model(word: str, batch: int = 1, length: int = 128, dtype: str = "float32") -> Call:
    """Builds a model of its config, and returns its forward pass with abstract parameters and inputs.

    Args:
        word: `hf:FOLDER`, `hf:FILE.json`, or `hf:KIND`, a model_type of transformers at its default sizes (`hf:bert`).
        batch: rows. length: tokens a row; of raw sound, seconds.
        dtype: of parameters and computation.

    Raises:
        UserError: nothing is there, or transformers makes no model of it.
        ModuleNotFoundError: transformers, torch or torchax is not installed.
    """
    import jax
    import torch

    torchax, env = _environment()
    config = _config(word.removeprefix("hf:"), word)
    kind = getattr(torch, dtype)
    with _quiet():
        model = _model(config, kind, word)
        inputs = _inputs(model, batch, length, kind, word)
    shapes = functools.partial(jax.tree.map, lambda t: jax.ShapeDtypeStruct(tuple(t.shape), _dtype(torchax, t.dtype)))
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    _name_scopes(model)

    def forward(params: dict[str, Any], inputs: dict[str, Any]) -> list[Any]:
        def torch_view(tree: dict[str, Any]) -> dict[str, Any]:
            return {name: torchax.tensor.Tensor(leaf, env) for name, leaf in tree.items()}

        with _quiet(), torch.no_grad(), env:
            try:
                found = torch.func.functional_call(model, torch_view(params), (), torch_view(inputs))
            except Exception as error:
                raise UserError(_untraced(word, error)) from error
        return [leaf.jax() for leaf in _tensors(found, torchax)]

    forward.__name__ = type(model).__name__
    return Call(word, forward, (shapes(state), shapes(inputs)))


def _untraced(word: str, error: Exception) -> str:
    last = theirs(word, error).splitlines()[-1].strip()
    return f"{word}: torchax cannot trace this model's code: {last[:300]}"


@functools.cache
def _environment() -> tuple[Any, Any]:
    """torchax, and its environment.

    torchax 0.0.13 names overloads of named tensors in its tables, which torch 2.13 has no more. Nothing calls them:
    while torchax is read, they are placeholders.
    """
    from torch._ops import OpOverloadPacket

    overloads: Any = OpOverloadPacket
    plain = overloads.__getattr__

    def lenient(self: Any, name: str) -> Any:
        try:
            return plain(self, name)
        except AttributeError:
            if name.startswith("__") or not str(self).startswith("aten."):
                raise
            return object()

    overloads.__getattr__ = lenient
    try:
        with _quiet():
            import torchax

            env = torchax.default_env()
    finally:
        overloads.__getattr__ = plain
    return torchax, env


def _config(named: str, word: str) -> Any:
    import transformers

    path = Path(named).expanduser()
    file = path / "config.json" if path.is_dir() else path
    try:
        if file.is_file():
            raw = json.loads(file.read_text("utf-8"))
            kind = raw.get("model_type") if isinstance(raw, dict) else None
            if not kind:
                raise UserError(f"{word}: {file} names no model_type.")
            return transformers.AutoConfig.for_model(kind, **{k: v for k, v in raw.items() if k != "model_type"})
        if path.is_dir() or "/" in named or named.endswith(".json"):
            raise UserError(f"{word}: {file} does not exist.")
        if named not in transformers.CONFIG_MAPPING:
            near = did_you_mean(named, list(transformers.CONFIG_MAPPING))
            raise UserError(f"{word}: {named!r} is no folder, no config.json and no model_type of transformers.{near}")
        return transformers.AutoConfig.for_model(named)
    except (ValueError, OSError, KeyError) as error:
        said = str(error).partition("\n")[0][:200]
        raise UserError(f"{word}: transformers makes no config of it: {said}") from error


def _model(config: Any, kind: Any, word: str) -> Any:
    """The model that the config names, else its trunk; without a cache of keys and values."""
    import torch
    import transformers

    for name, value in _SETTINGS.items():
        with contextlib.suppress(AttributeError):
            setattr(config, name, value)
    named = [getattr(transformers, name, None) for name in getattr(config, "architectures", None) or ()]
    try:
        with torch.device("meta"):
            found = next(filter(None, named), None)
            made = found(config) if found else transformers.AutoModel.from_config(config)
    except (ValueError, KeyError, ImportError, TypeError, AttributeError) as error:
        raise UserError(f"{word}: transformers makes no model of its config: {error}") from error
    return made.to(kind).eval()


def _inputs(model: Any, batch: int, length: int, kind: Any, word: str) -> dict[str, Any]:
    """What a model's forward pass takes, by the name of its main input."""
    import torch

    config, main = model.config, model.main_input_name
    pair = hasattr(config, "text_config") and hasattr(config, "vision_config")
    text = {"size": (batch, length), "dtype": torch.int32, "device": "meta"}
    if main in ("input_ids", "decoder_input_ids") and not pair:
        found = {"input_ids": torch.empty(**text)}
    elif main == "pixel_values" or pair:
        vision = getattr(config, "vision_config", config)
        size = vision.image_size if isinstance(vision.image_size, Sequence) else (vision.image_size,) * 2
        shape = (batch, getattr(vision, "num_channels", 3), *size)
        found = {"pixel_values": torch.empty(shape, dtype=kind, device="meta")}
        if pair:
            found["input_ids"] = torch.empty(**text)
    elif main == "input_features" and hasattr(config, "num_mel_bins"):
        shape = (batch, config.num_mel_bins, 2 * config.max_source_positions)
        found = {"input_features": torch.empty(shape, dtype=kind, device="meta")}
    elif main == "input_values":
        found = {"input_values": torch.empty((batch, length * _SECONDS), dtype=kind, device="meta")}
    else:
        known = "no shape of it is known here; give a function, my.py:step"
        raise UserError(f"{word}: its main input is {main!r}: {known}.")
    if getattr(config, "is_encoder_decoder", False):
        found["decoder_input_ids"] = torch.empty(**text)
    return found


def _name_scopes(model: Any) -> None:
    """Puts every module's name around its ops, as Flax does: a list's members are called `layers_0`, `layers_1`."""
    import jax

    called = {name for name, module in model.named_modules() if "forward" in dir(type(module)) and _has_forward(module)}
    for name, module in model.named_modules():
        if not name or name not in called:
            continue
        above = name
        while (above := above.rpartition(".")[0]) and above not in called:
            pass
        scope = (name[len(above) + 1 :] if above else name).replace(".", "_")
        module.forward = functools.partial(_scoped, module.forward, scope, jax.named_scope)


def _has_forward(module: Any) -> bool:
    import torch

    return type(module).forward is not torch.nn.Module.forward and not isinstance(module, torch.nn.ModuleList)


def _scoped(forward: Any, scope: str, named_scope: Any, *args: Any, **kwargs: Any) -> Any:
    with named_scope(scope):
        return forward(*args, **kwargs)


def _tensors(found: Any, torchax: Any) -> list[Any]:
    """The tensors of a model's output, in their order."""
    import torch.utils._pytree as pytree

    values = found.to_tuple() if hasattr(found, "to_tuple") else found
    return [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, torchax.tensor.Tensor)]


def _dtype(torchax: Any, kind: Any) -> Any:
    import jax
    import jax.numpy as jnp

    return jax.dtypes.canonicalize_dtype(jnp.dtype(torchax.ops.mappings.t2j_dtype(kind)))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """JAX warns of every 64-bit number that torch asks for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
