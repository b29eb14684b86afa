"""Ask a language model: it answers or continues one prompt, a file of any length, or standard input.

`:tiny` continues one prompt with a tiny model of random weights, to see the machinery run: the text means nothing.
"""

from ml_collections import ConfigDict

from configs._mesh import mesh_here
from llmjax.errors import UserError, did_you_mean

VARIANTS = ("", "tiny")


def get_config(arg: str = "") -> ConfigDict:
    """Returns the job's settings; `arg` is "" or "tiny"."""
    if arg not in VARIANTS:
        raise UserError(
            f"configs/generate.py:{arg}: there is no such variant, only ':tiny'.{did_you_mean(arg, VARIANTS)}"
        )
    c = ConfigDict()
    c.experiment = "generate"
    c.mesh = mesh_here()
    # "smollm2" (fetched by pip), a folder that transformers wrote, a GGUF file, a training run's workdir, a hub id, or
    # random:SIZE
    c.checkpoint = "smollm2"
    c.tokenizer = ""  # "gpt2", a folder or a hub id; empty = the one saved with the checkpoint
    c.prompt = ""  # one message to answer, or text to continue
    c.chat = True  # a model with a chat template answers a prompt as a message; False = it continues it as a text
    c.input = ""  # or a file: .tsv, .csv and .jsonl by column, any other one prompt a line; empty = standard input
    c.column = "prompt"  # the column (or key) of the prompts in a .tsv, .csv or .jsonl
    c.output = ""  # a .jsonl file to write, one object a prompt in input order; empty = standard output
    c.stream = False  # print texts as they come, instead of JSON lines; one prompt at a terminal is always so
    c.max_new_tokens = 64  # at most so many tokens a text
    c.trim = False  # cut a prompt that is too long for the context at its beginning, instead of refusing it

    c.temperature = 0.0  # 0 = always the most probable token; 1 = draw as the model says; between = less daring
    c.top_k = 0  # draw among the k most probable tokens; 0 = all
    c.top_p = 1.0  # draw among the most probable tokens that hold this much probability together; 1 = all
    c.repetition_penalty = 1.0  # above 1: tokens that stand in the text already become less probable
    c.stop = ("",)  # end a text before the first of these strings: --config.stop="('END', 'Q:')"; empty = none
    c.seed = 0  # of the draws; the same seed gives the same texts, at any batch size
    c.logprobs = False  # add each token's log-probability to the output

    c.format = "float32"  # of the weights: float32, bfloat16, int8 or int4
    c.batch_size = 8  # prompts at a time
    c.cache_length = 0  # tokens a row of the cache holds; 0 = as few as prompt and new tokens need
    c.kv_cache = ""  # keys and values: int8 = in 8 bits, with a scale a token and head; empty = as the format computes

    if arg == "tiny":
        c.checkpoint = "random:tiny"
        c.prompt = "I love this movie"
        c.max_new_tokens = 8
    return c
