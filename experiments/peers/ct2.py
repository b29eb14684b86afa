"""CTranslate2, converted from the same folder by its own converter."""

import json
import shutil
import time
from pathlib import Path

import ctranslate2
from ctranslate2.converters import TransformersConverter

from experiments.peers.case import Case, Timing, prompt_tokens


class Contestant:
    """Converts the folder once, then loads it in one compute type."""

    def __init__(self, folder: str, format: str, threads: int) -> None:
        self.model = converted(Path(folder))
        self.generator = ctranslate2.Generator(
            str(self.model), compute_type=format, inter_threads=1, intra_threads=threads
        )
        self.vocabulary = vocabulary(self.model)
        self.seen: set[Case] = set()

    def run(self, case: Case) -> Timing:
        """Runs a case once, and once before where it is new."""
        began = time.perf_counter()
        if case not in self.seen:
            self._time(case)
            self.seen.add(case)
        once = time.perf_counter() - began
        return Timing(self._time(case), once)

    def _time(self, case: Case) -> float:
        new = case.tokens if case.kind == "decode" else 1
        rows = [[self.vocabulary[i] for i in row] for row in prompt_tokens(case, len(self.vocabulary))]
        began = time.perf_counter()
        results = self.generator.generate_batch(
            rows, max_length=new, min_length=new, sampling_topk=1, include_prompt_in_result=False
        )
        seconds = time.perf_counter() - began
        if any(len(result.sequences_ids[0]) != new for result in results):
            raise RuntimeError(f"{[len(result.sequences_ids[0]) for result in results]} tokens instead of {new}")
        return seconds


def converted(folder: Path) -> Path:
    """Returns the converted model beside `folder`, made if it is not there yet."""
    target = folder.with_name(f"{folder.name}-ctranslate2")
    if not (target / "model.bin").exists():
        partial = target.with_name(f".{target.name}.part")
        shutil.rmtree(partial, ignore_errors=True)
        TransformersConverter(str(folder)).convert(str(partial))
        partial.rename(target)
    return target


def vocabulary(model: Path) -> list[str]:
    """Returns the converted model's tokens by id."""
    return json.loads((model / "vocabulary.json").read_text("utf-8"))
