import hashlib
import io
import re
import tarfile
from dataclasses import replace

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


def test_labels_are_signs_and_zero_is_left_out(monkeypatch, tmp_path):
    sdist = tar(vader._INNER, tar(vader._SENTENCES, LINES.encode()))
    (tmp_path / vader.SDIST.archive).write_bytes(sdist)
    monkeypatch.setattr(vader, "SDIST", replace(vader.SDIST, sha256=hashlib.sha256(sdist).hexdigest()))
    rows, dropped = vader.load_vader(tmp_path)
    assert rows.texts == ["Good 'film'.", "Bad.", "Touché!"]
    assert (rows.labels, rows.places, dropped) == ([1, 0, 1], [1, 2, 4], 1)
    assert rows.label_names == ("negative", "positive")
    assert vader.load_vader(tmp_path)[0] == rows


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
