"""The parser on texts written for the purpose: every form it must take, and what it says of all else."""

# ruff: noqa: E501 (HLO has long lines)

import time

import pytest

from llmjax.errors import UserError
from llmjax.hlo import HloParseError, parse
from llmjax.hlo.attributes import Alias, SliceDim
from llmjax.hlo.lexer import balanced_end, split_list, unquote

OLD = """HloModule old_style.7, is_scheduled=true, input_output_alias={ {0}: (0, {}, may-alias) }

%add_f32 (x.1: f32[], y.2: f32[]) -> f32[] {
  %x.1 = f32[] parameter(0)
  %y.2 = f32[] parameter(1)
  ROOT %sum.3 = f32[] add(f32[] %x.1, f32[] %y.2)
}

ENTRY %main.9 (a.1: f32[4,8], t.2: (s32[], (f32[8]))) -> (f32[4], f32[8]) {
  %a.1 = f32[4,8]{1,0} parameter(0), sharding={devices=[2,1]0,1}
  %zero.4 = f32[] constant(0), metadata={op_type="Const" op_name="zero"}
  %reduce.5 = f32[4]{0} reduce(f32[4,8]{1,0} %a.1, f32[] %zero.4), dimensions={1}, to_apply=%add_f32, metadata={op_type="Sum" op_name="m/sum" source_file="model.py" source_line=12}
  %t.2 = (s32[], (f32[8]{0})) parameter(1)
  %gte.6 = (f32[8]{0}) get-tuple-element((s32[], (f32[8]{0})) %t.2), index=1
  %gte.7 = f32[8]{0} get-tuple-element((f32[8]{0}) %gte.6), index=0
  ROOT %out.8 = (f32[4]{0}, f32[8]{0}) tuple(f32[4]{0} %reduce.5, /*index=1*/f32[8]{0} %gte.7), control-predecessors={%zero.4, %gte.6}
}
"""

NEW = """HloModule jit_f, is_scheduled=true, input_output_alias={ {}: (1, {}, must-alias) }, entry_computation_layout={(f32[8,16]{1,0:T(8,128)}, /*index=1*/f32[16]{0})->f32[8]{0}}, allow_spmd_sharding_propagation_to_parameters={true,false}, num_partitions=4, replica_count=2, frontend_attributes={note="a, b}"}

FileNames
1 "/home/u/model.py"
2 "train.py"

FunctionNames
1 "Block.__call__"
2 "main"

FileLocations
1 {file_name_id=1 function_name_id=1 line=30 end_line=31 column=8 end_column=20}
2 {file_name_id=2 function_name_id=2 line=99}

StackFrames
1 {file_location_id=2 parent_frame_id=0}
2 {file_location_id=1 parent_frame_id=1}

%fused (p0: f32[8,16], p1: f32[16]) -> f32[8] {
  %p0 = f32[8,16]{1,0:T(8,128)} parameter(0)
  %p1 = f32[16]{0} parameter(1)
  ROOT %dot.1 = f32[8]{0} dot(%p0, %p1), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="jit(f)/h_0/dot_general" stack_frame_id=2}
}, execution_thread="main"

ENTRY %main (x: f32[8,16], w: f32[16]) -> f32[8] {
  %x = f32[8,16]{1,0:T(8,128)} parameter(0), metadata={op_name="x"}
  %w = f32[16]{0} parameter(1)
  ROOT %fusion = f32[8]{0} fusion(%x, %w), kind=kOutput, calls=%fused, metadata={op_name="jit(f)/h_0/dot_general" stack_frame_id=2}, backend_config={"flag_configs":[],"window_config":{"estimated_cycles":"524"},"s":"}{"}
}
"""


def entry(body, header="HloModule m\n"):
    return parse(f"{header}ENTRY e {{\n{body}\n}}").entry


def error(text):
    with pytest.raises(HloParseError) as caught:
        parse(text)
    return caught.value


