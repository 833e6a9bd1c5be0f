"""The time of a refusal shows no part of a secret, and no name of a user or key: by structure, and measured."""

import base64
import hmac
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from math import sqrt
from pathlib import Path
from random import Random

import bcrypt
import pytest
from pydantic import SecretStr

from bucketfront.admin.tokens import Token
from bucketfront.config.access_settings import BasicSettings, BearerSettings, SignedUrlSettings
from bucketfront.server.access import basic
from bucketfront.server.access.basic import BasicRule
from bucketfront.server.access.bearer import BearerRule
from bucketfront.server.access.rule import AccessRequest, Denial, Grant
from bucketfront.server.access.signed_url import Permission, SignedUrlRule, signed_url

SECRET = "0123456789abcdef0123456789abcdef"
OTHER = SECRET[::-1]
# Guesses from nothing right to all but the last character, and of other lengths.
GUESSES = ("x" + SECRET[1:], SECRET[:-1] + "x", SECRET[:-1], SECRET + "x", "x" * 1000, "x", OTHER[:-1] + "x")
NOW = 1_800_000_000.0
SAMPLES = 4000


def request(target: str = "/a", authorization: str | None = None) -> AccessRequest:
    path, _, query = target.partition("?")
    return AccessRequest("GET", path, query, {"authorization": authorization}.get, None, NOW)


