"""Where a model's arrays lie on a mesh: its family's table, made of the names that the family gives its layers.

Matrices are divided; vectors and scalars lie whole on every device.
"""

import functools

from llmjax.errors import UserError
from llmjax.models.config import ModelConfig
from llmjax.models.spec import Names
from llmjax.parallel.layout import Rule, Table, Tree, place
from llmjax.parallel.mesh import AXES, ROWS, P, axis_size

# Of a vocabulary that `tensor` does not divide, the width is divided instead.
_VOCABULARY = (P("tensor", "fsdp"), P(None, ("fsdp", "tensor")))
_COMMON = (
    Rule("(wte|embed_tokens|word_embeddings)/embedding", _VOCABULARY),
    Rule("lm_head/kernel", (P("fsdp", "tensor"), P(("fsdp", "tensor"))), _VOCABULARY),
    Rule("embedding", (P(None, "fsdp"), P())),
    Rule("kernel", (P("fsdp"), P()), (P(None, "fsdp"), P())),
    Rule(r"[kv]_NSK/\d+(/\w+)?", (P(AXES), P("tensor"))),
    Rule(r"\w+_B[A-Z]*", (P(ROWS), P())),
)


def table_of(config: ModelConfig) -> Table:
    """Returns a model's table, which is its family's."""
    return _table(config.layer.names)


@functools.cache
def _table(names: Names) -> Table:
    """Returns the table of layers whose matrices have these names, then what all families have.

    Products of inputs to heads or inner values are divided by outputs over `tensor`, those back by inputs. One product
    for query, key and value is stored divided by inputs, since its outputs would be cut across heads: the layer
    (`fused`) divides it by heads when it runs.
    """
    fused = names.qkv if len(names.qkv) == 1 else ()
    out = Rule(f"({names.out}|{names.down})/kernel", (P("tensor", "fsdp"),), (P("fsdp", "tensor"),))
    to_heads = "|".join([*(() if fused else names.qkv), *names.up])
    own = [Rule(f"({to_heads})/kernel", (P("fsdp", "tensor"),), (P("tensor", "fsdp"),)), out]
    own += [Rule(f"{name}/kernel", (P(("fsdp", "tensor")),), (P("tensor", "fsdp"),)) for name in fused]
    return (*own, *_COMMON)


def check_heads(config: ModelConfig) -> None:
    """Raises `UserError` where the devices of the mesh in use cannot share a model's heads."""
    spec, tensor = config.layer, axis_size("tensor")
    for count, what in ((spec.heads, "heads"), (spec.kv_heads, "key-value heads"), (spec.inner, "inner values")):
        if count % tensor:
            raise UserError(f"mesh.tensor={tensor} does not divide the model's {count} {what}: take one that does.")


def place_model(params: Tree, config: ModelConfig) -> Tree:
    """Returns a model's parameters on the mesh in use; one that cannot share its heads raises `UserError`."""
    check_heads(config)
    return place(params, table_of(config))