def test_old_text():
    module = parse(OLD)
    assert module.name == "old_style.7"
    assert module.is_scheduled
    assert module.input_output_alias == (Alias((0,), 0, (), "may-alias"),)
    assert list(module.computations) == ["add_f32", "main.9"]
    main = module.entry
    assert main.is_entry
    assert [i.name for i in main] == ["a.1", "zero.4", "reduce.5", "t.2", "gte.6", "gte.7", "out.8"]
    reduce = main["reduce.5"]
    assert reduce.operands == ("a.1", "zero.4")
    assert reduce.attr("dimensions") == (1,)
    assert reduce.called_computations == ("add_f32",)
    assert module.called(reduce) == (module.computations["add_f32"],)
    assert str(module.source(reduce)) == "model.py:12"
    assert module.stack(reduce) == (module.source(reduce),)
    assert module.source(main["zero.4"]) is None
    assert main["zero.4"].literal == "0"
    assert main["a.1"].attr("sharding") == "{devices=[2,1]0,1}"
    assert main["gte.7"].attr("index") == 0
    assert main.root.name == "out.8"
    assert main.root.attr("control-predecessors") == ("zero.4", "gte.6")
    assert [p.name for p in main.parameters] == ["a.1", "t.2"]
    assert main.users()["gte.6"] == (main["gte.7"],)
    assert main.operands(reduce) == (main["a.1"], main["zero.4"])
    assert [name for name, _ in main.signature.parameters] == ["a.1", "t.2"]
    assert str(main.signature.result) == "(f32[4], f32[8])"
    assert reduce.line == 12


def test_new_text():
    module = parse(NEW)
    assert (module.num_partitions, module.replica_count) == (4, 2)
    assert module.frontend_attributes == {"note": "a, b}"}
    assert module.attributes["allow_spmd_sharding_propagation_to_parameters"] == "{true,false}"
    assert [str(s) for _, s in module.entry_computation_layout.parameters] == ["f32[8,16]{1,0:T(8,128)}", "f32[16]{0}"]
    assert str(module.entry_computation_layout.result) == "f32[8]{0}"
    fusion = module.entry.root
    assert fusion.called_computations == ("fused",)
    assert fusion.backend_config["window_config"]["estimated_cycles"] == "524"
    assert fusion.backend_config["s"] == "}{"
    assert [str(p) for p in module.stack(fusion)] == ["/home/u/model.py:30 (Block.__call__)", "train.py:99 (main)"]
    assert module.source(fusion).column == 8
    fused = module.computations["fused"]
    assert fused.attributes == {"execution_thread": "main"}
    assert fused.root.dot_dims.lhs_contracting == (1,)
    assert fused.root.metadata == fusion.metadata
    assert module.instruction_count == 6


def test_percent_signs_shapes_of_operands_and_comments_change_nothing():
    plain = NEW.replace("%", "")
    typed = NEW.replace("fusion(%x, %w)", "fusion(f32[8,16]{1,0:T(8,128)} %x, /*index=1*/ f32[16]{0} /* hm */ %w)")
    spaced = NEW.replace("ROOT ", "// a comment, with = and {\n  ROOT  ").replace("\n", "\r\n")

    def facts(text):
        module = parse(text)
        return [
            (c.name, i.name, i.opcode, i.shape, i.operands, i.attributes, i.metadata, i.backend_config)
            for c in module.computations.values()
            for i in c
        ]

    assert facts(plain) == facts(typed) == facts(spaced) == facts(NEW)


def test_short_forms():
    module = parse("// RUN: x\nHloModule m\n\nENTRY e { p0 = f32[8] parameter(0) q = f32[8] negate(p0) }")
    assert module.entry.root.name == "q"  # without ROOT the last is the root
    module = parse("f { ROOT p = f32[] parameter(0) }\ng { p = f32[] parameter(0) ROOT c = f32[] call(p), to_apply=f }")
    assert (module.name, module.entry_name) == ("", "g")  # without ENTRY the last computation is the entry


def test_callees_may_come_later():
    module = parse(
        "HloModule m\nENTRY e { p = f32[] parameter(0) ROOT c = f32[] call(p), to_apply=f }\nf { ROOT q = f32[] parameter(0) }"
    )
    assert module.entry_name == "e"


