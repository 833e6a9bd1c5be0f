"""How much of a limited resource one client may have, and who gets the next slot (I34)."""

import asyncio
import random

import pytest
from rows import each_row
from stopwatch import HANG_S

from bucketfront.errors import NoShare, ShareUsedUp, WholeUsedUp
from bucketfront.fair_share import (
    REPORT_INTERVAL_S,
    FairShares,
    Resource,
    Shares,
    UsedUp,
    acting_for,
    current_client,
)
from bucketfront.fair_slots import FairSlots, Wait


def test_no_client_gets_the_reserved_part() -> None:
    """A client beyond its share gets all but the last eighth. Another one gets that, up to the whole (I34)."""
    shares = Shares(64, 0.25)
    while shares.refusal("greedy") is None:
        shares.take("greedy")
    assert (shares.of("greedy"), shares.refusal("greedy")) == (56, UsedUp.SHARE)
    while shares.refusal("honest") is None:
        shares.take("honest")
    assert (shares.of("honest"), shares.refusal("honest")) == (8, UsedUp.WHOLE)
    assert shares.refusal(None) is UsedUp.WHOLE


def test_a_client_within_its_share_gets_the_last_units() -> None:
    """The reserved part is there for many clients, each of them within its share (I34)."""
    shares = Shares(64, 0.25)
    shares.take("greedy", 56)
    for number in range(8):
        assert shares.refusal(f"honest {number}") is None
        shares.take(f"honest {number}")
    assert shares.used == 64


@each_row("capacity", range(1, 10))
def test_small_numbers(capacity: int) -> None:
    """No client has the whole, however small it is, unless it is a single unit (I34)."""
    shares = Shares(capacity, 0.25)
    while shares.refusal("greedy") is None:
        shares.take("greedy")
    assert shares.used == max(1, capacity - 1)
    shares.give_back("greedy", shares.used)
    assert (shares.used, dict(shares.clients)) == (0, {})


def test_amounts() -> None:
    """A client is refused an amount that would not leave the reserved part to others, and gets a smaller one (I34)."""
    shares = Shares(1000, 0.25)
    shares.take("greedy", 800)
    assert shares.refusal("greedy", 76) is UsedUp.SHARE
    assert shares.refusal("greedy", 75) is None
    assert shares.refusal("honest", 200) is None
    assert shares.refusal("honest", 201) is UsedUp.WHOLE


def test_without_a_share() -> None:
    """Work that is no client's own may have the whole."""
    shares = Shares(8, 0.25)
    for _ in range(8):
        assert shares.refusal(None) is None
        shares.take(None)
    assert shares.refusal(None) is UsedUp.WHOLE


@each_row("seed", range(20))
def test_the_account_is_exact(seed: int) -> None:
    """After any order of takes and returns the sum is that of the clients, and at the end nothing is known of them."""
    chance = random.Random(seed)
    shares, held = Shares(20, 0.25), list[tuple[str | None, int]]()
    for _ in range(300):
        if held and chance.random() < 0.45:
            shares.give_back(*held.pop(chance.randrange(len(held))))
            continue
        client, count = chance.choice([None, "a", "b", "c"]), chance.randrange(1, 4)
        if shares.refusal(client, count) is None:
            shares.take(client, count)
            held.append((client, count))
        assert shares.used == sum(count for _, count in held) <= 20
        assert shares.of("a") == sum(count for client, count in held if client == "a")
    for one in held:
        shares.give_back(*one)
    assert (shares.used, dict(shares.clients)) == (0, {})


