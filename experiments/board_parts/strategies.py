"""Strategies by name: steps with "+" between, each one line of a table here."""

import dataclasses
import re
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np

from llmjax.adapt.awq import awq, smooth
from llmjax.adapt.config import METHODS
from llmjax.adapt.gptq import gptq
from llmjax.adapt.prune import TWO_OF_FOUR, Share, magnitude, sparsegpt, wanda
from llmjax.adapt.quantise import Grid, dequantised, round_weights
from llmjax.adapt.structured import prune_channels, prune_heads, prune_layers
from llmjax.errors import UserError, did_you_mean
from llmjax.kernels.formats import FORMATS, Format
from llmjax.models.config import ModelConfig
from llmjax.models.families import family_of
from llmjax.models.params import Params

DISTIL = "distil"  # learns of the row "full"
TRAINS = (*METHODS, DISTIL)


class State(NamedTuple):
    """A model as a strategy left it, and the format in which inference is to read its weights."""

    config: ModelConfig
    params: Params
    format: Format = "float32"


Change = Callable[[State, np.ndarray], State]
"""(a model, calibration's tokens [N, L]) -> a model."""


def _sparse(prune: Callable[..., Any]) -> Callable[[str], Change]:
    def of(amount: str) -> Change:
        share = TWO_OF_FOUR if amount == "2:4" else Share(int(amount) / 100)
        calibrated = prune is not magnitude

        def change(state: State, tokens_NL: np.ndarray) -> State:
            more = (tokens_NL, share) if calibrated else (share,)
            return state._replace(params=prune(state.params, state.config, *more).params)

        return change

    return of


def _shrunk(prune: Callable[..., Any]) -> Callable[[str], Change]:
    def of(amount: str) -> Change:
        def change(state: State, tokens_NL: np.ndarray) -> State:
            found = prune(state.params, state.config, tokens_NL, int(amount) / 100)
            return state._replace(params=found.params, config=found.config)

        return change

    return of


def _on_grid(quantise: Callable[..., Any]) -> Callable[[str], Change]:
    def of(amount: str) -> Change:
        def change(state: State, tokens_NL: np.ndarray) -> State:
            more = () if quantise is round_weights else (tokens_NL,)
            params = quantise(state.params, state.config, *more, Grid(int(amount)))
            return state._replace(params=params, format="int4")

        return change

    return of


def _smoothed(amount: str) -> Change:
    def change(state: State, tokens_NL: np.ndarray) -> State:
        return state._replace(params=smooth(state.params, state.config, tokens_NL, int(amount) / 100))

    return change


def _short_cache(amount: str) -> Change:
    def change(state: State, tokens_NL: np.ndarray) -> State:
        if not family_of(state.config).causal:
            raise UserError(f"strategies: 'kv-{amount}': a {state.config.family} keeps no keys and values")
        return state._replace(config=dataclasses.replace(state.config, kv_cache=f"int{amount}"))

    return change


def _in_format(name: Format) -> Change:
    return lambda state, _: state._replace(format=name)


# A step's name before "-" -> what its amount makes of it, and which amounts there are.
_CHANGES: dict[str, tuple[Callable[[str], Change], str]] = {
    "magnitude": (_sparse(magnitude), r"[1-9]\d?|2:4"),
    "wanda": (_sparse(wanda), r"[1-9]\d?|2:4"),
    "sparsegpt": (_sparse(sparsegpt), r"[1-9]\d?|2:4"),
    "mlp": (_shrunk(prune_channels), r"[1-9]\d?"),
    "heads": (_shrunk(prune_heads), r"[1-9]\d?"),
    "layers": (_shrunk(prune_layers), r"[1-9]\d?"),
    "round": (_on_grid(round_weights), "[234]"),
    "gptq": (_on_grid(gptq), "[234]"),
    "awq": (_on_grid(awq), "[234]"),
    "smooth": (_smoothed, r"\d\d?"),
    "kv": (_short_cache, "8"),
}
SHOWN = (
    *TRAINS, *(f"{name}-50" for name in list(_CHANGES)[:6]), "wanda-2:4",
    "round-4", "gptq-4", "awq-4", "smooth-75", "kv-8", *FORMATS,
)  # fmt: skip


def steps_of(strategy: str) -> tuple[str, ...]:
    """Returns a strategy's steps; "base" has none.

    Raises:
        UserError: a step that there is none of, or one that must be last and is not.
    """
    steps = tuple(step.strip() for step in strategy.split("+")) if strategy != "base" else ()
    for number, step in enumerate(steps):
        if step not in TRAINS and change_of(step) is None:
            near = did_you_mean(step, SHOWN)
            raise UserError(f"strategies: {strategy!r}: {step!r} is no step; there are {', '.join(SHOWN)}.{near}")
        packs = step in FORMATS or step.split("-")[0] in ("round", "gptq", "awq")
        if packs and number + 1 < len(steps):
            raise UserError(f"strategies: {strategy!r}: {step!r} packs the weights: nothing can follow it")
    return steps


def check_saved(strategy: str, strategies: Collection[str]) -> None:
    """Raises `UserError` for a strategy that is not on the board, or whose model no folder of transformers can hold."""
    if strategy not in strategies:
        raise UserError(f"save: {strategy!r} is none of strategies.{did_you_mean(strategy, strategies)}")
    if "adapters" in steps_of(strategy):
        raise UserError(f"save: {strategy!r}: a model with Houlsby adapters has no names in transformers")


def change_of(step: str) -> Change | None:
    """Returns what a step that trains nothing does; None for others."""
    if step in FORMATS:
        return _in_format(step)  # pyright: ignore[reportArgumentType]
    name, _, amount = step.partition("-")
    made, amounts = _CHANGES.get(name, (None, ""))
    return None if made is None or not re.fullmatch(amounts, amount) else made(amount)


def plain(state: State) -> State:
    """Returns a model with plain arrays, to be saved or trained."""
    return state._replace(params=dequantised(state.params))
