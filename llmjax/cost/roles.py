"""What a cost is for: roles, by a table of the words that models call their parts by, which a user can replace.

The words are those of the field, of no one model: GPT-2, BERT, Llama and MaxText's names, Flax Linen's and NNX's,
torch-xla's and Hugging Face's read by the same table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from llmjax.errors import UserError
from llmjax.json_file import read_json

UNATTRIBUTED = "unattributed"
DATA_MOVEMENT = "data movement"
OTHER = "other"

# Scopes around a layer's two halves.
_ATTENTION = r"(?:(?!c_attn/)\w*[aA]ttn\w*|\w*[aA]ttention\w*|mha|MultiHead\w*)"
_MLP = r"(?:\w*(?:mlp|MLP|Mlp)\w*|\w*(?:ffn|FFN)\w*|\w*[fF]eed_?[fF]orward\w*|intermediate|\w*swiglu\w*)"
_NORM = r"(?:ln_\w+|\w*[nN]orm\w*)"
# A layer of experts; but the first scope is the model's own name, as `MoeTransformer`, and says nothing of its parts.
_EXPERTS = r"(?:\w*experts?\w*|\w*[mM]o[eE]\w*|\w*[sS]parse_?(?:mlp|MLP|ffn|FFN|[fF]eed_?[fF]orward)\w*)"
# Scopes that are one layer, and what its additions are.
_A_LAYER = r"(?:h|blocks?|layers?|\w*(?:Block|Layer|_block|_layer|_layers))(?:[_./]?\d+)?"

_NO_SUM = rf"(?!{_A_LAYER}/add(?:_any)?$)"

# What the matrices of attention are called: fused, one by one, and by torch, diffusers and the first papers.
_PROJECTIONS = r"""
c_attn c_proj qkv\w* query\w* key\w* value\w* out\w* dense\w* \w*_proj to_[qkv] to_out w[qkvo] W[qkvo] Dense\w*
Linear\w*
"""
_MLP_MATRICES = r"""
c_fc fc\d? gate_proj up_proj down_proj gate_up_proj w[123io] wi_\d dense_h_to_4h dense_4h_to_h linear[12] fc_in fc_out
token_mixing channel_mixing
"""
_SCORES = r"""
scores mix logits_qk attend dot_product_attention\w* qk_product wv_product apply_attention\w* core_attention
DotProductAttention\w* \w*splash\w* flash_\w*
"""
_VOCABULARY = r"""
lm_head unembed\w* \w+\.attend logits_dense embed_out output_projection predictions lm_bias transform LMHead\w*
"""
_EMBEDDINGS = r"wte wpe embd?_\w+ embed\w* \w*_embed\w* \w*Embed\w* token_embed\w* tok_embeddings \w*embedder"
_NO_MODEL = r"(?!\w*(?:LM|Model))\w*"
# Selective state spaces: Mamba's own names, those of its ports, and of S4 and S5.
_STATE_SPACE = rf"(?:\w*(?:[mM]amba|ssm|SSM){_NO_MODEL}|(?:x|dt)_proj|selective_scan\w*|ssd\w*|S4\w*|S5\w*)"
_RECURRENT = r"(?:\w*(?:LSTM|GRU|RNN)\w*|\w*(?:lstm|gru|rnn)(?:_\w+)?|\w*Cell)(?:_\d+)?"
_HEADS = r"\w*classifier\w* head score \w+_head \w*pre_logits"
# Matrices whose scope says no more than that they are some.
_LINEAR = r"\w*[dD]ense\w* \w*[lL]inear\w* \w*Einsum\w* (?:in|out|input|output)_proj(?:ection)? proj(?:ection)?"
_MOVES_OF_JAX = """
broadcast_in_dim concatenate convert_element_type copy dynamic_slice dynamic_update_slice expand_dims gather pad
reshape rev scatter select_n slice split squeeze transpose
aten__view aten__permute aten__transpose aten__t aten__expand aten__slice aten__cat aten__clone aten___to_copy
aten__unsqueeze aten__squeeze aten__select aten__split aten__reshape xla__cast
"""


def _any(words: str) -> str:
    """An expression for one of the words."""
    return "(?:" + "|".join(words.split()) + ")"


def _scope(words: str) -> str:
    """An expression for a scope that is one of the words, with Linen's number behind it or not."""
    return rf"[ /]{_any(words)}(?:_\d+)?(?:\(\))?/"


_HALF = rf"[ /]{_ATTENTION}/(?!(?:.+/)?{_MLP}/)"  # in attention, and in no MLP inside it
_PRODUCT = r"(?:dot|convolution)(?: weights)?"
# Ends as a product's primitive does. A product of an activation with weights has ` weights` behind it.
_A_PRODUCT = rf"(?:.+/)?{_PRODUCT}$"

