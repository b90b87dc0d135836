"""How many files one request passes through, as a profiler sees it, and what stays of it in memory."""

import os
import subprocess
import sys

from tests.serving.factory import write_model
from tests.serving.process import ROOT, environment

PROGRAM = """
import asyncio, gc, io, sys, threading
import httpx, numpy as np
from PIL import Image

calls, recording = [], False

def note(frame, event, argument):
    file = frame.f_code.co_filename
    if recording and event == "call" and file.startswith(FOLDER):
        calls.append((file.removeprefix(FOLDER), frame.f_code.co_qualname))

async def ask():
    global recording
    from serving.service import service
    app, photo = service.to_asgi(), io.BytesIO()
    Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save(photo, "PNG")
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")
    async with app.router.lifespan_context(app), client:
        for recording in (False, True):  # the second request
            assert (await client.post("/segment", files={"image": photo.getvalue()})).status_code == 200
        recording = False
        print(sum(type(one).__name__ == "_Span" for one in gc.get_objects()), "spans kept")

threading.setprofile(note)
sys.setprofile(note)
asyncio.run(ask())
changes = sum(one[0] != other[0] for one, other in zip(calls, calls[1:]))
print(f"{len(set(calls))} functions, {len(calls)} calls, {changes} changes of file, in the files:")
print(*sorted({file for file, _ in calls}), sep=chr(10))
"""


def test_one_request_passes_at_most_twelve_files_and_leaves_no_span_behind(tmp_path):
    write_model(tmp_path / "models" / "tiny")
    variables = environment(tmp_path, FEWPAIR_MODELS=str(tmp_path / "models"), FEWPAIR_UI="off", FEWPAIR_DEVICE="cpu")
    program = f"FOLDER = {str(ROOT / 'serving') + os.sep!r}\n{PROGRAM}"
    ended = subprocess.run(
        [sys.executable, "-c", program], env=variables, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    figures, files = ended.stdout[ended.stdout.rindex(" functions, ") - 3 :].split(", in the files:\n")
    print(f"{len(files.split())} files, {figures}", files)
    assert len(files.split()) <= 12, files
    assert "\n0 spans kept\n" in f"\n{ended.stdout}"  # without tracing; BentoML's timer would hold them for minutes
