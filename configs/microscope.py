"""Look at one op through a microscope: its HLO, the x86 loop XLA made of it, cycles by llvm-mca and by the clock.

`:tiny` looks at an op of a tiny GPT-2's classification. Needs llvm-objdump and llvm-mca (apt-get install llvm).
"""

from ml_collections import ConfigDict

from llmjax.errors import UserError, did_you_mean

VARIANTS = ("", "tiny")


def get_config(arg: str = "") -> ConfigDict:
    """Returns the job's settings; `arg` is "" or "tiny"."""
    if arg not in VARIANTS:
        raise UserError(
            f"configs/microscope.py:{arg}: there is no such variant, only ':tiny'.{did_you_mean(arg, VARIANTS)}"
        )
    c = ConfigDict()
    c.experiment = "microscope"
    c.op = "softmax"  # an op's name, a role (softmax, layer norm, MLP, ...: its op with the most time) or a module path
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
    c.dtype = "float32"  # of the computation: float32 or bfloat16; for prefill, decode and generate also int8 and int4
    c.dump = (
        ""  # a folder that --xla_dump_to wrote, on any x86 machine, or one HLO file in it; empty = compile the above
    )
    c.card = ""  # a device card that configs/calibrate.py wrote: peaks, and what the cycle model predicts
    c.measure = True  # run the program here too and measure the op
    c.runs = 10  # of the program, with and without the profiler each
    c.cpu = ""  # the processor that llvm-mca simulates (znver4, icelake-server, ...); empty = this machine's

    if arg == "tiny":
        c.op = "MLP"
        c.model = "tiny"
        c.phase = "classify"
        c.batch = 2
        c.length = 16
        c.runs = 2
    return c