@pytest.mark.parametrize(
    ("shape", "literal"),
    [
        ("f32[]", "1.5e-3"), ("f32[]", "-inf"), ("f32[]", "nan"), ("f32[]", "-nan(0x7f)"), ("pred[]", "false"),
        ("f32[2,2]", "{ { 1, 2 }, { 3, -4 } }"), ("f32[1000]", "{...}"), ("c64[2]", "{(1, 2), (inf, -3)}"),
        ("f32[2,2]", "f32[2,2] { { /*i0=0*/ 1, 2 }, { 3, 4 } }"), ("u8[3]", '"ab)"'), ("s32[0]", "{}"),
        ("(f32[], s32[2])", "(1, {2, 3})"), ("bf16[]", "0x7f"), ("f32[3]", "{1,\n /*x)*/ 2, 3}"),
    ],
)  # fmt: skip
def test_constants(shape, literal):
    text = f'ROOT c = {shape} constant({literal}), metadata={{op_name="c"}}'
    c = entry(text).root
    assert c.literal == literal
    assert c.metadata.op_name == "c"


def test_calls_in_every_form():
    text = """HloModule m
f { ROOT p = f32[] parameter(0) }
g { ROOT p = f32[] parameter(0) }
c { p = f32[] parameter(0) ROOT t = pred[] constant(true) }
ENTRY e {
  a = f32[] parameter(0)
  i = s32[] constant(0)
  w = f32[] while(a), condition=%c, body=f
  b = f32[] conditional(i, a, a), branch_computations={%f, g}
  d = f32[] conditional(i, a, a), true_computation=f, false_computation=g
  k = f32[] custom-call(a), custom_call_target="x", called_computations={f, %g}
  l = f32[] custom-call(a), custom_call_target="y\\"z", called_computations={}
  s = ((f32[]), f32[], u32[]) async-start(a), calls=f, async_execution_thread="host"
  u = ((f32[]), f32[], u32[]) async-update(s)
  v = f32[] async-done(u)
  y = ((f32[]), f32[], u32[]) slice-start(a), slice={[0:1]}
  z = f32[] call(a), to_apply={ q = f32[] parameter(0) ROOT n = f32[] negate(q) }
  ROOT o = f32[] add(z, d)
}"""
    module = parse(text)
    e = module.entry
    called = {i.name: i.called_computations for i in e if i.called_computations}
    assert called == {
        "w": ("c", "f"), "b": ("f", "g"), "d": ("f", "g"), "k": ("f", "g"), "s": ("f",), "z": ("z.to_apply",),
    }  # fmt: skip
    assert module.computations["z.to_apply"].root.opcode == "negate"
    assert e["l"].custom_call_target == 'y"z'
    assert e["s"].attr("async_execution_thread") == "host"
    assert e["y"].opcode == "slice-start"
    assert e["y"].attr("slice") == (SliceDim(0, 1),)


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("mesh['axis_0'=4] {'axis_0'}", ((0, 1, 2, 3),)),
        ("mesh['axis_0'=4,'axis_1'=1] {'axis_0'}", ((0, 1, 2, 3),)),
        ("mesh['x'=2,'y'=2] {'y'}", ((0, 1), (2, 3))),
        ("mesh['x'=2,'y'=2] {'y','x'}", ((0, 2, 1, 3),)),
        ("mesh['x'=2, 'y'=2] { 'y' }", ((0, 1), (2, 3))),
        ("mesh['x'=4] {'x':(1)2}", ((0, 2), (1, 3))),
        ("mesh['x'=4] {'x':(2)2}", ((0, 1), (2, 3))),
        ("mesh['x'=2,'y'=4]{'x','y':(1)2}", ((0, 2, 4, 6), (1, 3, 5, 7))),
        ("mesh['x'=2,'y'=2], device_ids=([2,2]T(1,0)) {'x'}", ((0, 1), (2, 3))),
        ("mesh['x'=2,'y'=2], device_ids=([2,2]T(1,0)) {'y'}", ((0, 2), (1, 3))),
        ("mesh['x'=2,'y'=2], device_ids=([4]) {'y'}", ((0, 1), (2, 3))),
        ("[2, 2] <= [4]", ((0, 1), (2, 3))),
        ("[2, 2]<=[2, 2]T(1, 0)", ((0, 2), (1, 3))),
    ],
)
def test_groups_along_the_axes_of_a_mesh(text, groups):
    e = entry(f"""
  p = f32[8] parameter(0)
  ROOT r = f32[8] all-to-all(p), channel_id=1, replica_groups={text}, use_global_device_ids=true, dimensions={{0}}
""")
    found = e["r"].attr("replica_groups")
    assert (found.groups, found.text) == (groups, text)
    assert e["r"].attr("dimensions") == (0,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mesh['a'=2,'b'=2] {'bogus'}", "axes of the mesh a, b (there is no bogus)"),
        ("mesh['a'=8] {'a':(3)2}", "parts of an axis that divide its size (a has 8)"),
        ("mesh['a'=0] {'a'}", "parts of an axis"),
        ("[2,4]<=[6]", "whose sizes agree"),
    ],
)
def test_groups_that_are_none(text, expected):
    found = error(f"ENTRY e {{ p = f32[8] parameter(0) ROOT r = f32[8] all-to-all(p), replica_groups={text} }}")
    assert expected in found.expected


