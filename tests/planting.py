"""Plant bugs in the running code, as wrong edits of its source, to see whether the tests fail.

An edit names a function and a piece of its source. It replaces the code of that function object, so modules that
imported it by name have the bug as well. Comments, line breaks and quotes do not count: the source is compared as
`ast.unparse` writes it.
"""

import ast
import importlib
import inspect
import textwrap
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

_SOURCE = "planted_source"  # an attribute of a function that has been edited


class NothingToPlant(Exception):
    """The function or the piece of its source does not exist, so the bug's description must be updated."""


@dataclass(frozen=True, slots=True)
class Edit:
    """In the function `target`, as in `bucketfront.keys:parse_target`, the one occurrence of `old` becomes `new`."""

    target: str
    old: str
    new: str


def plant(edit: Edit) -> None:
    """Apply the edits. Raises NothingToPlant."""
    function = _function(edit.target)
    # `inspect` reads the file, which does not contain an earlier edit.
    known = vars(function).get(_SOURCE)
    source = ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(function)))) if known is None else known
    if source.count(edit.old) != 1:
        raise NothingToPlant(f"{edit.target} holds {edit.old!r} {source.count(edit.old)} times, not once")
    changed = source.replace(edit.old, edit.new)
    function.__code__ = _compiled(changed, function)
    vars(function)[_SOURCE] = changed


def _function(target: str) -> FunctionType:
    module, _, path = target.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for name in path.split("."):
            found = inspect.getattr_static(found, name)
    except (ImportError, AttributeError) as error:
        raise NothingToPlant(f"there is no {target}: {error}") from error
    if isinstance(found, property):
        found = found.fget
    if isinstance(found, staticmethod | classmethod):
        found = found.__func__
    found = inspect.unwrap(found)  # the function behind a context manager
    if not isinstance(found, FunctionType):
        raise NothingToPlant(f"{target} is no function of ours")
    return found


def _compiled(source: str, function: FunctionType) -> CodeType:
    """Return the code of `source`, a changed `function`, for the same globals and the same closure."""
    names = function.__code__.co_freevars
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef)
    definition.decorator_list = []
    definition.name = "planted"  # the function's own name may be that of a module which it uses
    # Closure variables, and `__class__` for `super()`, become parameters of a function around it.
    around = ast.parse(f"def around({', '.join(names)}): pass")
    (outer,) = around.body
    assert isinstance(outer, ast.FunctionDef)
    outer.body = [definition]
    ast.copy_location(outer, definition)
    made = compile(ast.fix_missing_locations(around), inspect.getsourcefile(function) or "<planted>", "exec")
    inner = _only_code(_only_code(made))
    if inner.co_freevars != names:
        raise NothingToPlant(f"the change to {function.__qualname__} uses other names of the functions around it")
    code = function.__code__
    return inner.replace(co_firstlineno=code.co_firstlineno, co_name=code.co_name, co_qualname=code.co_qualname)


def _only_code(code: CodeType) -> CodeType:
    (inner,) = (const for const in code.co_consts if isinstance(const, CodeType))
    return inner
