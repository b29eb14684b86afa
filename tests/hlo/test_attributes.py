"""Attribute values from their text."""

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmjax.hlo import attribute_text as at
from llmjax.hlo.attributes import Alias, PadDim, ReplicaGroups, SliceDim, SourceTables, Window

# A loaded machine may stop for longer than hypothesis allows an example.
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_window_defaults():
    window = at.to_window("{size=3x1 pad=0_1x-1_2 rhs_reversal=1x0}")
    assert window == Window((3, 1), (1, 1), ((0, 1), (-1, 2)), (1, 1), (1, 1), (True, False))
    assert at.to_window("{}").rank == 0


@st.composite
def windows(draw):
    rank = draw(st.integers(1, 4))

    def some(values):
        return tuple(draw(st.lists(values, min_size=rank, max_size=rank)))

    sizes = st.integers(1, 99)
    pads = st.tuples(st.integers(-9, 9), st.integers(-9, 9))
    return Window(some(sizes), some(sizes), some(pads), some(sizes), some(sizes), some(st.booleans()))


@settings(CALM)
@given(windows())
def test_window_round_trip(window):
    def join(items):
        return "x".join(map(str, items))

    text = (
        f"{{size={join(window.size)} stride={join(window.stride)} pad={join(f'{a}_{b}' for a, b in window.pad)}"
        f" lhs_dilate={join(window.lhs_dilate)} rhs_dilate={join(window.rhs_dilate)}"
        f" rhs_reversal={join(int(r) for r in window.rhs_reversal)}}}"
    )
    assert at.to_window(text) == window


@settings(CALM)
@given(st.permutations("bf01"), st.permutations("io01"), st.permutations("bf01"))
def test_dim_labels(lhs, rhs, out):
    dims = at.to_conv_dims(f"{''.join(lhs)}_{''.join(rhs)}->{''.join(out)}")
    assert (lhs[dims.lhs_batch], lhs[dims.lhs_feature]) == ("b", "f")
    assert (rhs[dims.rhs_input], rhs[dims.rhs_output]) == ("i", "o")
    assert (out[dims.out_batch], out[dims.out_feature]) == ("b", "f")
    for labels, places in ((lhs, dims.lhs_spatial), (rhs, dims.rhs_spatial), (out, dims.out_spatial)):
        assert [labels[p] for p in places] == ["0", "1"]


def test_dim_labels_of_a_plain_matmul():
    dims = at.to_conv_dims("bf_io->bf")
    assert (dims.lhs_spatial, dims.rhs_spatial, dims.out_spatial) == ((), (), ())


