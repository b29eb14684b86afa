import hashlib
import io
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from llmjax.data import DataConfig, load_dataset, vader
from llmjax.errors import UserError

LINES = "1\t2.5\tGood 'film'.\r\n2\t-0.1\tBad.\r\n3\t0.0\tNeither.\r\n4\t1.0\tTouché!"


def tar(name: str, data: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


@pytest.fixture
def sdist(monkeypatch) -> bytes:
    data = tar(vader._INNER, tar(vader._SENTENCES, LINES.encode()))
    monkeypatch.setattr(vader, "SHA256", hashlib.sha256(data).hexdigest())
    return data


def fake_pip(monkeypatch, content: bytes | None, stderr: str = "") -> list[list[str]]:
    calls = []

    def run(command, **_):
        calls.append(command)
        if content is not None:
            (Path(command[command.index("--dest") + 1]) / vader.SDIST).write_bytes(content)
        return subprocess.CompletedProcess(command, 1 if content is None else 0, "", stderr)

    monkeypatch.setattr(vader.subprocess, "run", run)
    return calls


def test_labels_are_signs_and_zero_is_left_out(monkeypatch, sdist, tmp_path):
    calls = fake_pip(monkeypatch, sdist)
    rows, dropped = vader.load_vader(tmp_path)
    assert rows.texts == ["Good 'film'.", "Bad.", "Touché!"]
    assert (rows.labels, rows.places, dropped) == ([1, 0, 1], [1, 2, 4], 1)
    assert rows.label_names == ("negative", "positive")
    assert vader.load_vader(tmp_path)[0] == rows
    assert len(calls) == 1, "the second run must not ask pip"
    assert [path.name for path in tmp_path.iterdir()] == [vader.SDIST], "nothing half-made is left"


def test_a_damaged_cache_is_fetched_again(monkeypatch, sdist, tmp_path):
    (tmp_path / vader.SDIST).write_bytes(sdist[:-10])
    assert len(fake_pip(monkeypatch, sdist)) == 0
    assert len(vader.load_vader(tmp_path)[0].texts) == 3
    assert (tmp_path / vader.SDIST).read_bytes() == sdist


@pytest.mark.parametrize("content", [None, b"another file"])
def test_no_network_says_what_to_do(monkeypatch, sdist, tmp_path, content):
    noise = "WARNING: Retrying\nERROR: Could not find a version\nERROR: No matching distribution found\n\n"
    fake_pip(monkeypatch, content, noise)
    with pytest.raises(UserError) as caught:
        vader.load_vader(tmp_path / "new")
    message = str(caught.value)
    assert "(No matching distribution found)" in message
    assert str(tmp_path / "new" / vader.SDIST) in message
    assert "source 'files'" in message
    assert "\n" not in message
    assert list((tmp_path / "new").iterdir()) == []


def test_a_cache_folder_that_cannot_be_made(sdist, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the cache folder"):
        vader.load_vader(tmp_path / "file" / "llmjax")


def test_the_real_sentences():
    """Skips where the sdist is neither cached nor to be had; every other failure is one."""
    try:
        data = load_dataset(DataConfig())
    except UserError as error:
        if not re.search("pip could not fetch it", str(error)):
            raise
        pytest.skip(str(error))
    assert (len(data.train), len(data.dev), len(data.test)) == (8455, 1056, 1057)
    assert data.label_names == ("negative", "positive")
    assert "37 of 10605 sentences left out: mean rating exactly 0" in data.notes
    assert load_dataset(DataConfig(seed=5)).test.texts == data.test.texts, "the held-out split is fixed"
    digest = hashlib.sha256("\n".join(data.test.texts).encode()).hexdigest()
    assert digest == "bb1a954c1ae03102d72d9534d839dae23063697b0f610f693f72dcf8d5b95a0a"
