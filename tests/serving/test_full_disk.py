"""A server whose temporary files have no room: a small file system of its own, which only root can make."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.serving.factory import write_model
from tests.serving.pictures import file_of, ramp
from tests.serving.process import running_server

ROOM = 24 * 2**20
LARGE = bytes(28 * 2**20)
FORM = {"files": {"image": ("large.png", LARGE)}}
FACES = {
    "/segment": FORM,
    "/synthesize": FORM,
    "/v1/segment": FORM,
    "/v1/synthesize": {"content": LARGE, "headers": {"Content-Type": "image/png"}},
    "/v2/models/tiny.to_label/infer": {"content": LARGE, "headers": {"Inference-Header-Content-Length": "99"}},
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    if sys.platform != "linux" or os.geteuid():
        pytest.skip("only root can make a small file system")
    folder = tmp_path_factory.mktemp("small")
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", folder], capture_output=True, check=False
    ).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="module")
def server(small, tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    write_model(models / "tiny")
    home = tmp_path_factory.mktemp("server")
    with running_server(models, home, "--no-ui", TMPDIR=str(small), BENTOML_HOME=str(small / "bentoml")) as running:
        yield running


def used(folder):
    told = os.statvfs(folder)
    return (told.f_blocks - told.f_bfree) * told.f_frsize


@pytest.mark.parametrize("path", FACES)
def test_what_does_not_fit_is_a_507_without_a_traceback_and_leaves_nothing_behind(http, server, small, path):
    before = used(small)
    answer = http.post(path, **FACES[path])
    assert answer.status_code == 507, answer.text
    assert "the server's disk is full." in answer.text
    assert used(small) <= before + 2**18
    assert "Traceback" not in server.log.read_text()


def test_what_needs_no_disk_is_answered_while_it_is_full_and_no_worker_ends(http, server, small):
    picture = file_of(ramp(8, 8))
    with (small / "filling").open("wb", buffering=0) as filling:
        for size in (2**16, 1):
            try:
                while filling.write(bytes(size)):
                    pass
            except OSError:
                continue
    try:
        assert http.get("/v1/nothing").status_code == 404
        assert http.post("/v1/segment", content=picture, headers={"Content-Type": "image/png"}).status_code == 200
        assert http.get("/metrics").text.count("fewpair_requests_total{") >= len(FACES)
        assert http.post("/v1/segment", files={"image": ("a.png", picture)}).status_code == 200
    finally:
        (small / "filling").unlink()
    assert len(re.findall("Service fewpair initialized", server.log.read_text())) == 1
