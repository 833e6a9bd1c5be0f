"""The types of text that only the settings of listeners have: sockets and fronts.

They follow the rules of `checked_text`.
"""

import os
import re
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator

from bucketfront.config.access_settings import network
from bucketfront.config.listen_host import UNIX

MAX_SOCKET_PATH_BYTES = 107  # unix(7): 108 with the NUL at the end

_MODE = re.compile(r"0?[0-7]{3}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_SOCKET_NAME = re.compile(r"[\x21-\x39\x3b-\x7e]{1,255}")  # sd_listen_fds_with_names(3): no colon


def _front(text: str) -> str:
    return text if text == UNIX else network(text)


def _socket_path(path: str) -> str:
    if not path.startswith("/") or path.endswith("/") or "\0" in path or ".." in PurePosixPath(path).parts:
        raise ValueError("must be an absolute path of a socket")
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise ValueError(f"must have at most {MAX_SOCKET_PATH_BYTES} bytes, which is the kernel's limit: unix(7)")
    return path


def _socket_mode(mode: str) -> str:
    if not _MODE.fullmatch(mode):
        raise ValueError('must be an octal mode in quotes, for example "0660"')
    return mode


def _user_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("must be the name or the number of a user or group; put a number in quotes")
    return name


def _socket_name(name: str) -> str:
    if not _SOCKET_NAME.fullmatch(name):
        raise ValueError("must be a name as in FileDescriptorName=, without spaces and colons")
    return name


Front = Annotated[str, "addresses or networks, or `unix`", AfterValidator(_front)]
SocketPath = Annotated[str, "path", AfterValidator(_socket_path)]
SocketMode = Annotated[str, "octal mode", AfterValidator(_socket_mode)]
SocketName = Annotated[str, "name", AfterValidator(_socket_name)]
UserName = Annotated[str, "name or number", AfterValidator(_user_name)]
