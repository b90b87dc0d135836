"""What the apps around the service see of it: nothing yet, trouble, or the operations."""

from __future__ import annotations

from dataclasses import dataclass

from serving.errors import Refusal
from serving.jobs import Jobs
from serving.metrics import Metrics
from serving.operations import Operations
from serving.reload import Reloader
from serving.settings import Settings
from serving.shelf import Shelf
from serving.warmup import first_requests


@dataclass
class Inside:
    """One per process, filled by the service while it starts and by each reload."""

    operations: Operations | None = None
    trouble: str | None = "the models are being loaded"  # None where there is none, and the server is ready
    metrics: Metrics | None = None
    reloader: Reloader | None = None
    jobs: Jobs | None = None
    admin_token: str | None = None

    def need(self) -> Operations:
        """The operations; Refusal while there are none."""
        if self.operations is None:
            raise Refusal(503, "not_ready", self.trouble or "the models are being loaded", headers={"Retry-After": "5"})
        return self.operations

    def stock(self, shelf: Shelf, settings: Settings) -> None:
        """Answer from this shelf; who is being answered is answered by the model he began with."""
        self.trouble = shelf.trouble()
        if self.operations is not None:
            self.operations.shelf = shelf
        elif self.trouble is None:
            self.operations = Operations(shelf, settings)
            if self.metrics is not None:
                self.metrics.watch(self.operations.gate)

    async def warm_up(self) -> None:
        """Have every default model answer a request; where one does not, that is the trouble."""
        if self.operations is not None and self.trouble is None:
            self.trouble = await first_requests(self.operations)
