"""Tokens, passwords and signing keys in files are rotated without a restart (I28, I31)."""

import asyncio
import base64
import ipaddress
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from fakes import FakeClock
from rows import each_row
from stopwatch import HANG_S

from bucketfront.config.access_settings import BasicSettings, BearerSettings, SignedUrlSettings
from bucketfront.config.secret_file import SecretFile
from bucketfront.server.access import basic, watched_file
from bucketfront.server.access.basic import BasicRule
from bucketfront.server.access.bearer import BearerRule
from bucketfront.server.access.rule import AccessRequest, Grant, Rule
from bucketfront.server.access.signed_url import Permission, SignedUrlRule, signed_url
from bucketfront.server.access.watched_file import CHECK_INTERVAL_S

NOW = 1_700_000_000.0
OLD, NEW = "the-old-secret-of-it", "the-new-secret-of-it"
BROKEN = {"too short": b"short\n", "empty": b"", "no text": b"\xff\xfe\x00", "large": b"x" * (2 << 20)}


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for a look at a file however slow the machine is."""
    monkeypatch.setattr(watched_file, "CHECK_TIMEOUT_S", HANG_S)


def hash_line(password: str) -> str:
    return f"ann:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n"


def bearer(file: Path, clock: FakeClock) -> Rule:
    return BearerRule(BearerSettings(tokens=(SecretFile.read(file),)), clock)


def passwords(file: Path, clock: FakeClock) -> Rule:
    return BasicRule(BasicSettings(file=file), clock)


def signing(file: Path, clock: FakeClock) -> Rule:
    return SignedUrlRule(SignedUrlSettings(keys={"k1": SecretFile.read(file)}), clock)


KINDS = {"bearer": bearer, "basic": passwords, "signed_url": signing}


def text(kind: str, secret: str) -> str:
    return hash_line(secret) if kind == "basic" else f"{secret}\n"


def request(kind: str, secret: str) -> AccessRequest:
    query, field = "", ""
    if kind == "signed_url":
        query = signed_url(Permission("GET", "/a", int(NOW) + 60), "k1", secret).partition("?")[2]
    elif kind == "basic":
        field = f"Basic {base64.b64encode(f'ann:{secret}'.encode()).decode()}"
    else:
        field = f"Bearer {secret}"
    return AccessRequest("GET", "/a", query, lambda _: field or None, ipaddress.ip_address("192.0.2.1"), NOW)


async def accepted(rule: Rule, kind: str) -> list[str]:
    """Return which of the two secrets the rule takes."""
    return [secret for secret in (OLD, NEW) if isinstance(await rule.examine(request(kind, secret)), Grant)]


def replaced(file: Path, content: bytes) -> None:
    fresh = file.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(file)


def rewritten(file: Path, content: bytes) -> None:
    file.write_bytes(content)


def repointed(file: Path, content: bytes) -> None:
    """Replace the file as Kubernetes does: a symbolic link leads to another folder."""
    fresh = file.with_name(f"{len(os.listdir(file.parent))}")  # noqa: PTH208
    fresh.write_bytes(content)
    file.unlink()
    file.symlink_to(fresh)


@each_row("change", [replaced, rewritten, repointed])
@each_row("kind", KINDS)
async def test_a_new_secret_counts_soon(tmp_path: Path, kind: str, change: Callable[[Path, bytes], None]) -> None:
    """After CHECK_INTERVAL_S the new content of the file counts, and the old secret is refused, although it was used
    and remembered before.
    """
    file, clock = tmp_path / "secret", FakeClock(100.0)
    file.write_text(text(kind, OLD))
    rule = KINDS[kind](file, clock)
    assert await accepted(rule, kind) == [OLD]
    change(file, text(kind, NEW).encode())
    clock.advance(CHECK_INTERVAL_S / 2)
    assert await accepted(rule, kind) == [OLD]
    clock.advance(CHECK_INTERVAL_S)
    assert await accepted(rule, kind) == [NEW]
    await rule.close()


@pytest.mark.parametrize("broken", [*BROKEN, "gone", "a named pipe"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_broken_file_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, broken: str
) -> None:
    """A file that is gone or of no use keeps the old content, with one warning that has no secret. A good one counts
    again.
    """
    file, clock = tmp_path / "secret", FakeClock(100.0)
    file.write_text(text(kind, OLD))
    rule = KINDS[kind](file, clock)
    if broken not in BROKEN:
        file.unlink()
        if broken == "a named pipe":
            os.mkfifo(file)
    else:
        replaced(file, BROKEN[broken])
    for _ in range(3):
        clock.advance(CHECK_INTERVAL_S)
        assert await accepted(rule, kind) == [OLD]
    (record,) = caplog.records
    assert record.getMessage().startswith(f"'{file}' is of no use, so what it had before counts: ")
    assert OLD not in caplog.text
    replaced(file, text(kind, NEW).encode())
    clock.advance(CHECK_INTERVAL_S)
    assert await accepted(rule, kind) == [NEW]
    assert len(caplog.records) == 1
    await rule.close()


async def test_old_and_new_hold_together(tmp_path: Path) -> None:
    """A file of tokens has several, and a rule several files."""
    first, second, clock = tmp_path / "a", tmp_path / "b", FakeClock(100.0)
    first.write_text(f"{OLD}\n")
    second.write_text("another-token-of-the-team\n")
    rule = BearerRule(BearerSettings(tokens=(SecretFile.read(first), SecretFile.read(second))), clock)
    second.write_text(f"another-token-of-the-team\n{NEW}\n")
    clock.advance(CHECK_INTERVAL_S)
    assert await accepted(rule, "bearer") == [OLD, NEW]
    await rule.close()


async def test_a_file_is_read_only_if_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks no call of the system is made, and an unchanged file is not read again."""
    file, clock = tmp_path / "secret", FakeClock(100.0)
    file.write_text(f"{OLD}\n")
    rule = bearer(file, clock)
    clock.advance(CHECK_INTERVAL_S)
    assert await accepted(rule, "bearer") == [OLD]
    calls: list[str] = []
    read, stat = SecretFile.read, os.stat

    def noted_read(path: Path) -> SecretFile:
        calls.append("read")
        return read(path)

    def noted_stat(path: Any, **options: Any) -> os.stat_result:
        if path == file:
            calls.append("stat")
        return stat(path, **options)

    monkeypatch.setattr(SecretFile, "read", noted_read)
    monkeypatch.setattr(os, "stat", noted_stat)
    assert await accepted(rule, "bearer") == [OLD]
    assert calls == []
    for _ in range(3):
        clock.advance(CHECK_INTERVAL_S)
        await accepted(rule, "bearer")
    monkeypatch.undo()
    assert calls == ["stat"] * 3
    await rule.close()


