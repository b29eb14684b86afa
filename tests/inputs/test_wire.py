"""Protocol buffers without a schema."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjax.inputs.wire import WireError, blob, fields, message, real, whole
from tests.inputs import protobuf

VALUES = st.one_of(st.integers(-(2**63), 2**63 - 1), st.binary(max_size=300))


@given(st.lists(st.tuples(st.integers(1, 2**20), VALUES), max_size=8))
def test_what_is_written_is_read(written):
    found = [(number, value) for number, _, value in fields(protobuf.message(*written))]
    assert found == [(n, v if isinstance(v, bytes) else v & (1 << 64) - 1) for n, v in written]


@given(st.integers(-(2**63), 2**63 - 1))
def test_signed_numbers(value):
    assert whole(message(protobuf.message((3, value))), 3) == value


def test_what_is_not_there_is_nothing():
    values = message(b"")
    assert whole(values, 1) == 0 and blob(values, 1) == b""


def test_doubles_and_fixed_numbers():
    data = bytes([1 << 3 | 1]) + struct.pack("<d", 2.5) + bytes([2 << 3 | 5]) + struct.pack("<I", 7)
    values = message(data)
    assert real(values[1][0]) == 2.5 and values[2] == [7]


@pytest.mark.parametrize("data", [b"\x0a\x05ab", b"\x80", b"\x0b", b"\x00\x01", b"\x09abc", b"\xff" * 12])
def test_damaged_bytes_are_refused(data):
    with pytest.raises(WireError):
        list(fields(data))


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data):
    with contextlib.suppress(WireError):
        list(fields(data))


def test_a_field_of_the_other_kind_is_refused():
    values = message(protobuf.message((1, 5), (2, b"x")))
    with pytest.raises(WireError):
        blob(values, 1)
    with pytest.raises(WireError):
        whole(values, 2)
