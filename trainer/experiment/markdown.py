"""Markdown tables, and the part of a results page that a program writes: what a person wrote around it stays."""

from collections.abc import Sequence

BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> str:
    """A Markdown table whose first `words` columns are words, and the others figures."""
    lines = [head, ["---"] * words + ["---:"] * (len(head) - words), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def replaced(page: str, figures: str) -> str | None:
    """The page with `figures` between its lines BEGIN and END; None where it has no such lines."""
    before, found, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    return f"{before}{BEGIN}\n{figures}{END}{after}" if found and ended else None
