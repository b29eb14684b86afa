"""Where each array of a tree lies on a mesh, by a table of path pattern -> PartitionSpec.

The same table serves parameters, gradients, optimiser states, averages, caches and batches: it reads the end of a path,
and that is the same in all of them. What it does not name lies whole on every device.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from llmjax.errors import UserError
from llmjax.parallel.mesh import ROWS, P, current, names_of

Tree = Any


class Rule(NamedTuple):
    """What a path's pattern says of an array: the first spec whose axes divide it.

    plain: of the last two dimensions, inputs and outputs. by_rows: of a packed weight, outputs and inputs; None: as
    `plain`.
    """

    pattern: str
    plain: Sequence[PartitionSpec]
    by_rows: Sequence[PartitionSpec] | None = None


Table = tuple[Rule, ...]
_PACKED = ("values_ED", "packed_EPH", "scale_E", "scale_EP", "minimum_EP")


def shardings(tree: Tree, table: Table, mesh: Any) -> Tree:
    """Returns the `NamedSharding` of every leaf of a tree on `mesh`; sizes that do not divide raise `UserError`."""

    def sharding(at: tuple[Any, ...], leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, _spec([_name(entry) for entry in at], np.shape(leaf), table, mesh))

    return jax.tree_util.tree_map_with_path(sharding, tree)


def place(tree: Tree, table: Table) -> Tree:
    """Returns a tree's arrays where the table says on the mesh in use; the tree itself without one."""
    mesh = current()
    if mesh is None:
        return tree
    return jax.tree.map(_put, tree, shardings(tree, table, mesh))


def divided(tree: Tree, table: Table) -> Tree:
    """Returns values of a traced function, divided as `place` does it; the tree itself without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return tree
    return jax.tree.map(jax.lax.with_sharding_constraint, tree, shardings(tree, table, mesh))


def place_rows(tree: Tree) -> Tree:
    """Returns a batch with its rows divided over the mesh in use; the batch itself without one."""
    mesh = current()
    if mesh is None:
        return tree

    def sharding(leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, _first([P(ROWS), P()], np.shape(leaf), mesh) or P())

    return jax.tree.map(lambda leaf: _put(leaf, sharding(leaf)), tree)


def shaped(tree: Tree, table: Table) -> Tree:
    """Returns a tree's shapes with the shardings of the mesh in use, to compile for; without one the tree itself."""
    mesh = current()
    if mesh is None:
        return tree

    def shape(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(shape, tree, shardings(tree, table, mesh))


def _put(leaf: Any, sharding: NamedSharding) -> jax.Array:
    if jax.process_count() == 1 or (isinstance(leaf, jax.Array) and not leaf.is_fully_addressable):
        return jax.device_put(leaf, sharding)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        whole = NamedSharding(sharding.mesh, P())
        return jax.random.wrap_key_data(_put(jax.random.key_data(leaf), whole), impl=jax.random.key_impl(leaf))
    values = np.asarray(leaf)
    return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])


def _name(entry: Any) -> str:
    return str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", entry))))


def _spec(path: list[str], shape: tuple[int, ...], table: Table, mesh: Any) -> PartitionSpec:
    packed = bool(path) and path[-1] in _PACKED
    at = "/".join(path[:-1] if packed else path)
    rule = next((rule for rule in table if re.search(rf"(^|/)({rule.pattern})$", at)), None)
    if rule is None or not shape:
        return P()
    if packed:
        specs = [P(*spec[: len(shape)]) for spec in rule.by_rows or rule.plain]
    elif at.endswith(("kernel", "embedding")):  # stacked layers have a dimension more, in front
        specs = [P(*[None] * (len(shape) - 2), *spec) for spec in rule.plain]
    else:
        specs = list(rule.plain)
    found = _first(specs, shape, mesh)
    if found is None:
        sizes = ", ".join(f"{axis}={mesh.shape[axis]}" for axis in ("fsdp", "tensor"))
        raise UserError(f"{at} of {' x '.join(map(str, shape))} cannot be divided over {sizes}: take a mesh that can.")
    return found


def _first(specs: Sequence[PartitionSpec], shape: tuple[int, ...], mesh: Any) -> PartitionSpec | None:
    """Returns the first spec whose axes divide the shape's dimensions."""

    def parts(entry: Any) -> int:
        return int(np.prod([mesh.shape[axis] for axis in names_of(entry)], dtype=int))

    return next((s for s in specs if all(n % parts(e) == 0 for n, e in zip(shape, s, strict=False))), None)
