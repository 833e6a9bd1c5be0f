"""Purges by the admin port: what they select, and how many they count (I27)."""

import json
from typing import Any

import pytest
from proxy_under_test import S3, Proxy, StartProxy
from rows import each_row

from bucketfront.http.glob import MAX_GLOB_CHARS


async def purged(proxy: Proxy, **wanted: object) -> dict[str, Any]:
    response = await proxy.admin("POST", "/api/v1/purge", json.dumps(wanted).encode())
    assert response.status == 200, response.body
    found: dict[str, Any] = response.json()
    return found


async def fetched(proxy: Proxy, *paths: str) -> None:
    for path in paths:
        assert (await proxy.get(path)).status == 200
    await proxy.settled()
    await proxy.step()


@pytest.fixture
async def nested(start: StartProxy, s3: S3) -> Proxy:
    """`/` and `/same/` show the same bucket, `/media/` shows a folder of it, and `/media/films/` another bucket."""
    s3.client.create_bucket(Bucket=f"{s3.bucket}-films")
    for key in ("a.ts", "media/b.ts", "media/films/hidden.ts", "m/c.ts", "m/d.txt"):
        s3.put(key, b"data")
    S3(s3.client, f"{s3.bucket}-films").put("e.ts", b"film")
    return await start(
        mounts=[
            {"path": "/", "bucket": s3.bucket},
            {"path": "/same/", "bucket": s3.bucket},
            {"path": "/media/", "bucket": s3.bucket, "prefix": "m/"},
            {"path": "/media/films/", "bucket": f"{s3.bucket}-films"},
        ]
    )


SHOWN = ("/a.ts", "/same/media/films/hidden.ts", "/media/c.ts", "/media/d.txt", "/media/films/e.ts")


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ({"prefix": "/"}, 5),
        ({"prefix": "/media/"}, 4),  # the hidden one is below /media/ of the outer mount
        ({"prefix": "/media/films/"}, 2),
        ({"prefix": "/media/f"}, 2),
        ({"prefix": "/sam"}, 4),
        ({"prefix": "/same/m/"}, 2),
        ({"paths": ["/m/c.ts", "/same/m/c.ts", "/media/c.ts"]}, 1),
        ({"paths": ["/media/films/e.ts"], "prefix": "/media/films/"}, 2),
        ({"glob": "*.ts"}, 4),
        ({"glob": "/media/*"}, 2),
        ({"glob": "/media/**/*.ts"}, 3),
        ({"glob": "/media/films/?.ts"}, 1),
        ({"glob": "/s*e/m/*.txt"}, 1),
        ({"glob": "/none/**"}, 0),
        ({"all": True}, 5),
        ({"all": True, "glob": "*.ts", "prefix": "/", "paths": ["/a.ts"]}, 5),
    ],
)
@pytest.mark.parametrize("soft", [False, True])
async def test_what_each_selection_has(nested: Proxy, wanted: dict[str, Any], count: int, soft: bool) -> None:
    """A selection has what all mounts show there, also nested ones of other buckets, each object once.

    A dry run has the same objects, and its paths lead to them.
    """
    await fetched(nested, *SHOWN)
    dry = await purged(nested, **wanted, soft=soft, dry_run=True)
    assert (dry["purged"], len(dry["objects"]), dry["dry_run"]) == (count, count, True)
    assert await purged(nested, **wanted, soft=soft) == {"purged": count}
    nested.relay.reset()
    for path in (*(each["path"] for each in dry["objects"]), *SHOWN):
        assert (await nested.get(path)).status == 200
    assert len(nested.relay.seen) == count


