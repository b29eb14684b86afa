"""Module paths, passes, layers and roles out of `op_name`s."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjax.cost.names import Reader, read_name
from llmjax.cost.roles import LAYER, ROLES, RoleTable, read_roles
from llmjax.errors import UserError

TRAIN = "jit(train_step)/transpose(jvp(GPT2))/ln_f/mul"  # its presence says that the program takes derivatives


@pytest.mark.parametrize(
    ("op_name", "path"),
    [
        ("jit(f)/GPT2/h_3/attn/c_attn/dot_general", "GPT2/h_3/attn/c_attn"),
        ("jit(step)/jvp(GPT2)/h_0/mlp/tanh", "GPT2/h_0/mlp"),
        ("jit(step)/transpose(jvp(GPT2))/h_0/attn/scores/blhk,bshk->bhls/transpose", "GPT2/h_0/attn/scores"),
        ("jit(step)/jvp()/reduce_sum", ""),
        ("jit(step)/jvp(jit(_one_hot))/eq", ""),
        ("jit(step)/mul;jit(step)", ""),
        ("jit(f)/GPT2/wte/jit(_take)", "GPT2/wte"),
        ("jit(f)/GPT2/wte/jit(_take)/jit(_where)/select_n", "GPT2/wte"),
        ("jit(f)/jvp(GPT2)/GPT2._scanned_layers/while/body/closed_call/h/block/attn/mul", "GPT2/h/block/attn"),
        ("jit(f)/GPT2/GPT2._scanned_layers/while", "GPT2"),
        ("jit(gen)/while/body/cond/branch_1_fun/Outer/h_0/vmap(row)/tanh", "Outer/h_0/row"),
        ("jit(gen)/while/cond/lt", ""),
        ("jit(step)/transpose(jvp(GPT2))/jvp(GPT2)/checkpoint/rematted_computation/h_0/ln_1/mul", "GPT2/h_0/ln_1"),
        ("jit(step)/a/transpose(jvp(M))/h_0/a/jvp(M)/h_0/checkpoint/rematted_computation/mul", "a/M/h_0"),
        ("jit(step)/a/transpose(jvp(M))/h_0/inner/mul", "a/M/h_0/inner"),
        ("jit(f)/GPT2/h_0/attn/scores/dot_general/mul", "GPT2/h_0/attn/scores"),
        ("model/dense/MatMul", "model/dense"),
        ("params['wte']['embedding']", ""),
        (
            "jit(s)/jvp(TransformerLinenPure.apply)/TransformerLinenPure/decoder/layers/mlp/add",
            "TransformerLinenPure/decoder/layers/mlp",
        ),
        (
            "BertModel.1/BertEncoder[encoder]/BertLayer[3]/Linear[dense]/aten__mm.3/aten__mm",
            "BertModel/encoder/BertLayer_3/dense",
        ),
        ("aten__mm", ""),
        ("", ""),
    ],
)
def test_module_path(op_name, path):
    assert read_name(op_name).path == path


@pytest.mark.parametrize(
    ("op_name", "trains", "direction"),
    [
        ("jit(step)/transpose(jvp(GPT2))/h_0/mul", True, "backward"),
        ("jit(step)/transpose(jvp(GPT2))/jvp(GPT2)/checkpoint/rematted_computation/h_0/mul", True, "backward"),
        ("jit(step)/jvp(GPT2)/h_0/mul", True, "forward"),
        ("jit(step)/jvp()/log", True, "forward"),
        ("jit(step)/sqrt", True, "other"),
        ("jit(f)/GPT2/h_0/mul", False, "forward"),
        ("jit(f)/argmax", False, "forward"),
        ("params['wte']", False, "other"),
        ("", False, "other"),
    ],
)
def test_direction(op_name, trains, direction):
    reader = Reader(RoleTable(), [op_name, TRAIN] if trains else [op_name])
    assert reader.direction(op_name) == direction


@pytest.mark.parametrize(
    ("op_name", "role"),
    [
        ("jit(step)/sqrt", "optimiser"),
        ("jit(step)/jvp()/reduce_sum", "loss"),
        ("jit(step)/jvp(jit(log_softmax))/sub", "loss"),
        ("jit(step)/transpose(jvp())/mul", "loss"),
        ("jit(step)/jvp(GPT2)/h_3/ln_1/rsqrt", "layer norm"),
        ("jit(step)/jvp(GPT2)/ln_f/mul", "layer norm"),
        ("jit(step)/jvp(GPT2)/h_3/attn/c_attn/dot_general", "attention projections"),
        ("jit(step)/jvp(GPT2)/h_3/attn/c_proj/add", "attention projections"),
        ("jit(step)/jvp(GPT2)/h_3/attn/scores/mul", "attention scores"),
        ("jit(step)/jvp(GPT2)/h_3/attn/mix/bhls,bshk->blhk/dot_general", "attention scores"),
        ("jit(step)/jvp(GPT2)/h_3/attn/softmax/exp", "softmax"),
        ("jit(step)/jvp(GPT2)/h_3/attn/softmax/attn_dropout/ge", "dropout"),
        ("jit(step)/jvp(GPT2)/h_3/attn/reshape", "data movement"),
        ("jit(step)/jvp(GPT2)/h_3/mlp/c_proj/dot_general", "MLP"),
        ("jit(step)/jvp(GPT2)/h_3/mlp/tanh", "MLP"),
        ("jit(step)/jvp(GPT2)/h_3/add", "residual"),
        ("jit(step)/transpose(jvp(GPT2))/h_3/add_any", "residual"),
        ("jit(step)/jvp(GPT2)/wte/jit(_take)/gather", "embedding"),
        ("jit(step)/jvp(GPT2)/add", "embedding"),
        ("jit(step)/jvp(GPT2)/lm_head/bld,vd->blv/dot_general", "vocabulary projection"),
        ("jit(step)/jvp(GPT2)/score/dot_general", "output head"),
        ("", "unattributed"),
    ],
)
def test_roles_of_a_train_step(op_name, role):
    assert Reader(RoleTable(), [op_name, TRAIN]).role(op_name) == role


@pytest.mark.parametrize(
    ("op_name", "opcode", "role"),
    [
        ("jit(g)/argmax", "", "sampling"),
        ("jit(g)/while/body/sampling/top_k", "", "sampling"),
        ("jit(g)/GPT2/h_0/attn/cache/dynamic_update_slice", "", "data movement"),
        ("jit(g)/GPT2/h_0/attn/reshape", "dot", "attention scores"),  # a dot that borrows the name of its reader
        ("jit(g)/GPT2/h_0/attn/softmax/attn_dropout/jit(_where)/select_n", "dot", "attention scores"),
        ("jit(g)/GPT2/h_0/attn/c_attn/transpose", "dot", "attention projections"),
        ("jit(g)/mul", "", "other"),
    ],
)
def test_roles_of_inference(op_name, opcode, role):
    assert Reader(RoleTable(), [op_name]).role(op_name, opcode) == role


@pytest.mark.parametrize(
    ("path", "role"),
    [
        # Llama
        ("Llama/layers_0/self_attn/q_proj/dot", "attention projections"),
        ("Llama/layers_0/self_attn/o_proj/dot", "attention projections"),
        ("Llama/layers_0/self_attn/rope/mul", "rotary positions"),
        ("Llama/layers_0/self_attn/q_norm/rsqrt", "layer norm"),
        ("Llama/layers_0/input_layernorm/rsqrt", "layer norm"),
        ("Llama/layers_0/post_attention_layernorm/mul", "layer norm"),
        ("Llama/layers_0/mlp/gate_proj/dot", "MLP"),
        ("Llama/layers_0/mlp/down_proj/dot", "MLP"),
        ("Llama/layers_0/add", "residual"),
        ("Llama/norm/mul", "layer norm"),
        ("Llama/embed_tokens/jit(_take)/gather", "embedding"),
        ("Llama/lm_head/dot", "vocabulary projection"),
        # BERT, as here and as Hugging Face calls its parts
        ("Bert/layer_3/attention/query/dot", "attention projections"),
        ("Bert/layer_3/attention/output/dot", "attention projections"),
        ("Bert/layer_3/mlp/intermediate/dot", "MLP"),
        ("Bert/layer_3/mlp/output/dot", "MLP"),
        ("Bert/layer_3/attention_norm/rsqrt", "layer norm"),
        ("Bert/word_embeddings/gather", "embedding"),
        ("Bert/add", "embedding"),
        ("BertModel/encoder/layer_3/attention/self/query/dot", "attention projections"),
        ("BertModel/encoder/layer_3/attention/self/softmax/exp", "softmax"),
        ("BertModel/encoder/layer_3/attention/output/dense/dot", "attention projections"),
        ("BertModel/encoder/layer_3/attention/output/LayerNorm/mul", "layer norm"),
        ("BertModel/encoder/layer_3/intermediate/dense/dot", "MLP"),
        ("BertModel/encoder/layer_3/output/dense/dot", "MLP"),
        # MaxText
        ("TransformerLinenPure/decoder/layers/self_attention/query/dot", "attention projections"),
        ("TransformerLinenPure/decoder/layers/self_attention/out/dot", "attention projections"),
        ("TransformerLinenPure/decoder/layers/self_attention/attention_op/dot", "attention scores"),
        ("TransformerLinenPure/decoder/layers/self_attention/attention_op/qk_product/dot", "attention scores"),
        ("TransformerLinenPure/decoder/layers/pre_self_attention_layer_norm/mul", "layer norm"),
        ("TransformerLinenPure/decoder/layers/mlp/wi_0/dot", "MLP"),
        ("TransformerLinenPure/decoder/layers/MoeBlock_0/gate/dot", "router"),
        ("TransformerLinenPure/decoder/layers/MoeBlock_0/dot", "experts"),
        ("TransformerLinenPure/decoder/decoder_norm/mul", "layer norm"),
        ("TransformerLinenPure/decoder/logits_dense/dot", "vocabulary projection"),
        ("TransformerLinenPure/token_embedder/gather", "embedding"),
        # Mixer, U-Net, Linen's own blocks
        ("MlpMixer/MixerBlock_0/token_mixing/Dense_0/dot", "MLP"),
        ("MlpMixer/MixerBlock_0/channel_mixing/Dense_1/dot", "MLP"),
        ("UNet/down_blocks_0/resnets_1/conv1/convolution", "convolutions"),
        ("UNet/down_blocks_0/attentions_0/to_q/dot", "attention projections"),
        ("Net/EncoderBlock_2/MultiHeadDotProductAttention_0/query/dot", "attention projections"),
        ("Net/EncoderBlock_2/MlpBlock_0/Dense_0/dot", "MLP"),
        ("Net/Block/Attn/softmax/exp", "softmax"),
        # Experts, state spaces, recurrent cells, and layers that say no more than what they are
        ("MoeLM/MoeLayer_0/MultiHeadDotProductAttention_0/query/dot", "attention projections"),
        ("MoeLM/MoeLayer_0/LayerNorm_0/mul", "layer norm"),
        ("MoeLM/MoeLayer_0/add", "residual"),
        ("MoeLM/lm_head/dot", "vocabulary projection"),
        ("Net/Layer_0/MoE_0/add_any", "experts"),
        ("MoeLM/MoeLayer_0/add", "residual"),
        ("MoeLM/MoeLayer_0/SparseFeedForward_0/dot", "experts"),
        ("MoeLayer/dot", "experts"),
        ("MambaLM/layers_0/mamba/x_proj/dot", "state space"),
        ("MambaLM/layers_0/mixer/dt_proj/dot", "state space"),
        ("MambaLM/layers_0/add", "residual"),
        ("Net/OptimizedLSTMCell_0/hi/dot", "recurrence"),
        ("Net/eqx.nn.GRUCell/mul", "recurrence"),
        ("language_model/transformer/sequential/linear_1/dot", "linear layers"),
        ("Net/Dense_0/dot", "linear layers"),
        ("ViT/head/dot", "output head"),
        ("ResNet/stem/convolution", "convolutions"),
    ],
)
def test_one_table_knows_the_words_of_many_models(path, role):
    scopes, _, primitive = path.rpartition("/")
    op_name = f"jit(f)/{scopes}/{primitive}"
    assert (
        Reader(RoleTable(), [op_name]).role(op_name, primitive if primitive in ("dot", "convolution") else "") == role
    )


@pytest.mark.parametrize(("weights", "role"), [(True, "attention projections"), (False, "attention scores")])
@pytest.mark.parametrize("path", ["M/h_0/attention", "M/h_0/SelfAttention_0", "Net/Block/Attn"])
def test_a_product_with_weights_under_attention_is_a_projection(path, weights, role):
    op_name = f"jit(f)/{path}/dot_general"
    assert Reader(RoleTable(), [op_name]).role(op_name, "dot", weights) == role


def test_a_users_table_need_not_know_of_weights():
    name = "jit(f)/net/a/dot_general"
    assert Reader(RoleTable((("/a/dot$", "mine"),)), [name]).role(name, "dot", weights=True) == "mine"


@pytest.mark.parametrize(
    ("path", "layer"),
    [
        ("GPT2/h_11/attn", 11),
        ("model/layers/3/mlp", 3),
        ("encoder/layer_7", 7),
        ("net/TransformerBlock_2/Dense_0", 2),
        ("GPT2/ln_1", None),
        ("net/Dense_4", None),
        ("net/LayerNorm_0", None),
        ("GPT2/h/block/attn", None),
    ],
)
def test_layer(path, layer):
    op_name = f"jit(f)/{path}/mul"
    assert Reader(RoleTable(), [op_name]).layer(op_name) == layer


def test_another_table(tmp_path):
    file = tmp_path / "roles.json"
    file.write_text(json.dumps({"roles": [["/experts/", "experts"]], "layer": r"stage(\d+)"}))
    name = "jit(f)/net/stage5/experts/mul"
    reader = Reader(read_roles(file), [name, "jit(f)/net/x/mul"])
    assert (reader.role(name), reader.layer(name)) == ("experts", 5)
    assert reader.role("jit(f)/net/x/mul") == "other"
    file.write_text("{}")
    assert read_roles(file) == RoleTable(ROLES, LAYER)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "should hold a JSON object, not a list"),
        ('{"role": []}', "must hold"),
        ('{"roles": [["a"]]}', 'must be a list of ["regex", "role"] pairs'),
        ('{"roles": [["(", "x"]]}', "'(' is not a regular expression"),
        ('{"layer": "h_"}', "has no group"),
    ],
)
def test_damaged_tables_are_refused(tmp_path, text, said):
    file = tmp_path / "roles.json"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        read_roles(file)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_table_that_is_not_there():
    with pytest.raises(UserError, match="cannot be read"):
        read_roles("nowhere.json")


@given(st.text(alphabet="ab/()j>;.-_1", max_size=40))
def test_any_name_is_read(op_name):
    name = read_name(op_name)
    assert not name.path.startswith("/") and "//" not in name.path
    Reader(RoleTable(), [op_name]).role(op_name)