@pytest.mark.parametrize("shape", ["f32[ 5, 10]", "f32 [5,10]", "f32[/*rows*/5,10]", "f32[5, /* of */ 10 ]{1,0}"])
def test_shapes_with_spaces_and_comments(shape):
    e = entry(f"p = {shape} parameter(0)\nROOT r = f32[5,10] negate({shape} p)")
    assert (e["p"].shape.dims, e.root.operands) == ((5, 10), ("p",))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("ROOT r = f32[8] negate()", "1 operand of 'negate' (it has 0)"),
        ("ROOT r = f32[8] dot(p), lhs_contracting_dims={0}", "2 operands of 'dot' (it has 1)"),
        ("ROOT r = (f32[8], f32[8]) copy-start()", "1 operand of 'copy-start' (it has 0)"),
        ("ROOT r = f32[7] reshape(p)", "as many elements as the operand has (8, not 7 of f32[7])"),
        ("ROOT r = f32[4,4] transpose(p), dimensions={1,0}", "as many elements as the operand has (8, not 16"),
    ],
)
def test_operands_that_do_not_fit(body, expected):
    assert expected in error(f"ENTRY e {{ p = f32[8] parameter(0) {body} }}").expected


def test_rare_attributes():
    e = entry("""
  p = f32[8,4]{1,0} parameter(0), parameter_replication={true}, origin={{"p" {0}}}, frontend_attributes={a="x=1",b={c="}"}}
  e1 = f32[8,4] exponential(p), result_accuracy={tolerance={atol=0.5, rtol=0, ulps=2}}, statistics={visualizing_index=0,x=1}
  ar = f32[8,4] all-gather(e1), replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}, channel_id=3, use_global_device_ids=true
  ms = f32[8,4] all-reduce(ar), replica_groups=mesh['x'=2,'y'=4]{'x'}, to_apply={a = f32[] parameter(0) ROOT b = f32[] negate(a)}
  cp = f32[8,4] collective-permute(ar), source_target_pairs={{0,1},{1,0}}, sharding={{maximal device=0}, /*index=1*/{replicated}}
  ds = f32[2,4] dynamic-slice(cp), dynamic_slice_sizes={2,4}
  cc = f32[8] custom-call(ds), custom_call_target="t", outfeed_shape=(f32[2]{0}, s32[]), literal=s32[2]{0} {1, 2}, new_thing=Some.Value, other={a:{b}}
  pd = f32[] parameter(1)
  ps = f32[] pad(pd, pd), padding=
  bc = f32[8] custom-call(cc), custom_call_target="t", backend_config="{\\"a\\": [1]}", api_version=API_VERSION_STATUS_RETURNING
  bd = f32[8] custom-call(cc), custom_call_target="t", backend_config={not json: {x}}
  ROOT cv = f32[1,2] convolution(cc, bc), dim_labels=bf_io->bf, operand_precision={highest,default}, algorithm=dot_bf16_bf16_f32_x3
""")  # fmt: skip
    assert e["ar"].attr("replica_groups").groups == ((0, 2, 4, 6), (1, 3, 5, 7))
    assert e["ms"].attr("replica_groups").text == "mesh['x'=2,'y'=4]{'x'}"
    assert e["ms"].attr("replica_groups").groups == ((0, 4), (1, 5), (2, 6), (3, 7))
    assert e["cp"].attr("source_target_pairs") == ((0, 1), (1, 0))
    assert e["p"].attr("frontend_attributes") == {"a": "x=1", "b": '{c="}"}'}
    assert e["cc"].attr("literal") == "s32[2]{0} {1, 2}"
    assert e["cc"].attr("outfeed_shape") == "(f32[2]{0}, s32[])"
    assert e["cc"].attr("new_thing") == "Some.Value"
    assert e["ps"].attr("padding") == ()
    assert e["bc"].backend_config == {"a": [1]}
    assert e["bd"].backend_config == "{not json: {x}}"
    assert e["cv"].attr("operand_precision") == "{highest,default}"


