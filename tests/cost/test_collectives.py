"""Bytes on the wire, by algorithm and group."""

import pytest

from llmjax.cost import cost_module
from llmjax.cost.collectives import collective_in, exchanges, group_size, nodes_spanned
from llmjax.cycles.timeline import elapsed
from llmjax.hlo import parse
from tests.cost.test_rules import REGIONS, module

X = "x = f32[1024] parameter(0)\n"


def wire(body: str, header: str = "") -> tuple[int, int, int]:
    found = cost_module(module(X + body, header, REGIONS))
    assert not found.unmodelled
    return found.totals.collective_bytes, found.totals.vector_flops, found.totals.bytes


EIGHT = ", replica_count=8"


@pytest.mark.parametrize(
    ("body", "header", "expected"),
    [
        ("ROOT y = f32[1024] all-reduce(x), to_apply=add", EIGHT, 2 * 4096 * 7 // 8),
        (
            "ROOT y = f32[1024] all-reduce(x), to_apply=add, replica_groups={{0,1,2,3},{4,5,6,7}}",
            EIGHT,
            2 * 4096 * 3 // 4,
        ),
        (
            "ROOT y = f32[1024] all-reduce(x), to_apply=add, "
            "replica_groups=mesh['data'=2,'model'=4]{'data','model':(1)2}",
            EIGHT,
            2 * 4096 * 3 // 4,
        ),
        ("ROOT y = f32[1024] all-reduce(x), to_apply=add, replica_groups={{0},{1}}", EIGHT, 0),
        ("ROOT y = f32[1024] all-reduce(x), to_apply=add", "", 0),
        (
            "ROOT y = f32[1024] all-reduce(x), to_apply=add, channel_id=1, replica_groups=[2,4]<=[8], "
            "use_global_device_ids=true",
            ", num_partitions=8",
            2 * 4096 * 3 // 4,
        ),
        ("ROOT y = f32[1024] all-reduce(x), to_apply=add, channel_id=1", ", num_partitions=4", 2 * 4096 * 3 // 4),
        (
            "ROOT y = f32[1024] all-reduce(x), to_apply=add, channel_id=1, use_global_device_ids=true, "
            "replica_groups=mesh['data'=2,'model'=4]{'model'}",
            ", num_partitions=8",
            2 * 4096 * 3 // 4,
        ),
        ("ROOT y = f32[8192] all-gather(x), dimensions={0}", EIGHT, 7 * 4096),
        ("ROOT y = f32[128] reduce-scatter(x), dimensions={0}, to_apply=add", EIGHT, 7 * 512),
        ("ROOT y = f32[1024] all-to-all(x), dimensions={0}", EIGHT, 7 * 512),
        ("ROOT y = f32[1024] collective-permute(x), source_target_pairs={{0,1},{1,0}}", EIGHT, 4096),
        ("ROOT y = f32[1024] collective-permute(x), source_target_pairs={{0,0},{1,1}}", EIGHT, 0),
        ("ROOT y = f32[1024] collective-broadcast(x), replica_groups={{0,1}}", EIGHT, 2048),
        (
            "o = f32[1024] parameter(1)\ni = s64[8] parameter(2)\n"
            "ROOT y = f32[1024] ragged-all-to-all(x, o, i, i, i, i), replica_groups={{0,1,2,3,4,5,6,7}}",
            EIGHT,
            7 * 512,
        ),
    ],
)  # fmt: skip
def test_ring(body, header, expected):
    assert wire(body, header)[0] == expected


@pytest.mark.parametrize(
    ("plain", "pair"),
    [
        (
            "ROOT y = f32[1024] all-reduce(x), to_apply=add",
            "s = f32[1024] all-reduce-start(x), to_apply=add\nROOT y = f32[1024] all-reduce-done(s)",
        ),
        (  # GPU text of 2026
            "ROOT y = f32[1024] all-reduce(x), to_apply=add",
            "s = ((f32[1024]), f32[1024]) all-reduce-start(x), to_apply=add\nROOT y = f32[1024] all-reduce-done(s)",
        ),
        (
            "ROOT y = (f32[1024], f32[1024]) all-reduce(x, x), to_apply=add",
            "s = (f32[1024], f32[1024]) all-reduce-start(x, x), to_apply=add\n"
            "ROOT y = (f32[1024], f32[1024]) all-reduce-done(s)",
        ),
        (
            "ROOT y = (f32[1024], f32[1024]) all-reduce(x, x), to_apply=add",
            "s = ((f32[1024], f32[1024]), (f32[1024], f32[1024])) all-reduce-start(x, x), to_apply=add\n"
            "ROOT y = (f32[1024], f32[1024]) all-reduce-done(s)",
        ),
        (
            "ROOT y = f32[8192] all-gather(x), dimensions={0}",
            "s = ((f32[1024]), f32[8192]) all-gather-start(x), dimensions={0}\nROOT y = f32[8192] all-gather-done(s)",
        ),
        (
            "ROOT y = f32[8192] all-gather(x), dimensions={0}",
            "s = (f32[1024], f32[8192]) all-gather-start(x), dimensions={0}\nROOT y = f32[8192] all-gather-done(s)",
        ),
        (
            "ROOT y = f32[1024] collective-permute(x), source_target_pairs={{0,1}}",
            "s = (f32[1024], f32[1024], u32[], u32[]) collective-permute-start(x), source_target_pairs={{0,1}}\n"
            "ROOT y = f32[1024] collective-permute-done(s)",
        ),
        (
            "ROOT y = f32[128] reduce-scatter(x), dimensions={0}, to_apply=add",
            "s = ((f32[1024]), f32[128]) reduce-scatter-start(x), dimensions={0}, to_apply=add\n"
            "u = ((f32[1024]), f32[128]) reduce-scatter-update(s)\nROOT y = f32[128] reduce-scatter-done(u)",
        ),
        (
            "ROOT y = f32[100] slice(x), slice={[0:100]}",
            "s = ((f32[1024]), f32[100], u32[]) slice-start(x), slice={[0:100]}\nROOT y = f32[100] slice-done(s)",
        ),
    ],
)
def test_pairs_count_once(plain, pair):
    assert wire(plain, EIGHT) == wire(pair, EIGHT)


def test_async_wrapper_counts_its_computation_once():
    regions = REGIONS + "\nwrapped { p = f32[1024] parameter(0) ROOT g = f32[8192] all-gather(p), dimensions={0}\n}\n"
    body = (
        X + "s = ((f32[1024]), f32[8192]) async-start(x), calls=wrapped\n"
        "u = ((f32[1024]), f32[8192]) async-update(s), calls=wrapped\nROOT y = f32[8192] async-done(u), calls=wrapped"
    )
    found = cost_module(module(body, EIGHT, regions))
    assert found.totals.collective_bytes == 7 * 4096
    assert [(op.name, op.computation) for op in found.ops] == [("g", "wrapped")]


def test_send_and_receive():
    body = (
        X + "t = token[] after-all()\ns = (f32[1024], u32[], token[]) send(x, t), channel_id=1\n"
        "d = token[] send-done(s), channel_id=1\nr = (f32[1024], u32[], token[]) recv(d), channel_id=1\n"
        "ROOT e = (f32[1024], token[]) recv-done(r), channel_id=1"
    )
    found = cost_module(module(body)).totals
    assert (found.collective_bytes, found.bytes_read, found.bytes_written) == (4096, 4096, 4096)


SCATTERED = """
scatter { p = f32[1024] parameter(0) r = f32[1024] all-reduce(p), replica_groups=[1,8]<=[8], channel_id=1, use_global_device_ids=true, to_apply=add
 i = u32[] partition-id() b = f32[8,128] bitcast(r) z = u32[] constant(0) ROOT d = f32[1,128] dynamic-slice(b, OFFSET, z), dynamic_slice_sizes={1,128} }
"""  # noqa: E501


@pytest.mark.parametrize(
    ("offset", "sent", "flops"),
    [("i", 7 * 512, 7 * 128), ("z", 2 * 7 * 512, 1024)],  # the same part everywhere is no scatter
)
def test_a_fusion_that_keeps_its_own_part_is_a_reduce_scatter(offset, sent, flops):
    regions = REGIONS + SCATTERED.replace("OFFSET", offset)
    body = X + "ROOT y = f32[1,128] fusion(x), kind=kCustom, calls=scatter"
    found = cost_module(module(body, ", num_partitions=8", regions))
    assert (found.totals.collective_bytes, found.totals.vector_flops) == (sent, flops)
    plain = cost_module(module(body.replace("fusion(x), kind=kCustom, calls", "call(x), to_apply"), EIGHT, regions))
    assert plain.totals.collective_bytes == 2 * 7 * 512  # outside of a fusion it is what it says


def test_a_permute_sends_the_slices_it_names():
    body = (
        "x = f32[1024,16] parameter(0)\no = f32[1024,16] parameter(1)\ni = (s32[], s32[]) parameter(2)\n"
        "ROOT y = f32[1024,16] collective-permute(x, o, i, i), channel_id=1, source_target_pairs={{0,1},{1,0}}, "
        "slice_sizes={{8,16}}"
    )
    found = cost_module(module(body, ", num_partitions=2")).totals
    assert (found.collective_bytes, found.bytes_read, found.bytes_written) == (512, 512 + 16, 512)


@pytest.mark.parametrize(
    ("attributes", "header", "groups", "nodes"),
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}, channel_id=1", ", num_partitions=8", ((0, 1, 2, 3), (4, 5, 6, 7)), 1),
        ("replica_groups=[1,8]<=[8], channel_id=1", ", num_partitions=8", (tuple(range(8)),), 2),
        ("replica_groups=[4,2]<=[2,4]T(1,0), channel_id=1", ", num_partitions=8", None, 2),
        ("channel_id=1", ", num_partitions=8", (tuple(range(8)),), 2),
        ("replica_groups={{0,1}}", ", replica_count=2, num_partitions=4", ((0, 4), (1, 5), (2, 6), (3, 7)), 2),
        ("replica_groups={{0,1}}, channel_id=1", ", replica_count=2, num_partitions=4", ((0, 1), (4, 5)), 1),
    ],
)
def test_groups_reach_the_cost(attributes, header, groups, nodes):
    """So that a time model can tell links inside a node, of four devices here, from those between nodes."""
    found = cost_module(module(X + f"ROOT y = f32[1024] all-to-all(x), dimensions={{0}}, {attributes}", header))
    (op,) = found.ops
    said = exchanges(op, found.module)
    assert groups is None or said == groups
    assert nodes_spanned(said, 4) == nodes