# (regular expression, role), first match wins. Searched for in `STAGE PATH/PRIMITIVE`: STAGE is forward, backward or
# update in a program that takes derivatives and inference in one that does not; PATH is the module path with the names
# of jitted functions, as `_take()`; PRIMITIVE is JAX's name of the operation: "backward GPT2/h_3/mlp/tanh". Of a dot, a
# convolution and an instruction with a borrowed name it is XLA's opcode: "backward GPT2/h_3/mlp/c_fc/dot weights".
ROLES: tuple[tuple[str, str], ...] = (
    (r"^update ", "optimiser"),
    (r"[ /](sampl\w*|top_[kp]|nucleus|temperature)/", "sampling"),
    (r"^(forward|backward) (\w+\(\)/)*[\w\-]+( weights)?$", "loss"),  # differentiated, and in no module
    (r"[ /]\w*[lL]oss\w*(\(\))?/", "loss"),
    (rf"[ /]\w*router\w*/|[ /]{_any('gate moe_gate Gate')}/", "router"),
    (rf"(?:/|^\w+ (?![A-Z])){_NO_SUM}{_EXPERTS}/(?!(?:.+/)?(?:{_ATTENTION}|{_NORM})/)", "experts"),
    (r"[ /](megablox|t?gmm\(\))/", "experts"),
    (_scope(_SCORES), "attention scores"),
    (rf"{_HALF}(?:(?!softmax/).+/)?(?:dot|convolution) weights$", "attention projections"),
    (
        rf"{_HALF}(?:softmax(?:\(\))?/(?:.+/)?)?(?:attention_op/(?:.+/)?|AttentionOp\w*/(?:.+/)?)?{_PRODUCT}$",
        "attention scores",
    ),
    (rf"/\w*[dD]ropout\w*/(?!{_A_PRODUCT})", "dropout"),
    (r"[ /]softmax(\(\))?/", "softmax"),
    (r"[ /](\w*rope|\w*[rR]otary\w*)(\(\))?/", "rotary positions"),
    (rf"[ /]{_NORM}(\(\))?/", "layer norm"),
    (rf"[ /]{_A_LAYER}/(add|add_any|aten__add)$", "residual"),
    (rf"{_scope(_VOCABULARY)}|{_scope(_EMBEDDINGS)}dot( weights)?$", "vocabulary projection"),
    (_scope(_EMBEDDINGS) + r"|^\w+ [A-Z]\w*/add(_any)?$", "embedding"),  # a model's own sums are of its embeddings
    (rf"{_HALF}(?:.+/)?{_any(_PROJECTIONS)}(?:_\d+)?/", "attention projections"),
    (rf"[ /]{_MLP}/|{_scope(_MLP_MATRICES)}|[ /]{_A_LAYER}/output/", "MLP"),
    (rf"/{_any(_MOVES_OF_JAX)}$", DATA_MOVEMENT),
    (rf"[ /]{_ATTENTION}/", "attention scores"),  # scaling and masks outside any scope of their own
    (rf"^\w+ {_EXPERTS}/{_A_PRODUCT}", "experts"),  # a layer of them by itself
    (rf"[ /]{_STATE_SPACE}/", "state space"),
    (rf"[ /]{_RECURRENT}/", "recurrence"),
    (r"[ /](\w*[cC]onv\w*|\w*[rR]es(net|net_?block|block)\w*|\w*(down|up)_?sampl\w*|stem|patchify)/", "convolutions"),
    (r"[ /]\w*(pool|Pool)(ing|ed|er)?\w*/", "pooling"),
    (rf"{_scope(_HEADS)}", "output head"),
    (rf"{_scope(_LINEAR)}", "linear layers"),
    (r"^inference (\w+\(\)/)*(argmax|sort|top_k|approx_top_k|cumsum|random_\w+|threefry2x32|rng_\w+)$", "sampling"),
)

# Group 1 is the layer's number: GPT2/h_3/attn, encoder/layers/3/mlp, model/Block_3.
LAYER = r"(?:^|/)(?:h|layers?|blocks?|\w*(?:Block|Layer|_block|_layer|_layers))[_./]?(\d+)(?=/|$)"


@dataclass(frozen=True, slots=True)
class RoleTable:
    """`rows` are (regular expression, role), first match wins; group 1 of `layer` is a layer's number in a module path.

    Raises UserError where an expression is not valid or `layer` has no group.
    """

    rows: tuple[tuple[str, str], ...] = ROLES
    layer: str = LAYER

    def __post_init__(self) -> None:
        for expression in [*(row[0] for row in self.rows), self.layer]:
            try:
                groups = re.compile(expression).groups
            except re.error as error:
                raise UserError(f"roles: {expression!r} is not a regular expression: {error}.") from error
        if not groups:
            raise UserError(f"roles: layer={self.layer!r} has no group for the layer's number.")


def read_roles(path: str | Path) -> RoleTable:
    """Reads a table from JSON: {"roles": [["regex", "role"], ...], "layer": "regex"}; either key may be left out."""
    raw = read_json(path, "roles")
    if set(raw) - {"roles", "layer"} or not isinstance(raw.get("layer", LAYER), str):
        raise UserError(f'roles={str(path)!r} must hold {{"roles": [["regex", "role"], ...], "layer": "regex"}}.')
    rows = raw.get("roles", ROLES)
    if not isinstance(rows, list | tuple) or not all(
        isinstance(row, list | tuple) and len(row) == 2 and all(isinstance(cell, str) for cell in row) for row in rows
    ):
        raise UserError(f'roles={str(path)!r}: "roles" must be a list of ["regex", "role"] pairs.')
    return RoleTable(tuple((row[0], row[1]) for row in rows), raw.get("layer", LAYER))
