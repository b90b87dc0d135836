"""What the trainer's tests share: none of them fetches the pretrained encoder, which starts from random numbers instead."""

from typing import Any

import pytest
import torch


@pytest.fixture(autouse=True)
def no_weights_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of torchvision's download of mobilenet_v2: a state dict of its shape, the same each time."""
    from torchvision.models import _api, mobilenet_v2

    fetch = _api.load_state_dict_from_url

    def drawn(url: str, *arguments: Any, **named: Any) -> Any:
        if "mobilenet_v2" not in url:
            return fetch(url, *arguments, **named)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return mobilenet_v2(weights=None).state_dict()

    monkeypatch.setattr(_api, "load_state_dict_from_url", drawn)
