"""`/api/v1/jobs`: the warm jobs of this process, what each has done, and its end."""

from collections.abc import Mapping
from typing import Any

from aiohttp import hdrs, web
from pydantic import BaseModel, ConfigDict

from bucketfront.admin.operation import FAILURE, Body, Media, Operation
from bucketfront.admin.refusal import Refused
from bucketfront.warm.job import Job, JobState
from bucketfront.warm.registry import JobRegistry, NoSuchJob


class JobFailure(BaseModel):
    """An object that was not filled, and the reason."""

    model_config = ConfigDict(extra="forbid")

    path: str
    reason: str


class JobReport(BaseModel):
    """What a job has done. Numbers of objects and bytes are those that it knows so far: a list may go on.

    `filled` objects were fetched, at least in part. `fresh` ones were there. `not_stored` ones are kept out of the
    cache by a rule or by their own fields. `outside` counts references of playlists that lead to no mount of this
    proxy, as to the host `outside_example`. `rate` is in bytes a second. `failures` has the first ones.
    """

    model_config = ConfigDict(extra="forbid")

    id: str
    state: JobState
    message: str
    objects_known: int
    objects_done: int
    bytes_known: int
    bytes_done: int
    list_is_complete: bool
    filled: int
    fresh: int
    not_stored: int
    failed: int
    failures: list[JobFailure]
    documents: int
    outside: int
    outside_example: str | None
    bytes_filled: int
    rate: float
    seconds: float
    seconds_left: float | None


class JobReports(BaseModel):
    """All jobs that are known, the oldest first."""

    model_config = ConfigDict(extra="forbid")

    jobs: list[JobReport]


OPERATIONS: Mapping[str, Operation] = {
    "/api/v1/jobs": Operation(hdrs.METH_GET, "The warm jobs", {200: (Body(Media.JSON, JobReports),)}),
    "/api/v1/jobs/{id}": Operation(
        hdrs.METH_GET, "What a job has done", {200: (Body(Media.JSON, JobReport),), 404: FAILURE}
    ),
    "/api/v1/jobs/{id}/cancel": Operation(
        hdrs.METH_POST, "End a job", {200: (Body(Media.JSON, JobReport),), 404: FAILURE}
    ),
}


class Jobs:
    """Shows jobs, and ends them."""

    def __init__(self, jobs: JobRegistry) -> None:
        self._jobs = jobs
        self.handlers = {
            "/api/v1/jobs": self._list,
            "/api/v1/jobs/{id}": self._show,
            "/api/v1/jobs/{id}/cancel": self._cancel,
        }

    async def _list(self, _: web.BaseRequest) -> web.Response:
        return web.json_response({"jobs": [report(job) for job in self._jobs.jobs]})

    async def _show(self, request: web.BaseRequest) -> web.Response:
        try:
            return web.json_response(report(self._jobs.find(_id(request))))
        except NoSuchJob as error:
            raise Refused(404, str(error)) from error

    async def _cancel(self, request: web.BaseRequest) -> web.Response:
        try:
            return web.json_response(report(await self._jobs.cancel(_id(request))))
        except NoSuchJob as error:
            raise Refused(404, str(error)) from error


def _id(request: web.BaseRequest) -> str:
    return request.rel_url.raw_path.split("/")[4]


def report(job: Job) -> dict[str, Any]:
    """Return what a job has done, as a JobReport."""
    progress, left = job.progress, job.seconds_left
    return {
        "id": job.id,
        "state": job.state.value,
        "message": job.message,
        "objects_known": progress.objects_known,
        "objects_done": progress.objects_done,
        "bytes_known": progress.bytes_known,
        "bytes_done": progress.bytes_filled + progress.bytes_fresh,
        "list_is_complete": job.is_list_complete,
        "filled": progress.filled,
        "fresh": progress.fresh,
        "not_stored": progress.not_stored,
        "failed": progress.failed,
        "failures": [{"path": one.path, "reason": one.reason} for one in job.failures],
        "documents": progress.documents,
        "outside": progress.outside,
        "outside_example": job.outside_example,
        "bytes_filled": progress.bytes_filled,
        "rate": round(job.rate, 1),
        "seconds": round(job.seconds, 3),
        "seconds_left": None if left is None else round(left, 1),
    }
