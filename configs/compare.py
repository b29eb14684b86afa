"""Compare chips: one GPT-2 phase compiled for each, here or not; its time and memory there, a row a chip.

`:tiny` compares nothing but this machine's CPU, with a tiny GPT-2.
"""

from ml_collections import ConfigDict

from configs._mesh import mesh
from llmjax.errors import UserError, did_you_mean

VARIANTS = ("", "tiny")
TARGETS = (
    "cpu,gpu:t4,gpu:l4,gpu:a100,gpu:h100,gpu:b200,"
    "tpu:v2:2x2,tpu:v3:2x2,tpu:v4:2x2x1,tpu:v5e:2x2,tpu:v5p:2x2x1,tpu:v6e:2x2,tpu:tpu7x:2x2x1"
)


def get_config(arg: str = "") -> ConfigDict:
    """Returns the job's settings; `arg` is "" or "tiny"."""
    if arg not in VARIANTS:
        near = did_you_mean(arg, VARIANTS)
        raise UserError(f"configs/compare.py:{arg}: there is no such variant, only ':tiny'.{near}")
    c = ConfigDict()
    c.experiment = "compare"
    c.mesh = mesh(data=1)  # devices of the target, or of those here, that the program is divided over; -1 = all left
    c.targets = TARGETS  # chips: cpu, gpu:NAME, tpu:GENERATION:TOPOLOGY; gpu and tpu are the attached ones
    c.card = ""  # a device card of this machine's CPU, for the row of cpu; empty = its time is not known
    # In place of the phase of a model below: my.py:step, a function of yours, or hf:CONFIG, the forward pass of any
    # model of transformers (a folder, its config.json, or a model_type) by its config alone.
    c.function = ""
    c.args = ""  # what it takes: 'f32[8,128], i32[8]'; empty = my.py:step returns (function, args) itself
    c.model = "gpt2"  # a size (tiny, gpt2, gpt2-xl, bert-base, smollm2-135m, ...), a checkpoint or its config.json
    c.phase = "decode"  # prefill, decode, generate, classify, embed, train or lm
    c.batch = 1  # rows
    c.length = 256  # tokens a row: of the prompt, the text, or the cache that a decode step reads
    c.new_tokens = 64  # that generate makes
    c.kv_cache = ""  # of prefill, decode and generate: int8 keeps keys and values in 8 bits
    c.dtype = "bfloat16"  # of the computation: float32 or bfloat16; for prefill, decode and generate also int8 and int4

    if arg == "tiny":
        c.targets = "cpu"
        c.model = "tiny"
        c.phase = "classify"
        c.batch = 2
        c.length = 16
        c.dtype = "float32"
    return c
