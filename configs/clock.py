"""Compare LLM inference with a CPU's clock: cycles, parallelism, resources, growth, and what each optimisation buys.

`:tiny` does all of it to a tiny GPT-2.
"""

from ml_collections import ConfigDict

from configs._mesh import mesh
from llmjax.errors import UserError, did_you_mean

VARIANTS = ("", "tiny")


def get_config(arg: str = "") -> ConfigDict:
    """Returns the job's settings; `arg` is "" or "tiny"."""
    if arg not in VARIANTS:
        raise UserError(f"configs/clock.py:{arg}: there is no such variant, only ':tiny'.{did_you_mean(arg, VARIANTS)}")
    c = ConfigDict()
    c.experiment = "clock"
    c.mesh = mesh(data=1)  # of the devices that are here, one by default; the section "devices" compares it with one
    c.subject = "generate"  # generate: a language model that continues texts; classify: a classifier of texts
    c.model = "gpt2"  # a size (tiny, gpt2, gpt2-xl, bert-base, smollm2-135m, ...), a checkpoint or its config.json
    c.batch = 1  # rows at a time
    c.length = 256  # tokens a row: of the prompt, the text, or the cache that a decode step reads
    c.new_tokens = 64  # that are made after a prompt, where whole answers are meant
    c.dtype = "float32"  # of the computation: float32 or bfloat16; to generate also int8 and int4
    c.card = ""  # a device card that configs/calibrate.py wrote; empty = calibrate here first, in short
    c.programs = 40  # calibration programs of that short form
    c.targets = "gpu:a100,gpu:h100,tpu:v5e:2x2,tpu:v6e:2x2"  # other chips, to predict; empty = none
    c.models = ("tiny", "small", "distilgpt2", "gpt2", "smollm2-135m")  # whose growth is measured
    c.batches = (1, 2, 4, 8, 16)
    c.lengths = (64, 128, 256, 512, 1008)
    c.widths = (128, 256, 512)  # bits of the vectors that XLA's own loops are tried with; 128 also without multiply-add
    c.runs = 8  # of each measurement
    # With commas between: token, parallelism, resources, growth, ladder, carry, workloads, devices, likeness.
    c.sections = ""

    if arg == "tiny":
        c.model = "tiny"
        c.length = 16
        c.new_tokens = 4
        c.programs = 4
        c.targets = ""
        c.models = ("tiny", "small")
        c.batches = (1, 2)
        c.lengths = (8, 16)
        c.widths = ()
        c.runs = 2
    return c
