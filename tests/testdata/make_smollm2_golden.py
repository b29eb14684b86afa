"""Writes smollm2_llamacpp.json: what llama.cpp continues ten messages to SmolLM2 with, greedily, 64 tokens each.

Run `python -m tests.testdata.make_smollm2_golden` where llama-cpp-python (0.3.36 made the file) is installed. Each
message holds `ids`, the prompt as the chat template writes it; `float32`, what llama.cpp makes of the same weights
dequantised to float32; and `q4_1`, what it makes of the file as it is: there llama.cpp rounds activations to 8 bits,
which alone changes answers. `margins` are the logits of the token taken less those of the second best.
"""

import json
import tempfile
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

from llmjax.gguf import Blocks, load_tokenizer, read_gguf
from llmjax.gguf.blocks import decode
from llmjax.infer.chat import render
from llmjax.pretrained import resolve

NEW = 64
PROMPTS = (
    "What is the capital of France?",
    "Explain in two sentences why the sky is blue.",
    "Write a short poem about autumn leaves.",
    "List three uses of a paper clip.",
    "Translate 'good morning' into Spanish, Italian and German.",
    "What is 17 + 25?",
    "Who wrote Romeo and Juliet, and when?",
    "Summarize the plot of Cinderella.",
    "Give me a recipe for pancakes.",
    "How do I reverse a list in Python?",
)
_WRITTEN_BY_THE_WRITER = ("general.architecture", "general.file_type", "general.quantization_version")


def write_float32(source: Path, target: Path) -> None:
    """Writes the model of a GGUF file with every tensor dequantised."""
    file = read_gguf(source)
    writer = gguf.GGUFWriter(target, file.metadata["general.architecture"])
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    for key, value in file.metadata.items():
        if key not in _WRITTEN_BY_THE_WRITER:
            value = value.tolist() if isinstance(value, np.ndarray) else value
            add.get(type(value), writer.add_array)(key, value)
    for name, raw in file.tensors.items():
        found = decode(raw)
        writer.add_tensor(name, found.dequantize() if isinstance(found, Blocks) else np.array(found))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def greedy(path: Path, prompts: list[str]) -> list[dict]:
    """Returns the prompt's ids, the tokens made and their margins, a prompt."""
    model = llama_cpp.Llama(str(path), n_ctx=512, n_threads=1, verbose=False, logits_all=True)
    rows = []
    for text in prompts:
        ids = model.tokenize(text.encode(), add_bos=False, special=True)
        model.reset()
        model.eval(ids)
        tokens, margins = [], []
        for _ in range(NEW):
            logits_V = np.array(model.scores[model.n_tokens - 1])
            second, first = np.argsort(logits_V)[-2:]
            tokens.append(int(first))
            margins.append(round(float(logits_V[first] - logits_V[second]), 3))
            model.eval([tokens[-1]])
        rows.append({"ids": ids, "tokens": tokens, "margins": margins})
    return rows


def main() -> None:
    source = resolve("smollm2")
    assert source is not None
    tokenizer = load_tokenizer(read_gguf(source))
    prompts = [render(tokenizer, [{"role": "user", "content": prompt}]) for prompt in PROMPTS]
    with tempfile.TemporaryDirectory() as folder:
        write_float32(source, Path(folder) / "float32.gguf")
        floats, quants = greedy(Path(folder) / "float32.gguf", prompts), greedy(source, prompts)
    rows = []
    for prompt, exact, rounded in zip(PROMPTS, floats, quants, strict=True):
        ids = exact.pop("ids")
        assert rounded.pop("ids") == ids
        rows.append({"prompt": prompt, "ids": ids, "float32": exact, "q4_1": rounded})
    golden = {"made_by": f"llama-cpp-python {llama_cpp.__version__}", "prompts": rows}
    Path(__file__).with_name("smollm2_llamacpp.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
