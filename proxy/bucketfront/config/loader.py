"""Load `Settings` from `proxy.yaml`, the environment and options, and name every problem by its place.

- All problems are reported at once. A later stage does not report a value that an earlier one refused.
- The options of a command take precedence over the environment, that over the file, and the file over the defaults.
- No message holds a secret (docs/invariants.md#secrets-stay-in).
- Any bytes at all yield `Settings` or a `ConfigError`.
"""

import codecs
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from bucketfront.config.effective import EffectiveSetting, effective_settings
from bucketfront.config.environment import override, substitute, variables
from bucketfront.config.exposed_files import exposed_files
from bucketfront.config.fields import types_at
from bucketfront.config.problems import Loc, Place, Problem, Source, Tree, report
from bucketfront.config.secret_file import SecretFile
from bucketfront.config.settings import Settings
from bucketfront.config.suspicions import suspicions
from bucketfront.config.validation import validate
from bucketfront.config.yaml import YamlError, compose
from bucketfront.errors import ConfigError, NoMounts, UnusableSetting

MAX_FILE_BYTES = 1 << 20  # far more than all keys need: a larger file was named by mistake

_FILE = "file:"
_STAND_IN = "no-bucket-is-named"


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """Settings, and where each of them was written."""

    settings: Settings
    _tree: Tree = field(default_factory=Tree)

    @property
    def warnings(self) -> list[str]:
        """Return what is permitted and probably not meant, with its place."""
        found = (*suspicions(self.settings), *exposed_files(self.settings, self._tree))
        return [str(Problem(at, message, self._tree.place(at))) for at, message in found]

    @property
    def effective(self) -> list[EffectiveSetting]:
        """Return all settings in force without their secrets, each with its source."""
        return effective_settings(self.settings, self._tree)

    def explain(self, error: UnusableSetting) -> str:
        """Return the message of an error with the place of its setting, as `proxy.yaml:12:3 access_log.path: …`."""
        return str(Problem(error.at, str(error), self._tree.place(error.at)))


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Return the settings of the file at `path` (None: no file), with the variables of `environ` over them.

    Raises ConfigError, see `load_with_places`.
    """
    return load_with_places(path, environ).settings


def load_with_places(
    path: Path | None, environ: Mapping[str, str], options: Sequence[Source] = (), *, needs_mounts: bool = True
) -> LoadedConfig:
    """Return the settings as `load`, and remember their places for errors that show only later.

    `options` are those of a command. Without a file, `needs_mounts=False` lets the mounts be missing, for commands
    that need other settings only. Then a mount stands in that names no bucket of anybody.

    Raises ConfigError with all problems, one a line: `proxy.yaml:12:3 cache.max_szie: unknown key. Did you mean
    max_size?` for the file, `BUCKETFRONT_X__Y: …` for variables, `--x: …` for options. It is NoMounts if neither
    a file nor a variable nor an option names a mount.
    """
    tree = Tree()
    if path is not None:
        _load_file(Source(str(path), _read(path)), tree, environ)
    override(tree, variables(environ))
    override(tree, options)
    lacks_mounts = path is None and "mounts" not in tree.data
    if lacks_mounts and not needs_mounts:
        tree.data["mounts"] = [{"bucket": _STAND_IN}]
    _read_secrets(tree, tree.data, ())
    settings = validate(tree)
    if settings is None:
        text = report(tree.all_problems())
        raise NoMounts(text) if lacks_mounts and needs_mounts else ConfigError(text)
    return LoadedConfig(settings, tree)


def _load_file(source: Source, tree: Tree, environ: Mapping[str, str]) -> None:
    tree.values[()] = Place(source)
    try:
        data = compose(source, tree, fill=lambda text: substitute(text, environ))
    except YamlError as error:
        raise ConfigError(str(Problem((), error.message, error.place))) from None
    if isinstance(data, dict):
        tree.data = data
    elif data is not None and () not in tree.broken:
        tree.problem((), "must be a mapping of sections, such as 'mounts:'")


def _read(path: Path) -> str:
    try:
        octets = _head(path, MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {_reason(error)}") from None
    if len(octets) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: more than {MAX_FILE_BYTES} bytes: this is no configuration file")
    try:
        return octets.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        kind = ", but UTF-16: save it as UTF-8" if octets.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else ""
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}{kind}") from None


def _read_secrets(tree: Tree, container: Any, loc: Loc) -> None:
    """Replace every secret that reads `file:/path` by the content of that file."""
    items = container.items() if isinstance(container, dict) else enumerate(container)
    for part, value in list(items):
        below = (*loc, part)
        if isinstance(value, (dict, list)):
            _read_secrets(tree, value, below)
        elif isinstance(value, str) and value.startswith(_FILE) and SecretStr in types_at(below):
            try:
                container[part] = SecretFile.read(Path(value.removeprefix(_FILE)))
            except ValueError as error:
                container[part] = tree.break_value(below, str(error))


def _head(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or "not a usable path"
