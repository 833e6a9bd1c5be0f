"""The file of a Unix socket: its mode and owner, and what is never removed."""

import errno
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bucketfront.errors import CannotListen
from bucketfront.server.http1.unix_socket import UnixPlace, UnixSocket, bind_unix

AT = ("server", "listeners", 3)


@pytest.fixture
def path() -> Iterator[Path]:
    """A path that is short enough for a Unix socket, wherever the tests run."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "http.sock"


@pytest.fixture
def other() -> Iterator[socket.socket]:
    """The socket of another process."""
    with socket.socket(socket.AF_UNIX) as found:
        yield found


def bound(path: Path, mode: int = 0o660, owner: str | None = None, group: str | None = None) -> UnixSocket:
    return bind_unix(UnixPlace(path, mode, owner, group, 3))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def connect(path: Path) -> int:
    """Connect without waiting. Return the error number, or 0."""
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        return client.connect_ex(os.fspath(path))


def not_permitted(*_: object, **__: object) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("mask", [0o000, 0o027, 0o777])
def test_the_mode(path: Path, mask: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the mode is being set, the file is for its owner at most, and refuses connections."""
    seen, real = [], Path.chmod

    def looks(place: Path, mode: int) -> None:
        seen.append((mode_of(place) | 0o600, connect(place)))
        real(place, mode)

    monkeypatch.setattr(Path, "chmod", looks)
    before = os.umask(mask)
    try:
        found = bound(path, 0o666)
    finally:
        os.umask(before)
    with found.socket:
        assert seen == [(0o600, errno.ECONNREFUSED)]
        assert (mode_of(path), connect(path)) == (0o666, errno.ECONNREFUSED)
        found.socket.listen()
        assert connect(path) == 0
        found.remove()
        assert not path.exists()


def test_a_socket_left_by_a_kill(path: Path, other: socket.socket) -> None:
    """A socket that no process serves is replaced."""
    other.bind(os.fspath(path))
    other.listen()
    other.close()
    with bound(path).socket as found:
        found.listen()
        assert connect(path) == 0


def test_a_live_socket_is_kept(path: Path, other: socket.socket) -> None:
    """A socket that a process serves is an error that says so, also while its backlog is full."""
    other.bind(os.fspath(path))
    other.listen(0)
    with socket.socket(socket.AF_UNIX) as waiting:
        for is_full in (False, True):
            if is_full:
                waiting.connect(os.fspath(path))
            with pytest.raises(CannotListen, match="in use by another process") as caught:
                bound(path)
            assert caught.value.at == (*AT, "unix")
            other.setblocking(False)
            if not is_full:
                other.accept()[0].close()  # the connection that found it alive
        assert connect(path) == errno.EAGAIN


def test_a_start_that_is_under_way(path: Path) -> None:
    """A socket that is bound and does not listen yet belongs to a process, so it is kept."""
    first = bound(path)
    with first.socket:
        with pytest.raises(CannotListen, match="in use by another process"):
            bound(path)
        first.socket.listen()
        assert connect(path) == 0


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling link", "pipe"])
def test_what_is_no_socket_is_kept(path: Path, other: socket.socket, kind: str) -> None:
    """A path that is no socket is an error, and is never removed. A link to a dead socket is a link."""
    dead = path.with_suffix(".dead")
    other.bind(os.fspath(dead))
    match kind:
        case "file":
            path.write_text("mine")
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to(dead)
        case "dangling link":
            path.symlink_to(path.with_suffix(".none"))
        case _:
            os.mkfifo(path)
    before = path.lstat()
    with pytest.raises(CannotListen, match="is no socket"):
        bound(path)
    assert os.path.samestat(path.lstat(), before)
    assert dead.is_socket()


def test_only_the_own_socket_is_removed(path: Path, other: socket.socket) -> None:
    """The socket that another process has put in the place of this one stays."""
    found = bound(path)
    with found.socket:
        path.rename(path.with_suffix(".old"))
        other.bind(os.fspath(path))
        found.remove()
        assert path.is_socket()


def test_no_folder(tmp_path: Path) -> None:
    """A folder that does not exist is an error with the cure."""
    with pytest.raises(CannotListen, match="folder does not exist"):
        bound(tmp_path / "none" / "x.sock")


@pytest.mark.parametrize(
    ("keys", "at", "text"),
    [
        ({"owner": "no-such-user"}, "owner", "no user of this name"),
        ({"group": "no-such-group"}, "group", "no group of this name"),
        ({"owner": "1", "group": "1"}, "owner", "cannot set the owner"),
        ({"group": "1"}, "group", "cannot set the owner"),
        ({}, "mode", "cannot set the mode"),
    ],
)
def test_an_owner_that_cannot_be_had(
    path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, str], at: str, text: str
) -> None:
    """An unknown owner, and one that the process may not set, are errors that leave no socket."""
    monkeypatch.setattr(os, "chown", not_permitted)
    monkeypatch.setattr(Path, "chmod", not_permitted)
    with pytest.raises(CannotListen, match=text) as caught:
        bound(path, **keys)  # type: ignore[arg-type]  # no key is the mode
    assert caught.value.at == (*AT, at)
    assert not path.exists()


def test_the_owner(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket gets the user and the group of its settings, by name or number."""
    given = []
    monkeypatch.setattr(os, "chown", lambda *found, **_: given.append(found))
    bound(path, owner="root", group="12345").socket.close()
    assert given == [(path, 0, 12345)]
