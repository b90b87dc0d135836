"""/studio/...: the project folder and its work over HTTP, for the page on the same machine alone."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Body, Depends, Header, Query
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from serving.errors import Refusal
from serving.imaging.decode import encode_grey, encode_photo
from serving.imaging.domain import ClassRow
from serving.imaging.labels import read_label
from serving.studio.project import Project, read_photo_at, superpixels
from serving.studio.work import Work, run_folders, runs_of

_WARM_UP = 0.375  # of the steps, as in the recipe
_EVALUATIONS = 8
Side = Annotated[int, Query(ge=16, le=2048, description="most pixels a side")]
Level = Annotated[int, Field(ge=0, le=255)]
Version = Annotated[str | None, Header()]


def _refuse_changed(read: str | None, now: str, what: str) -> None:
    """Raise Refusal where the version that was read is not the present one."""
    if read is not None and read != now:
        message = f"{what} was changed meanwhile, by another tab or program."
        raise Refusal(409, "changed_meanwhile", message, hint="Reload the page, which shows it as it is now.")


def refuse_other_pages(request: Request) -> None:
    """Raise Refusal for a request from a page of another origin."""
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    foreign = origin is not None and urlsplit(origin).netloc != host
    if foreign or request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        hint = "Open the studio at the address that `fewpair studio` prints."
        raise Refusal(403, "other_origin", f"a page of {origin or 'another site'} may not use the studio.", hint=hint)


def model_name(folder: Path) -> str:
    """The name of a project's model, as `fewpair export` accepts it: a letter first, at most 64 characters."""
    words = re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-")
    return (words if words[:1].isalpha() else f"model-{words}")[:64].rstrip("-")


class ClassEntry(BaseModel):
    """A row of the class table."""

    id: int = Field(ge=0, le=255)
    name: str = Field(min_length=1, max_length=80)
    color: tuple[Level, Level, Level]
    ignore: bool = False


def studio_router(project: Project, work: Work) -> APIRouter:
    """The endpoints of a project."""
    router = APIRouter(prefix="/studio", dependencies=[Depends(refuse_other_pages)], include_in_schema=False)

    @router.get("/project")
    def describe() -> dict[str, Any]:
        labelled, picks = project.labelled(), project.picks()
        photos = {
            name: {"name": name, "labelled": round(labelled.get(name, 0.0), 4), "kept": project.kept(path)}
            for name, path in project.photos().items()
        }
        picked = [row["name"] for row in picks["photos"]] if picks else []
        to_label = dict.fromkeys([*picked, *(name for name, photo in photos.items() if photo["labelled"])])
        return {
            "folder": str(project.root),
            "classes": [vars(row) for row in project.domain().classes],
            "table": project.version(),
            "photos": list(photos.values()),
            "to_label": [photos[name] for name in to_label],
            "picks": picks,
            "work": work.state(),
            "runs": runs_of(project.root),
        }

    @router.get("/map")
    def locate() -> dict[str, Any]:
        return project.map()

    @router.put("/classes")
    def save_classes(rows: list[ClassEntry], if_match: Version = None) -> None:
        work.refuse_training()
        with project.lock:
            _refuse_changed(if_match, project.version(), "the class table")
            project.save_classes([ClassRow(**vars(row)) for row in rows])

    @router.get("/photos/{name:path}")
    def photo(name: str, side: Side) -> Response:
        file = encode_photo(read_photo_at(project.photo(name), side), "jpeg")
        return Response(file, media_type="image/jpeg", headers={"Cache-Control": "no-cache"})

    @router.get("/superpixels/{name:path}")
    def segment(name: str, side: Side, count: Annotated[int, Query(ge=10, le=10_000)]) -> Response:
        return Response(superpixels(read_photo_at(project.photo(name), side), count), media_type="image/png")

    @router.get("/labels/{name:path}")
    def label(name: str, side: Side) -> Response:
        headers = {"ETag": project.version(name)}
        return Response(encode_grey(project.label(name, side)), media_type="image/png", headers=headers)

    @router.put("/labels/{name:path}")
    async def save_label(name: str, request: Request, if_match: Version = None) -> Response:
        content = await request.body()

        def save() -> Response:
            with project.lock:
                _refuse_changed(if_match, project.version(name), "this label map")
                ids = read_label(content, project.domain()).ids
                project.save_label(name, ids, before_erasing=work.refuse_training)
                return Response(status_code=204, headers={"ETag": project.version(name)})

        return await asyncio.to_thread(save)

    @router.put("/kept/{name:path}")
    def keep(name: str, kept: Annotated[bool, Body(embed=True)]) -> None:
        work.refuse_training()
        with project.lock:
            project.keep(name, kept=kept)

    @router.post("/picks")
    async def pick(count: Annotated[int, Body(embed=True, ge=1, le=10_000)]) -> None:
        """Pick so many photos beside those that are labelled: by the model, or else to cover the set."""
        count += sum(not project.kept(path) for path in project.labels().values())
        out = project.next_pairs_file()
        command = ["pairs", "--data", "folders", "--root", str(project.root), "--unlabelled", "--out", str(out)]
        model = project.root / "exported" / model_name(project.root)
        rule = ["--after", str(model)] if (model / "manifest.json").exists() else ["--rule", "kmeans-medoid"]
        command += [*rule, "--k", str(min(count, sum(not project.kept(path) for path in project.photos().values())))]
        work.begin("pick", [command], log=project.root / "runs" / "pick.log")

    @router.post("/train")
    async def train(steps: Annotated[int, Body(embed=True, ge=8, le=1_000_000)], request: Request) -> None:
        numbers = [int(path.name) for path in run_folders(project.root)]
        run = project.root / "runs" / str(max(numbers, default=0) + 1)
        command = ["train", "--root", str(project.root), "--out", str(run), "--steps", str(steps)]
        command += ["--config.warm-up", str(int(_WARM_UP * steps))]
        command += ["--evaluate-every", str(max(1, steps // _EVALUATIONS)), "--log-every", str(max(1, steps // 100))]
        _begin(command, run, request)

    @router.post("/resume")
    async def resume(request: Request) -> None:
        """Continue the newest run; one that is trained is evaluated and exported again."""
        folders = run_folders(project.root)
        if not folders:
            raise Refusal(409, "no_run", "there is no run to continue.", hint="Start one.")
        _begin(["train", "--resume", str(folders[-1])], folders[-1], request)

    @router.post("/stop")
    async def stop() -> None:
        await work.stop()

    @router.get("/runs/{run}/samples/{step}")
    def sample_grid(run: str, step: str) -> Response:
        for grid in (project.root / "runs").glob("*/samples/step-*.png"):
            if (grid.parts[-3], grid.stem) == (run, step):
                return FileResponse(grid)
        raise Refusal(404, "not_found", f"run {run[:40]} has no sample grid {step[:40]}.")

    def _begin(command: list[str], run: Path, request: Request) -> None:
        """Train, evaluate, export, and serve the model."""
        split = "val" if any(map(project.kept, project.labels().values())) else "train"
        name, out = model_name(project.root), project.root / "exported"
        export = ["export", str(run), "--name", name, "--out", str(out), "--force", "--overwrite"]
        commands = [command, ["evaluate", str(run), "--split", split], export]

        async def serve() -> None:
            if reason := (await request.app.state.reload()).broken.get(name):
                raise RuntimeError(f"the model was exported, but cannot be served: {reason}")

        work.begin("train", commands, log=run.with_suffix(".log"), after=serve)

    return router
