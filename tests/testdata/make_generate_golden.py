"""Writes generate_golden.npz: what transformers' `generate` continues the models of gpt2_golden.npz with, greedily.

Run `python -m tests.testdata.make_generate_golden` where the `reference` extra is installed. For each case NAME it
holds `NAME/tokens` (left-padded prompts), `NAME/mask`, `NAME/new` (the tokens made), and `NAME/scores`, the float32
logits that each was chosen from; and for each size `sizes/SIZE`, 64 tokens after each prompt of `size_prompts`, made
by the model that `size_model` draws.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers

from llmjax.models.families import SIZES
from llmjax.models.weights import save_pretrained
from tests.infer.models import size_model, size_prompts

NEW = 14
LENGTHS = (9, 1, 5)


def case(golden: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Returns one case's arrays."""
    config = transformers.GPT2Config(**json.loads(str(golden[f"{name}/config"])), attn_implementation="eager")
    model = transformers.GPT2LMHeadModel(config).eval()
    prefix = f"{name}/weights/"
    weights = {key.removeprefix(prefix): value for key, value in golden.items() if key.startswith(prefix)}
    state = {key: torch.from_numpy(value.astype(np.float32)) for key, value in weights.items() if "score" not in key}
    model.load_state_dict(state, strict=False)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 62, (len(LENGTHS), max(LENGTHS)), generator=generator)
    mask = (torch.arange(max(LENGTHS))[None, :] >= max(LENGTHS) - torch.tensor(LENGTHS)[:, None]).long()
    out = model.generate(
        torch.where(mask.bool(), tokens, 63),
        attention_mask=mask,
        max_new_tokens=NEW,
        do_sample=False,
        eos_token_id=None,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return {
        "tokens": tokens.numpy().astype(np.int32),
        "mask": mask.numpy().astype(bool),
        "new": out.sequences[:, max(LENGTHS) :].numpy().astype(np.int32),
        "scores": torch.stack(out.logits, dim=1).numpy().astype(np.float32),
    }


def size_case(size: str) -> np.ndarray:
    """Returns 64 greedy tokens after each prompt, [3, 64], each prompt by itself."""
    config, params = size_model(size)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(Path(folder), config, params, "lm")
        model = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    limits = {"max_new_tokens": 64, "min_new_tokens": 64, "do_sample": False, "pad_token_id": 99}
    made = []
    for prompt in size_prompts():
        tokens = torch.tensor([prompt])
        made.append(model.generate(tokens, attention_mask=torch.ones_like(tokens), **limits)[0, len(prompt) :])
    return torch.stack(made).numpy().astype(np.int32)


if __name__ == "__main__":
    here = Path(__file__).parent
    golden = dict(np.load(here / "gpt2_golden.npz"))
    arrays = {f"{name}/{key}": value for name in ("plain", "variant") for key, value in case(golden, name).items()}
    arrays |= {f"sizes/{size}": size_case(size) for size in SIZES}
    np.savez_compressed(here / "generate_golden.npz", **arrays)
