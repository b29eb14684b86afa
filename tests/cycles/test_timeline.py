"""What asynchronous ops hide behind."""

import pytest

from llmjax.cost import cost_module
from llmjax.cycles.device import load_device
from llmjax.cycles.model import predict, without_copies
from llmjax.cycles.timeline import elapsed, is_asynchronous, slowed
from llmjax.hlo import parse

TEXT = """HloModule m, num_partitions=2, is_scheduled=true
add { a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT c = f32[] add(a, b) }
ENTRY main {
  x = f32[1024] parameter(0)
  start = f32[1024] all-reduce-start(x), channel_id=1, replica_groups={{0,1}}, to_apply=add, backend_config=CONFIG
  e = f32[1024] exponential(x)
  done = f32[1024] all-reduce-done(start)
  f = f32[1024] negate(e)
  ROOT z = f32[1024] add(done, f)
}
"""
BESIDE, SYNC = '{"collective_backend_config":{"is_sync":false}}', '{"collective_backend_config":{"is_sync":true}}'


def total(start, e, f, config=BESIDE):
    cost = cost_module(parse(TEXT.replace("CONFIG", config)))
    return elapsed(cost, {("main", "start"): start, ("main", "e"): e, ("main", "f"): f})


def test_only_what_stands_between_start_and_done_hides_it():
    assert total(3.0, 1.0, 5.0) == pytest.approx(3.0 + 5.0)
    assert total(3.0, 4.0, 5.0) == pytest.approx(4.0 + 5.0)
    assert total(3.0, 4.0, 5.0, SYNC) == pytest.approx(3.0 + 4.0 + 5.0)


def test_ops_are_slower_while_a_collective_moves_beside_them():
    cost = cost_module(parse(TEXT.replace("CONFIG", BESIDE)))

    def taken(start, e):
        return elapsed(cost, {("main", "start"): start, ("main", "e"): e}, beside=0.5)

    assert taken(3.0, 0.0) == pytest.approx(3.0)
    assert taken(3.0, 1.0) == pytest.approx(3.0)  # it ends at 2
    assert taken(3.0, 4.0) == pytest.approx(3.0 + 2.5)  # of 4, 1.5 are done by 3
    assert slowed(4.0, -1.0, 0.5) == 4.0


def test_a_name_makes_nothing_asynchronous():
    plain = TEXT.replace("all-reduce-start", "all-reduce").replace("all-reduce-done(start)", "negate(start)")
    module = parse(plain.replace(", backend_config=CONFIG", ""))
    assert not any(is_asynchronous(i) for i in module.entry)


LOOP = """HloModule m, is_scheduled=true
body { p = (s32[], f32[8]) parameter(0)
  i = s32[] get-tuple-element(p), index=0
  one = s32[] constant(1)
  j = s32[] add(i, one)
  x = f32[8] get-tuple-element(p), index=1
  y = f32[8] exponential(x)
  ROOT t = (s32[], f32[8]) tuple(j, y) }
condition { p = (s32[], f32[8]) parameter(0)
  i = s32[] get-tuple-element(p), index=0
  n = s32[] constant(7)
  ROOT less = pred[] compare(i, n), direction=LT }
ENTRY main {
  z = s32[] constant(0)
  x = f32[8] parameter(0)
  t = (s32[], f32[8]) tuple(z, x)
  ROOT w = (s32[], f32[8]) while(t), condition=condition, body=body, backend_config={"known_trip_count":{"n":"7"}}
}
"""


def test_a_loop_takes_its_turns():
    assert elapsed(cost_module(parse(LOOP)), {("body", "y"): 2.0}) == pytest.approx(14.0)


PREFETCHED = """HloModule m, is_scheduled=true
ENTRY main {
  x = f32[1024,1024]{1,0} parameter(0)
  y = f32[1024,1024]{1,0} parameter(1)
  start = (f32[1024,1024]{1,0:S(1)}, f32[1024,1024]{1,0}, u32[]) copy-start(x)
  e = f32[1024,1024]{1,0} negate(y)
  done = f32[1024,1024]{1,0:S(1)} copy-done(start)
  ROOT z = f32[1024,1024]{1,0:S(1)} negate(done)
}
"""


def test_a_copy_that_runs_beside_an_op_shares_main_memorys_bandwidth_with_it():
    device = load_device("tpu:v5e")
    cost = cost_module(parse(PREFETCHED))
    time = predict(cost, device)
    traffic = sum(op.memory.get("HBM", 0.0) for op in time.ops)
    assert time.by_name["start"].memory["HBM"] > 0 and time.by_name["e"].memory["HBM"] > 0
    assert traffic > time.by_name["e"].seconds + time.by_name["z"].seconds  # which is all that one after another take
    assert time.overlapped - time.dispatch == pytest.approx(traffic)
    assert without_copies(cost, time) < time.overlapped


BOTH_WAYS = """HloModule m, is_scheduled=true
ENTRY main {
  x = f32[1024]{0} parameter(0)
  v = f32[1024]{0:S(1)} negate(x)
  in = (f32[1024]{0:S(1)}, f32[1024]{0}, u32[]) copy-start(x)
  second = (f32[1024]{0:SPACE}, f32[1024]{0}, u32[]) copy-start(SOURCE)
  first = f32[1024]{0:SPACE} copy-done(second)
  ROOT last = f32[1024]{0:S(1)} copy-done(in)
}
"""


def test_copies_the_same_way_queue_and_copies_the_other_way_pass():
    seconds = {("main", "v"): 1.0, ("main", "in"): 5.0, ("main", "second"): 2.0, ("main", "first"): 0.5}

    def taken(space, source, starts=None):
        text = BOTH_WAYS.replace("SPACE", space).replace("SOURCE", source)
        return elapsed(cost_module(parse(text)), seconds, starts)

    assert taken("S(1)", "x") == pytest.approx(1 + 5 + 2 + 0.5)
    assert taken("S(0)", "v") == pytest.approx(1 + max(2 + 0.5, 5))
    # What the first takes before it moves anything passes while the second moves.
    assert taken("S(1)", "x", {("main", "in"): 3.0}) == pytest.approx(1 + max(2 + 2 + 0.5, 5))
