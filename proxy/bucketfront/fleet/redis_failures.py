"""Why calls of the server of the bus fail, for operators: each cause that is known has its cure. No I/O here."""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

from redis import exceptions as of_client

from bucketfront.fleet.bus import BusError

P = ParamSpec("P")
T = TypeVar("T")

MAX_REASON_CHARS = 200  # of a text of the server
TOO_OLD: Final = "the server is older than Redis 7 or Valkey 7.2"
_NO_REDIS: Final = "what responds at bus.url is no Redis and no Valkey"
_NO_RESPONSE: Final = (
    "the server does not respond: check bus.url and the network, and whether its port has TLS (rediss://)"
)

_BY_TEXT = (
    # A client without a password learns from the reply to its first call, HELLO, that it needs one.
    ("HELLO must be called", "the server wants to authenticate its clients: see bus.username and bus.password"),
    ("WRONGTYPE", "another program has a key of this name, so choose another bus.prefix: {text}"),
)
_BY_TYPE: tuple[tuple[type[Exception], str], ...] = (
    (of_client.AuthenticationError, "the server does not authenticate us: see bus.username and bus.password ({text})"),
    (of_client.NoPermissionError, "bus.username lacks a right, and docs/fleet.md has the list: {text}"),
    (of_client.ReadOnlyError, "the server is a replica, which takes no writes: bus.url must lead to the primary"),
    (of_client.OutOfMemoryError, "the server has no memory left for entries (OOM): raise its maxmemory"),
    (of_client.BusyLoadingError, "the server still loads its data"),
    (of_client.MovedError, "the server is a node of a cluster: see docs/fleet.md for what is supported"),
    (of_client.InvalidResponse, _NO_REDIS),
    (of_client.TimeoutError, _NO_RESPONSE),
    (TimeoutError, _NO_RESPONSE),
    (of_client.ConnectionError, "{text}: check bus.url and the network"),
    (OSError, "{text}: check bus.url and the network"),
)
"""The first one that fits counts: some types are subclasses of later ones."""


def explaining(method: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Have a method raise BusError in place of what the client raises, and of what a reply of a wrong type leads to."""

    @wraps(method)
    async def explained(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(*args, **kwargs)
        except (of_client.RedisError, OSError) as error:
            raise BusError(reason(error)) from error
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            # Without its cause, because the trace of a reply with a thousand levels has as many.
            raise BusError(f"{_NO_REDIS} ({type(error).__name__})") from None

    return explained


def reason(error: Exception) -> str:
    """Return the reason and the cure. Replies to the calls of a bus have no secret in them."""
    text = str(error)[:MAX_REASON_CHARS].rstrip(".") or type(error).__name__
    by_text = (cure for part, cure in _BY_TEXT if part in text)
    by_type = (cure for kind, cure in _BY_TYPE if isinstance(error, kind))
    return next(by_text, next(by_type, "{text}")).replace("{text}", text)
