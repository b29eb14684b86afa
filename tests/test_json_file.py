"""JSON that people hand over is read whole or refused in a line that names the file."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjax.errors import UserError
from llmjax.json_file import parse_json, read_json
from llmjax.schema import checked, flag, many, maybe, number, one_of, table, text, whole

SCHEMA = {
    "name": text(filled=True),
    "share": number(0, 1),
    "rows": [{"count": whole(0, 9), "note": maybe(text())}],
    "on": flag(),
    "kind": one_of(("cat", "dog")),
    "sizes": many(whole(1)),
    "free": table(number()),
}
GOOD = {
    "name": "a",
    "share": 1,
    "rows": [{"count": 1}],
    "on": True,
    "kind": "cat",
    "sizes": [1],
    "free": {"x": {"y": 2}},
}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\xff\xfe{}", "byte 1 is not UTF-8"),
        (b"", "Expecting value"),
        (b'{"a": ', "Expecting value"),
        (b"[1]", "a JSON object, not a list"),
        (b"null", "a JSON object, not null"),
        (b'{"a": NaN}', "holds NaN, which is no JSON number"),
        (b'{"a": -Infinity}', "holds -Infinity"),
        (b'{"a": 1e999}', "holds 1e999"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"[" * 200_000, "nested too deeply"),
    ],
)
def test_what_is_no_json_is_told_in_one_line(tmp_path, data, said):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(UserError) as error:
        read_json(tmp_path / "a.json", "card")
    assert said in str(error.value) and str(error.value).startswith(f"card '{tmp_path}/a.json' ")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_what_cannot_be_read_is_told_in_one_line(tmp_path):
    for name in ("nothing.json", ".", "nul\0.json"):
        with pytest.raises(UserError, match="cannot be read"):
            read_json(tmp_path / name)


def test_good_values_are_kept_as_the_schema_keeps_them():
    found = parse_json(json.dumps(GOOD | {"more": None}), "a", SCHEMA)
    assert found["sizes"] == (1,) and type(found["share"]) is float and found["more"] is None
    assert parse_json(b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), "a", SCHEMA)["name"] == "a"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": " "}, "a: name=' ' must be text in UTF-8 that is not empty."),
        ({"share": 1.5}, "a: share=1.5 must be a finite number, 0 or more, at most 1."),
        ({"rows": [{"count": 1}, {"count": 10}]}, "a: rows[1].count=10 must be a whole number, 0 to 9."),
        ({"rows": [{"count": 1}, None]}, "a: rows[1]=None must be a table of count, note."),
        ({"rows": {}}, "a: rows={} must be a list."),
        ({"rows": [{}]}, "a: rows[0].count is missing."),
        ({"on": 1}, "a: on=1 must be True or False."),
        ({"kind": "dgo"}, "a: kind='dgo' must be one of cat, dog. Did you mean 'dog'?"),
        ({"sizes": [1, True]}, "a: sizes[1]=True must be a whole number, 1 to 2,147,483,647."),
        ({"free": {"x": {"y": None}}}, "a: free.x.y=None must be a finite number, 0 or more."),
        ({"name": "x" * 100}, None),
        ({"share": "x" * 100}, f"a: share='{'x' * 56}... must be a finite number, 0 or more, at most 1."),
    ],
)
def test_bad_values_are_named(change, said):
    if said is None:
        assert checked(GOOD | change, SCHEMA, "a: ")
        return
    with pytest.raises(UserError) as error:
        checked(GOOD | change, SCHEMA, "a: ")
    assert str(error.value) == said


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(key=st.sampled_from(list(SCHEMA)), value=JSON)
def test_any_value_is_kept_or_refused_by_name(key, value):
    try:
        found = checked(GOOD | {key: value}, SCHEMA, "")
    except UserError as error:
        assert str(error).startswith(key) and len(str(error)) < 400
    else:
        assert set(found) == set(GOOD)


@given(st.binary())
def test_any_bytes_are_an_object_or_a_line(data):
    try:
        assert isinstance(parse_json(data, "a"), dict)
    except UserError as error:
        assert str(error).startswith("a ")
