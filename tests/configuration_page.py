"""Write docs/configuration.md from the models of the settings: `make reference`.

The text of a key is the docstring below its field, so that the models are the one source.
"""

import inspect
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import yaml

from bucketfront.config.docstrings import texts_of
from bucketfront.config.fields import sections_at
from bucketfront.config.problems import Loc, variable_name
from bucketfront.config.settings import Settings

_ANY_NAME = "NAME"  # stands for a name that the operator chooses
_LINE_WIDTH = 120  # as in the sources, so that a change of the page reads well as a diff

_INTRODUCTION = """\
# Configuration

<!-- Made by `make reference` from the models in proxy/bucketfront/config/. Edit those, not this page. -->

bucketfront reads its settings once, at the start, from a YAML file, from the environment, and from options:

```sh
bucketfront serve -c proxy.yaml
```

The smallest file names one bucket. All other keys have defaults that suit a machine with a small disk:

```yaml
mounts:
  - bucket: my-bucket
```

`bucketfront serve --bucket my-bucket` and `BUCKETFRONT_MOUNTS__0__BUCKET=my-bucket` do the same without a file.
`bucketfront init` writes a file with comments.

`bucketfront check -c proxy.yaml` validates a file, and tries ports, files, disk and buckets.
[proxy.yaml](../proxy.yaml) shows every key in its place.

## How settings are read

**Errors.** A wrong file ends the start with status 2. The message names all problems at once, each with file, line,
column and a fix: `proxy.yaml:12:3 cache.max_szie: unknown key. Did you mean max_size?` It never shows a value,
because a value may be a secret.

**Precedence.** An option of the command (`--bucket`, `--endpoint-url`, `--region`, `--port`, `--cache-dir`) takes
precedence over the environment, the environment over the file, and the file over the default. `bucketfront config show
--sources` prints each setting in force with its source; it never prints a secret. Without `-c` and without
`BUCKETFRONT_CONFIG` the file is `proxy.yaml` in the working directory, and it may be missing. A file that is named must
exist.

**Editors.** [proxy.schema.json](proxy.schema.json) is the JSON Schema of the file, and `bucketfront config schema`
prints it. The comment `# yaml-language-server: $schema=…` in the first line of a file names it for editors, which then
complete the keys and mark mistakes.

**Environment variables** take precedence over the file. The name of a variable is `BUCKETFRONT_` and the path of the
key in capitals, with two underscores for each dot: `BUCKETFRONT_CACHE__MAX_SIZE=20GiB`. Items of lists have numbers:
`BUCKETFRONT_MOUNTS__0__BUCKET=media`. A whole list or section is written as in YAML:
`BUCKETFRONT_MOUNTS__0__METHODS='[GET, PUT]'`. The value `null` has its meaning for keys whose type
lists it. For a secret it is text.

**References.** `${VAR}` inside a value of the file is replaced by that variable. `$${` is a plain `${`. Write
`"${VAR}"`, in quotes, inside `{ }` and `[ ]`.

**Secrets** (`token`, `tokens`, `keys`, `access_key_id`, `secret_access_key`, `session_token`) may read
`file:/absolute/path`. The value
is then the content of that file, without the line break at its end.

**YAML.** Equal keys in one mapping, aliases (`*name`) and tags (`!name`) are errors. Numbers are decimal. Flags are
`true` and `false`; `no` is text.

| type | written as |
|---|---|
| size | `512` (bytes), `64KiB`, `8MiB`, `10GiB`, `5TiB`, or decimal `1KB`, `1MB`, `1GB`, `1TB` |
| duration | `250ms`, `90s`, `5m`, `1h`, `2d`, or `0`; another number needs its unit |
| percentage | `5%` |
| list | `[a, b]`, or one item a line after `-` |
| mapping | `{key: value}`, or one key a line |
| `null` | `null`, or nothing after the colon |

## Keys by section

A required key inside an optional mapping is required only if that mapping is given.

| section | keys |
|---|---|"""