@pytest.mark.parametrize(
    ("right", "shape"),
    [
        ("add(a, a)", "f32[4,8]"), ("compare(a, a), direction=LT", "pred[4,8]"), ("tuple(a, z)", "(f32[4,8], f32[])"),
        ("transpose(a), dimensions={1,0}", "f32[8,4]"), ("concatenate(a, a), dimensions={1}", "f32[4,16]"),
        ("slice(a), slice={[0:4:2], [1:8]}", "f32[2,7]"), ("pad(a, z), padding=1_0_1x0_-2", "f32[8,6]"),
        ("dot(a, b), lhs_contracting_dims={1}, rhs_contracting_dims={0}", "f32[4,5]"),
        ("reduce(a, z), dimensions={0}, to_apply=s", "f32[8]"), ("sort(a), dimensions={0}", "f32[4,8]"),
        ("reduce(a, a, z, z), dimensions={0}, to_apply=s", "(f32[8], f32[8])"),
        ("reduce-window(a, z), window={size=2x2 stride=2x1}, to_apply=s", "f32[2,7]"),
        ("convolution(i, k), window={size=3 pad=1_1 stride=2}, dim_labels=b0f_0io->b0f", "f32[1,5,6]"),
        ("dynamic-slice(a, n, n), dynamic_slice_sizes={1,2}", "f32[1,2]"), ("after-all()", "token[]"),
        ("select(compare(a, a), a, negate(a))", "f32[4,8]"), ("complex(a, a)", "c64[4,8]"), ("is-finite(z)", "pred[]"),
        ("call(z, z), to_apply=s", "f32[]"), ("get-dimension-size(a), dimensions={0}", "s32[]"),
    ],
)  # fmt: skip
def test_shapes_left_out(right, shape):
    text = f"""HloModule m
s {{ x = f32[] parameter(0) y = f32[] parameter(1) ROOT r = add(x, y) }}
ENTRY e {{
  a = f32[4,8] parameter(0) b = f32[8,5] parameter(1) z = f32[] constant(0) n = s32[] constant(1)
  i = f32[1,9,2] parameter(2) k = f32[3,2,6] parameter(3)
  ROOT r = {right}
}}"""
    assert str(parse(text).entry.root.shape) == shape


@pytest.mark.parametrize("shape", ["", "f32[2] "])
def test_each_nested_instruction_is_one_of_its_own(shape):
    e = entry(f"a = f32[2] parameter(0)\nROOT r = f32[2] add({shape}add({shape}add(a, a), {shape}add(a, a)), a)")
    assert [i.opcode for i in e] == ["parameter", "add", "add", "add", "add"]
    assert all(e[name].name == name for name in e.by_name)
    outer = e[e.root.operands[0]]
    assert len(set(outer.operands)) == 2 and outer.name not in outer.operands


def test_nested_instructions_become_instructions():
    e = entry("a = f32[2] parameter(0)\nROOT r = f32[2] add(maximum(a, a), f32[2] negate(a))")
    assert [i.opcode for i in e] == ["parameter", "maximum", "negate", "add"]
    assert set(e.root.operands) == {e.instructions[1].name, e.instructions[2].name}


GOOD = 'HloModule m\n\nENTRY e {\n  p = f32[2]{0} parameter(0)\n  ROOT r = f32[2]{0} negate(p), metadata={op_name="x"}\n}\n'


