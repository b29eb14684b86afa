"""HLO values -> FLOPs and bytes, op by op. No JAX import."""

from llmjax.cost.analysis import cost_module
from llmjax.cost.values import Branches, Cost, FusedCost, Loop, ModuleCost, OpCost, Traffic

__all__ = ["Branches", "Cost", "FusedCost", "Loop", "ModuleCost", "OpCost", "Traffic", "cost_module"]
