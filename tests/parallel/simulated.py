"""Runs on eight simulated devices what it runs on one, and prints both results as JSON: a process of test_mesh.py."""

import json
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
from jax.sharding import NamedSharding

from llmjax.analyser import analyze
from llmjax.infer.classify import Classifier
from llmjax.infer.embed import Embedder
from llmjax.infer.generate import Generator
from llmjax.infer.perplexity import perplexity
from llmjax.models.families import from_size
from llmjax.models.layout import place_model, table_of
from llmjax.models.params import init_params, prepare
from llmjax.parallel.draws import random_words
from llmjax.parallel.layout import place
from llmjax.parallel.mesh import MeshConfig, P, make_mesh, on_mesh
from llmjax.train import LoopConfig, OptimizerConfig, Phase, fit
from llmjax.train.lm import Stream, lm_task

ONE = (1, 1, 1)
MESHES = {
    "data 8": (8, 1, 1),
    "fsdp 8": (1, 8, 1),
    "data 2, tensor 4": (2, 1, 4),
    "data 2, fsdp 2, tensor 2": (2, 2, 2),
}
ALL_AXES = "data 2, fsdp 2, tensor 2"
STEPS = 20
# 99 words: no axis divides them.
GPT2 = from_size("tiny", vocab_size=99, n_embd=16, n_layer=1, n_head=4, n_positions=48)
SCANNED = from_size("tiny", vocab_size=99, n_embd=16, n_layer=2, n_head=4, n_positions=48, scan_layers=True, remat=True)
LLAMA = from_size("tiny-llama", vocab_size=256, num_attention_heads=8, num_key_value_heads=4, num_hidden_layers=1)
BERT = from_size("tiny-bert", vocab_size=256, num_hidden_layers=1)
OPTIMIZER = OptimizerConfig(learning_rate=3e-3, accumulate=2)
TEXTS = ["one", "a longer text of several words, which is read", "", "two", "x" * 20]


class Bytes:
    """A tokenizer of single bytes."""

    eos_token_id, pad_token_id, all_special_ids = 0, 0, (0,)

    def num_special_tokens_to_add(self, pair):
        return 0

    def __call__(self, text, **options):
        if isinstance(text, str):
            return {"input_ids": [byte % 99 for byte in text.encode()]}
        return {"input_ids": [[byte % 99 for byte in one.encode()][: options.get("max_length")] for one in text]}

    def decode(self, ids, **options):
        return bytes(ids).decode(errors="replace")


def on(sizes):
    return on_mesh(make_mesh(MeshConfig(*sizes)))


def randomised(config, head):
    """Parameters whose answers differ from text to text."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_params(config, head, jax.random.key(0)))
    return jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)


def losses(config, sizes, folder):
    """The losses of a run of 20 steps, which goes on where a checkpoint in `folder` stands."""
    tokens_T = np.random.default_rng(0).integers(0, 99, 2000).astype(np.int32)
    task = lm_task(config, Stream(tokens_T, 2000), 12, 8, 0)
    with on(sizes):
        params = place_model(randomised(config, "lm"), config)
        fit([Phase(task, STEPS, OPTIMIZER, 0.9, save_every=10)], params, LoopConfig(table=table_of(config)), folder)
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def goes_on(start, sizes, folder):
    """The losses of steps 11 to 20 from the checkpoint of step 10 in `start`, on another mesh."""
    shutil.copytree(start / "checkpoints" / "last" / "10", folder / "checkpoints" / "last" / "10")
    return losses(GPT2, sizes, folder)


def training(folder, whole):
    """Losses by mesh; the quick part has the mesh of all axes, and goes on from it on one device."""
    found = {"one": losses(GPT2, ONE, folder / "one")}
    for name, sizes in MESHES.items():
        if whole or min(sizes) > 1:
            found[name] = losses(GPT2, sizes, folder / name)
    found["8 to 1"] = goes_on(folder / ALL_AXES, ONE, folder / "8 to 1")
    if whole:
        found["8 to 2"] = goes_on(folder / "fsdp 8", (1, 2, 1), folder / "8 to 2")
        found["1 to 8"] = goes_on(folder / "one", (1, 8, 1), folder / "1 to 8")
        found["scan one"] = losses(SCANNED, ONE, folder / "scan one")
        found["scan"] = losses(SCANNED, (2, 2, 2), folder / "scan")
    return found


def bytes_a_device():
    """Bytes of a model's parameters on each device, by mesh."""
    whole = randomised(GPT2, "lm")
    found = {"one": sum(leaf.nbytes for leaf in jax.tree.leaves(whole))}
    for name, sizes in MESHES.items():
        with on(sizes):
            parts = jax.tree.leaves(place_model(whole, GPT2))
            found[name] = sum(leaf.addressable_shards[0].data.nbytes for leaf in parts)
    return found


