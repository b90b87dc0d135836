"""The names a server answers to: exact ones, and "*.example.org" for every name under that."""

from __future__ import annotations

from collections.abc import Sequence


def answers_to(host: str, names: Sequence[str]) -> bool:
    """Whether a Host header, with or without a port, is one of the names or lies under one of them."""
    name = _without_port(host.lower())
    return any(name == one or (one.startswith("*.") and name.endswith(one[1:])) for one in map(str.lower, names))


def example(names: Sequence[str]) -> str:
    """A name that a server of these names answers to."""
    exact = next((name for name in names if not name.startswith("*.")), None)
    return f"fewpair{names[0][1:]}" if exact is None else exact


def _without_port(host: str) -> str:
    """An IPv6 address stays in its brackets."""
    return host.partition("]")[0] + "]" if host.startswith("[") else host.rpartition(":")[0] or host
