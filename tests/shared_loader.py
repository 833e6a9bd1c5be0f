"""What all SDK sessions of a test process can share, because the tests make thousands of S3 clients."""

import copy
import functools
import inspect
from typing import Any

import botocore.session
from aiobotocore.client import AioClientCreator
from botocore import endpoint_provider, hooks
from botocore.hooks import EventAliaser, NodeList
from botocore.session import Session


def share_loader() -> None:
    """Let botocore build once what it would build for each session or client, and what no client changes.

    A loader lists the folders of 400 services and parses a megabyte of JSON. The rules of endpoints become objects, 120
    handlers are inspected and registered, and a class gets a hundred methods. Each client copies the handlers twice,
    and interprets the rules for its endpoint twice. All this is nearly all of the time to make an S3 client.
    """
    botocore.session.create_loader = functools.cache(botocore.session.create_loader)
    EventAliaser._alias_event_name = _with_one_memory(EventAliaser._alias_event_name)
    hooks._PrefixTrie.__copy__ = _copy_of_trie
    hooks._PrefixTrie.append_item = _on_own_nodes(hooks._PrefixTrie.append_item)
    hooks._PrefixTrie.remove_item = _on_own_nodes(hooks._PrefixTrie.remove_item)
    hooks.accepts_kwargs = _accepts_kwargs
    Session._register_builtin_handlers = _from_a_copy(Session._register_builtin_handlers)
    endpoint_provider.RuleSet = _once(endpoint_provider.RuleSet)
    AioClientCreator._create_client_class = _once_a_service(AioClientCreator._create_client_class)


def _with_one_memory(alias: Any) -> Any:
    """Return `alias`, which maps names of events, with one memory for all instances."""
    known: dict[str, str] = {}

    def alias_event_name(self: Any, name: str) -> str:
        if name not in known:
            known[name] = alias(self, name)
        return known[name]

    return alias_event_name


def _copy_of_trie(trie: Any) -> Any:
    """Return a copy of botocore's table of handlers. Both share all nodes, which a change therefore never touches."""
    copied = type(trie)()
    copied._root = trie._root
    return copied


def _on_own_nodes(change: Any) -> Any:
    """Return `change`, which adds a handler or removes one, with new nodes in the place of those on its path."""

    def changed(trie: Any, key: str, *arguments: Any, **options: Any) -> None:
        trie._root = node = _copy_of_node(trie._root)
        for part in key.split("."):
            child = node["children"].get(part)
            if child is None:
                break
            node["children"][part] = node = _copy_of_node(child)
        change(trie, key, *arguments, **options)

    return changed


def _copy_of_node(node: dict[str, Any]) -> dict[str, Any]:
    values = node["values"]
    return {
        "chunk": node["chunk"],
        "children": node["children"].copy(),
        "values": values and NodeList(*(handlers[:] for handlers in values)),
    }


def _accepts_kwargs(handler: Any) -> bool:
    """Return whether a handler takes any keywords. botocore asks for its whole signature."""
    code = getattr(getattr(handler, "__func__", handler), "__code__", None)
    if code is None:
        return inspect.getfullargspec(handler).varkw is not None
    return bool(code.co_flags & inspect.CO_VARKEYWORDS)


def _from_a_copy(register: Any) -> Any:
    """Return `register`, which fills a session's emitter, as a copy of the first emitter of that type."""
    filled: dict[type, Any] = {}

    def register_builtin_handlers(self: Any, events: Any) -> None:
        emitter = self._original_handler
        if type(emitter) not in filled:
            register(self, events)
            filled[type(emitter)] = copy.copy(emitter)
        emitter.__dict__.update(copy.copy(filled[type(emitter)]).__dict__, _lookup_cache={})

    return register_builtin_handlers


def _once(rule_set: Any) -> Any:
    """Return `rule_set`, a class, as a function that makes one instance for the rules that the loader has in memory."""
    made: dict[int, Any] = {}  # by the identity of the rules, which each instance here keeps alive
    rules_alive = []

    def rule_set_of(**data: Any) -> Any:
        key = id(data["rules"])
        if key not in made:
            rules_alive.append(data["rules"])
            made[key] = rule_set(**data)
            made[key].evaluate = _remembered(made[key].evaluate)
        return made[key]

    return rule_set_of


def _remembered(evaluate: Any) -> Any:
    """Return `evaluate`, which derives an endpoint from a few values, with a memory."""
    of_items = functools.lru_cache(maxsize=1000)(lambda items: evaluate(dict(items)))
    return lambda parameters: of_items(frozenset(parameters.items()))


def _once_a_service(create_class: Any) -> Any:
    made: dict[str, Any] = {}

    async def create_client_class(self: Any, service_name: str, service_model: Any) -> Any:
        if service_name not in made:
            made[service_name] = await create_class(self, service_name, service_model)
        return made[service_name]

    return create_client_class