class Operator:
    """Reads the lines, and sets the clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.table = FairShares(
            {Resource.REQUESTS: Shares(8, 0.25), Resource.UPLOADS: Shares(1)}, lambda: self.now, self.lines.append
        )


def test_a_refusal_names_the_client_once_a_minute() -> None:
    """Refusals are counted by resource and reason. The log names the client, once a minute for each resource (I34)."""
    operator = Operator()
    places = [operator.table.take(Resource.REQUESTS, "192.0.2.1\n") for _ in range(7)]
    for _ in range(3):
        with pytest.raises(ShareUsedUp, match="its share of requests at once is used up") as refusal:
            operator.table.take(Resource.REQUESTS, "192.0.2.1\n")
        assert refusal.value.resource == "requests"
    assert operator.lines == [r"the client '192.0.2.1\n' is refused: its share of requests at once is used up"]
    operator.table.take(Resource.UPLOADS, "192.0.2.2")
    with pytest.raises(WholeUsedUp, match="there is no room for more uploads at once"):
        operator.table.take(Resource.UPLOADS, "192.0.2.3")
    assert len(operator.lines) == 2
    operator.now = REPORT_INTERVAL_S
    with pytest.raises(ShareUsedUp):
        operator.table.take(Resource.REQUESTS, "192.0.2.1\n")
    assert operator.lines[2].endswith("; 3 requests were refused since the last line of this kind")
    assert operator.table.refused[Resource.REQUESTS, UsedUp.SHARE] == 4
    assert operator.table.refused[Resource.UPLOADS, UsedUp.WHOLE] == 1
    assert sum(operator.table.refused.values()) == 5
    places[0].leave()
    places[0].leave()
    operator.table.take(Resource.REQUESTS, "192.0.2.1\n")
    with pytest.raises(NoShare):
        operator.table.take(Resource.REQUESTS, "192.0.2.1\n")


async def test_tasks_work_for_the_client_that_starts_them() -> None:
    """A task works for the client of the task that starts it, also after that one works for another client."""

    async def named() -> str | None:
        await asyncio.sleep(0)
        return current_client()

    with acting_for("a"):
        first = asyncio.create_task(named())
    with acting_for("b"):
        assert await first == "a"
        assert current_client() == "b"
    assert current_client() is None


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def wanting(slots: FairSlots, client: str | None, count: int) -> list[tuple[Wait, "asyncio.Task[None]"]]:
    waits = [Wait(client) for _ in range(count)]
    return [(wait, asyncio.create_task(slots.acquire(wait))) for wait in waits]


def granted(waits: list[tuple[Wait, "asyncio.Task[None]"]]) -> int:
    return sum(task.done() for _, task in waits)


async def end(*tasks: list[tuple[Wait, "asyncio.Task[None]"]]) -> None:
    pending = [task for some in tasks for _, task in some if not task.done()]
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)


async def test_a_long_queue_delays_no_other_client() -> None:
    """One client with a thousand wants has all but the reserved slots. Another one gets a slot at once (I34)."""
    slots = FairSlots(Shares(16, 0.25))
    greedy = wanting(slots, "greedy", 1000)
    await turns()
    assert granted(greedy) == 14
    for _ in range(10):
        honest = wanting(slots, "honest", 2)
        await turns()
        assert granted(honest) == 2
        slots.release("honest")
        slots.release("honest")
        await turns()
    assert granted(greedy) == 14
    await end(greedy)


async def test_free_slots_go_round() -> None:
    """If slots are short, those that come free go to each client in turn, whatever number each one wants (I34)."""
    slots = FairSlots(Shares(8, 0.5))
    background = wanting(slots, None, 8)
    await turns()
    assert granted(background) == 8
    many = wanting(slots, "many", 50)
    few = [wanting(slots, f"few {number}", 2) for number in range(3)]
    await turns()
    for _ in range(4):
        slots.release(None)
    await turns()
    assert [granted(many), *map(granted, few)] == [1, 1, 1, 1]
    for _ in range(4):
        slots.release(None)
    await turns()
    assert [granted(many), *map(granted, few)] == [2, 2, 2, 2]
    await end(many, *few)


async def test_who_waits_for_the_same_is_not_delayed() -> None:
    """A wait in a long queue becomes that of another client which has its share left, and of no other (I34)."""
    slots = FairSlots(Shares(16, 0.25))
    greedy = wanting(slots, "greedy", 100)
    await turns()
    last, task = greedy[-1]
    slots.hurry(last, "greedy")
    await turns()
    assert not task.done()
    slots.hurry(last, "honest")
    await turns()
    assert task.done()
    assert last.client == "honest"
    slots.release("honest")
    # A client beyond its share takes over nothing of another one.
    honest = wanting(slots, "honest", 3)
    await turns()
    assert granted(honest) == 2
    waiting = next(wait for wait, task in honest if not task.done())
    slots.hurry(waiting, "greedy")
    assert waiting.client == "honest"
    await end(greedy, honest)


@each_row("seed", range(30))
async def test_cancelling_loses_no_slot(seed: int) -> None:
    """After cancellations at any point all slots are free, and no client is remembered (I12)."""
    chance = random.Random(seed)
    slots = FairSlots(Shares(chance.choice([1, 2, 5, 9]), 0.3))

    async def use(wait: Wait) -> None:
        await slots.acquire(wait)
        try:
            assert slots.shares.used <= slots.shares.capacity
            await turns(chance.randrange(4))
        finally:
            slots.release(wait.client)

    waits: list[Wait] = []
    tasks: list[asyncio.Task[None]] = []
    for _ in range(200):
        waits.append(Wait(chance.choice([None, "a", "b", "c"])))
        tasks.append(asyncio.create_task(use(waits[-1])))
        if chance.random() < 0.4:
            chance.choice(tasks).cancel()
        if chance.random() < 0.3:
            slots.hurry(chance.choice(waits), chance.choice(["a", "d"]))
        await turns(chance.randrange(3))
    await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), HANG_S)
    assert [task for task in tasks if not task.cancelled() and task.exception()] == []
    assert (slots.shares.used, dict(slots.shares.clients), slots.waiting) == (0, {}, 0)
