"""What stage of a compilation a text is from."""

from pathlib import Path

import pytest

from llmjax.hlo import parse
from llmjax.hlo.stage import Stage, stage

FILES = sorted((Path(__file__).resolve().parent.parent / "testdata" / "hlo").glob("*.hlo"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_of_compiled_programs(file):
    bare = "unoptimised" in file.stem or file.stem == "cpu_0.4.13_conv_f32"  # which has neither schedule nor fusion
    expected = "unscheduled" if bare else "optimised"
    assert stage(parse(file.read_text())) == Stage(expected)


def text(*lines: str, header: str = "") -> str:
    return f"HloModule m{header}\nENTRY e {{\n p = f32[64,8] parameter(0)%s\n" + "\n".join(lines) + "\n}"


TILED = ", sharding={devices=[4,1]<=[4]}"
PART = ", sharding={devices=[2,1,2]<=[4] last_tile_dim_replicate}"


@pytest.mark.parametrize(
    ("sharding", "lines", "header", "expected"),
    [
        ("", ["ROOT n = f32[64,8] negate(p)"], "", Stage("unscheduled")),
        ("", ["ROOT n = f32[64,8] negate(p)"], ", is_scheduled=true", Stage("optimised")),
        (TILED, ["ROOT n = f32[64,8] negate(p)"], "", Stage("whole", 4)),
        (PART, ["ROOT n = f32[64,8] negate(p)"], "", Stage("whole", 4)),
        (TILED, ["ROOT n = f32[64,8] negate(p)"], ", num_partitions=8", Stage("whole", 8)),
        (TILED, ["ROOT n = f32[64,8] negate(p)"], ", is_scheduled=true, num_partitions=4", Stage("optimised")),
        (", sharding={replicated}", ["ROOT n = f32[64,8] negate(p)"], "", Stage("unscheduled")),
        (TILED, ["ROOT n = f32[256,8] all-gather(p), channel_id=1, dimensions={0}"], ", num_partitions=4",
         Stage("partitioned")),
        ("", ['ROOT n = f32[64,8] custom-call(p), custom_call_target="Sharding"' + TILED], "", Stage("whole", 4)),
        ("", ['s = f32[64,8] custom-call(p), custom_call_target="Sharding"' + TILED,
              'm = f32[16,8] custom-call(s), custom_call_target="SPMDFullToShardShape", sharding={manual}',
              "ROOT n = f32[16,8] all-reduce(m), channel_id=1"], "", Stage("whole", 4, manual=True)),
    ],
)  # fmt: skip
def test_before_optimisation(sharding, lines, header, expected):
    assert stage(parse(text(*lines, header=header) % sharding)) == expected
