"""The long-running checks of benchmarks/soak, for a few seconds each on tiny models."""

import asyncio
import contextlib
import json
import re
import socket
import threading

import pytest

from benchmarks.soak.__main__ import main
from benchmarks.soak.corpus import KINDS, upload
from benchmarks.soak.exchange import Answer, send
from benchmarks.soak.record import percentile, slope
from benchmarks.soak.requests import form
from benchmarks.soak.server import Metrics, mean_batch, stage_means
from benchmarks.soak.uploads import fault
from tests.serving.factory import CLASSES, write_model
from tests.serving.pictures import file_of, noise, ramp, stripes

PAGE = "# A page\n\n<!-- figures -->\n<!-- end of figures -->\n\nWords.\n"
OTHER_COLOURS = [{**row, "color": [255 - value for value in row["color"]]} for row in CLASSES]
OTHER_DOMAINS = {"photo": {"kind": "picture", "classes": None}, "label": {"kind": "classes", "classes": OTHER_COLOURS}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two models that colour label maps differently, photos and label maps."""
    folder = tmp_path_factory.mktemp("soak")
    write_model(folder / "models" / "one")
    write_model(folder / "models" / "two", domains=OTHER_DOMAINS)
    small = (ramp(90, 120), noise(80, 100), ramp())
    for name, files in (("small", small), ("large", (ramp(600, 800),)), ("labels", (stripes(), stripes(60, 64)))):
        (folder / name).mkdir()
        for number, pixels in enumerate(files):
            (folder / name / f"{number}.png").write_bytes(file_of(pixels))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "photos", "options", "may_fail"),
    [
        # Large photos: ten times as many small ones as the server can answer are more than it can accept connections.
        ("load", "large", ["--seconds", "1", "--", "--no-ui", "--queue", "4"], {"normal", "p99", "10 x the capacity"}),
        ("endurance", "small", ["--seconds", "16", "--", "--threads", "1"], {"memory grows"}),
        ("uploads", "small", ["--count", "300"], {"memory grows"}),
    ],
)
def test_a_program_checks_a_server_and_its_figures_become_a_page(folder, tmp_path, program, photos, options, may_fail):
    figures, page = tmp_path / "figures.jsonl", tmp_path / "page.md"
    given = [f"--models={folder / 'models'}", f"--photos={folder / photos}", f"--label-maps={folder / 'labels'}"]
    main([program, *given, "--figures", str(figures), *options])
    checks = json.loads(figures.read_text().splitlines()[-1])["checks"]
    failed = [check for check in checks if not check["passed"] and not any(map(check["check"].startswith, may_fail))]
    assert failed == []
    page.write_text(PAGE)
    assert main(["report", "--into", str(page), str(figures)]) == 0
    written = page.read_text()
    assert written.startswith("# A page\n")
    assert written.endswith("\nWords.\n")
    assert f"python -m benchmarks.soak {program}" in written
    assert all(check["check"] in written for check in checks)
    for table in re.findall(r"(?:^\|.*\n)+", written, re.MULTILINE):
        assert len({line.count(" | ") for line in table.splitlines()}) == 1, "each row has a cell for each column"


def test_the_figures_of_a_run_that_did_not_end_are_not_shown(tmp_path):
    figures, page = tmp_path / "figures.jsonl", tmp_path / "page.md"
    figures.write_text(json.dumps({"program": "load", "command": "c", "began": "b", "figure": "closed loop"}) + "\n")
    page.write_text(PAGE)
    assert main(["report", "--into", str(page), str(figures)]) == 0
    assert "Load" not in page.read_text()


def test_an_early_refusal_is_seen_though_the_server_closes_with_megabytes_unread():
    def refuse(listening):
        connection, _ = listening.accept()
        with connection, contextlib.suppress(ConnectionError):
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\nno")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=refuse, args=(listening,)).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        answer = asyncio.run(send(url, form("large", "/segment", [("a.png", bytes(30_000_000))]), deadline=10))
    assert (answer.status, answer.body, answer.error, answer.refused) == (503, b"no", None, True)


def test_a_connection_that_nobody_answers_is_an_error_in_words():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        answer = asyncio.run(send(f"http://127.0.0.1:{port}", form("a", "/", []), deadline=0.3))
    assert answer.error == "no answer within 0.3 s"
    closed = asyncio.run(send(f"http://127.0.0.1:{port}", form("a", "/", []), deadline=5))
    assert closed.error == "ConnectionRefusedError"


@pytest.mark.parametrize(
    ("status", "body", "wrong"),
    [
        (500, b"oh", True),
        (404, b"nothing here", True),
        (400, b'{"error": {"code": "a", "message": "b", "hint": ""}}', False),
        (400, b'{"error": {"code": "a", "message": "", "hint": ""}}', True),
        (200, file_of(ramp()), False),
        (200, file_of(ramp())[:100], True),
    ],
)
def test_an_answer_that_is_a_fault_of_the_server_is_told_from_a_refusal(status, body, wrong):
    assert (fault(Answer(0, 1, status, {"content-type": "image/png"}, body)) is not None) == wrong


def test_the_same_seed_gives_the_same_upload_and_every_kind_occurs():
    assert all(upload(seed) == upload(seed) for seed in range(20))
    assert {upload(seed).kind.partition(",")[0] for seed in range(300)} == set(KINDS)


def test_figures_are_differences_of_two_looks_at_the_metrics():
    text = 'fewpair_stage_seconds_{0}{{endpoint="a",stage="run"}} {1}\n'
    before, after = (
        Metrics(
            text.format("count", n)
            + text.format("sum", s)
            + f"fewpair_batch_size_count {n}\nfewpair_batch_size_sum {b}\n"
        )
        for n, s, b in ((1, 0.5, 1), (3, 1.5, 7))
    )
    assert stage_means(before, after) == {"run": 500.0}
    assert (mean_batch(before, after), mean_batch(after, after)) == (3.0, None)


def test_percentiles_are_nearest_rank_and_slopes_least_squares():
    assert [percentile(range(1, 101), share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert percentile([], 0.5) != percentile([], 0.5)
    assert (slope([(0, 1), (1, 3), (2, 5)]), slope([(1, 7)])) == (2.0, 0.0)
