"""Count what a program computes and moves, op by op: a GPT-2 phase, or any HLO text.

`:tiny` counts a tiny GPT-2's classification.
"""

from ml_collections import ConfigDict

from configs._mesh import mesh
from llmjax.errors import UserError, did_you_mean

VARIANTS = ("", "tiny")


def get_config(arg: str = "") -> ConfigDict:
    """Returns the job's settings; `arg` is "" or "tiny"."""
    if arg not in VARIANTS:
        raise UserError(f"configs/cost.py:{arg}: there is no such variant, only ':tiny'.{did_you_mean(arg, VARIANTS)}")
    c = ConfigDict()
    c.experiment = "cost"
    c.mesh = mesh(data=1)  # devices of the target, or of those here, that the program is divided over; -1 = all left
    # HLO text, a proto, StableHLO (compiled for target), a folder that --xla_dump_to wrote, or a trace of jax.profiler
    # with its programs' HLO; empty = compile the phase below.
    c.hlo = ""
    c.only = ""  # a pattern of the modules of a folder: 'jit_train*'; empty = all
    c.trace = ""  # a trace (a folder or a NAME.xplane.pb) that has the times of hlo's one module
    # In place of the phase of a model below: my.py:step, a function of yours, or hf:CONFIG, the forward pass of any
    # model of transformers (a folder, its config.json, or a model_type) by its config alone.
    c.function = ""
    c.args = ""  # what it takes: 'f32[8,128], i32[8]'; empty = my.py:step returns (function, args) itself
    c.model = "gpt2"  # a size (tiny, gpt2, gpt2-xl, bert-base, smollm2-135m, ...), a checkpoint or its config.json
    c.phase = "decode"  # prefill, decode, generate, classify, embed, train or lm; several with commas between them
    c.batch = 1  # rows
    c.length = 256  # tokens a row: of the prompt, the text, or the cache that a decode step reads
    c.new_tokens = 64  # that generate makes
    c.kv_cache = ""  # of prefill, decode and generate: int8 keeps keys and values in 8 bits
    c.dtype = "float32"  # of the computation: float32 or bfloat16; for prefill, decode and generate also int8 and int4
    c.target = ""  # a chip that need not be here: cpu, gpu:h100, tpu:v5e:2x2, ...; HLO is timed there as it stands
    c.card = ""  # a device card that configs/calibrate.py wrote: predict how long each op takes there
    c.device = ConfigDict()  # what if: --config.device.clock_hz=4e9, .bandwidth=1e12, .matmul.f32=1e12, ...
    c.measure = False  # run it here too and measure each op
    c.trip_counts = ConfigDict()  # of loops whose length the text does not say: --config.trip_counts.NAME=64
    c.roles = ""  # a JSON file that says which module paths have which role (docs/cost-json.md); empty = our own table
    c.custom_calls = ""  # a JSON file of your own FLOPs and bytes for custom calls, by target (docs/cost-json.md)
    c.top = 10  # lines in the table of the largest ops

    if arg == "tiny":
        c.model = "tiny"
        c.phase = "classify"
        c.batch = 2
        c.length = 16
    return c
