"""Files are whole or not there, private where the old one was, and no other's file is lost."""

from __future__ import annotations

import errno
import os
import platform
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from srgan_infer import files
from srgan_infer.files import new_file, remove_left_over, replace_file

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX modes and signals")


@pytest.fixture(autouse=True)
def _as_in_a_new_process() -> None:
    remove_left_over.cache_clear()


@pytest.fixture
def gone() -> int:
    """The number of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def part(folder: Path, process: int, host: str | None = None) -> Path:
    """A temporary file as a killed run leaves it."""
    name = host or platform.node()
    safe = "".join(c if c.isascii() and (c.isalnum() or c == "-") else "_" for c in name)
    path = folder / f".srgan-infer.{safe}.{process}.0123456789abcdef.part"
    path.write_bytes(b"half")
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"old")
    with new_file(target) as new:
        new.stream.write(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"
    assert new.path == target
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit, OSError])
def test_a_failure_leaves_the_old_file_and_comes_out_unchanged(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"old")
    raised = error("by the caller")

    def fail() -> None:
        with new_file(target) as new:
            new.stream.write(b"new")
            raise raised

    with pytest.raises(error) as caught:
        fail()
    assert caught.value is raised
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a.png"]


def test_what_appears_meanwhile_stays_and_so_does_the_work(tmp_path: Path) -> None:
    target = tmp_path / "a.tar.png"
    (tmp_path / "a.tar-1.png").write_bytes(b"a third one's")
    with new_file(target, overwrite=False) as new:
        new.stream.write(b"ours")
        target.write_bytes(b"another's")
    assert target.read_bytes() == b"another's"
    assert new.path == tmp_path / "a.tar-2.png"
    assert new.path.read_bytes() == b"ours"
    assert names(tmp_path) == ["a.tar-1.png", "a.tar-2.png", "a.tar.png"]


def test_without_an_older_file_the_name_is_the_one_asked_for(tmp_path: Path) -> None:
    with new_file(tmp_path / "a.png", overwrite=False) as new:
        new.stream.write(b"ours")
    assert new.path == tmp_path / "a.png"
    assert names(tmp_path) == ["a.png"]


@posix
@pytest.mark.parametrize("there", [True, False])
def test_a_file_system_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    target = tmp_path / "a.png"
    with new_file(target, overwrite=False) as new:
        new.stream.write(b"ours")
        if there:
            target.write_bytes(b"another's")
    assert new.path.name == ("a-1.png" if there else "a.png")
    assert new.path.read_bytes() == b"ours"
    assert names(tmp_path) == (["a-1.png", "a.png"] if there else ["a.png"])


def test_a_file_that_cannot_be_replaced_keeps_the_work_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"open in a viewer")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with new_file(target) as new:
        new.stream.write(b"ours")
    assert target.read_bytes() == b"open in a viewer"
    assert (tmp_path / "a-1.png").read_bytes() == b"ours"
    assert new.path == tmp_path / "a-1.png"


@posix
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_private_file_is_private_all_the_time(tmp_path: Path, umask: int) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"old")
    target.chmod(0o600)
    before = os.umask(umask)
    try:
        with new_file(target) as new:
            (temporary,) = tmp_path.glob(".*.part")
            assert mode(temporary) == 0o600
            new.stream.write(b"new")
        assert mode(target) == 0o600
        replace_file(tmp_path / "new.png", b"new")
        assert mode(tmp_path / "new.png") == 0o666 & ~umask
    finally:
        os.umask(before)


@posix
def test_the_mode_of_the_old_file_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"old")
    target.chmod(0o664)
    replace_file(target, b"new")
    assert mode(target) == 0o664


@posix
def test_a_share_that_refuses_modes_takes_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refuse)
    (tmp_path / "a.png").write_bytes(b"old")
    replace_file(tmp_path / "a.png", b"new")
    assert (tmp_path / "a.png").read_bytes() == b"new"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EPERM])
def test_a_share_that_does_not_flush_takes_the_file(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    (tmp_path / "a.png").write_bytes(b"old")
    replace_file(tmp_path / "a.png", b"new")
    assert names(tmp_path) == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"new"


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_disk_that_fails_keeps_the_old_file(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    (tmp_path / "a.png").write_bytes(b"old")
    with pytest.raises(OSError, match=os.strerror(number)):
        replace_file(tmp_path / "a.png", b"new")
    assert names(tmp_path) == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"old"


@posix
def test_left_over_files_of_this_host_go_and_no_others(tmp_path: Path, gone: int) -> None:
    left = part(tmp_path, gone)
    alive = part(tmp_path, os.getpid())
    foreign = part(tmp_path, gone, host="another-host")
    (tmp_path / ".0123.part").write_bytes(b"of another program")
    replace_file(tmp_path / "a.png", b"new")
    assert not left.exists()
    assert names(tmp_path) == sorted([alive.name, foreign.name, ".0123.part", "a.png"])


@posix
def test_a_file_that_another_machine_of_this_name_writes_stays(tmp_path: Path, gone: int) -> None:
    fcntl = pytest.importorskip("fcntl")
    written = part(tmp_path, gone)
    with written.open("r+b") as stream:
        fcntl.flock(stream.fileno(), fcntl.LOCK_EX)
        replace_file(tmp_path / "a.png", b"new")
        assert written.exists()
    remove_left_over.cache_clear()
    replace_file(tmp_path / "a.png", b"new")
    assert not written.exists()


def test_a_temporary_name_carries_host_and_process(tmp_path: Path) -> None:
    with new_file(tmp_path / "a.png"):
        (temporary,) = tmp_path.glob(".*.part")
        found = files.PART.fullmatch(temporary.name)
        assert found is not None
        assert int(found["process"]) == os.getpid()


@pytest.mark.parametrize("what", ["folder", "name"])
def test_what_cannot_be_written_is_refused_before_the_work(tmp_path: Path, what: str) -> None:
    target = tmp_path / "a.png" if what == "folder" else tmp_path / ("a" * 300 + ".png")
    if what == "folder":
        target.mkdir()
    with pytest.raises(OSError, match=r"(?i)director|too long|name"), new_file(target):
        pytest.fail("the block was entered")
    assert not list(tmp_path.glob(".*.part"))


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.png").write_bytes(b"old")
    try:
        (tmp_path / "link.png").symlink_to("real.png")
    except OSError:
        pytest.skip("no symbolic links here")
    replace_file(tmp_path / "link.png", b"new")
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "real.png").read_bytes() == b"new"
