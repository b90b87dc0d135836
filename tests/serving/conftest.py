"""The models folder and the one server that the tests over HTTP share."""

from __future__ import annotations

import httpx
import pytest

from tests.serving.factory import write_blurring_model, write_model, write_picture_model
from tests.serving.process import running_server


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Five folders: a model as it should be, one at a fixed size, one of one direction that does not say how sure
    it is, one between two kinds of pictures, and a broken one."""
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "tiny", style=True, examples=True)
    write_model(
        folder / "fixed",
        resize={"rule": "exact", "height": 32, "width": 48, "filter": "bicubic"},
        multiple_of=20,
        noise=False,
    )
    write_model(folder / "labels-only", directions=("to_label",), multiple_of=16, confidence=False)
    write_picture_model(folder / "views")
    (folder / "broken").mkdir()
    return folder


@pytest.fixture(scope="session")
def server(models, tmp_path_factory):
    """A real server with the page, and small limits."""
    limits = {
        "FEWPAIR_MAX_BYTES": "1048576",
        "FEWPAIR_MAX_PICTURES": "5",
        "FEWPAIR_MAX_PIXELS_IN_ALL": "100000",
        "FEWPAIR_JOBS": str(tmp_path_factory.mktemp("jobs")),
        "FEWPAIR_JOBS_MAX_PICTURES": "5",
    }
    with running_server(models, tmp_path_factory.mktemp("server"), "--default-model", "tiny", **limits) as running:
        yield running


@pytest.fixture(scope="module")
def http(server):
    """A client of the server, or of the one that a test file has in its place."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


OPERATOR = "the-operators-own"


@pytest.fixture(scope="session")
def operated_folder(tmp_path_factory):
    """`models` and, in `kept`, the jobs of the server with an operator."""
    folder = tmp_path_factory.mktemp("operated")
    for name in ("other", "tiny"):
        write_model(folder / "models" / name)
    write_blurring_model(folder / "models" / "blurring", side=24)
    return folder


@pytest.fixture(scope="session")
def operated(operated_folder):
    """A real server without the page that has an admin token and few, small jobs."""
    limits = {
        "FEWPAIR_JOBS": str(operated_folder / "kept"),
        "FEWPAIR_JOBS_QUEUE": "3",
        "FEWPAIR_JOBS_MAX_BYTES": "20000000",
        "FEWPAIR_JOBS_MAX_BYTES_IN_ALL": "40000000",
        "FEWPAIR_JOBS_MAX_PICTURES": "8",
        "FEWPAIR_JOBS_MAX_PIXELS": "6000000",
        "FEWPAIR_MAX_BYTES": "1048576",
        "FEWPAIR_MAX_PIXELS": "1000000",
        "FEWPAIR_ADMIN_TOKEN": OPERATOR,
    }
    options = ("--no-ui", "--default-model", "tiny")
    with running_server(operated_folder / "models", operated_folder / "server", *options, **limits) as running:
        yield running
