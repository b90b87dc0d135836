"""The jobs over HTTP: POST and GET /v1/jobs, GET and DELETE /v1/jobs/{id}, GET /v1/jobs/{id}/result."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from serving import openapi
from serving.described import Error, ErrorBody
from serving.errors import Refusal
from serving.inside import Inside
from serving.jobs import OPTIONS, Jobs
from serving.jobstore import Told, disk_full, too_many_jobs
from serving.openapi_bodies import form_fields
from serving.tokens import token_matches

_ID = Path(description="As `POST /v1/jobs` gave it.", examples=["3q2-7wXyZkPqR0sTuVwXyZ12"])


class Failure(BaseModel):
    """A picture that was refused."""

    name: str
    error: ErrorBody


class Pictures(BaseModel):
    """How many pictures of the job are finished."""

    total: int
    done: int
    failed: int


class DoneTiles(BaseModel):
    """How far the picture is that is being worked on."""

    total: int
    done: int


class Job(BaseModel):
    """A job. Times are UTC."""

    id: str = Field(description="Whoever knows it may see, fetch and cancel the job.")
    operation: str
    state: str = Field(
        description="`queued`, `running`, `done`, `failed` or `cancelled`. `done` means that a picture at least was answered."
    )
    created: str
    started: str | None
    finished: str | None = None  # FastAPI drops nulls from examples, which are to keep to this schema
    expires: str | None = Field(default=None, description="When the job and its result are removed.")
    pictures: Pictures
    tiles: DoneTiles | None = Field(description="Null where the picture that is being worked on is run in one piece.")
    progress: float = Field(ge=0, le=1, description="Of pictures, and of tiles of the picture that is being worked on.")
    seconds_left: float | None = Field(description="By what was done so far. Null where nothing was.")
    before: int = Field(description="Jobs that are taken up earlier.")
    failures: list[Failure] = Field(description="The first 100; `index.json` of the result has them all.")
    error: ErrorBody | None = Field(default=None, description="Why the job failed.")
    result: str | None = Field(default=None, description="Where the ZIP of the answers is.")


class JobList(BaseModel):
    """Every job of the server."""

    jobs: list[Job]


_EXAMPLE = {
    "id": "3q2-7wXyZkPqR0sTuVwXyZ12",
    "operation": "segment",
    "state": "running",
    "created": "2026-01-31T12:00:00Z",
    "started": "2026-01-31T12:00:01Z",
    "finished": None,
    "expires": None,
    "pictures": {"total": 40, "done": 9, "failed": 1},
    "tiles": {"total": 130, "done": 65},
    "progress": 0.2625,
    "seconds_left": 84.5,
    "before": 0,
    "failures": [
        {
            "name": "notes.txt",
            "error": {
                "code": "not_an_image",
                "message": "the uploaded file is not an image that can be read.",
                "hint": "Send a PNG, JPEG, WebP, BMP, TIFF or GIF.",
            },
        }
    ],
    "error": None,
    "result": None,
}
_WORDS: dict[int, tuple[str, Refusal]] = {
    401: (
        "The request does not carry the admin token.",
        Refusal(401, "no_admin_token", "the list of jobs is for the admin token.", hint="Send it: curl -H 'Authorization: Bearer TOKEN'."),
    ),
    404: (
        "There is no such job, or the server takes none.",
        Refusal(404, "no_jobs", "this server takes no jobs.", hint="Have the operator name a folder for them in FEWPAIR_JOBS."),
    ),
    409: (
        "The job has not ended, or has no result.",
        Refusal(409, "not_finished", "the job is running.", hint="GET /v1/jobs/{id} tells more."),
    ),
    429: ("Too many jobs wait already.", too_many_jobs(100)),
    507: ("The disk is full, or the jobs keep as many bytes as they may.", disk_full()),
}


def build_jobs(inside: Inside) -> APIRouter:
    """The routes of the jobs."""
    router = APIRouter(tags=["jobs"])

    def jobs() -> Jobs:
        inside.need()
        if inside.jobs is None:
            raise _WORDS[404][1]
        return inside.jobs

    @router.post(
        "/v1/jobs",
        status_code=202,
        response_model=Job,
        responses={
            202: _shown("The job is queued; `Location` is where it is asked for.", _EXAMPLE),
            **_refusals(400, 404, 408, 413, 415, 429, 503, 507),
        },
        openapi_extra=_request(),
        summary="Translate many or very large pictures while nobody waits",
    )
    async def submit(request: Request) -> Response:
        """Takes pictures, or ZIPs of them, with the options of `/v1/segment` or `/v1/synthesize`, and answers at once. The job outlives the
        server, and runs when no request does."""
        told = await jobs().submit(request)
        return JSONResponse(_told(told, jobs()), status_code=202, headers={"Location": f"/v1/jobs/{told.id}"})

    @router.get(
        "/v1/jobs",
        response_model=JobList,
        dependencies=[Depends(openapi.ADMIN_TOKEN)],
        responses={200: _shown("Every job.", {"jobs": [_EXAMPLE]}), **_refusals(401, 404, 503)},
        summary="All jobs, for the operator",
    )
    async def listed(request: Request) -> Response:
        """Needs the admin token (FEWPAIR_ADMIN_TOKEN): ids are all that it takes to fetch a job."""
        here = jobs()
        if inside.admin_token is None or not token_matches(request.headers.get("authorization"), [inside.admin_token]):
            raise _WORDS[401][1]
        return JSONResponse({"jobs": [_told(told, here) for told in await here.all()]})

    @router.get(
        "/v1/jobs/{id}",
        response_model=Job,
        responses={200: _shown("The job.", _EXAMPLE), **_refusals(404, 503)},
        summary="How far a job is",
    )
    async def status(id: Annotated[str, _ID]) -> Response:
        """Its state, how many pictures and tiles are done, the time that is left, and the pictures that were refused."""
        return JSONResponse(_told(await jobs().find(id), jobs()))

    @router.get(
        "/v1/jobs/{id}/result",
        response_class=Response,
        responses={
            200: {"description": "A ZIP of the answers with an `index.json`.", "content": {"application/zip": openapi.BINARY}},
            **_refusals(404, 409, 503),
        },
        summary="The answers of a job",
    )
    async def result(id: Annotated[str, _ID]) -> Response:
        """A ZIP as `/v1/segment` and `/v1/synthesize` answer with to several pictures. `Range` is understood, so that a download can go
        on where it broke off."""
        return FileResponse(await jobs().result(id), media_type="application/zip", filename=f"fewpair-{id}.zip")

    @router.delete(
        "/v1/jobs/{id}",
        response_model=Job,
        responses={200: _shown("The job as it was left.", {**_EXAMPLE, "state": "cancelled"}), **_refusals(404, 503)},
        summary="Cancel or remove a job",
    )
    async def cancel(id: Annotated[str, _ID]) -> Response:
        """A job that runs stops before its next picture or tile. Its pictures and answers are removed, whether it had ended or not."""
        return JSONResponse(_told(await jobs().cancel(id), jobs()))

    return router


def _told(told: Told, jobs: Jobs) -> dict[str, Any]:
    finished = told.done + told.failed
    part = told.tiles_done / told.tiles if told.tiles else 0.0
    ended = told.state in ("done", "failed")
    return {
        "id": told.id,
        "operation": told.operation,
        "state": told.state,
        "created": _moment(told.created),
        "started": _moment(told.started),
        "finished": _moment(told.finished),
        "expires": _moment(jobs.expires(told)),
        "pictures": {"total": told.pictures, "done": told.done, "failed": told.failed},
        "tiles": {"total": told.tiles, "done": told.tiles_done} if told.tiles > 1 else None,
        "progress": round(min(1.0, (finished + part) / max(1, told.pictures)), 6),
        "seconds_left": None if told.seconds_left is None else round(told.seconds_left, 1),
        "before": told.before,
        "failures": [{"name": one.name, "error": one.error} for one in told.failures],
        "error": told.error,
        "result": f"/v1/jobs/{told.id}/result" if ended and told.done else None,
    }


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _shown(description: str, example: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"example": example}}}


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    told = openapi.errors(*(status for status in statuses if status not in _WORDS))
    for status in statuses:
        if status in _WORDS:
            words, refusal = _WORDS[status]
            told[status] = {"model": Error, **_shown(words, refusal.body())}
            if "Retry-After" in refusal.headers:
                told[status]["headers"] = openapi.RETRY_AFTER
    return told


def _request() -> dict[str, Any]:
    """A form with the options of both operations, or the options in the query."""
    files = {
        "type": "array",
        "minItems": 1,
        "items": {"type": "string", "format": "binary", "description": "A picture, or a ZIP of pictures."},
    }
    operation = {"type": "string", "enum": list(OPTIONS), "description": "Which of the two."}
    fields: dict[str, Any] = {}
    for name, options in OPTIONS.items():
        for field, schema in form_fields(options).items():
            if field in fields:
                fields[field] = schema
                continue
            # No `default`: generated clients send it, and the other operation has no such field.
            only = f" (`{name}` only{f'; {default!r} if absent' if (default := schema.get('default')) is not None else ''})"
            fields[field] = {key: told for key, told in schema.items() if key != "default"} | {"description": schema["description"] + only}
    fields.pop("answers")
    properties = {"image": files, "operation": operation, **fields}
    schema = {"type": "object", "required": ["image", "operation"], "properties": properties, "additionalProperties": False}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
