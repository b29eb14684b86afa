"""Writes families_golden.npz: small random models of several families, and what transformers' torch computes with them.

Run `python -m tests.testdata.make_families_golden` where the `reference` extra (torch) is installed.
"""

import json
from pathlib import Path

import numpy as np
import torch

from tests.models.families import CASES
from tests.models.test_families_parity import padded, theirs, torch_model

GOLDENS = {"llama3": "lm", "mistral": "classifier", "qwen2": "lm", "qwen3": "lm", "bert": "classifier", "roberta": "lm"}


def main() -> None:
    """Draws the models and writes the file."""
    arrays: dict[str, np.ndarray] = {}
    for case, head in GOLDENS.items():
        model = torch_model(case, head)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(parameter.half().float())
        for name, value in model.state_dict().items():
            tied = name in ("lm_head.decoder.weight", "lm_head.decoder.bias") and CASES[case][0] == "roberta"
            if value.dtype == torch.float32 and not tied:
                arrays[f"{case}/weights/{name}"] = value.numpy().astype(np.float16)
        arrays[f"{case}/config"] = np.array(json.dumps(json.loads(model.config.to_json_string(use_diff=False))))
        arrays[f"{case}/head"] = np.array(head)
        for side in ("right", "left"):
            tokens_BL, mask_BL = padded(model.config, side)
            arrays[f"{case}/{side}/tokens"], arrays[f"{case}/{side}/mask"] = tokens_BL, mask_BL
            arrays[f"{case}/{side}/logits"] = theirs(model, head, tokens_BL, mask_BL).astype(np.float32)
    np.savez_compressed(Path(__file__).parent / "families_golden.npz", **arrays)


if __name__ == "__main__":
    main()
