"""A mesh of devices and the one in use. JAX's own SPMD divides programs over it.

The mesh in use is JAX's (`jax.set_mesh`), so it belongs to a thread, and traced functions see it. On one device none is
in use, and nothing here changes a program.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, PartitionSpec

from llmjax.errors import UserError

P = PartitionSpec
AXES = ("data", "fsdp", "tensor")
ROWS = ("data", "fsdp")
"""The axes over which the rows of a batch are divided."""
Entry = None | str | tuple[str, ...]
"""What one dimension is divided over: nothing, an axis, or several."""


@dataclass(frozen=True)
class MeshConfig:
    """How many devices each axis has; -1 in one of them = what the others leave.

    data: rows are divided, parameters are on every device. fsdp: rows and parameters are divided, and a layer's
    parameters are gathered when it runs (Zhao et al. 2023, "PyTorch FSDP"). tensor: heads and inner values of each
    layer are divided (Shoeybi et al. 2019, "Megatron-LM").
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


def mesh_sizes(config: MeshConfig, devices: int) -> tuple[int, int, int]:
    """Returns the sizes of the axes on so many devices; a mesh that cannot be made of them raises `UserError`."""
    asked = astuple(config)
    said = ", ".join(f"mesh.{name}={size}" for name, size in zip(AXES, asked, strict=True))
    if min(asked) < -1 or 0 in asked or asked.count(-1) > 1:
        raise UserError(f"{said}: each must be 1 or more, or one of them -1, which is what the others leave.")
    known = math.prod(size for size in asked if size > 0)
    if known > devices or (-1 in asked and devices % known):
        problem = "more than there are" if known > devices else "which does not divide them"
        raise UserError(f"{said}: {known} devices, {problem} (devices here: {devices}).")
    data, fsdp, tensor = (size if size > 0 else devices // known for size in asked)
    return data, fsdp, tensor


def make_mesh(config: MeshConfig) -> Mesh | None:
    """Returns a mesh of this run's devices, of all processes; None where it is one device."""
    sizes = mesh_sizes(config, jax.device_count())
    if math.prod(sizes) == 1:
        return None
    devices = jax.devices()[: math.prod(sizes)]
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def abstract_mesh(sizes: tuple[int, int, int]) -> AbstractMesh | None:
    """Returns a mesh of devices that need not be here, to compile for; None where it is one."""
    if math.prod(sizes) == 1:
        return None
    return AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES))


@contextmanager
def on_mesh(mesh: Mesh | AbstractMesh | None) -> Iterator[None]:
    """Takes a mesh into use in this thread; None changes nothing."""
    if mesh is None:
        yield
    elif isinstance(mesh, Mesh):
        with jax.set_mesh(mesh):
            yield
    else:
        with jax.sharding.use_abstract_mesh(mesh):
            yield


def current() -> Mesh | AbstractMesh | None:
    """Returns the mesh in use, outside of traced functions, or None."""
    mesh = jax.sharding.get_mesh()
    if not mesh.empty:
        return mesh
    abstract = jax.sharding.get_abstract_mesh()
    return None if abstract.empty else abstract


def in_use() -> bool:
    """Returns whether there is a mesh in use, in traced functions too."""
    return not jax.sharding.get_abstract_mesh().empty


def axis_size(*axes: str) -> int:
    """Returns over how many devices these axes of the mesh in use divide something; 1 without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else math.prod(mesh.shape[axis] for axis in axes)


def row_axes(rows: int) -> Entry:
    """Returns `ROWS` where they divide so many rows, else None: each device then has them all."""
    return ROWS if rows % axis_size(*ROWS) == 0 else None


def whole_rows(rows: int) -> int:
    """Returns how many rows, so many or a few more, every device of the mesh in use has an equal share of."""
    return -(-rows // axis_size(*ROWS)) * axis_size(*ROWS)


def spread(x: jax.Array, *entries: Entry, uneven: bool = False) -> jax.Array:
    """Returns `x` with its first dimensions divided as `entries` say; `x` itself without a mesh.

    A dimension that its axes do not divide is left whole, unless `uneven`: the compiler then fills it up.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    fitting = [
        entry if uneven or size % axis_size(*names_of(entry)) == 0 else None
        for entry, size in zip(entries, x.shape, strict=False)
    ]
    return jax.lax.with_sharding_constraint(x, P(*fitting))


def names_of(entry: Entry) -> tuple[str, ...]:
    """Returns the axes of one dimension."""
    return entry if isinstance(entry, tuple) else () if entry is None else (entry,)


def on_each_device(function: Callable[..., Any], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """Returns a function that every device runs on its own parts of the arguments; `function` itself without a mesh."""
    if jax.sharding.get_abstract_mesh().empty:
        return function
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=False)
