"""Plan a pod before renting it: which mesh trains or serves a model there, how fast, at what price.

`:serve` plans inference: tokens a second and requests a second by batch and by devices that share a model.
"""

from ml_collections import ConfigDict

from llmjax.errors import UserError, did_you_mean

VARIANTS = ("", "serve", "tiny")


def get_config(arg: str = "") -> ConfigDict:
    """Returns the job's settings; `arg` is "", "serve" or "tiny"."""
    if arg not in VARIANTS:
        near = did_you_mean(arg, VARIANTS)
        raise UserError(f"configs/plan.py:{arg}: there is no such variant, only ':serve' and ':tiny'.{near}")
    c = ConfigDict()
    c.experiment = "plan"
    c.model = "gpt2-xl"  # a size (gpt2, gpt2-xl, llama-3-8b, ...), a checkpoint or its config.json; no weights needed
    c.targets = "tpu:v5e:4x4"  # pods, commas between: tpu:GENERATION:TOPOLOGY, gpu:NAME:HOSTSxGPUS
    c.purpose = "serve" if arg == "serve" else "train"
    c.dtype = "bfloat16"  # of the computation; of weights that serve also int8
    c.length = 1024  # tokens of a row; of a prompt
    c.prices = ConfigDict()  # of an hour of one chip: --config.prices.tpu:v5e=1.2; a chip without one has no costs
    c.best = 3  # meshes of each pod that are compiled; estimates choose them

    # Training
    c.tokens = 262144  # of a step, on all devices
    c.total_tokens = 0.0  # of a whole run, for its days and costs; 0 = 20 a parameter
    c.most_devices = 512  # to which the scaling curve goes

    # Serving
    c.new_tokens = 128  # that a request asks for
    c.batches = (1, 8, 32, 128)  # rows that a model works on at a time
    c.requests = 0.0  # a second that are to be served; 0 = not said

    if arg == "tiny":
        c.model = "tiny"
        c.targets = "tpu:v5e:2x2"
        c.length = 32
        c.tokens = 512
        c.best = 1
        c.most_devices = 8
    return c
