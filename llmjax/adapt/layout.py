"""peft's layout of an adapter's folder: what its tensors are called, how they lie, what its config says.

Source: peft's documentation, "PEFT checkpoint format", and the folders that peft 0.21 writes.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llmjax.adapt.config import AdaptConfig
from llmjax.adapt.lora import A, B, E
from llmjax.errors import UserError
from llmjax.models.config import ModelConfig
from llmjax.models.families import family_of
from llmjax.models.folders import ADAPTER_CONFIG
from llmjax.models.params import At, Head, flat_tree, param_shapes

TYPES = {"lora": "LORA", "adalora": "ADALORA", "adapters": "HOULSBY"}
TASKS = {"classifier": "SEQ_CLS", "lm": "CAUSAL_LM", "none": "FEATURE_EXTRACTION"}
PREFIX = "base_model.model."


def tensor_names(config: ModelConfig, head: Head) -> dict[At, str]:
    """Returns transformers' name of every parameter."""
    family = family_of(config)
    bare = "none" in family.architectures and family.architectures[head] == family.architectures["none"]
    return {
        at: family.tensor_name(at) if bare or at[0] in family.own else family.prefix + family.tensor_name(at)
        for at in flat_tree(param_shapes(config, head))
    }


def module_name(names: Mapping[At, str], at: At) -> str:
    """Returns transformers' name of the module whose weight is a kernel; `at` is the path of what holds the kernel."""
    return names[(*at, "kernel")].removesuffix(".weight")


def beside_name(names: Mapping[At, str], at: At, method: str) -> str:
    """Returns peft's name of a, b or lambda beside a weight."""
    end = f"lora_{at[-1][-1].upper()}" + (".weight" if method == "lora" else "")
    return f"{PREFIX}{module_name(names, at[:-1])}.{end}"


def stored(name: str, array: np.ndarray, kept: Any) -> np.ndarray:
    """Returns a, b or lambda as peft stores them, the triplets alone that are in use."""
    turned = {A: lambda: array.T[kept], B: lambda: array.T[:, kept], E: lambda: array[kept][:, None]}[name]()
    return np.ascontiguousarray(turned)


def adapter_config(
    config: ModelConfig, parts: Mapping[At, Any], names: Mapping[At, str], head: Head, adapt: AdaptConfig, base: str
) -> dict[str, Any]:
    """Returns what goes to adapter_config.json of what was trained, `parts`, on the base of that name."""
    family, own = family_of(config), sorted({at[0] for at in parts} & set(family_of(config).own))
    found: dict[str, Any] = {
        "peft_type": TYPES[adapt.method],
        "task_type": TASKS[head],
        "base_model_name_or_path": base,
        "inference_mode": True,
        "modules_to_save": [family.tensor_name((part, "kernel")).split(".")[0] for part in own] or None,
    }
    if adapt.method == "adapters":
        return found | {"width": adapt.width}
    beside = sorted(at[:-1] for at in parts if at[-1] == A)
    found |= {
        "target_modules": [module_name(names, at) for at in beside],
        "lora_alpha": adapt.alpha,
        "lora_dropout": adapt.dropout,
        "fan_in_fan_out": not family.transposed((*beside[0], "kernel")),
        "bias": "none",
    }
    if adapt.method == "lora":
        return found | {"r": adapt.rank, "use_rslora": adapt.rank_stabilised}
    pattern = {f"{module_name(names, at)}.lora_E": (np.asarray(parts[(*at, E)]) != 0).tolist() for at in beside}
    return found | {
        "init_r": adapt.initial_rank,
        "target_r": adapt.rank,
        "orth_reg_weight": adapt.orthogonality,
        "total_step": 1,
        "rank_pattern": pattern,
    }


def scale_of(folder: Path, raw: Mapping[str, Any], module: str) -> float:
    """Returns what a module's added product is multiplied by."""

    def of_module(patterns: str, usual: Any) -> float:
        pairs = (raw.get(patterns) or {}).items()
        return next((value for key, value in pairs if re.fullmatch(rf"(.*\.)?({key})", module)), usual)

    try:
        if raw["peft_type"] == "ADALORA":
            return float(raw["lora_alpha"]) / (float(raw["init_r"]) + 1e-5)
        rank, alpha = of_module("rank_pattern", raw["r"]), of_module("alpha_pattern", raw["lora_alpha"])
        return float(alpha) / (float(rank) ** 0.5 if raw.get("use_rslora") else float(rank))
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{folder / ADAPTER_CONFIG}: r, init_r or lora_alpha is missing or no number.") from error
