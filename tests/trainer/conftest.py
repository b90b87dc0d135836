"""What the tests of the trainer share."""

from collections.abc import Iterator

import pytest

from trainer.training import batches, validation


@pytest.fixture(autouse=True, scope="session")
def few_samples() -> Iterator[None]:
    """Estimate batch statistics on 3 batches instead of 50, and evaluate 4 samples of `val` instead of 200."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "STATISTICS_BATCHES", 3)
        patch.setattr(validation, "LIMIT", 4)
        yield
