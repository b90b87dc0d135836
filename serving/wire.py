"""What the client's parts share: pictures as they are sent, and answers that are checked before they are read."""

from __future__ import annotations

import random
import time
from pathlib import Path

import httpx

from serving.errors import Refusal

# The bytes of an image file, its path, or an http(s) address that the server is to fetch it from, where its operator allows that.
Picture = bytes | Path | str


def is_address(picture: Picture) -> bool:
    """Whether the server is to fetch the picture."""
    return isinstance(picture, str) and picture.lower().startswith(("http://", "https://"))


def name_of(picture: Picture, number: int) -> str:
    """What the picture is called among several."""
    return f"image-{number + 1}" if isinstance(picture, bytes) else Path(picture).name


def again_in(response: httpx.Response, *, until: float) -> float | None:
    """The seconds after which a server that refused for now is to be asked again, if that is before `until` (of `time.monotonic`).

    A little more than it says, by chance, so that those who were refused together do not come back together.
    """
    said = response.headers.get("Retry-After", "")
    if response.status_code not in (429, 503) or not said.isdecimal():
        return None
    seconds = int(said) * random.uniform(1.0, 1.25)
    return seconds if time.monotonic() + seconds < until else None


def checked(response: httpx.Response) -> httpx.Response:
    """The response where it answers; otherwise the server's own words as a Refusal. It has been read."""
    if response.is_success:
        return response
    try:
        error = response.json()["error"]
        told = {name: response.headers[name] for name in ("Retry-After",) if name in response.headers}
        raise Refusal(response.status_code, error["code"], error["message"], hint=error["hint"], headers=told)
    except (ValueError, KeyError, TypeError):
        raise Refusal(response.status_code, "not_fewpair", f"{response.url} answered {response.status_code} in no shape of ours.") from None


def unreachable(url: str, error: httpx.HTTPError) -> Refusal:
    """What is said where no server answers."""
    if isinstance(error, httpx.UnsupportedProtocol):
        address = url.rstrip("/")
        return Refusal(503, "unreachable", f"{address} does not begin with http://.", hint=f"Put it in front: http://{address}")
    why = str(error).rstrip(".") or type(error).__name__
    return Refusal(503, "unreachable", f"{url} does not answer: {why}.", hint="Is the server running there?")
