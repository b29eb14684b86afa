"""Which links a collective runs on. No JAX import."""

from llmjax.cost.collectives import collective_in, group_size
from llmjax.cost.values import OpCost
from llmjax.cycles.device import Device
from llmjax.cycles.features import nodes_of
from llmjax.cycles.tpu import ring
from llmjax.hlo import Module


def links_of(op: OpCost, module: Module, device: Device) -> str:
    """Returns what an exchange goes over; "" where the device stands alone.

    Of a TPU "2 ICI", the links that each device sends on, one way; of a GPU "in a host" or "between hosts".
    """
    if device.link is None:
        return ""
    if device.kind == "tpu":
        devices = max(1, module.replica_count) * max(1, module.num_partitions)
        return f"{ring(group_size(collective_in(op), module), devices, device.name)[1]} ICI"
    return "between hosts" if device.network and nodes_of(op, module, device) > 1 else "in a host"
