"""The command line. Heavy imports stay inside the commands, so that `--help` takes less than 150 ms."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from bucketfront import __version__

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from bucketfront.app import App
    from bucketfront.checks import CheckResult
    from bucketfront.config.access_settings import SignedUrlSettings
    from bucketfront.config.loader import LoadedConfig
    from bucketfront.config.settings import Settings

FAILED, WRONG_USE = 1, 2
STOP_TIMEOUT_S = 45.0  # for a stop, of which running requests have 25; then the process ends like after kill -9
DEFAULT_CONFIG = Path("proxy.yaml")

_config = click.option(
    "-c", "--config", type=click.Path(dir_okay=False, path_type=Path), default=DEFAULT_CONFIG, show_default=True,
    envvar="BUCKETFRONT_CONFIG", show_envvar=True, help="The configuration file.",
)  # fmt: skip
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


_SIGNED_METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bucketfront")
def main() -> None:
    """bucketfront: a caching reverse proxy for S3.

    Exit status: 0 fine, 1 failed, 2 wrong use or configuration.
    """


@main.command()
@_config
@click.option("-v", "--verbose", is_flag=True, help="Log what the cache does, to standard error.")
def serve(config: Path, *, verbose: bool) -> None:
    """Run the proxy until SIGINT or SIGTERM. SIGUSR1 reopens the access log, SIGHUP reads the certificates again."""
    _block_signals()
    import asyncio
    import logging

    loaded = _load(config)
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for text in loaded.warnings:
        logging.getLogger("bucketfront").warning("%s", text)
    # aiobotocore announces the credentials' source, werkzeug each request.
    for name in ("botocore", "aiobotocore", "werkzeug"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from bucketfront.errors import CannotListen, ProxyError, UnusableSetting
    from bucketfront.server.http1.event_loop import new_event_loop

    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_serve(loaded.settings))
    except CannotListen as error:
        _fail(loaded.explain(error))
    except UnusableSetting as error:
        _fail(loaded.explain(error), WRONG_USE)
    except ProxyError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"cannot start: {error}")


def _block_signals() -> None:
    """Block SIGHUP, SIGUSR1 and SIGUSR2 in this thread, and in the threads and processes that it starts.

    A blocked signal ends no process, neither during the start and the stop nor in between. `_take_signals` takes them.
    """
    import signal

    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2))


def _take_signals(reopen: "Callable[[], None]", reload: "Callable[[], None]") -> None:
    """Take the signals that `_block_signals` blocks, for as long as the process runs.

    SIGUSR1 calls `reopen`, and SIGHUP `reload`.

    Call this in a thread, so that neither a flood of signals nor a stuck standard error holds the event loop.
    """
    import logging
    import signal

    log = logging.getLogger("bucketfront")
    while True:
        number = signal.sigwait((signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2))
        if number == signal.SIGUSR1:
            log.info("SIGUSR1: the access log is reopened")
            reopen()
        elif number == signal.SIGHUP:
            log.warning("SIGHUP: the certificates are read again; another configuration needs a restart")
            reload()
        else:
            log.warning("SIGUSR2 has no meaning here, and nothing has changed")


async def _serve(settings: "Settings") -> None:
    import asyncio
    import contextlib
    import os
    import signal
    import threading

    from bucketfront.app import Signals
    from bucketfront.app import serve as run
    from bucketfront.server.http1.passed_sockets import PassedSockets

    passed = PassedSockets.take(os.environ, os.getpid())
    loop = asyncio.get_running_loop()
    signals = Signals()
    overdue = threading.Timer(STOP_TIMEOUT_S, _end)
    overdue.daemon = True

    def begin_to_stop() -> None:
        if not signals.stop.is_set():
            signals.stop.set()
            overdue.start()

    def set_in_loop(event: asyncio.Event) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(event.set)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, begin_to_stop)
    handlers = (lambda: set_in_loop(signals.reopen)), (lambda: set_in_loop(signals.reload))
    threading.Thread(target=_take_signals, args=handlers, name="signals", daemon=True).start()
    await run(settings, _announce, signals, passed)


def _end() -> None:
    """End the process at once, because nothing else ends a thread that waits for a disk.

    The next start copes with that (docs/invariants.md#crash-only).
    """
    import os

    click.echo(f"the stop took longer than {STOP_TIMEOUT_S:g} s: ended as by kill -9", err=True)
    os._exit(FAILED)


def _announce(app: "App") -> None:
    """Print the addresses and examples to standard error, because standard output may be the access log."""
    mount = app.settings.mounts[0]
    unix = app.address.removeprefix("unix:")
    url = f"{app.address if unix == app.address else f'--unix-socket {unix} http://localhost'}{mount.path}"
    lines = [
        f"bucketfront {__version__}",
        *(f"  clients  {description}" for description in app.listener.descriptions),
        *(f"  admin    {description}" for description in app.admin.descriptions),
    ]
    if app.embedded is not None:
        lines += [
            f"  origin   embedded S3, in memory, at {app.embedded.endpoint_url}; seeded from examples/media",
            "try",
            f"  curl -I {url}sample.mp4",
            f"  curl -r 0-99 -o /dev/null -D - {url}sample.mp4",
            f"  curl -T README.md {url}hello.md",
        ]
        lines += [f"and in a browser {url}index.html"] if app.address.startswith("http") else []
    else:
        lines.append(f"  origin   {app.origin.endpoint}")
    public = [mount.path for mount in app.settings.mounts if mount.is_public]
    if public and not app.settings.server.is_local:
        lines.append(f"  public   all clients may read {', '.join(public)}")
    click.echo("\n".join(lines), err=True)


@main.command()
@_config
@_json
def check(config: Path, *, as_json: bool) -> None:
    """Try all that `serve` takes: configuration, files, ports, disk, origin, buckets. Prints one line for each.

    It leaves nothing behind. Exit status 1 if a check failed, also one of a file or folder for which `serve` ends with
    2. Exit status 2 if the configuration itself is invalid. A warning is no failure.
    """
    import asyncio
    import logging

    loaded = _load(config, as_json=as_json)
    # The results have the reason why requests fail. Only an object that is left behind is reported by its own warning.
    for name in ("botocore", "aiobotocore", "bucketfront"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("bucketfront.s3.upload").setLevel(logging.WARNING)
    from bucketfront.checks import run_checks

    results = asyncio.run(run_checks(loaded.settings, loaded.explain, loaded.warnings, config))
    if as_json:
        click.echo(json.dumps([_as_dict(result) for result in results]))
    else:
        for result in results:
            click.echo(f"{_VERDICTS[result.verdict.value]} {result.title}: {result.message}")
    if not all(result.is_fine for result in results):
        sys.exit(FAILED)


_VERDICTS = {"fine": "ok  ", "warning": "WARN", "failed": "FAIL"}


def _as_dict(result: "CheckResult") -> dict[str, object]:
    return {
        "subject": result.subject,
        "name": result.name,
        "ok": result.is_fine,
        "verdict": result.verdict.value,
        "message": result.message,
    }


@main.command()
@click.argument("paths", nargs=-1)
@click.option("--prefix", help="Purge all below this path.")
@click.option("--soft", is_flag=True, help="Mark stale instead of removing: the next request revalidates.")
@_config
@_json
def purge(paths: tuple[str, ...], prefix: str | None, config: Path, *, soft: bool, as_json: bool) -> None:
    """Remove PATHS from the cache of the running proxy. Prints how many objects it removed."""
    if not paths and prefix is None:
        raise click.UsageError("name PATHS or --prefix")
    body: dict[str, Any] = {"paths": paths, "soft": soft}
    if prefix is not None:
        body["prefix"] = prefix
    response = _call_admin(_load(config).settings, "POST", "/api/v1/purge", body)
    click.echo(json.dumps(response) if as_json else f"{response['purged']} purged")


@main.command()
@_config
@_json
def stats(config: Path, *, as_json: bool) -> None:
    """Print the counters of the running proxy."""
    response = _call_admin(_load(config).settings, "GET", "/api/v1/stats")
    if as_json:
        click.echo(json.dumps(response))
        return
    endings = response.pop("endings")
    for name, value in {
        **response,
        **{f"flights {ending}": count for ending, count in endings.items()},
    }.items():
        click.echo(f"{name.replace('_', ' '):<20} {value}")


@main.command()
@click.option("--repair", is_flag=True, help="Repair the damage. The proxy must not run meanwhile.")
@_config
@_json
def verify(config: Path, *, repair: bool, as_json: bool) -> None:
    """Compare the cache's index with its files, block by block. Exit status 1 if damage remains."""
    from bucketfront.cache.storage.verification import verify as run
    from bucketfront.errors import StoreError

    settings = _load(config).settings.cache
    try:
        with click.progressbar(length=1, label="reading", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:

            def progress(done: int, count: int) -> None:
                bar.length = max(1, count, done)
                bar.update(done - bar.pos)

            report = run(settings.dir, settings.block_size, repair=repair, progress=progress)
    except StoreError as error:
        _fail(str(error))
    if as_json:
        click.echo(json.dumps(asdict(report)))
    else:
        for finding in report.findings:
            blocks = f": blocks {', '.join(map(str, finding.blocks))}" if finding.blocks else ""
            click.echo(f"{finding.damage:<8} {finding.where}{blocks}")
        state = "repaired" if report.is_repaired else "found" if report.findings else "nothing found"
        count = f"{len(report.findings)} " if report.findings else ""
        click.echo(f"{report.entries} entries, {report.blocks} blocks read: {count}{state}")
    if report.findings and not report.is_repaired:
        sys.exit(FAILED)


@main.command()
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
@_config
@_json
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
    signing = _signing(_load(config).settings, rule)
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
        _fail("no rule of access has signed_url" if name is None else f"no rule {name} has signed_url", WRONG_USE)
    return found


def _load(path: Path, *, as_json: bool = False) -> "LoadedConfig":
    """Return the configuration, or end with its problems. With `as_json` they are printed as the results of `check`."""
    import os

    from bucketfront.config.loader import load_with_places
    from bucketfront.errors import ConfigError

    try:
        loaded = load_with_places(path, os.environ)
    except ConfigError as error:
        if as_json:
            from bucketfront.checks.result import failed

            lines = str(error).splitlines()
            click.echo(json.dumps([_as_dict(failed("configuration", line, str(path))) for line in lines]))
            sys.exit(WRONG_USE)
        _fail(str(error), WRONG_USE)
    else:
        return loaded


def _call_admin(settings: "Settings", method: str, path: str, body: object = None) -> dict[str, Any]:
    """Send one request to the admin port of the proxy that runs with these settings."""
    import urllib.error
    import urllib.request

    from bucketfront.config.listen_host import in_url, reachable

    admin = settings.admin
    scheme = "http" if admin.tls is None else "https"
    url = f"{scheme}://{in_url(reachable(admin.host), admin.port)}{path}"
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, method=method, data=content)  # noqa: S310 - http or https
    request.add_header("Content-Type", "application/json")
    if admin.token is not None:
        request.add_header("Authorization", f"Bearer {admin.token.get_secret_value()}")
    try:
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if admin.tls is not None:
            handlers.append(urllib.request.HTTPSHandler(context=_trusting(admin.tls.certificate)))
        opener = urllib.request.build_opener(*handlers)
        with opener.open(request, timeout=30) as response:
            found: dict[str, Any] = json.load(response)
            return found
    except urllib.error.HTTPError as error:
        _fail(f"{url} answered {error.code}: {error.read(500).decode(errors='replace').strip()}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        _fail(f"no answer from {url}: {reason}. Is the proxy running with this configuration?")


def _trusting(certificate: Path) -> "ssl.SSLContext":
    """Return a client's context that trusts one certificate, whatever its names. Raises OSError."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cafile=certificate)
    return context


def _fail(message: str, status: int = FAILED) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
