"""The private members of aiohttp, asyncio and selectors: each exists, and two modules alone touch them."""

import ast
import functools
import importlib
import inspect
import pkgutil
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from aiohttp import web
from rows import each_row

import bucketfront
from bucketfront.server.http1 import aiohttp_private, tls_transport
from bucketfront.server.http1.aiohttp_private import PrivateMember

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="epoll")

BOTH = (aiohttp_private, tls_transport)
PRIVATE_MEMBERS = (*aiohttp_private.PRIVATE_MEMBERS, *tls_transport.PRIVATE_MEMBERS)
# Undocumented modules.
INTERNAL = {
    "aiohttp.helpers",
    "aiohttp.http_writer",
    "aiohttp.web_protocol",
    "aiohttp.base_protocol",
    "asyncio.sslproto",
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def own_names(owner: "type[Any]") -> frozenset[str]:
    """The private names that the source of one class reads, sets or defines on itself."""
    names = {name for name in vars(owner) if is_private(name)}  # with the names of `__slots__`
    definition = classes(owner.__module__).get(owner.__qualname__)  # None if it is compiled
    for node in ast.walk(definition) if definition is not None else ():
        if isinstance(node, ast.Attribute) and _is_itself(node.value):
            names.add(node.attr)
    return frozenset(filter(is_private, names))


@functools.cache
def classes(module: str) -> dict[str, ast.ClassDef]:
    """Return the definitions of a module's classes, by their qualified names."""
    try:
        found = tree(sys.modules[module])
    except (TypeError, OSError):
        return {}
    return dict(_classes_below(found, ""))


def _classes_below(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.ClassDef]]:
    """Yield the classes among the statements below a node, which are few beside its expressions."""
    for child in (*getattr(node, "body", ()), *getattr(node, "orelse", ())):
        if isinstance(child, ast.ClassDef):
            yield prefix + child.name, child
            yield from _classes_below(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _classes_below(child, f"{prefix}{child.name}.<locals>.")
        elif isinstance(child, ast.stmt):
            yield from _classes_below(child, prefix)


def _is_itself(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in {"self", "cls"}


_own_names_once = functools.cache(own_names)


def foreign_names(owner: "type[Any]") -> set[str]:
    """The private names of the bases of `owner` that belong to aiohttp, asyncio or selectors."""
    bases = [base for base in owner.__mro__ if base.__module__.partition(".")[0] in {"aiohttp", "asyncio", "selectors"}]
    return {name for base in bases for name in _own_names_once(base)} - {"_abc_impl"}


def has(member: PrivateMember) -> bool:
    if hasattr(member.owner, member.name):
        return True
    return inspect.isclass(member.owner) and member.name in foreign_names(member.owner)


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(bucketfront.__path__, "bucketfront."):
        if found.name not in {each.__name__ for each in BOTH} and not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


@functools.cache
def nodes(module: ModuleType) -> tuple[ast.AST, ...]:
    """Return all nodes of the source of one module."""
    return tuple(ast.walk(tree(module)))


@functools.cache
def tree(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


@each_row("member", PRIVATE_MEMBERS, ids=lambda member: member.name)
def test_each_exists(member: PrivateMember) -> None:
    assert has(member)
    assert member.reason


def test_a_missing_member_is_found() -> None:
    assert not has(PrivateMember(web.RequestHandler, "_no_such_member", ""))
    assert not has(PrivateMember(aiohttp_private, "_no_such_member", ""))


@pytest.mark.parametrize("module", BOTH)
def test_each_is_listed(module: ModuleType) -> None:
    """The module uses no private member that its table leaves out."""
    listed = {member.name for member in module.PRIVATE_MEMBERS}
    tree = ast.parse(inspect.getsource(module))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(filter(is_private, used)) <= listed | {"_SelectorTransport"}
    source = inspect.getsource(module)
    assert [name for name in listed if source.count(name) < 2] == []


def test_no_other_module_imports_one() -> None:
    found = []
    for module in modules():
        for node in nodes(module):
            if isinstance(node, ast.Import):
                origins = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
                origins = {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
            else:
                continue
            private = [name for name in origins if is_private(name.rpartition(".")[2])]
            foreign = [name for name in private if name.partition(".")[0] in {"aiohttp", "asyncio", "selectors"}]
            found += [(module.__name__, name) for name in [*foreign, *(origins & INTERNAL)]]
    assert found == []


def test_no_other_class_touches_one() -> None:
    """No class that derives from one of theirs reads, sets, overrides or shadows a private member of its bases.

    The client's side has a few, which its pool and its responses override.
    """
    found = {}
    for module in modules():
        for _, owner in inspect.getmembers(module, inspect.isclass):
            if owner.__module__ != module.__name__:
                continue
            if touched := own_names(owner) & foreign_names(owner):
                found[f"{module.__name__}.{owner.__name__}"] = sorted(touched)
    assert found == {
        "bucketfront.s3.connector.Connector": ["_factory", "_get", "_loop"],
        "bucketfront.s3.connector._Protocol": ["_buffer", "_payload", "_skip_payload"],
        "bucketfront.s3.sdk_response.SdkResponse": ["_wait_released"],
    }


def test_no_other_module_reaches_into_one() -> None:
    """Nor does any code reach into an object that it was given."""
    listed = {member.name for member in PRIVATE_MEMBERS if is_private(member.name)}
    found = [
        (module.__name__, node.attr)
        for module in modules()
        for node in nodes(module)
        if isinstance(node, ast.Attribute)
        and is_private(node.attr)
        and node.attr in listed
        and not _is_itself(node.value)
    ]
    assert found == []


@pytest.mark.parametrize("name", ["aiohttp", "aiobotocore"])
def test_versions_are_bounded(name: str) -> None:
    """An upgrade beyond the bound is a decision, because it may change what the proxy relies on."""
    project = Path(__file__).parents[2] / "pyproject.toml"
    dependencies = tomllib.loads(project.read_text())["project"]["dependencies"]
    (found,) = [line for line in dependencies if re.match(rf"{name}\b", line)]
    assert "<" in found
