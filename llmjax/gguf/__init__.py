"""GGUF files, as llama.cpp and its relatives write them: config, tensors and tokenizer under transformers' names."""

from llmjax.gguf.blocks import Blocks
from llmjax.gguf.model import StoredTensor, hf_config, hf_tensors
from llmjax.gguf.reader import GGUF, read_gguf
from llmjax.gguf.tokenizer import load_tokenizer

__all__ = ["GGUF", "Blocks", "StoredTensor", "hf_config", "hf_tensors", "load_tokenizer", "read_gguf"]
