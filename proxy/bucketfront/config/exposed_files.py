"""Find files with secrets that other users of the machine may read."""

import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from bucketfront.config.access_settings import BasicSettings, token_lines
from bucketfront.config.problems import Loc, SourceKind, Tree
from bucketfront.config.secret_file import SecretFile
from bucketfront.config.section import Section
from bucketfront.config.settings import Settings
from bucketfront.config.tls_settings import CertificateSettings

_SECRET_PATHS: set[tuple[type[Section], str]] = {(BasicSettings, "file"), (CertificateSettings, "key")}


def exposed_files(settings: Settings, tree: Tree) -> Iterator[tuple[Loc, str]]:
    """Yield the place of each setting whose file other users may read, with a message that has the fix.

    The last one may be the configuration file itself, if a secret is written in it.
    """
    secrets = list(_secrets(settings, ()))
    for at, value in secrets:
        path = value.path if isinstance(value, SecretFile) else value
        if isinstance(path, Path) and (message := _exposed(path)) is not None:
            yield at, message
    place = tree.place(())
    if place is None or place.source.kind is not SourceKind.FILE:
        return
    inline = (text for _, value in secrets if isinstance(value, SecretStr) for text in _inline(value))
    if any(text in place.source.text for text in inline) and (message := _exposed(Path(place.source.name))) is not None:
        yield (), f"has secrets, and {message}"


def _secrets(value: Any, at: Loc) -> Iterator[tuple[Loc, SecretStr | Path]]:
    if isinstance(value, Section):
        for name in type(value).model_fields:
            found = getattr(value, name)
            if any(isinstance(value, kind) and name == key for kind, key in _SECRET_PATHS):
                yield (*at, name), found
            else:
                yield from _secrets(found, (*at, name))
    elif isinstance(value, SecretStr):
        yield at, value
    elif isinstance(value, (tuple, dict)):
        for part, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _secrets(below, (*at, part))


def _inline(secret: SecretStr) -> list[str]:
    """Return what must stay secret of a value that no file has. A hash of a token is no secret."""
    if isinstance(secret, SecretFile):
        return []
    return [line for line in token_lines(secret) if not line.startswith("sha256:")]


def _exposed(path: Path) -> str | None:
    """Return the message about a file that others may read. Returns None for one that only its owner may read.

    The group of a file that belongs to another user may be the only way for this process to read it.
    """
    try:
        found = path.stat()
    except OSError:
        return None  # the setting that needs the file reports it
    others, group = found.st_mode & stat.S_IROTH, found.st_mode & stat.S_IRGRP
    if not others and not (group and found.st_uid == os.geteuid()):
        return None
    who = "all users" if others else "its group"
    mode = f"{stat.S_IMODE(found.st_mode):04o}"
    return f"{who} of this machine may read it (mode {mode}): chmod 600 {shlex.quote(str(path))}"
