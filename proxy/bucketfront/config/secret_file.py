"""A secret that a file holds: `file:/path` in the configuration."""

from pathlib import Path
from typing import Self

from pydantic import SecretStr

MAX_SECRET_BYTES = 64 << 10  # far more than a token or key has


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
        shown = ascii(str(path))
        try:
            with path.open("rb") as file:
                octets = file.read(MAX_SECRET_BYTES + 1)
        except OSError as error:
            raise ValueError(f"the secret file {shown} cannot be read: {error.strerror}") from None
        if len(octets) > MAX_SECRET_BYTES:
            raise ValueError(f"the secret file {shown} has more than {MAX_SECRET_BYTES} bytes")
        try:
            secret = octets.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise ValueError(f"the secret file {shown} is not UTF-8") from None
        if not secret:
            raise ValueError(f"the secret file {shown} is empty")
        return cls(secret, path)


def current(secret: SecretStr) -> str:
    """Return the text of a secret. That of a file is read anew. Raises ValueError as `SecretFile.read`."""
    return (SecretFile.read(secret.path) if isinstance(secret, SecretFile) else secret).get_secret_value()
