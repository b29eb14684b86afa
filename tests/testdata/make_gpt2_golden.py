"""Writes gpt2_golden.npz: tiny GPT-2s with transformers' torch logits, so that the plain test run needs no torch.

Run `python tests/testdata/make_gpt2_golden.py` where the `reference` extra is installed. For each case NAME the file
holds `NAME/config` (JSON), `NAME/weights/TENSOR` (float16, which float32 holds exactly), tokens and masks for both
padding sides, and float32 logits of both heads.
"""

import json
from pathlib import Path

import numpy as np
import torch
import transformers

BASE = {"vocab_size": 64, "n_positions": 24, "n_embd": 16, "n_layer": 2, "n_head": 2, "num_labels": 3}
BASE |= {"pad_token_id": 63, "bos_token_id": 62, "eos_token_id": 62}
CASES = {
    "plain": {},
    "variant": {
        "n_inner": 40,
        "activation_function": "relu",
        "scale_attn_by_inverse_layer_idx": True,
        "reorder_and_upcast_attn": True,
        "tie_word_embeddings": False,
        "layer_norm_epsilon": 1e-3,
    },
}
LENGTHS = (9, 1, 5)


def randomise(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Draws every parameter, biases too, at values that float16 holds."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if ".ln_" in name and name.endswith("weight") else 0.0
            draw = centre + 0.15 * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(draw.half().float())


def case(overrides: dict) -> dict[str, np.ndarray]:
    """Returns one case's arrays."""
    config = transformers.GPT2Config(**BASE, **overrides, attn_implementation="eager")
    generator = torch.Generator().manual_seed(0)
    lm = transformers.GPT2LMHeadModel(config).eval()
    randomise(lm, generator)
    classifier = transformers.GPT2ForSequenceClassification(config).eval()
    classifier.transformer.load_state_dict(lm.transformer.state_dict())
    randomise(classifier.score, generator)

    tokens = torch.randint(0, 63, (len(LENGTHS), max(LENGTHS)), generator=generator)
    right = torch.arange(max(LENGTHS))[None, :] < torch.tensor(LENGTHS)[:, None]
    arrays = {f"weights/{name}": value.numpy().astype(np.float16) for name, value in lm.state_dict().items()}
    arrays["weights/score.weight"] = classifier.score.weight.detach().numpy().astype(np.float16)
    if config.tie_word_embeddings:
        del arrays["weights/lm_head.weight"]
    arrays["config"] = np.array(json.dumps(config.to_diff_dict()))
    for side, mask in (("right", right), ("left", right.flip(1))):
        padded = torch.where(mask, tokens, 63)
        arrays[f"{side}/tokens"], arrays[f"{side}/mask"] = padded.numpy().astype(np.int32), mask.numpy()
        with torch.no_grad():
            for head, model in (("lm", lm), ("classifier", classifier)):
                logits = model(padded, attention_mask=mask.long()).logits
                arrays[f"{side}/{head}"] = logits.numpy().astype(np.float32)
    return arrays


if __name__ == "__main__":
    arrays = {f"{name}/{key}": value for name, overrides in CASES.items() for key, value in case(overrides).items()}
    np.savez_compressed(Path(__file__).with_name("gpt2_golden.npz"), **arrays)