def generation(sizes, config, format):
    with on(sizes):
        generator = Generator.from_params(config, randomised(config, "lm"), Bytes(), format)
        return [one.token_ids for one in generator.generate(["abc", "Hello there", "0 1 2"], 12)]


def inference(sizes):
    with on(sizes):
        classifier = Classifier.from_params(GPT2, randomised(GPT2, "classifier"), Bytes())
        embedder = Embedder(BERT, place_model(randomised(BERT, "none"), BERT), Bytes(), 64)
        prepared = place(prepare(place_model(randomised(LLAMA, "lm"), LLAMA), LLAMA, "float32"), table_of(LLAMA))
        ids = [int(n) for n in np.random.default_rng(1).integers(0, 256, 100)]
        return {
            "labels": [one.label for one in classifier.classify(TEXTS)],
            "scores": [one.score for one in classifier.classify(TEXTS)],
            "vectors": embedder.embed(TEXTS)[0].tolist(),
            "loss": perplexity(prepared, LLAMA, "float32", ids, 24, 12, 8).loss,
        }


def measuring():
    """What is measured of a program that all devices run: a product and a sum over them."""
    mesh = make_mesh(MeshConfig())
    x, w = (
        jax.ShapeDtypeStruct((rows, 64), np.float32, sharding=NamedSharding(mesh, spec))
        for rows, spec in ((512, P("data")), (64, P()))
    )
    report = analyze(lambda x, w: jax.numpy.tanh(x @ w).sum(0), x, w, measure=True)
    times = report.measured
    product = next(times.ops[op.name] for op in report.ops if op.total.matmul_flops)
    return {
        "devices": times.devices,
        "runs": times.runs,
        "calls": product.calls,
        "product": product.time.median,
        "traced": times.traced.high,
        "covered": times.covered,
        "said": str(report),
    }


def drawing():
    """Whether the words of dropout on a mesh are one device's, and whether a device draws them all."""
    key = jax.random.fold_in(jax.random.key(0, impl="unsafe_rbg"), 3)
    alone = random_words(key, (16, 4, 6))
    with on((4, 1, 2)):
        program = jax.jit(lambda key: random_words(key, (16, 4, 6))).lower(key).compile()
        return {"same": bool((program(key) == alone).all()), "all": "u32[16,4,6]" in program.as_text()}


def main(folder: Path, part: str) -> None:
    whole = part == "whole"
    found = {"training": training(folder, whole), "bytes": bytes_a_device(), "generation": {}, "inference": {}}
    for config, format in ((GPT2, "float32"), (LLAMA, "float32"), (LLAMA, "int8")) if whole else ((GPT2, "float32"),):
        for sizes in (ONE, (2, 1, 4)):
            found["generation"][f"{config.family} {format} {sizes}"] = generation(sizes, config, format)
    found |= {"measured": measuring(), "words": drawing()}
    for sizes in (ONE, (2, 2, 2)) if whole else ():
        found["inference"][str(sizes)] = inference(sizes)
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
