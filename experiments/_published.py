"""Programs of a table of published figures, built of llmjax's models and compiled for chips that are not here."""

import contextlib
import dataclasses
import functools
import gzip
import hashlib
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

import llmjax
from experiments._phases import PHASES, decoding
from experiments._programs import Shape
from llmjax.analysis import analysis_of
from llmjax.cycles.device import Device
from llmjax.cycles.model import without_copies
from llmjax.cycles.published.cases import Program
from llmjax.cycles.published.pricing import Taken
from llmjax.data.batches import Batch
from llmjax.files import atomic_write
from llmjax.hlo import parse
from llmjax.models.bert import BertConfig
from llmjax.models.config import DTYPES, ModelConfig
from llmjax.models.families import make_model
from llmjax.models.gpt2 import GPT2Config
from llmjax.models.llama import LlamaConfig
from llmjax.models.params import param_shapes
from llmjax.models.spec import LayerSpec
from llmjax.targets.aot import compile_lowered, lower_for
from llmjax.targets.names import parse_target
from llmjax.train.lm import lm_loss


@dataclasses.dataclass(frozen=True)
class _GPT2(GPT2Config):
    """GPT-2 with heads of a width of their own, so that a device may have some of them."""

    heads_here: int = 12
    head_width: int = 64
    form: str = "softmax"
    dtypes: ClassVar[tuple[str, ...]] = (*DTYPES, "float16")

    @property
    def layer(self) -> LayerSpec:
        heads = {"heads": self.heads_here, "kv_heads": self.heads_here, "head_width": self.head_width}
        return dataclasses.replace(super().layer, scale=self.head_width**-0.5, form=self.form, **heads)


@dataclasses.dataclass(frozen=True)
class _Bert(BertConfig):
    form: str = "softmax"
    dtypes: ClassVar[tuple[str, ...]] = (*DTYPES, "float16")

    @property
    def layer(self) -> LayerSpec:
        return dataclasses.replace(super().layer, form=self.form)


@dataclasses.dataclass(frozen=True)
class _Llama(LlamaConfig):
    form: str = "softmax"
    dtypes: ClassVar[tuple[str, ...]] = (*DTYPES, "float16")

    @property
    def layer(self) -> LayerSpec:
        return dataclasses.replace(super().layer, form=self.form)


def config_of(program: Program, layers: int) -> ModelConfig:
    """The config of a program's model with so many layers.

    Weights are float32 where an optimiser keeps them; what only multiplies by them, on one device of many, has them
    gathered in the type that it computes in.
    """
    model = program.model
    dtype = program.dtype if program.dtype in ("bfloat16", "float16") else "float32"
    weights = "float32" if program.phase == "train" else dtype
    kinds: dict[str, Any] = {"dtype": dtype, "param_dtype": weights, "remat": program.remat}
    kinds["form"] = "sum" if program.fused else "softmax"  # fused attention is priced apart
    sizes: dict[str, Any] = {"vocab_size": model.vocabulary, **kinds}
    slots = max(2 * program.length, 512)
    if model.family == "gpt2":
        quiet: dict[str, Any] = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        plain: dict[str, Any] = {
            "n_positions": slots,
            "n_embd": model.width,
            "n_layer": layers,
            "n_head": 1,
            "n_inner": model.inner,
        }
        return _GPT2(**sizes, **quiet, **plain, heads_here=model.heads, head_width=model.head_width)
    body: dict[str, Any] = {"hidden_size": model.width, "num_hidden_layers": layers, "num_attention_heads": model.heads}
    body |= {"intermediate_size": model.inner, "max_position_embeddings": slots}
    if model.family == "bert":
        return _Bert(**sizes, **body, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return _Llama(**sizes, **body, num_key_value_heads=model.groups, head_dim=model.head_width)


def function_of(program: Program, layers: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A program with so many layers as a function and its abstract arguments."""
    config = config_of(program, layers)
    shape = Shape("", program.phase, program.batch, program.length, 1, "float32")
    if program.phase in ("prefill", "decode"):
        stored = program.dtype if program.dtype in ("bfloat16", "int8") else "float32"
        told = shape._replace(dtype=stored)
        decodes = program.phase == "decode"  # over a cache of the row's own length
        made = decoding(config, told, program.length) if decodes else PHASES["prefill"](config, told)
        return made.function, made.args
    if program.phase == "train":
        made = PHASES["lm"](config, shape)
        return made.function, made.args
    head = "lm" if program.head else "none"
    params, tokens_BL = param_shapes(config, head), jax.ShapeDtypeStruct((program.batch, program.length), jnp.int32)
    if program.phase == "forward":
        model = make_model(config, head)
        return jax.jit(lambda params, tokens_BL: model.apply({"params": params}, tokens_BL)), (params, tokens_BL)
    loss_fn, rows = lm_loss(config), jax.ShapeDtypeStruct((program.batch,), jnp.int32)
    mask_BL = jax.ShapeDtypeStruct(tokens_BL.shape, jnp.bool_)
    batch = Batch(tokens_BL, mask_BL, rows, jax.ShapeDtypeStruct(rows.shape, jnp.float32), rows)  # pyright: ignore[reportArgumentType]

    def gradients(params: Any, batch: Batch) -> Any:
        return jax.grad(lambda params: loss_fn(params, batch, jax.random.key(0))[0])(params)

    return jax.jit(gradients), (params, batch)


def _file(program: Program, layers: int, target: str, folder: Path) -> Path:
    made = dataclasses.replace(program, model=dataclasses.replace(program.model, layers=layers))
    versions = [importlib.metadata.version(name) for name in ("jax", "jaxlib")]
    name = hashlib.sha256(repr((made, config_of(program, layers), target, versions, _code())).encode()).hexdigest()[:24]
    return folder / f"{name}.hlo.gz"


@functools.cache
def _code() -> str:
    """What programs are made by: a kept one is of this code or made anew."""
    folders = [Path(llmjax.__file__).parent / name for name in ("models", "kernels", "parallel", "train", "infer")]
    files = [file for folder in folders for file in sorted(folder.glob("*.py"))]
    files += [Path(__file__), Path(__file__).with_name("_phases.py"), Path(__file__).with_name("_programs.py")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def is_kept(program: Program, layers: int, target: str, folder: Path) -> bool:
    """Whether a program was compiled into the folder before."""
    return _file(program, layers, target, folder).is_file()


def compiled(program: Program, layers: int, target: str, folder: Path) -> str:
    """The HLO text of a program with so many layers for a target, compiled once and kept in a folder.

    Raises:
        UserError: its compiler refuses it, or is not installed.
    """
    file = _file(program, layers, target, folder)
    with contextlib.suppress(OSError, EOFError, gzip.BadGzipFile):
        return gzip.decompress(file.read_bytes()).decode()
    chip = parse_target(target)
    with _precision(program):
        function, args = function_of(program, layers)
        lowered = lower_for(chip.platform, function, *args)
    text = compile_lowered(chip, lowered).text
    atomic_write(file, gzip.compress(text.encode(), 3))
    return text


def taken_of(text: str, target: str, device: Device) -> Taken:
    """Predicted seconds of one execution of a compiled program, and without its waiting for copies."""
    found = analysis_of(parse(text), backend="gpu" if device.kind == "gpu" else "tpu", target=target, device=device)
    assert found.time is not None, "a device was given"
    return Taken(found.time.overlapped, without_copies(found.cost, found.time))


def _precision(program: Program) -> contextlib.AbstractContextManager[Any]:
    """float32 in full where the program asks for it; else what the chip takes by default."""
    return jax.default_matmul_precision("highest" if program.dtype == "float32" else "default")
