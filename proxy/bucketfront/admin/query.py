"""The query parameters of requests to the admin port, as a model."""

from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from bucketfront.admin.refusal import Refused

M = TypeVar("M", bound=BaseModel)


def read_query(request: web.BaseRequest, model: type[M]) -> M:
    """Return the parameters as a `model`. Raises Refused for unknown or repeated ones, and values that do not fit."""
    query = request.rel_url.query
    if repeated := [name for name in dict.fromkeys(query) if len(query.getall(name)) > 1]:
        raise Refused(400, f"{repeated[0]} occurs more than once")
    try:
        return model.model_validate(dict(query))
    except ValidationError as error:
        places = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise Refused(400, places) from error
