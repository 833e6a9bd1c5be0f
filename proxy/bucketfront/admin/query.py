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
        places = ((".".join(map(str, each["loc"])), each["msg"]) for each in error.errors())
        reasons = (f"{place}: {reason.removeprefix('Value error, ')}" for place, reason in places)
        raise Refused(400, "; ".join(reasons)) from error