@pytest.mark.parametrize(
    ("old", "new", "line", "column", "expected"),
    [
        ("parameter(0)", "parameter(x)", 4, 27, "a parameter's number"),
        ("negate(p)", "negate(q)", 5, 29, "an instruction above (there is no q)"),
        ("negate(p)", "negate(r)", 5, 29, "an instruction above (there is no r)"),
        ("negate(p)", "negate(p", 5, 32, "an operand"),
        ("negate(p)", "negate p", 5, 22, "an opcode and '('"),
        ("negate(p)", "negate(p r)", 5, 29, "an operand"),
        ("negate(p),", "negate(p), dims", 5, 33, "an attribute 'name=value'"),
        ("negate(p),", "negate(p), index=x,", 5, 39, "a whole number"),
        ("negate(p),", "negate(p), index=1, index=1,", 5, 42, "'index' only once"),
        ("negate(p),", "negate(p), to_apply=%f,", 5, 43, "a computation of this module (there is no f)"),
        ("negate(p),", "negate(p), control-predecessors={z},", 5, 54, "instructions above (there is no z)"),
        ("negate(p),", "call(p), to_apply=e,", 5, 40, "no circle of calls"),
        ("ROOT r", "ROOT p", 5, 8, "a name not used before"),
        ("p = f32[2]{0} par", "ROOT p = f32[2]{0} par", 5, 3, "only one ROOT"),
        ("p = f32[2]{0}", "p = f33[2]{0}", 4, 7, "an element type such as f32"),
        ("p = f32[2]{0}", "p = f32[2]{1}", 4, 7, "a layout that orders 1 dimensions"),
        ("p = f32[2]{0}", "p = (f32[2]", 4, 7, "',' or ')' in a tuple shape"),
        ("p = f32[2]{0}", "p : f32[2]{0}", 4, 3, "an instruction"),
        ("p = f32[2]{0} parameter(0)", "p = reshape(), index=1", 4, 3, "a shape before 'reshape'"),
        ('metadata={op_name="x"}', 'metadata={op_name="x}', 5, 42, "matching brackets"),
        ('metadata={op_name="x"}', "metadata={op_name=x}", 5, 42, "a string in quotes"),
        ("HloModule m", "HloModule", 1, 1, "a name after 'HloModule'"),
        ("HloModule m", "HloModule m, is_scheduled=yes", 1, 27, "true or false"),
        ("HloModule m", "HloModule m, entry_computation_layout={f32[2]}", 1, 40, "shapes of parameters in parentheses"),
        ("HloModule m", "HloModule m\nFileNames\n1 x", 3, 1, 'a row such as 1 "name"'),
        ("HloModule m", "HloModule m\nStackFrames\n1 {a=b}", 3, 4, "a field such as line=1"),
        ("ENTRY e {", "ENTRY e (p f32[2]) -> f32[2] {", 3, 10, "a parameter such as"),
        ("ENTRY e {", "ENTRY e (p: f32[2]) {", 3, 21, "'->'"),
        ("ENTRY e {", "ENTRY e (p: f32[2]) -> f32[2]", 4, 3, "'{' before the instructions"),
        ("ENTRY e {", "ENTRY e {}\nENTRY f {", 3, 10, "at least one instruction"),
        ("ENTRY e {", "ENTRY e {p = f32[] parameter(0)}\nENTRY f {", 4, 1, "only one ENTRY"),
        ("ENTRY e {", "e {p = f32[] parameter(0)}\nENTRY e {", 4, 7, "a name not used before (e is a computation above)"),
        ("}\n", "", 6, 1, "an instruction"),
        (GOOD, "", 1, 1, "'HloModule' or a computation"),
        (GOOD, "HloModule m", 1, 12, "a computation"),
    ],
)  # fmt: skip
def test_errors_say_where_and_what(old, new, line, column, expected):
    assert GOOD.count(old) >= 1
    text = new if old is GOOD else new.join(GOOD.rsplit(old, 1))
    found = error(text)
    assert expected in found.expected
    assert (found.line, found.column) == (line, column), str(found)
    assert f"line {line}, column {column}: expected " in str(found)


