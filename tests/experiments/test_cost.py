"""The cost job, through launch.py and by itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import cost
from experiments._phases import PHASES
from experiments._programs import Shape, build
from llmjax.analyser import analyze
from llmjax.errors import UserError
from llmjax.kernels.formats import BLOCK
from llmjax.models.families import from_size

HLO = Path(__file__).parent.parent / "testdata" / "hlo"
FILES = ("cost.csv", "cost.json", "module.hlo")
PAGE = "cost.html"


def launch(repo, *args, columns="80"):
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "COLUMNS": columns}
    command = [sys.executable, "launch.py", *args]
    return subprocess.run(command, cwd=repo, capture_output=True, text=True, env=env, check=False)


def test_the_tiny_job(repo, tmp_path):
    done = launch(repo, "--config=configs/cost.py:tiny", f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.replace(str(tmp_path), "").splitlines())) <= 80
    for said in (
        "tiny classify: batch 2, texts of 16, float32 · cpu",
        "XLA's own count",
        "attention projections",
        "MLP",
    ):
        assert said in done.stdout
    assert "LOWER BOUND" not in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*FILES, PAGE])
    found = json.loads((tmp_path / "cost.json").read_text())
    assert found["totals"]["flops"] == pytest.approx(found["compiler"]["flops"], rel=1e-3)
    again = launch(
        repo, "--config=configs/cost.py", f"--config.hlo={tmp_path / 'module.hlo'}", f"--workdir={tmp_path / 'b'}"
    )
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "b" / "cost.json").read_text())["ops"] == found["ops"]


def test_mistakes_are_one_line(repo, tmp_path):
    (tmp_path / "broken.hlo").write_text("HloModule m\nENTRY e {\n  ROOT x = f32[2 parameter(0)\n}\n")
    for args, said in (
        (["--config.hlo=nowhere.hlo"], "does not exist"),
        ([f"--config.hlo={tmp_path / 'broken.hlo'}"], "broken.hlo, line 3, column"),
        (["--config.phase=decoed"], "Did you mean 'decode'?"),
    ):
        done = launch(repo, "--config=configs/cost.py", *args, f"--workdir={tmp_path / 'w'}")
        assert done.returncode == 2
        assert said in done.stderr and done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1


@pytest.fixture
def job(repo, tmp_path, capsys):
    """Returns a function from settings to what the job prints; it writes to the folder `out`."""
    from runpy import run_path

    get_config = run_path(str(repo / "configs" / "cost.py"))["get_config"]

    def run(**settings):
        config = get_config("tiny")
        with config.unlocked():
            for name, value in settings.items():
                config[name] = value
        cost.run(config, str(tmp_path / "out"))
        return capsys.readouterr().out

    return run


def dump(folder, **files):
    folder.mkdir()
    for name, fixture in files.items():
        text = (HLO / fixture).read_text() if fixture.endswith(".hlo") else fixture
        (folder / name.replace("__", ".")).write_text(text)
    return str(folder)


def test_a_folder_of_a_dump(job, tmp_path):
    """The optimised modules count; what XLA writes beside them does not."""
    block, scan = "cpu_0.12.0.1_block_f32.hlo", "cpu_0.12.0.1_scan_f32.hlo"
    folder = dump(
        tmp_path / "dump",
        module_0001__jit_a__before_optimizations__txt=block,
        module_0001__jit_a__cpu_after_optimizations__txt=block,
        module_0002__jit_b__cpu_after_optimizations__txt=scan,
        **{"module_0002__jit_b__cpu_after_optimizations-buffer-assignment__txt": "BufferAssignment:"},
    )
    shown = job(hlo=folder)
    assert "module_0001.jit_a.cpu" in shown and "module_0002.jit_b.cpu" in shown and "before" not in shown
    written = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*") if p.is_file())
    names = "module_0001.jit_a.cpu", "module_0002.jit_b.cpu"
    assert written == [PAGE, *(f"{m}/{f}" for m in names for f in FILES)]
    page = (tmp_path / "out" / PAGE).read_text("utf-8")
    assert all(f">{name}</button>" in page for name in names)


def test_several_phases(job, tmp_path):
    """Each has its tables and its folder; the page has a tab for each."""
    shown = job(phase="prefill,decode")
    assert shown.count("by role") == 2 and "tiny prefill:" in shown and "tiny decode:" in shown
    written = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*") if p.is_file())
    assert written == [PAGE, *(f"{phase}/{name}" for phase in ("decode", "prefill") for name in FILES)]
    page = (tmp_path / "out" / PAGE).read_text("utf-8")
    assert page.count('role="tab"') == 2 and ">prefill</button>" in page


def test_a_folder_with_one_module(job, tmp_path):
    shown = job(hlo=dump(tmp_path / "dump", x__txt="cpu_0.12.0.1_block_f32.hlo", notes__txt="nothing"))
    assert "by role" in shown and "x.txt" in shown
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted([*FILES, PAGE])


def test_a_damaged_module_does_not_stop_the_others(repo, tmp_path):
    folder = tmp_path / "dump"
    folder.mkdir()
    (folder / "good.txt").write_text((HLO / "cpu_0.12.0.1_block_f32.hlo").read_text())
    (folder / "bad.txt").write_text("HloModule m\nENTRY e {\n  ROOT x = f32[2 parameter(0)\n}\n")
    done = launch(repo, "--config=configs/cost.py", f"--config.hlo={folder}", f"--workdir={tmp_path / 'w'}")
    assert done.returncode == 0 and "by role" in done.stdout
    assert "warning: left out: " in done.stderr and "bad.txt, line 3" in done.stderr


def test_each_module_of_a_file_counts(job, tmp_path):
    """A log of two compilations is a folder of two modules; those of one name get numbers."""
    text = "HloModule {0}\n\nENTRY e {{\n  p = f32[{1}] parameter(0)\n  ROOT n = f32[{1}] negate(p)\n}}\n"
    file = tmp_path / "dump.txt"
    file.write_text(text.format("first", 8) + text.format("a/b", 16) + text.format("a/b", 32))
    printed = job(hlo=str(file))
    out = tmp_path / "out"
    labels = {"dump.first": 8, "dump.a_b": 16, "dump.a_b.2": 32}
    for label, flops in labels.items():
        assert label in printed
        assert json.loads((out / label / "cost.json").read_text())["totals"]["flops"] == flops
    assert "MODULE/module.hlo" in printed


def test_folders_without_modules(job, tmp_path):
    with pytest.raises(UserError, match="holds no HLO; dump one with XLA_FLAGS"):
        job(hlo=dump(tmp_path / "empty"))
    with pytest.raises(UserError, match="is no HloModuleProto"):
        job(hlo=dump(tmp_path / "protos", a__pb="x"))


LOOP = """HloModule m
body {
  t = (s32[], f32[4,4]) parameter(0)
  i = s32[] get-tuple-element(t), index=0
  x = f32[4,4] get-tuple-element(t), index=1
  j = s32[] multiply(i, i)
  y = f32[4,4] dot(x, x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT r = (s32[], f32[4,4]) tuple(j, y)
}
cond {
  t = (s32[], f32[4,4]) parameter(0)
  i = s32[] get-tuple-element(t), index=0
  c = s32[] constant(3)
  ROOT l = pred[] compare(i, c), direction=LT
}
ENTRY e {
  p = (s32[], f32[4,4]) parameter(0)
  ROOT w.1 = (s32[], f32[4,4]) while(p), condition=cond, body=body
}
"""


def test_trip_counts(job, repo, tmp_path):
    file = tmp_path / "loop.hlo"
    file.write_text(LOOP)
    assert "LOWER BOUND" in job(hlo=str(file))
    args = [f"--config.hlo={file}", "--config.trip_counts.w.1=64", f"--workdir={tmp_path / 'w'}"]
    done = launch(repo, "--config=configs/cost.py", *args)
    assert "w.1 x64 (given)" in done.stdout and "LOWER BOUND" not in done.stdout
    found = json.loads((tmp_path / "w" / "cost.json").read_text())
    assert found["totals"]["matmul_flops"] == 64 * 2 * 4**3
    with pytest.raises(
        UserError, match=r"trip_counts.w.2: there is no such loop; the loops: body, w.1. Did you mean 'w.1'"
    ):
        job(hlo=str(file), trip_counts=_dotted("w.2", 1))
    with pytest.raises(UserError, match="must be a whole number"):
        job(hlo=str(file), trip_counts=_dotted("w.1", "x"))


def _dotted(name, value):
    from ml_collections import ConfigDict

    return ConfigDict({name: value}, allow_dotted_keys=True)


def test_another_table_of_roles(job, tmp_path):
    (tmp_path / "roles.json").write_text('{"roles": [["h_1/", "the second layer"]]}')
    shown = job(hlo=str(HLO / "cpu_0.12.0.1_block_f32.hlo"), roles=str(tmp_path / "roles.json"), top=0)
    assert "the second layer" in shown and "MLP" not in shown and "top ops" not in shown


TINY = from_size("tiny")
B, L = 2, 16


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_phases_have_the_products_of_the_config(phase):
    """2 x tokens x weights; the vocabulary, padded to whole blocks of rows, and a prompt's last layer once a row."""
    shape = Shape("tiny", phase, B, L, 4, "float32")
    function, args, *_ = build(shape)
    report = analyze(function, *args)
    d, f, layers = TINY.width, TINY.layer.inner, TINY.layers
    # Of the last layer, keys, values and queries are of every token, the rest is of each row's last.
    tokens = B * L if phase == "prefill" else B
    inner = (layers - 1) * tokens + B
    flops = {row.key: row.cost.matmul_flops for row in report.by("role")}
    assert flops["attention projections"] == 2 * (layers * tokens * 3 * d * d + inner * d * d)
    assert flops["MLP"] == 2 * inner * 2 * d * f
    assert flops["vocabulary projection"] == 2 * B * d * -(-TINY.vocab_size // BLOCK) * BLOCK
    assert flops.get("other", 0) == flops.get("softmax", 0) == flops.get("unattributed", 0) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"phase": "trian"}, "Did you mean 'train'?"),
        ({"batch": 0}, "batch=0 must be at least 1"),
        ({"length": 10**6}, "are more than tiny's 128"),
        ({"dtype": "int8"}, "dtype='int8' must be one of float32, bfloat16 for phase='classify'"),
        ({"model": "gpt3"}, "model='gpt3' is neither a size"),
    ],
)
def test_shapes_that_do_not_fit(change, said):
    with pytest.raises(UserError) as error:
        build(Shape("tiny", "classify", B, L, 4, "float32")._replace(**change))
    assert said in str(error.value)


def test_the_config_names_every_phase(repo):
    comment = next(line for line in (repo / "configs" / "cost.py").read_text().splitlines() if "c.phase = " in line)
    for phase in PHASES:
        assert phase in comment
