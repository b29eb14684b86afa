"""`python -m experiments.peers.torch_first_token FOLDER PROMPT`: loads a GPT-2 and prints its next token, no more."""

import sys

import torch
from transformers import AutoTokenizer, GPT2LMHeadModel


def main(folder: str, prompt: str) -> None:
    """Prints the greedy next token of a prompt, in float32."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = GPT2LMHeadModel.from_pretrained(folder)
    tokens_BL = tokenizer(prompt, return_tensors="pt").input_ids
    with torch.inference_mode():
        new = model.generate(tokens_BL, attention_mask=torch.ones_like(tokens_BL), max_new_tokens=1, pad_token_id=0)
    print(tokenizer.decode(new[0, tokens_BL.shape[1] :]) or " ", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
