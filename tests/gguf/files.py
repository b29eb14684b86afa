"""Small GGUF files, written by the package gguf."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind


def write(path: Path, arch: str, keys: dict[str, Any], tensors: dict[str, Any]) -> Path:
    """Writes keys (an int is a uint32, a list of str an array) and tensors: an array, or (array, "Q4_1")."""
    writer = gguf.GGUFWriter(path, arch)
    for key, value in keys.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
    for name, value in tensors.items():
        array, kind = value if isinstance(value, tuple) else (value, "F32")
        add(writer, name, array, Kind[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add(writer: gguf.GGUFWriter, name: str, array: np.ndarray, kind: Kind) -> None:
    if kind in (Kind.F32, Kind.F16):
        writer.add_tensor(name, array.astype(np.float32 if kind is Kind.F32 else np.float16))
    else:
        writer.add_tensor(name, gguf.quantize(array.astype(np.float32), kind), raw_dtype=kind)


LLAMA = {
    "llama.context_length": 64,
    "llama.embedding_length": 32,
    "llama.feed_forward_length": 64,
    "llama.block_count": 1,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 1e5,
    "llama.rope.dimension_count": 8,
    "llama.vocab_size": 11,
}


def llama_tensors(seed: int = 0) -> dict[str, np.ndarray]:
    """Tensors of a Llama of one layer under llama.cpp's names, as its converter writes them but for rotary order."""
    rng = np.random.default_rng(seed)
    shapes = {
        "token_embd": (11, 32), "output_norm": (32,), "blk.0.attn_norm": (32,), "blk.0.attn_q": (32, 32),
        "blk.0.attn_k": (16, 32), "blk.0.attn_v": (16, 32), "blk.0.attn_output": (32, 32), "blk.0.ffn_norm": (32,),
        "blk.0.ffn_gate": (64, 32), "blk.0.ffn_up": (64, 32), "blk.0.ffn_down": (32, 64),
    }  # fmt: skip
    return {f"{name}.weight": rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """The order in which convert_hf_to_gguf.py writes a Llama's queries and keys."""
    rows, *rest = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, *rest).swapaxes(1, 2).reshape(weight.shape)
