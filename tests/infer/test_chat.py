import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from llmjax.errors import UserError
from llmjax.infer.chat import end_ids, has_template, render

TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'system' and m['content'] == 'no' %}{{ raise_exception('no system') }}"
    "{% endif %}<|im_start|>{{ m['role'] }}: {{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}"
)
USER = {"role": "user", "content": "Hi"}


def tokenizer(template: str | None = TEMPLATE, **special: str) -> PreTrainedTokenizerFast:
    words = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2, "hi": 3}
    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words)), **special)
    made.chat_template = template
    return made


def test_messages_are_written_as_the_template_says_with_the_answers_beginning():
    messages = [{"role": "system", "content": "Be brief."}, USER]
    text = "<|im_start|>system: Be brief.<|im_end|><|im_start|>user: Hi<|im_end|><|im_start|>assistant: "
    assert render(tokenizer(), messages) == text


def test_a_model_without_a_template_continues_the_text_itself():
    assert not has_template(tokenizer(None)) and has_template(tokenizer())
    assert render(tokenizer(None), [USER]) == "Hi"
    with pytest.raises(UserError, match="has no chat template"):
        render(tokenizer(None), [USER, {"role": "assistant", "content": "Hello"}, USER])


@pytest.mark.parametrize(
    ("messages", "line"),
    [
        ([], "must end with a message of the user"),
        ([{"role": "assistant", "content": "x"}], "must end with a message of the user"),
        ([{"role": "robot", "content": "x"}], "message 1 must have a role"),
        ([USER, {"role": "user"}], "message 2 must have a role"),
        ([{"role": "system", "content": "no"}, USER], r"chat template refuses the messages \(no system\)"),
    ],
)
def test_what_cannot_be_rendered_is_one_line(messages, line):
    with pytest.raises(UserError, match=line) as caught:
        render(tokenizer(), messages)
    assert "\n" not in str(caught.value)


def test_tokens_that_end_an_answer():
    assert end_ids(tokenizer(eos_token="<|im_end|>")) == (2,)
    turns = tokenizer(eos_token="<|endoftext|>", additional_special_tokens=["<|im_end|>"])
    assert end_ids(turns) == (0, 2)
    assert end_ids(tokenizer(None, eos_token="<|endoftext|>"), None, 3) == (0, 3)
    assert end_ids(tokenizer(None)) == ()