def test_pairs_of_a_permute_are_its_groups():
    body = "ROOT y = f32[1024] collective-permute(x), channel_id=1, source_target_pairs={{0,1},{1,5},{2,2}}"
    found = cost_module(module(X + body, ", num_partitions=8"))
    assert exchanges(found.ops[0], found.module) == ((0, 1), (1, 5))


# As libtpu writes an all-gather that runs beside a product: in the fusion that starts it, in one that multiplies, in
# the one that ends it.
SPREAD = """HloModule step, num_partitions=8, is_scheduled=true

start {
  p = bf16[128,256] parameter(0)
  g = bf16[512,256] all-gather(p), channel_id=5, replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}, use_global_device_ids=true, frontend_attributes={chain_id="27"}
  ROOT c = (bf16[128,256], bf16[512,256], u32[]) custom-call(g), custom_call_target="AsyncCollectiveStart"
}

beside {
  p = bf16[128,256] parameter(0)
  w = bf16[512,256] parameter(1)
  s = u32[] parameter(2)
  a = bf16[64,64] parameter(3)
  d = bf16[64,64] dot(a, a), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  g = bf16[512,256] all-gather(p), channel_id=5, replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}, use_global_device_ids=true, frontend_attributes={chain_id="27"}
  ROOT t = (bf16[64,64], bf16[128,256], bf16[512,256], u32[]) tuple(d, p, g, s)
}

end {
  p = bf16[128,256] parameter(0)
  w = bf16[512,256] parameter(1)
  s = u32[] parameter(2)
  g = bf16[512,256] all-gather(p), channel_id=5, replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}, use_global_device_ids=true, frontend_attributes={chain_id="27"}
  ROOT c = bf16[512,256] custom-call(p, w, g, s), custom_call_target="AsyncCollectiveDone"
}

ENTRY main {
  x = bf16[128,256] parameter(0)
  a = bf16[64,64] parameter(1)
  first = (bf16[128,256], bf16[512,256], u32[]) fusion(x), kind=kCustom, calls=start
  p = bf16[128,256] get-tuple-element(first), index=0
  w = bf16[512,256] get-tuple-element(first), index=1
  s = u32[] get-tuple-element(first), index=2
  second = (bf16[64,64], bf16[128,256], bf16[512,256], u32[]) fusion(p, w, s, a), kind=kOutput, calls=beside
  d = bf16[64,64] get-tuple-element(second), index=0
  q = bf16[128,256] get-tuple-element(second), index=1
  v = bf16[512,256] get-tuple-element(second), index=2
  r = u32[] get-tuple-element(second), index=3
  third = bf16[512,256] fusion(q, v, r), kind=kCustom, calls=end
  ROOT t = (bf16[64,64], bf16[512,256]) tuple(d, third)
}
"""  # noqa: E501


def test_a_collective_spread_over_fusions_counts_where_it_starts():
    found = cost_module(parse(SPREAD))
    assert not found.unmodelled
    first, second, third = found.ops
    whole, own, product = 512 * 256 * 2, 128 * 256 * 2, 64 * 64 * 2
    assert first.cost.collective_bytes == whole * 3 // 4 and group_size(collective_in(first), found.module) == 4
    assert (first.cost.bytes_read, first.cost.bytes_written) == (own, whole)
    assert (second.cost.collective_bytes, third.cost.collective_bytes) == (0, 0)
    assert second.cost.matmul_flops == 2 * 64**3 and second.cost.bytes == 2 * product
    assert third.cost.bytes == 0


def test_its_time_passes_beside_what_stands_between():
    found = cost_module(parse(SPREAD))
    seconds = {("main", "first"): 5.0, ("main", "second"): 3.0, ("main", "third"): 0.5}
    assert elapsed(found, seconds) == 5.5  # two seconds of the collective are left when the product is done
    assert elapsed(found, seconds | {("main", "first"): 1.0}) == 3.5