@each_row(
    "wanted",
    [
        {"glob": ""},
        {"glob": "a\nb"},
        {"glob": "/\ud800"},
        {"glob": "x" * (MAX_GLOB_CHARS + 1)},
        {"glob": 5},
        {"tags": ["a,b"]},
        {"tags": [""]},
        {"tags": "a"},
        {"all": False},
        {"prefix": "/%E4"},
        {},
    ],
)
async def test_malformed(nested: Proxy, wanted: dict[str, Any]) -> None:
    """A malformed selection, or an empty one, gets a 400 with the reason, and nothing is purged."""
    await fetched(nested, "/a.ts")
    response = await nested.admin("POST", "/api/v1/purge", json.dumps(wanted).encode())
    assert response.status == 400
    assert response.json()["error"]
    assert (await nested.get("/a.ts")).cache_status.startswith("hit")


async def test_a_path_that_no_mount_serves(start: StartProxy, s3: S3) -> None:
    """A path, a prefix or a glob outside all mounts is a mistake, and gets a 400."""
    proxy = await start(mounts=[{"path": "/shown/", "bucket": s3.bucket}], uploads=None)
    for wanted in ({"paths": ["/x"]}, {"prefix": "/x"}, {"glob": "/x/**"}):
        response = await proxy.admin("POST", "/api/v1/purge", json.dumps(wanted).encode())
        assert response.status == 400, wanted
        assert "mount" in response.json()["error"]


async def test_what_serves_a_path_of_a_site(start: StartProxy, s3: S3) -> None:
    """A path of a site has its index page, names with its extensions, and precompressed siblings; not the fallback."""
    site = {"try_extensions": [".html"], "fallback": "app.html", "errors": {"404": "404.html"}}
    mount = {"path": "/", "bucket": s3.bucket, "site": site, "precompressed": ["br", "gzip"]}
    proxy = await start(mounts=[mount])
    for key in ("index.html", "docs/index.html", "docs/index.html.br", "about.html", "a.js", "a.js.gz", "app.html"):
        s3.put(key, b"data")
    for path, coding in (("/", ""), ("/docs/", ""), ("/docs/", "br"), ("/about", ""), ("/a.js", ""), ("/a.js", "gzip")):
        assert (await proxy.get(path, **{"Accept-Encoding": coding})).status == 200
    assert (await proxy.get("/route")).status == 200
    await proxy.settled()
    assert await purged(proxy, paths=["/docs/"]) == {"purged": 2}
    assert await purged(proxy, paths=["/about"]) == {"purged": 1}
    assert await purged(proxy, paths=["/a.js"]) == {"purged": 2}
    assert await purged(proxy, paths=["/"]) == {"purged": 1}
    assert await purged(proxy, paths=["/route"]) == {"purged": 0}
    assert await purged(proxy, paths=["/app.html"]) == {"purged": 1}


@pytest.mark.parametrize("soft", [False, True])
async def test_purge_by_tag(proxy: Proxy, s3: S3, soft: bool) -> None:
    """A purge by tag has the objects whose user metadata names one of the tags, and no others."""
    for key, tags in (("a", "red, blue"), ("b", "red"), ("c", "green"), ("d", "")):
        s3.put(key, b"data", **({"Metadata": {"cache-tag": tags}} if tags else {}))
        await fetched(proxy, f"/{key}")
    dry = await purged(proxy, tags=["blue", "red"], dry_run=True)
    assert sorted(each["path"] for each in dry["objects"]) == ["/a", "/b"]
    assert await purged(proxy, tags=["blue", "red", "none"], soft=soft) == {"purged": 2}
    assert await purged(proxy, tags=["green"], paths=["/c", "/d"], soft=soft) == {"purged": 2}
    proxy.relay.reset()
    await fetched(proxy, "/a", "/b", "/c", "/d")
    assert len(proxy.relay.seen) == 4


async def test_without_waiting(nested: Proxy) -> None:
    """With `wait: false` the response comes at once, and the purge goes on."""
    await fetched(nested, *SHOWN)
    response = await nested.admin("POST", "/api/v1/purge", json.dumps({"all": True, "wait": False}).encode())
    assert (response.status, response.json()) == (202, {"accepted": True})
    await nested.app.cache_assembly.purges.running.wait()
    assert nested.files == []
