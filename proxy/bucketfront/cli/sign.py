"""`bucketfront sign`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bucketfront.cli.failure import WRONG_USE, fail
from bucketfront.cli.options import config_option, json_option, load

if TYPE_CHECKING:
    from bucketfront.config.access_settings import SignedUrlSettings
    from bucketfront.config.settings import Settings

_SIGNED_METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH")


@click.command()
@click.argument("path")
@click.option("--expires", default="1h", show_default=True, help="How long the URL holds, such as 10m or 7d.")
@click.option(
    "--method", type=click.Choice(_SIGNED_METHODS, case_sensitive=False), default="GET", show_default=True,
    help="What it permits. GET includes HEAD.",
)  # fmt: skip
@click.option("--network", default="", help="The only network of clients for which it holds, such as 192.0.2.0/24.")
@click.option("--cookie", is_flag=True, help="Print a cookie that permits reads of all that is below the folder PATH.")
@click.option("--rule", help="The rule of `access` whose keys sign. Needed if there are several for signed URLs.")
@click.option("--key", "key_id", help="The id of the key that signs. Without it the last one of the rule.")
@config_option
@json_option
def sign(
    path: str, *, expires: str, method: str, network: str, cookie: bool, rule: str | None, key_id: str | None,
    config: Path, as_json: bool,
) -> None:  # fmt: skip
    """Print PATH as a signed URL, which permits what the rules of its mount protect.

    PATH begins with a slash. What a URL cannot have is percent-encoded.
    """
    import time
    from ipaddress import ip_network
    from urllib.parse import quote

    from bucketfront.config.quantities import parse_duration
    from bucketfront.server.access import signed_url

    if not path.startswith("/") or "?" in path or "#" in path or (cookie and not path.endswith("/")):
        raise click.UsageError(f"PATH must begin with '/'{' and end with it' if cookie else ' and have no query'}")
    try:
        seconds = parse_duration(expires)
    except ValueError as error:
        raise click.UsageError(f"--expires {error}") from None
    try:
        network = str(ip_network(network)) if network else ""
    except ValueError as error:
        raise click.UsageError(f"--network: {error}") from None
    signing = _signing(load(config).settings, rule)
    keys = {name: secret.get_secret_value() for name, secret in signing.keys.items()}
    key_id = key_id or list(keys)[-1]
    if key_id not in keys:
        raise click.UsageError(f"the rule has no key {key_id}: {', '.join(keys)}")
    if seconds > signing.max_age:
        raise click.UsageError("--expires is more than signed_url.max_age")
    if cookie and not signing.cookies:
        raise click.UsageError("the rule takes no cookies: set signed_url.cookies")
    permission = signed_url.Permission(method, signed_url.url_path(path), int(time.time() + seconds), network)
    if cookie:
        name, signed = signed_url.COOKIE, signed_url.signed_cookie(permission, key_id, keys[key_id])
        text = f"{name}={signed}; Path={quote(path, safe='/%')}; Max-Age={int(seconds)}; Secure; HttpOnly; SameSite=Lax"
    else:
        text = signed = signed_url.signed_url(permission, key_id, keys[key_id])
    click.echo(json.dumps({"signed": signed, "expires": permission.expires}) if as_json else text)


def _signing(settings: "Settings", name: str | None) -> "SignedUrlSettings":
    """Return the settings of the named rule, or of the only one for signed URLs."""
    rules = {rule: found.signed_url for rule, found in settings.access.items() if found.signed_url is not None}
    if name is None and len(rules) > 1:
        raise click.UsageError(f"several rules sign URLs; choose one with --rule: {', '.join(rules)}")
    found = next(iter(rules.values()), None) if name is None else rules.get(name)
    if found is None:
        fail("no rule of access has signed_url" if name is None else f"no rule {name} has signed_url", WRONG_USE)
    return found
