"""The devices that a job runs on: its mesh in use, and what is to be said of it."""

import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jax
from jax.sharding import AbstractMesh, Mesh

from llmjax.backend import settle
from llmjax.errors import UserError
from llmjax.memory import size_text, tree_bytes
from llmjax.parallel.mesh import (
    AXES,
    ROWS,
    MeshConfig,
    abstract_mesh,
    axis_size,
    current,
    make_mesh,
    mesh_sizes,
    on_mesh,
    whole_rows,
)
from llmjax.parallel.processes import several
from llmjax.targets.names import parse_target, target_devices

if TYPE_CHECKING:
    from llmjax.models.params import Params


@contextmanager
def on_devices(settings: Mapping[str, Any]) -> Iterator[None]:
    """Takes the mesh of a job's settings into use: `mesh_here`."""
    with on_mesh(mesh_here(settings)):
        yield


def mesh_here(settings: Mapping[str, Any]) -> Mesh | None:
    """Returns the mesh of a job's settings, and says so where it is more than one device, or leaves some idle.

    Raises:
        UserError: there are not so many devices.
    """
    settle()
    config, here = MeshConfig(**{axis: settings[axis] for axis in AXES}), jax.device_count()
    used = math.prod(mesh_sizes(config, here))
    if used < here and several():
        raise UserError(
            f"the mesh has {used} of the {here} devices that {jax.process_count()} processes have: some processes would"
            " have none; --config.mesh.data=-1 takes what the other axes leave."
        )
    if used < here:
        idle = f"{here - used} of {here} devices idle"
        print(f"warning: {idle}: --config.mesh.data=-1 takes what the other axes leave", file=sys.stderr)
    mesh = make_mesh(config)
    if mesh is not None:
        print(f"computing on {described(mesh)}", file=sys.stderr)
    return mesh


def mesh_for(target: str, settings: Mapping[str, int]) -> AbstractMesh | None:
    """Returns the mesh of a target's devices that a job's settings ask for; None where it is one device."""
    config = MeshConfig(**settings)
    devices = target_devices(parse_target(target))
    return abstract_mesh(mesh_sizes(config, devices or max(1, math.prod(max(1, size) for size in settings.values()))))


def use_told(target: str, mesh: Mesh | AbstractMesh | None) -> str:
    """Returns how many of a target's devices a program uses, and as what mesh: "" where it is the only one."""
    there = target_devices(parse_target(target)) if target else None
    used = 1 if mesh is None else mesh.size
    of = f" of its {there:,}" if there and there != used else ""
    if mesh is None:
        return f"1{of} devices" if of else ""
    axes = " x ".join(f"{axis} {mesh.shape[axis]}" for axis in AXES if mesh.shape[axis] > 1)
    return f"{used:,}{of} devices: {axes}"


def described(mesh: Mesh | AbstractMesh) -> str:
    """Returns a mesh in words."""
    kind = jax.devices()[0].device_kind
    hosts = f" of {jax.process_count()} processes" if several() else ""
    return f"{mesh.size} {kind} devices{hosts}, " + " x ".join(f"{axis} {mesh.shape[axis]}" for axis in AXES)


def check_rows(name: str, rows: int) -> None:
    """Raises `UserError` where the mesh in use cannot divide so many rows of a setting."""
    if whole_rows(rows) != rows:
        raise UserError(
            f"{name}={rows} cannot be divided over data x fsdp = {axis_size(*ROWS)} devices: take {whole_rows(rows)},"
            " or fewer devices (--config.mesh.data=)."
        )


def say_mesh(params: "Params", step: str) -> None:
    """Prints which devices train, what each holds, and what a step is; nothing where it is one device."""
    mesh = current()
    if mesh is None:
        return
    leaves = jax.tree.leaves(params)
    mine = sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)
    print(f"mesh: {described(mesh)}; parameters {size_text(tree_bytes(params))}, {size_text(mine)} a device; {step}")
