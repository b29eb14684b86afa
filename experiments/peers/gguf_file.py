"""A GGUF file for llama.cpp from a folder that transformers wrote: the same weights, another container."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

TYPES = {"f32": "F32", "f16": "F16", "q8_0": "Q8_0", "q4_1": "Q4_1"}  # -> gguf's names
_FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7, "q4_1": 3}
# transformers' name -> llama.cpp's. Products (transposed: GPT-2 stores (in, out)) are of the file's type.
_PRODUCTS = {
    "attn.c_attn.weight": "attn_qkv.weight",
    "attn.c_proj.weight": "attn_output.weight",
    "mlp.c_fc.weight": "ffn_up.weight",
    "mlp.c_proj.weight": "ffn_down.weight",
}
_PLAIN = {
    "ln_1.weight": "attn_norm.weight",
    "ln_1.bias": "attn_norm.bias",
    "attn.c_attn.bias": "attn_qkv.bias",
    "attn.c_proj.bias": "attn_output.bias",
    "ln_2.weight": "ffn_norm.weight",
    "ln_2.bias": "ffn_norm.bias",
    "mlp.c_fc.bias": "ffn_up.bias",
    "mlp.c_proj.bias": "ffn_down.bias",
}


def write(folder: Path, kind: str) -> Path:
    """Returns the GGUF file of a GPT-2 in one of `TYPES` beside its folder, made if it is not there yet.

    A folder that is such a file already is returned as it is, whatever its own types are.
    The vocabulary is a stand-in of numbered tokens: the benchmark speaks in token ids.
    """
    if folder.suffix == ".gguf":
        return folder
    target = folder.with_name(f"{folder.name}-{kind}.gguf")
    if target.exists():
        return target
    import gguf  # only here: a Python that has llama.cpp need not have these
    from safetensors.numpy import load_file

    kinds = {name: gguf.GGMLQuantizationType[theirs] for name, theirs in TYPES.items()}
    config = json.loads((folder / "config.json").read_text("utf-8"))
    tensors = load_file(folder / "model.safetensors")
    tensors = {name.removeprefix("transformer."): array.astype(np.float32) for name, array in tensors.items()}
    partial = target.with_name(f".{target.name}.part")
    writer = gguf.GGUFWriter(partial, "gpt2")
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(config["n_inner"] or 4 * config["n_embd"])
    writer.add_block_count(config["n_layer"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_file_type(_FILE_kinds[kind])
    words = [f"t{i}" for i in range(config["vocab_size"])]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(words))
    writer.add_token_merges(["t 0"])
    writer.add_bos_token_id(config["vocab_size"] - 1)
    writer.add_eos_token_id(config["vocab_size"] - 1)

    def add(name: str, array: np.ndarray, type: Any) -> None:
        data = gguf.quants.quantize(np.ascontiguousarray(array), type)
        writer.add_tensor(name, data, raw_dtype=type)

    add("token_embd.weight", tensors["wte.weight"], kinds[kind])
    add("position_embd.weight", tensors["wpe.weight"], kinds["f32"])
    add("output_norm.weight", tensors["ln_f.weight"], kinds["f32"])
    add("output_norm.bias", tensors["ln_f.bias"], kinds["f32"])
    for layer in range(config["n_layer"]):
        for name, theirs in _PRODUCTS.items():
            add(f"blk.{layer}.{theirs}", tensors[f"h.{layer}.{name}"].T, kinds[kind])
        for name, theirs in _PLAIN.items():
            add(f"blk.{layer}.{theirs}", tensors[f"h.{layer}.{name}"], kinds["f32"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(partial, target)
    return target