def basic_of(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class Compared:
    """Counts the comparisons in constant time, and the lengths of what they compare."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lengths: list[tuple[int, int]] = []
        compare = hmac.compare_digest

        def counted(given: bytes, known: bytes) -> bool:
            self.lengths.append((len(given), len(known)))
            return compare(given, known)

        monkeypatch.setattr(hmac, "compare_digest", counted)

    def drain(self) -> list[tuple[int, int]]:
        found, self.lengths = self.lengths, []
        return found


async def test_bearer_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each guess is hashed, and its hash is compared with those of all tokens, as that of a right one is."""
    compared = Compared(monkeypatch)
    rule = BearerRule(BearerSettings(tokens=(SecretStr(SECRET), SecretStr(OTHER))))
    for right in (SECRET, OTHER):
        assert isinstance(await rule.examine(request(authorization=f"Bearer {right}")), Grant)
        assert compared.drain() == [(32, 32)] * 2
    for guess in GUESSES:
        assert isinstance(await rule.examine(request(authorization=f"Bearer {guess}")), Denial)
        assert compared.drain() == [(32, 32)] * 2


def test_the_admin_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guess of any length and form is hashed and compared once, as the right token is."""
    compared = Compared(monkeypatch)
    token = Token(SECRET)
    for authorization in (f"Bearer {SECRET}", *(f"Bearer {guess}" for guess in GUESSES), "", "Basic eA==", "\udcff"):
        token.judge(authorization)
        assert compared.drain() == [(32, 32)]


async def test_signed_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A known and an unknown key have one comparison each with a whole signature, for an expired URL as well."""
    compared = Compared(monkeypatch)
    rule = SignedUrlRule(SignedUrlSettings.model_validate({"keys": {"k1": SECRET}, "max_age": "1d"}))
    url = signed_url(Permission("GET", "/a", int(NOW) + 60, ""), "k1", SECRET)
    assert isinstance(await rule.examine(request(url)), Grant)
    (expected,) = compared.drain()
    changed = [
        url[:-1] + ("A" if url[-1] != "A" else "B"),
        url.replace("k1", "k2"),
        url.replace(str(int(NOW) + 60), "1"),
    ]
    for guess in changed:
        assert isinstance(await rule.examine(request(guess)), Denial)
        assert compared.drain() == [expected]


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    """Return a file of users whose hashes cost differently."""
    file = tmp_path / "htpasswd"
    costs = {"ann": 4, "bob": 5, "cid": 6, "dot": 7}
    hashes = {user: bcrypt.hashpw(b"right", bcrypt.gensalt(cost)).decode() for user, cost in costs.items()}
    file.write_text("".join(f"{user}:{hashed}\n" for user, hashed in hashes.items()))
    return file


async def test_passwords(password_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong password and an unknown user cost one verification each, and so does a right one at first."""
    verified: list[str] = []
    verify = basic.verify

    def counted(password: str, hashed: str) -> bool:
        verified.append(hashed)
        return verify(password, hashed)

    monkeypatch.setattr(basic, "verify", counted)
    rule = BasicRule(BasicSettings(file=password_file), time.monotonic)
    for number, (user, password) in enumerate(
        (("ann", "right"), ("ann", "wrong"), ("nobody", "right"), ("nobody", "wrong"), ("", ""), ("a" * 500, "x")), 1
    ):
        await rule.examine(request(authorization=basic_of(user, password)))
        assert len(verified) == number, (user, password)
    await rule.close()


async def test_unknown_users_have_the_costs_of_known_ones(password_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If users' hashes cost differently, an unknown one costs as any of them, and always the same."""
    verified: dict[str, set[str]] = {}
    user = ""

    def noted(password: str, hashed: str) -> bool:
        verified.setdefault(user, set()).add(hashed)
        return False

    monkeypatch.setattr(basic, "verify", noted)
    rule = BasicRule(BasicSettings(file=password_file), time.monotonic)
    for number in range(200):
        user = f"nobody-{number}"
        for password in ("a", "b"):
            await rule.examine(request(authorization=basic_of(user, password)))
    assert {len(hashes) for hashes in verified.values()} == {1}
    assert len(set.union(*verified.values())) == 4
    await rule.close()


def z_of(ones: list[float], others: list[float]) -> float:
    """Return how many standard deviations the rank sum of `ones` is from that of no difference (Mann-Whitney)."""
    ranked = sorted([(value, True) for value in ones] + [(value, False) for value in others])
    rank_sum = sum(rank for rank, (_, is_one) in enumerate(ranked, 1) if is_one)
    count, other = len(ones), len(others)
    u = rank_sum - count * (count + 1) / 2
    return (u - count * other / 2) / sqrt(count * other * (count + other + 1) / 12)


async def measured(cases: Mapping[str, Callable[[], Awaitable[object]]]) -> dict[str, list[float]]:
    """Return the seconds of each case, in a random order so that other load concerns all of them alike."""
    dice, taken = Random(1), {name: [0.0] * 0 for name in cases}
    order = [name for name in cases for _ in range(SAMPLES)]
    dice.shuffle(order)
    for name in order:
        began = time.perf_counter()
        await cases[name]()
        taken[name].append(time.perf_counter() - began)
    return taken


@pytest.mark.long
@pytest.mark.parametrize("kind", ["bearer token", "admin token", "signed URL"])
async def test_measured(kind: str, trial: Callable[..., None]) -> None:
    """Guesses that begin right take as long as those that begin wrong: recorded, and not asserted."""
    if kind == "signed URL":
        url_rule = SignedUrlRule(SignedUrlSettings.model_validate({"keys": {"k1": SECRET}, "max_age": "1d"}))
        url = signed_url(Permission("GET", "/a", int(NOW) + 60, ""), "k1", SECRET)
        at = url.index("bf_sig=") + len("bf_sig=")
        guesses = {"first": url[:at] + "!" + url[at + 1 :], "last": url[:-1] + "!"}

        async def judge(guess: str) -> object:
            return await url_rule.examine(request(guess))

    else:
        rule, token = BearerRule(BearerSettings(tokens=(SecretStr(SECRET),))), Token(SECRET)
        guesses = {"first": f"Bearer {GUESSES[0]}", "last": f"Bearer {GUESSES[1]}"}

        async def judge(guess: str) -> object:
            return token.judge(guess) if kind == "admin token" else await rule.examine(request(authorization=guess))

    guesses["again"] = "".join(list(guesses["first"]))  # an object of its own
    taken = await measured({name: lambda guess=guess: judge(guess) for name, guess in guesses.items()})  # type: ignore[misc]
    first, last = (statistics.median(taken[name]) * 1e6 for name in ("first", "last"))
    z, control = z_of(taken["first"], taken["last"]), z_of(taken["first"], taken["again"])
    seen = f"medians {first:.2f} and {last:.2f} µs, z = {z:+.1f}; of two equal guesses z = {control:+.1f}"
    trial("timing", f"{kind}: the first or the last character is wrong", 2 * SAMPLES, seen)