async def test_a_disk_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests wait for a file for CHECK_TIMEOUT_S at most, and the old content counts (I20)."""
    file, clock, gate = tmp_path / "secret", FakeClock(100.0), threading.Event()
    file.write_text(f"{OLD}\n")
    rule = bearer(file, clock)
    monkeypatch.setattr(watched_file, "CHECK_TIMEOUT_S", 0.01)
    stat = os.stat

    def hanging(path: Any, **options: Any) -> os.stat_result:
        if path == file:
            gate.wait(HANG_S)
        return stat(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", hanging)
        clock.advance(CHECK_INTERVAL_S)
        async with asyncio.timeout(HANG_S):
            assert await accepted(rule, "bearer") == [OLD]
        gate.set()
    await rule.close()


async def test_a_password_that_is_verified_during_the_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verification by the old file that ends after the change is not remembered."""
    file, clock = tmp_path / "secret", FakeClock(100.0)
    file.write_text(hash_line(OLD))
    rule = BasicRule(BasicSettings(file=file), clock)
    entered, gate, verify = threading.Event(), threading.Event(), basic.verify

    def slow(password: str, hashed: str) -> bool:
        entered.set()
        gate.wait(HANG_S)
        return verify(password, hashed)

    monkeypatch.setattr(basic, "verify", slow)
    first = asyncio.create_task(rule.examine(request("basic", OLD)))
    await asyncio.to_thread(entered.wait, HANG_S)
    replaced(file, hash_line(NEW).encode())
    clock.advance(CHECK_INTERVAL_S)
    second = asyncio.create_task(rule.examine(request("basic", NEW)))
    while rule._users is rule._file._content:  # the second request has not seen the new file yet
        await asyncio.sleep(0)
        if second.done() or rule._waiting.total() > 1:
            break
    gate.set()
    assert isinstance(await first, Grant)
    assert isinstance(await second, Grant)
    assert await accepted(rule, "basic") == [NEW]
    await rule.close()