_EXAMPLES = {
    "server": """\
server:
  host: 0.0.0.0
  tls: {certificate: /etc/bucketfront/chain.pem, key: /etc/bucketfront/key.pem}
""",
    "admin": """\
admin:
  host: 0.0.0.0
  token: file:/run/secrets/admin-token
""",
    "origin": """\
origin:
  endpoint_url: https://s3.example.com
  region: eu-central-1
  credentials: {access_key_id: "file:/run/secrets/key-id", secret_access_key: "file:/run/secrets/key"}
""",
    "access": """\
access:
  team: {bearer: {tokens: ["file:/run/secrets/tokens"]}}
  links: {signed_url: {keys: {k1: "file:/run/secrets/k1"}}}
  lan: {networks: [10.0.0.0/8]}
mounts:
  - {path: /, bucket: my-media, methods: [GET, HEAD, PUT], read: [lan, links], write: [team]}
""",
    "mounts": """\
mounts:
  - path: /
    bucket: my-site
    precompressed: [br, gzip]
    site: {try_extensions: [.html], errors: {404: 404.html}}
  - path: /videos/
    bucket: my-videos
    prefix: public/
    methods: [GET, HEAD, PUT, DELETE]
""",
    "uploads": """\
uploads:
  path: /upload
  mount: /
  max_size: 10GiB
""",
    "cache": """\
cache:
  dir: /var/cache/bucketfront
  max_size: 100GiB
  min_free: 10%
""",
    "freshness": """\
freshness:
  default_ttl: 1h
  rules:
    - match: "live/**/*.json"
      ttl: 2s
      stale_if_error: 1m
    - match: "private/**"
      cache: false
""",
    "cors": """\
cors:
  allow_origins: [https://app.example.com]
  allow_credentials: true
""",
    "access_log": """\
access_log:
  format: text
  path: /var/log/bucketfront/access.log
""",
    "log": """\
log:
  level: info
  format: json
""",
    "pricing": """\
pricing:
  currency: USD
  per_1000_gets: 0.0004
  per_1000_puts: 0.005
  per_gb_out: 0.09
""",
    "invalidation": """\
invalidation:
  sqs: {queue_url: "https://sqs.eu-central-1.amazonaws.com/123456789012/bucketfront"}
  webhook: {token: "file:/run/secrets/s3-events"}
""",
    "tracing": """\
tracing:
  otlp_endpoint: http://localhost:4318
""",
    "bus": """\
bus:
  url: rediss://bus.internal:6379/0
  password: file:/run/secrets/bus
""",
    "s3": """\
s3:
  port: 8082
  keys:
    - {id: app, secret: "file:/run/secrets/app", buckets: ["*"], write: true}
""",
    "warm_start": """\
warm_start:
  peer: http://cache-1.internal:8081
  token: file:/run/secrets/admin-token
  rate: 50MB
""",
}


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the configuration, as the page shows it. `default` is missing if the key is required."""

    loc: Loc
    kind: str
    default: str | None
    text: str
    examples: list[str]

    @property
    def path(self) -> str:
        """Return the path with a dot between keys and `[]` for any item of a list."""
        return ".".join(str(part) for part in self.loc).replace(".0", "[]")

    @property
    def variable(self) -> str:
        """Return the environment variable that sets the key."""
        return variable_name(self.loc)

    @property
    def anchor(self) -> str:
        return "".join(character for character in self.path.lower() if character not in ".[]")


def all_keys() -> list[Key]:
    """Return all keys below the sections, in the order of the models."""
    return [key for name in Settings.model_fields for key in _keys_below((name,))]


def _keys_below(loc: Loc) -> Iterator[Key]:
    """Yield the keys below `loc`, or below the items of a list or mapping there. Each precedes the keys below it."""
    for at in (loc, (*loc, 0), (*loc, _ANY_NAME)):
        for model in sections_at(at):
            texts = texts_of(model)
            defaults = model.model_construct().model_dump(mode="json")
            for name, field in model.model_fields.items():
                default = None if field.is_required() else _as_yaml(defaults[name])
                examples = [str(example) for example in field.examples or ()]
                yield Key((*at, name), _kind(field.annotation, field.metadata), default, texts[name], examples)
                yield from _keys_below((*at, name))


def page() -> str:
    """Return the whole of docs/configuration.md."""
    rows, sections = [], []
    for name in Settings.model_fields:
        below = list(_keys_below((name,)))
        rows.append(f"| [{name}](#{name}) | {', '.join(_link(key) for key in below)} |")
        (model,) = sections_at((name,)) or sections_at((name, 0)) or sections_at((name, _ANY_NAME))
        summary = inspect.cleandoc(model.__doc__ or "")
        parts = [f"## {name}", _paragraphs(summary), f"```yaml\n{_EXAMPLES[name]}```", *map(_entry, below)]
        sections.append("\n\n".join(parts) + "\n")
    return "\n".join([_INTRODUCTION, *rows, "", *sections])


def _link(key: Key) -> str:
    return f"[{key.path.partition('.')[2]}](#{key.anchor})"


def _entry(key: Key) -> str:
    default = "required" if key.default is None else f"default: `{key.default}`"
    facts = f"type: {key.kind} · {default} · variable: `{key.variable}`"
    examples = [f"Example: `{key.loc[-1]}: {example}`" for example in key.examples]
    return "\n\n".join([f"### {key.path}", facts, _paragraphs(key.text), *examples])


def _paragraphs(text: str) -> str:
    filled = [textwrap.fill(paragraph, _LINE_WIDTH, break_on_hyphens=False) for paragraph in text.split("\n\n")]
    return "\n\n".join(filled)


def _kind(annotation: Any, metadata: Any = ()) -> str:
    """Return a type in the operator's terms: the string in its `Annotated`, or its parts, and its bounds."""
    origin, parts = get_origin(annotation), get_args(annotation)
    named = next((item for item in metadata if isinstance(item, str)), None)
    if origin is Annotated and named is None:
        return _kind(parts[0], (*parts[1:], *metadata))
    if named is not None:
        kind = named
    elif origin in (Union, UnionType):
        kinds = [_kind(part) for part in parts]
        kind = " or ".join(kind for kind in dict.fromkeys(kinds) if not kinds[0].endswith(f" or {kind}"))
    elif origin is Literal:
        *others, last = (f"`{value}`" for value in parts)
        kind = f"{', '.join(others)} or {last}" if others else last
    elif origin is tuple:
        kind = f"list of {_kind(parts[0])}".replace("mapping", "mappings")
    elif origin is dict:
        kind = f"mapping of {_kind(parts[0])} to {_kind(parts[1])}"
    else:
        kind = {NoneType: "`null`", Path: "file path"}.get(annotation, "mapping")
    return kind + _bounds(metadata)


def _bounds(metadata: Any) -> str:
    low = next((item.ge for item in metadata if isinstance(item, annotated_types.Ge)), None)
    high = next((item.le for item in metadata if isinstance(item, annotated_types.Le)), None)
    if low is not None and high is not None:
        return f" from {low} to {high}"
    return " above 0" if any(isinstance(item, annotated_types.Gt) for item in metadata) else ""


def _as_yaml(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000)
    return str(text).removesuffix("\n").removesuffix("\n...").replace("'", '"')


if __name__ == "__main__":
    sys.stdout.write(page())
