"""Read the docstring below each field of a section, which is the text of its key for operators."""

import ast
import inspect
import textwrap
from itertools import pairwise

from pydantic import BaseModel

from bucketfront.config.section import Section


def texts_of(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstring below each field of a model, also of those that it inherits."""
    texts: dict[str, str] = {}
    for ancestor in (base for base in model.__mro__ if issubclass(base, Section)):
        tree = ast.parse(textwrap.dedent(inspect.getsource(ancestor))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for field, below in pairwise(tree.body):
            if not (isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr)):
                continue
            if isinstance(below.value, ast.Constant):
                texts.setdefault(ast.unparse(field.target), " ".join(str(below.value.value).split()))
    return texts
