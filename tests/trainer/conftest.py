"""What the tests of the trainer share."""

from collections.abc import Iterator

import pytest

from trainer.training import batches


@pytest.fixture(autouse=True, scope="session")
def few_statistics_batches() -> Iterator[None]:
    """Estimate batch statistics on 3 batches instead of 50."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "STATISTICS_BATCHES", 3)
        yield
