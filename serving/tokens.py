"""Bearer tokens: whether a request carries one of those that the operator gave out."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

LEAST_LETTERS = 8
_SCHEME = "bearer "


def token_matches(header: str | None, tokens: Sequence[str]) -> bool:
    """Whether an `Authorization` header ("Bearer TOKEN") holds one of the tokens; without tokens none does.

    Digests of one length are compared in constant time, and every token each time, so that the time taken tells neither how much of a
    guess was right nor which token it came near to.
    """
    given = _digest(header[len(_SCHEME) :].strip() if header and header[: len(_SCHEME)].lower() == _SCHEME else "")
    found = [hmac.compare_digest(given, _digest(token)) for token in tokens if token]
    return any(found)


def why_unfit(token: str) -> str | None:
    """Why this is no token to give out; None where it is. The token itself is not repeated: a log is no place for it."""
    if len(token) < LEAST_LETTERS:
        return f"holds a token of {len(token)} letters, a token has at least {LEAST_LETTERS}"
    if not (token.isascii() and token.isprintable()) or " " in token:
        return "holds a token with blanks or letters that a header cannot carry"
    return None


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