def test_error_shows_the_text_and_the_file():
    with pytest.raises(UserError, match=r"^dump\.hlo, line 2, column 1: expected .*, found 'ENTRY e \['$"):
        parse("HloModule m\nENTRY e [", "dump.hlo")


@pytest.mark.parametrize("many", [200, 20000])
@pytest.mark.parametrize(
    "make",
    [
        lambda n: "ROOT r = f32[] constant(" + "{" * n + "}" * n + ")",
        lambda n: "ROOT r = " + "(" * n + "f32[]" + ")" * n + " parameter(0)",
        lambda n: "ROOT r = f32[] parameter(0), backend_config=" + '{"a":' * n + "1" + "}" * n,
        lambda n: "ROOT r = f32[] parameter(0), backend_config=" + '{"a":' * n,
        lambda n: "ROOT r = f32[] parameter(0), sharding=" + "{" * n + "}" * n,
        lambda n: "ROOT r = f32[] parameter(0), frontend_attributes={a=" + "{" * n + "}" * n + "}",
        lambda n: "p = f32[] parameter(0) ROOT r = " + "negate(" * n + "p" + ")" * n,
        lambda n: "ROOT r = f32[] parameter(0), to_apply=" + "{ROOT r = f32[] parameter(0), to_apply=" * n,
        lambda n: "ROOT r = f32[] parameter(0), " + ("/*" * n),
        lambda n: " " * n + "\n" * n + "ROOT",
        lambda n: "ROOT r = f32[" + "1," * n + "1] parameter(0)",
        lambda n: "ROOT r = f32[] parameter(" + "9" * n + ")",
    ],
)
def test_depth_and_length_never_crash(make, many):
    try:
        module = parse("HloModule m\nENTRY e {\n" + make(many) + "\n}")
    except HloParseError:
        return
    assert module.entry.root.name == "r"


def test_thirty_thousand_lines_in_about_a_second():
    lines = ["  %v0 = f32[16,64]{1,0:T(8,128)} parameter(0)"]
    for i in range(1, 30_000):
        lines.append(
            f"  %v{i} = f32[16,64]{{1,0:T(8,128)}} fusion(%v{i - 1}, %v{i // 2}), kind=kLoop, calls=%f,"
            f' metadata={{op_name="jit(f)/h_{i % 48}/mlp/add" stack_frame_id={i % 99}}},'
            f' backend_config={{"outer_dimension_partitions":[],"estimated_cycles":"{i}"}}'
        )
    text = "HloModule m\n\n%f {\n  ROOT %p = f32[] parameter(0)\n}\n\nENTRY %e {\n" + "\n".join(lines) + "\n}\n"
    start = time.process_time()  # of this process alone: 0.5 s on a quiet machine
    assert parse(text).instruction_count == 30_001
    assert time.process_time() - start < 3


def test_small_helpers():
    assert unquote(r'"a\"b\\\n\x41\101\q"') == 'a"b\\\nAAq'
    assert balanced_end('({"}"])', 0) == -1
    assert balanced_end('({"}"}) x', 0) == 7
    assert split_list('1, {2, 3}, "4,5"') == ["1", "{2, 3}", '"4,5"']


def test_elements_in_an_operands_place():
    text = """ENTRY e {
  %p = (f32[2], (s32[], f32[3])) parameter(0)
  %a = f32[2] negate(%p#0)
  ROOT %t = (f32[2], f32[3]) tuple(f32[2] %a, %p#1#1)
}"""
    entry = parse(text).computations["e"]
    assert entry.by_name["t"].operands == ("a", "p#1#1")
    element = entry.by_name["p#1#1"]
    assert (element.opcode, element.operands, element.attr("index")) == ("get-tuple-element", ("p#1",), 1)
    assert str(element.shape) == "f32[3]"


@pytest.mark.parametrize("operand", ("%p#2", "%p#0#0", "%q#0", "%p#"))
def test_elements_that_do_not_exist(operand):
    with pytest.raises(HloParseError):
        parse("ENTRY e {\n  %p = (f32[2], f32[3]) parameter(0)\n  ROOT %a = f32[2] negate(" + operand + ")\n}")
