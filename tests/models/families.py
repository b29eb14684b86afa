"""One small model of each family and variant, as transformers' configs: for parity with torch, live and in goldens."""

LLAMA = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "bos_token_id": 0, "eos_token_id": 0,
    "pad_token_id": 63, "tie_word_embeddings": False,
}  # fmt: skip
BERT = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 40, "pad_token_id": 0,
}  # fmt: skip
LLAMA3 = {"rope_theta": 500.0, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}

ONE = {"num_hidden_layers": 1}  # where the other cases of a family show what two layers are

CASES = {
    "llama": ("llama", LLAMA),
    "llama-tied-wide-heads": (
        "llama",
        LLAMA | ONE | {"tie_word_embeddings": True, "head_dim": 12, "attention_bias": True, "mlp_bias": True},
    ),
    "llama-all-heads": ("llama", LLAMA | ONE | {"num_key_value_heads": 4, "hidden_act": "gelu"}),
    "llama3": ("llama", LLAMA | {"rope_parameters": LLAMA3 | {"original_max_position_embeddings": 16}}),
    "llama-linear": (
        "llama", LLAMA | ONE | {"rope_parameters": {"rope_theta": 100.0, "rope_type": "linear", "factor": 2.0}}
    ),
    "mistral": ("mistral", LLAMA | {"sliding_window": 6}),
    "qwen2": ("qwen2", LLAMA),
    "qwen2-window": ("qwen2", LLAMA | ONE | {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0}),
    "qwen3": ("qwen3", LLAMA | {"head_dim": 16}),
    "bert": ("bert", BERT),
    "bert-relu": ("bert", BERT | ONE | {"hidden_act": "relu", "type_vocab_size": 3, "layer_norm_eps": 0.1}),
    "roberta": ("roberta", BERT | {"pad_token_id": 1, "type_vocab_size": 1, "bos_token_id": 0, "eos_token_id": 2}),
}  # fmt: skip
HEADS = {"bert": ("lm", "classifier", "none", "pooler"), "roberta": ("lm", "classifier", "none", "pooler")}
LENGTHS = (21, 1, 8)


def heads(family: str) -> tuple[str, ...]:
    """The heads of a family."""
    return HEADS.get(family, ("lm", "classifier", "none"))
