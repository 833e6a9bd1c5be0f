"""A secret that a file holds: `file:/path` in the configuration."""

from pathlib import Path
from typing import Literal, Self

from pydantic import SecretStr

MAX_SECRET_BYTES = 64 << 10  # far more than a token or key has


def text_of(path: Path, shown: str, max_bytes: int, errors: Literal["strict", "replace"] = "strict") -> str:
    """Return the text of a file. Raises ValueError, with `shown` for the file and nothing of its content."""
    try:
        with path.open("rb") as file:
            octets = file.read(max_bytes + 1)
    except OSError as error:
        raise ValueError(f"{shown} cannot be read: {error.strerror}") from None
    if len(octets) > max_bytes:
        raise ValueError(f"{shown} has more than {max_bytes} bytes")
    try:
        return octets.decode(errors=errors)
    except UnicodeDecodeError:
        raise ValueError(f"{shown} is not UTF-8") from None


class SecretFile(SecretStr):
    """The secret that the file at `path` had when it was read. `current` reads it anew."""

    def __init__(self, secret_value: str, path: Path) -> None:
        super().__init__(secret_value)
        self.path = path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretStr) and self.get_secret_value() == other.get_secret_value()

    def __hash__(self) -> int:
        return super().__hash__()

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the text of the file, without the line break at its end.

        Raises ValueError with the fix. The message has the path and nothing of the content.
        """
        if not path.is_absolute():
            raise ValueError("a secret file needs its absolute path: file:/path")
        shown = f"the secret file {str(path)!a}"
        secret = text_of(path, shown, MAX_SECRET_BYTES).rstrip("\r\n")
        if not secret:
            raise ValueError(f"{shown} is empty")
        return cls(secret, path)


def current(secret: SecretStr) -> str:
    """Return the text of a secret. That of a file is read anew. Raises ValueError as `SecretFile.read`."""
    return (SecretFile.read(secret.path) if isinstance(secret, SecretFile) else secret).get_secret_value()