@settings(CALM)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_iota_groups_are_a_transposed_range(reshape, data):
    numpy = pytest.importorskip("numpy")
    total = math.prod(reshape)
    size = data.draw(st.sampled_from([s for s in range(1, total + 1) if total % s == 0]))
    order = data.draw(st.permutations(range(len(reshape))))
    text = f"[{total // size},{size}]<=[{','.join(map(str, reshape))}]T({','.join(map(str, order))})"
    found = at.to_replica_groups(text)
    expected = numpy.arange(total).reshape(reshape).transpose(order).reshape(total // size, size)
    assert found.groups == tuple(map(tuple, expected.tolist()))
    assert (found.count, found.size) == (total // size, size)


def test_listed_groups():
    found = at.to_replica_groups("{{0,2}, {1,3,5}}")
    assert (found.groups, found.count, found.size) == (((0, 2), (1, 3, 5)), 2, 3)
    assert at.to_replica_groups("{}") == ReplicaGroups()
    assert at.to_replica_groups("{{}}").size == 0


def test_the_lists_of_a_pod_are_not_made_before_they_are_asked_for():
    found = at.to_replica_groups("[1,100000000]<=[100000000]")
    assert (found.count, found.size) == (1, 10**8)


@settings(CALM)
@given(st.dictionaries(st.text("abc_", min_size=1), st.integers() | st.text() | st.lists(st.booleans(), max_size=3)))
def test_backend_config_is_json_bare_or_quoted(value):
    text = json.dumps(value)
    assert at.to_backend_config(text) == value
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert at.to_backend_config(quoted) == value


@pytest.mark.parametrize("raw", ["opaque bytes", "{not json}", ""])
def test_backend_config_that_is_not_json_stays_text(raw):
    assert at.to_backend_config(f'"{raw}"') == raw


def test_metadata():
    found = at.to_metadata(
        '{op_type="dot" op_name="jit(f)/a\\"b/dot" source_file="m.py" source_line=12 source_end_line=13'
        ' stack_frame_id=7 profile_type={1} size_of_generated_code_in_bytes=5 deduplicated_name="f.1"}'
    )
    assert (found.op_type, found.op_name, found.source_file, found.source_line) == ("dot", 'jit(f)/a"b/dot', "m.py", 12)
    assert (found.source_end_line, found.stack_frame_id) == (13, 7)
    assert dict(found.extra)["deduplicated_name"] == "f.1"
    assert dict(found.extra)["profile_type"] == "{1}"


def test_others():
    assert at.to_padding("0_1x-2_3_4") == (PadDim(0, 1), PadDim(-2, 3, 4))
    assert at.to_slice("{[0:8], [1:9:2]}") == (SliceDim(0, 8), SliceDim(1, 9, 2))
    assert at.to_pairs("{{0,1},{1,0}}") == ((0, 1), (1, 0))
    assert at.to_aliases("{ {0}: (1, {}, may-alias), {1,2}: (3, {0}), {}: 4 }") == (
        Alias((0,), 1, (), "may-alias"), Alias((1, 2), 3, (0,)), Alias((), 4),
    )  # fmt: skip
    assert at.to_frontend_attributes('{a="1,2",_b={x="}"},c=3}') == {"a": "1,2", "_b": '{x="}"}', "c": "3"}
    assert at.to_any("12") == 12
    assert at.to_any("-1.5e3") == -1500.0
    assert at.to_any("{1,2}") == (1, 2)
    assert at.to_any("{highest,default}") == "{highest,default}"
    assert at.to_any("%name") == "name"


@pytest.mark.parametrize(
    ("convert", "text"),
    [
        (at.to_window, "{size=3 stride=1x1}"), (at.to_window, "{size=a}"), (at.to_window, "{sizes=3}"),
        (at.to_window, "{size=3 size=3}"), (at.to_window, "3x3"), (at.to_window, "{size=3 pad=1}"),
        (at.to_conv_dims, "bf_io"), (at.to_conv_dims, "bb_io->bf"), (at.to_conv_dims, "b0f_0io->b1f"),
        (at.to_padding, "1"), (at.to_padding, "1_2_3_4"), (at.to_slice, "{[1]}"), (at.to_slice, "[0:1]"),
        (at.to_replica_groups, "[2,2]<=[5]"), (at.to_replica_groups, "[4]<=[2,2]T(0,0)"),
        (at.to_replica_groups, "{{0,x}}"), (at.to_pairs, "{{0,1,2}}"), (at.to_aliases, "{0: 1}"),
        (at.to_ints, "{1,,2}"), (at.to_ints, "{1"), (at.to_int, "1" * 30), (at.to_bool, "True"), (at.to_name, "1a"),
        (at.to_metadata, '{op_name="x}'), (at.to_metadata, "{op_name=3}"), (at.to_frontend_attributes, "{a}"),
    ],
)  # fmt: skip
def test_what_is_no_value(convert, text):
    with pytest.raises(ValueError, match=r"\w"):
        convert(text)


def test_a_stack_that_loops_ends():
    tables = SourceTables({1: "a.py"}, {1: "f"}, {1: (1, 1, 10, 0, 0, 0)}, {1: (1, 2), 2: (1, 1), 3: (9, 3)})
    assert [str(p) for p in tables.stack(1)] == ["a.py:10 (f)", "a.py:10 (f)"]
    assert tables.stack(3) == ()
    assert tables.location(4) is None
