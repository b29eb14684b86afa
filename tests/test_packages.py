import hashlib
import io
import os
import subprocess
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from llmjax import packages
from llmjax.errors import UserError
from llmjax.packages import Package, fetch

FILES = {
    "thing/model/config.json": b"{}",
    "thing/model/weights.bin": b"\0" * 1000,
    "thing/__init__.py": b"raise SystemExit",
}
TAKE = ("thing/model/*",)
WANTED = sorted(name for name in FILES if "model" in name)


def wheel() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)
    return file.getvalue()


def sdist() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def package(archive: str, data: bytes) -> Package:
    return Package("thing", "1.0", archive, hashlib.sha256(data).hexdigest(), TAKE)


@pytest.fixture(params=["thing-1.0-py3-none-any.whl", "thing-1.0.tar.gz"])
def made(request) -> tuple[Package, bytes]:
    data = wheel() if request.param.endswith(".whl") else sdist()
    return package(request.param, data), data


def fake_pip(monkeypatch, archive: str, content: bytes | None, stderr: str = "") -> list[list[str]]:
    calls = []

    def run(command, **_):
        calls.append(command)
        asked = Path(command[command.index("--requirement") + 1]).read_text()
        assert "--hash=sha256:" in asked, "pip checks the hash before it runs a setup.py"
        if content is not None:
            (Path(command[command.index("--dest") + 1]) / archive).write_bytes(content)
        return subprocess.CompletedProcess(command, 1 if content is None else 0, "", stderr)

    monkeypatch.setattr(packages.subprocess, "run", run)
    return calls


def found(folder: Path) -> list[str]:
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return sorted(name for name in names if name != packages._RECORD)


def test_only_the_wanted_files_are_kept_and_the_second_time_pip_is_not_asked(monkeypatch, made, tmp_path):
    wanted, data = made
    calls = fake_pip(monkeypatch, wanted.archive, data)
    folder = fetch(wanted, "model 'thing'", cache=tmp_path)
    assert found(folder) == WANTED
    assert all((folder / name).read_bytes() == FILES[name] for name in WANTED)
    assert fetch(wanted, "model 'thing'", cache=tmp_path) == folder
    assert len(calls) == 1
    assert list((tmp_path / "packages").iterdir()) == [folder], "nothing half-made is left"


@pytest.mark.parametrize(
    "harm", [lambda f: f.write_bytes(b"\1" * 1000), lambda f: f.unlink(), lambda f: f.write_bytes(b"")]
)
def test_a_damaged_file_is_fetched_again(monkeypatch, made, tmp_path, harm):
    wanted, data = made
    calls = fake_pip(monkeypatch, wanted.archive, data)
    file = fetch(wanted, "it", cache=tmp_path) / "thing/model/weights.bin"
    harm(file)
    fetch(wanted, "it", cache=tmp_path)
    assert file.read_bytes() == FILES["thing/model/weights.bin"]
    assert len(calls) == 2


def test_other_patterns_or_another_version_are_unpacked_anew(monkeypatch, made, tmp_path):
    wanted, data = made
    fake_pip(monkeypatch, wanted.archive, data)
    fetch(wanted, "it", cache=tmp_path)
    assert found(fetch(replace(wanted, take=("*/config.json",)), "it", cache=tmp_path)) == WANTED[:1]
    other = fetch(replace(wanted, version="2.0"), "it", cache=tmp_path)
    assert other.name == "thing-2.0"


def test_an_archive_that_the_user_put_into_the_cache_needs_no_network(monkeypatch, made, tmp_path):
    wanted, data = made
    calls = fake_pip(monkeypatch, wanted.archive, None)
    (tmp_path / wanted.archive).write_bytes(data)
    assert found(fetch(wanted, "it", cache=tmp_path)) == WANTED
    assert calls == []
    assert (tmp_path / wanted.archive).read_bytes() == data


@pytest.mark.parametrize("content", [None, b"another file"])
def test_no_network_says_what_to_do(monkeypatch, made, tmp_path, content):
    wanted, _ = made
    noise = "WARNING: Retrying\nERROR: Could not find a version\nERROR: No matching distribution found\n\n"
    fake_pip(monkeypatch, wanted.archive, content, noise)
    with pytest.raises(UserError) as caught:
        fetch(wanted, "model 'thing'", "give a folder", tmp_path / "new")
    message = str(caught.value)
    assert message.startswith(
        f"model 'thing' needs {wanted.archive} and pip could not fetch it (No matching distribution"
    )
    assert str(tmp_path / "new" / wanted.archive) in message
    assert message.endswith(", or give a folder")
    assert "\n" not in message
    assert list((tmp_path / "new" / "packages").iterdir()) == []


def test_a_cache_folder_that_cannot_be_made(made, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="it: cannot write the cache folder"):
        fetch(made[0], "it", cache=tmp_path / "file" / "llmjax")


def test_left_overs_of_a_killed_run_are_swept_and_those_of_a_running_one_stay(monkeypatch, made, tmp_path):
    wanted, data = made
    fake_pip(monkeypatch, wanted.archive, data)
    old, new = tmp_path / "packages" / ".download-old", tmp_path / "packages" / ".download-new"
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "half").write_text("")
    os.utime(old, (0, 0))
    fetch(wanted, "it", cache=tmp_path)
    assert new.exists() and not old.exists()


def test_a_path_that_leaves_the_folder_is_not_written(monkeypatch, tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("thing/model/../../../out", b"")
    wanted = package("thing-1.0-py3-none-any.whl", file.getvalue())
    fake_pip(monkeypatch, wanted.archive, file.getvalue())
    with pytest.raises(UserError, match="leaves its folder"):
        fetch(wanted, "it", cache=tmp_path)


def test_a_wheel_of_another_machine_is_asked_for_by_its_tags():
    options = packages._kind(package("thing-1.0-cp311-abi3-manylinux_2_28_x86_64.whl", b""))
    assert "--platform manylinux_2_28_x86_64" in " ".join(options)
    assert "--implementation cp --python-version 311 --abi abi3" in " ".join(options)
    assert packages._kind(package("thing-1.0-py3-none-any.whl", b"")) == ["--only-binary", ":all:"]
    assert packages._kind(package("thing-1.0.tar.gz", b"")) == ["--no-binary", "thing"]
