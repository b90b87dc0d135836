"""Three hundred uploads as strangers send them, at a real server: each is refused with a sentence or answered, and nothing else happens."""

import asyncio

import pytest

from benchmarks.soak.fire import fire
from benchmarks.soak.uploads import KINDS, upload


def test_the_same_seed_gives_the_same_upload_and_every_kind_occurs():
    assert all(upload(seed) == upload(seed) for seed in range(20))
    assert {upload(seed).kind.partition(",")[0] for seed in range(300)} == set(KINDS)


@pytest.mark.slow
def test_no_upload_is_a_500_a_hang_or_an_answer_that_cannot_be_read(server):
    fired = asyncio.run(fire(server.url, count=300, deadline=130, pid=server.process.pid))
    assert fired.broken == {}
    assert sum(fired.statuses.values()) == 300
    assert fired.statuses[200] > 30, "the right ones among them are answered"
    assert fired.statuses[400] > 30
    assert fired.rss_after - fired.rss_before < 500 * 2**20
