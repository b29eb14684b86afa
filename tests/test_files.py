import os
import stat
import threading
from pathlib import Path

import pytest

from llmjax.errors import UserError
from llmjax.files import SUMS, appearing, atomic_write, damaged, private_folder, read_own, write_sums
from llmjax.infer.texts import write_lines


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "new" / "file"
    atomic_write(file, "old")
    with pytest.raises(KeyboardInterrupt), appearing(file) as stream:
        stream.write(b"half")
        assert file.read_text() == "old"
        raise KeyboardInterrupt
    assert file.read_text() == "old" and [path.name for path in file.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_what_it_points_to_is_written(tmp_path: Path, there: bool) -> None:
    target, link = tmp_path / "elsewhere" / "target", tmp_path / "link"
    if there:
        target.parent.mkdir()
        target.write_text("old")
        target.chmod(0o640)
    link.symlink_to(target)
    atomic_write(link, "new")
    assert link.is_symlink() and target.read_text() == "new"
    if there:
        assert mode(target) == 0o640
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("write", [atomic_write, lambda path, text: write_lines([text], path)])
def test_a_pipe_gets_what_is_written_and_stays_a_pipe(tmp_path: Path, write) -> None:
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write(pipe, "text")
    reader.join()
    assert b"".join(got).strip() == b"text" and stat.S_ISFIFO(pipe.stat().st_mode)


def test_devices_stay_devices(tmp_path: Path) -> None:
    link = tmp_path / "null"
    link.symlink_to("/dev/null")
    for path in (Path("/dev/null"), link):
        atomic_write(path, "nothing")
        write_lines(["nothing"], path)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode) and link.is_symlink()
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        atomic_write("/dev/full", "x")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


def test_standard_output_that_is_a_file_is_written_to(tmp_path: Path) -> None:
    file = tmp_path / "out"
    with file.open("wb") as stream:
        inode = file.stat().st_ino
        atomic_write(f"/dev/fd/{stream.fileno()}", "text")
    assert file.read_text() == "text" and file.stat().st_ino == inode


def test_private_folders_are_made_private(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert mode(private_folder(folder)) == 0o700
    folder.chmod(0o755)
    assert mode(private_folder(folder)) == 0o700


@pytest.mark.parametrize("bits", [0o770, 0o707])
def test_what_others_may_change_is_not_trusted(tmp_path: Path, bits: int) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    folder.chmod(bits)
    with pytest.raises(UserError, match="others can write to it"):
        private_folder(folder)
    file.write_bytes(b"x")
    assert read_own(file) == b"x"
    file.chmod(bits)
    with pytest.raises(PermissionError, match="others can write to it"):
        read_own(file)


def test_what_belongs_to_others_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    (tmp_path / "link").symlink_to(file)
    with pytest.raises(OSError, match="link"):
        read_own(tmp_path / "link")
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    with pytest.raises(PermissionError, match="belongs to user"):
        read_own(file)
    with pytest.raises(UserError, match="belongs to user"):
        private_folder(tmp_path)


def test_sums_name_what_is_missing_or_changed(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a", "b", "sub/c"):
        (tmp_path / name).write_bytes(name.encode() * 1000)
    assert damaged(tmp_path) == []
    write_sums(tmp_path)
    assert damaged(tmp_path) == [] and len((tmp_path / SUMS).read_text().splitlines()) == 3
    content = bytearray((tmp_path / "sub" / "c").read_bytes())
    content[1234] ^= 1
    (tmp_path / "sub" / "c").write_bytes(content)
    (tmp_path / "a").unlink()
    assert damaged(tmp_path) == ["a", "sub/c"]
