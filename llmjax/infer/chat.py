"""Conversations as prompts, by the template that a model's tokenizer brings."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmjax.errors import UserError

ROLES = ("system", "user", "assistant")
# Special tokens that end a turn or a text in the usual families, whichever of them the model names as its own end.
_ENDS = (
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "</s>"
)  # fmt: skip


def has_template(tokenizer: Any) -> bool:
    """Whether the tokenizer's model was trained on conversations: it brings a chat template."""
    return bool(getattr(tokenizer, "chat_template", None))


def render(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> str:
    """Returns the prompt that a model answers: `messages` as its chat template writes them, and the answer's beginning.

    A model without a template continues texts and knows no roles: its prompt is the one user message as it stands.
    The result holds the special tokens as text: tokenise it with `add_special_tokens=False`.

    Args:
        tokenizer: a transformers tokenizer.
        messages: {"role": "system", "user" or "assistant", "content": text} each, the last one the user's.

    Raises:
        UserError: a message that is not of that form, several for a model without a template, or a template that
            refuses them.
    """
    for number, message in enumerate(messages, start=1):
        if message.get("role") not in ROLES or not isinstance(message.get("content"), str):
            raise UserError(f"message {number} must have a role ({', '.join(ROLES)}) and a content, a text.")
    if not messages or messages[-1]["role"] != "user":
        raise UserError("a conversation must end with a message of the user.")
    if not has_template(tokenizer):
        if len(messages) > 1:
            raise UserError("this model has no chat template: it continues one text and knows no earlier messages.")
        return messages[0]["content"]
    try:
        return tokenizer.apply_chat_template([dict(m) for m in messages], tokenize=False, add_generation_prompt=True)
    except Exception as error:  # jinja2's own errors, and raise_exception() in templates
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"the model's chat template refuses the messages ({reason}).") from error


def end_ids(tokenizer: Any, *also: int | None) -> tuple[int, ...]:
    """Returns the tokens that end an answer: the tokenizer's end of text, the usual ones that it has, and `also`."""
    special = [(index, token) for index, token in tokenizer.added_tokens_decoder.items() if token.special]
    found = {index for index, token in special if token.content in _ENDS} | {tokenizer.eos_token_id, *also}
    return tuple(sorted(index for index in found if index is not None))
