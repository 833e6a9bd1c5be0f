"""Random histories of three nodes: writes, kills, a bus that is cut off or flushed. Each read is compared with S3's."""

import random
from pathlib import Path

import pytest
from fake_origin import BLOCK, KEY, content
from fleet_harness import GRACE, Node, World

from bucketfront.fleet import fleet as fleet_module

STEPS = 80
SEEDS = 3


class History:
    """What S3 had, and since when it has something newer."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._versions: list[tuple[float, bytes]] = []

    def write(self) -> None:
        number = len(self._versions)
        data = self._world.origin.put(content(BLOCK + number), f'"{number}"')
        self._versions.append((self._world.clock(), data))

    def outdated_for(self, found: bytes) -> float:
        """Return for how many seconds S3 has had a newer version than the one found."""
        number = [data for _, data in self._versions].index(found)
        if number == len(self._versions) - 1:
            return 0.0
        return self._world.clock() - self._versions[number + 1][0]


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_no_node_serves_what_another_has_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """With the bus, each read returns the newest version. Without it, none that was replaced GRACE ago (I5, I7).

    A run of 3 seeds has about 100 reads.
    """
    for name in ("RETRY_PAUSE_S", "START_TIMEOUT_S", "MAX_WAIT_S", "PUBLISH_TIMEOUT_S"):
        monkeypatch.setattr(fleet_module, name, 0.01)
    chance = random.Random(seed)
    async with World(tmp_path) as world:
        history = History(world)
        history.write()
        nodes = {name: await world.node(name) for name in "abc"}
        for _ in range(STEPS):
            world.clock.advance(chance.choice([0.01, 0.5, 2]))
            await _step(world, history, nodes, chance)


async def _step(world: World, history: History, nodes: dict[str, Node], chance: random.Random) -> None:
    name = chance.choice("abc")
    node, server = nodes[name], world.server
    match chance.choices(["write", "cut", "mend", "kill", "flush", "read"], [25, 10, 15, 6, 4, 40])[0]:
        case "write":
            history.write()
            await node.cache.invalidate(KEY)
        case "cut":
            server.failure = "cut off"
        case "mend":
            server.failure = ""
        case "kill":
            await node.kill()
            nodes[name] = await world.node(name)
        case "flush" if not server.failure:
            server.flush()
        case _:
            assert history.outdated_for(await node.get()) <= (GRACE if server.failure else 0.0)
    if not server.failure:
        await world.settle()
