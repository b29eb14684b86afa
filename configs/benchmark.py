"""Time llmjax beside the peers that are installed: decoding, prefill, classification, training, time to first token.

`:tiny` times a tiny model once, in seconds, to see the machinery run: its figures mean nothing.
"""

from ml_collections import ConfigDict

from configs._mesh import mesh
from llmjax.errors import UserError, did_you_mean

VARIANTS = ("", "tiny")


def get_config(arg: str = "") -> ConfigDict:
    """Returns the job's settings; `arg` is "" or "tiny"."""
    if arg not in VARIANTS:
        raise UserError(
            f"configs/benchmark.py:{arg}: there is no such variant, only ':tiny'.{did_you_mean(arg, VARIANTS)}"
        )
    c = ConfigDict()
    c.experiment = "benchmark"
    c.mesh = mesh(data=1)  # that llmjax divides its work over, one device by default; the peers have the whole machine
    # The model, with random weights: tiny, small, distilgpt2, gpt2, ...; or a trained one: smollm2, a GGUF file, which
    # llama.cpp then reads too, whatever the width of ours.
    c.size = "gpt2"
    c.cases = (
        "decode-1-float32", "decode-1-16-bit", "decode-1-8-bit", "decode-8-float32", "decode-8-16-bit",
        "decode-8-8-bit", "prefill-1-float32", "prefill-1-16-bit", "prefill-1-8-bit", "classify-16-float32",
        "train-16-float32", "start-1-float32",
    )  # what-rows-weights  # fmt: skip
    c.peers = ("transformers", "ctranslate2", "llama.cpp")  # those that are not installed are listed as missing
    c.peer_python = ""  # the Python that has the peers; empty = this one
    c.repeats = 5  # every contestant is timed once, then again, ...; medians are reported
    c.new_tokens = 64  # of a decode case
    c.prompt_tokens = 512  # of a prefill case
    c.text_tokens = 64  # a text, of a classify or train case
    c.threads = 0  # of every contestant; 0 = as many as there are cores

    if arg == "tiny":
        c.size = "tiny"
        c.cases = ("decode-1-float32", "decode-2-8-bit", "prefill-1-16-bit", "classify-2-float32", "train-2-float32")
        c.peers = ("ctranslate2",)
        c.repeats = 1
        c.new_tokens = 8
        c.prompt_tokens = 16
        c.text_tokens = 16
    return c
