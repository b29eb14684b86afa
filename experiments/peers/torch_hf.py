"""Hugging Face transformers on torch, eager, as its documentation uses it."""

import time
from typing import Any

import torch
from transformers import GPT2ForSequenceClassification, GPT2LMHeadModel

from experiments.peers.case import Case, Timing, prompt_tokens


class Contestant:
    """Holds the language model in one format; the classifier of the same shape is made when a case needs it."""

    def __init__(self, folder: str, format: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[format]
        self.folder = folder
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.models: dict[str, Any] = {}

    def run(self, case: Case) -> Timing:
        """Runs a case once, and once before where its model is new."""
        began = time.perf_counter()
        if case.kind not in self.models:
            self.models[case.kind] = self._load(case)
            self._time(case)
        once = time.perf_counter() - began
        return Timing(self._time(case), once)

    def _load(self, case: Case) -> Any:
        name = GPT2ForSequenceClassification if case.kind in ("classify", "train") else GPT2LMHeadModel
        model: Any = name.from_pretrained(self.folder, dtype=self.dtype).to(self.device)
        if name is GPT2ForSequenceClassification:
            model.config.pad_token_id = model.config.eos_token_id
        model.train(case.kind == "train")
        if case.kind == "train":
            return model, torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.01)
        return model

    def _time(self, case: Case) -> float:
        model = self.models[case.kind]
        vocabulary = (model[0] if case.kind == "train" else model).config.vocab_size
        tokens_BL = torch.tensor(prompt_tokens(case, vocabulary), device=self.device)
        mask_BL = torch.ones_like(tokens_BL)
        began = time.perf_counter()
        if case.kind == "train":
            model, optimizer = model
            labels_B = torch.arange(case.batch, device=self.device) % 2
            loss = model(tokens_BL, attention_mask=mask_BL, labels=labels_B).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            loss.item()
        elif case.kind == "classify":
            with torch.inference_mode():
                model(tokens_BL, attention_mask=mask_BL).logits.softmax(-1).float().cpu().numpy()
        else:
            new = case.tokens if case.kind == "decode" else 1
            limits = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
            with torch.inference_mode():
                out = model.generate(tokens_BL, attention_mask=mask_BL, **limits).cpu()
            if out.shape[1] != tokens_BL.shape[1] + new:
                raise RuntimeError(f"{out.shape[1] - tokens_BL.shape[1]} tokens instead of {new}")
        return time.perf_counter() - began
