"""POST and GET /v1/jobs, GET and DELETE /v1/jobs/{id}, GET /v1/jobs/{id}/result."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from serving.api import openapi
from serving.api.auth import require_admin
from serving.api.requests import read_form, ready
from serving.errors import Refusal
from serving.inference.parameters import SegmentParameters, SynthesizeParameters
from serving.jobs.runner import Jobs
from serving.jobs.store import Job

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
Id = Annotated[str, Path(description="As `POST /v1/jobs` gave it.", examples=["3q2-7wXyZkPqR0sTuVwXyZ12"])]


class SegmentJob(SegmentParameters):
    """Photos to segment."""

    operation: Literal["segment"]


class SynthesizeJob(SynthesizeParameters):
    """Label maps to make photos from."""

    operation: Literal["synthesize"]


class JobList(BaseModel):
    """Every job of the server."""

    jobs: list[Job]


def jobs(request: Request) -> Jobs:
    """The jobs of this server; Refusal (404) where it takes none."""
    ready(request)
    found: Jobs | None = request.app.state.jobs
    if found is None:
        hint = "Have the operator name a folder for them in FEWPAIR_JOBS."
        raise Refusal(404, "no_jobs", "this server takes no jobs.", hint=hint)
    return found


async def submitted(request: Request, jobs: Jobs) -> Job:
    """Read and queue the job of a request. Raises Refusal where it is wrong, or there is no room for it."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        hint = "Send a form: curl -F operation=segment -F image=@photos.zip"
        raise Refusal(415, "not_multipart", "a job is sent as a multipart form.", hint=hint)
    form = read_form(request, max_pictures=jobs.settings.jobs_max_pictures)
    size = int(request.headers.get("content-length", jobs.settings.jobs_max_bytes))
    return await jobs.submit(form, size=size, query=request.query_params.multi_items())


Here = Annotated[Jobs, Depends(jobs)]


@router.post(
    "",
    status_code=202,
    responses=openapi.errors(400, 404, 408, 413, 415, 429, 503, 507),
    openapi_extra=openapi.form(SegmentJob, SynthesizeJob),
    summary="Translate many or very large pictures in the background",
)
async def submit(request: Request, response: Response, jobs: Here) -> Job:
    """Takes pictures, or ZIPs of them, with the parameters of `/v1/segment` or `/v1/synthesize`, and answers at once.
    The job outlives the server, and runs when no request does."""
    job = await submitted(request, jobs)
    response.headers["Location"] = f"{request.scope.get('root_path', '')}/v1/jobs/{job.id}"
    return job


@router.get(
    "",
    dependencies=[Depends(require_admin)],
    responses=openapi.errors(401, 404, 503),
    summary="All jobs, for the operator",
)
async def listed(jobs: Here) -> JobList:
    """Needs the admin token (FEWPAIR_ADMIN_TOKEN): anyone who knows an id can fetch the job."""
    return JobList(jobs=await jobs.all())


@router.get("/{id}", responses=openapi.errors(404, 503), summary="State and progress of a job")
async def find(id: Id, jobs: Here) -> Job:
    """Its state, how many pictures and tiles are done, the time that is left, and the pictures that were refused."""
    return await jobs.find(id)


@router.get(
    "/{id}/result",
    response_class=Response,
    responses={200: openapi.ZIP, **openapi.errors(404, 409, 503)},
    summary="The answers of a job",
)
async def result(id: Id, jobs: Here) -> Response:
    """A ZIP as `/v1/segment` and `/v1/synthesize` answer with to several pictures. `Range` is understood."""
    return FileResponse(await jobs.result(id), media_type="application/zip", filename=f"fewpair-{id}.zip")


@router.delete("/{id}", responses=openapi.errors(404, 503), summary="Cancel or remove a job")
async def cancel(id: Id, jobs: Here) -> Job:
    """A job that runs stops before its next picture or tile. Its pictures and answers are removed in any case."""
    return await jobs.cancel(id)
