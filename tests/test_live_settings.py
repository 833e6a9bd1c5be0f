"""The tables of what a reload applies name every setting, and nothing else."""

from collections.abc import Iterator

from live_settings_page import PAGE, page
from pydantic import BaseModel
from rows import each_row

from bucketfront.config.fields import sections_at
from bucketfront.config.live_settings import LIVE, NEEDS_RESTART, changes, name_of, reason_for_restart
from bucketfront.config.problems import Loc
from bucketfront.config.settings import Settings

TREE = {"mounts": [{"path": "/", "bucket": "b"}]}


def classified() -> set[str]:
    return {name.removesuffix(".*") for name in LIVE} | set(NEEDS_RESTART)


def settings_below(at: Loc) -> Iterator[Loc]:
    """Yield all settings, down to the sections that a table names as a whole."""
    for model in sections_at(at):
        for name in model.model_fields:
            here = (*at, name)
            yield here
            if name_of(here) not in classified():
                yield from settings_below(here)


def test_each_setting_is_classified() -> None:
    """Each setting, or a section around it, is in a table, so that a new one is not live or dead by accident."""
    known = classified()
    unknown = [name_of(at) for at in settings_below(()) if not sections_at(at) and name_of(at) not in known]
    assert unknown == []


def test_the_tables_name_settings() -> None:
    """Each name of the tables is a setting or a section, so that a renamed one does not stay."""
    for name in sorted(classified()):
        at: Loc = ()
        for part in name.split("."):
            fields = {field for model in _models(at) for field in model.model_fields}
            assert part in fields, name
            at = (*at, part)


def _models(at: Loc) -> list[type[BaseModel]]:
    return sections_at(at) or sections_at((*at, 0))


@each_row(
    ("at", "is_live"),
    [
        (("server", "hosts"), True),
        (("server", "tls", "certificate"), True),
        (("server", "tls"), False),
        (("server", "listeners", 0, "tls", "key"), True),
        (("server", "listeners", 0, "plain"), False),
        (("server", "listeners"), False),
        (("mounts", 3, "site", "errors", 404), True),
        (("origin", "credentials", "access_key_id"), False),
        (("no", "such", "setting"), False),
    ],
)
def test_the_longest_name_counts(at: Loc, is_live: bool) -> None:
    """What is in a section follows the section, unless a table names it itself."""
    assert (reason_for_restart(at) is None) is is_live


def test_changes_name_the_smallest_setting() -> None:
    """A change is named with its place in lists and mappings, and a list of another length as a whole."""
    before = Settings.model_validate({**TREE, "access": {"lan": {"networks": ["10.0.0.0/8"]}}})
    after = Settings.model_validate(
        {"mounts": [{"path": "/", "bucket": "c"}], "access": {"home": {"networks": ["10.0.0.0/8"]}}}
    )
    assert changes(before, after) == [("access", "lan"), ("access", "home"), ("mounts", 0, "bucket")]
    longer = Settings.model_validate({"mounts": [*TREE["mounts"], {"path": "/b/", "bucket": "b"}]})
    assert changes(Settings.model_validate(TREE), longer) == [("mounts",)]
    assert changes(before, before) == []


def test_the_page_has_the_table() -> None:
    """docs/operations.md has the tables of the code."""
    text = PAGE.read_text()
    assert text == page(text), "run `make reference` and commit the page"
