"""Markdown tables, and replacing the generated part of a page while keeping the text around it."""

from collections.abc import Sequence

BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> str:
    """Return a Markdown table; the first `words` columns are left-aligned, the others right-aligned."""
    lines = [head, ["---"] * words + ["---:"] * (len(head) - words), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def replaced(page: str, figures: str) -> str | None:
    """Return the page with `figures` between the lines BEGIN and END, or None if it has no such lines."""
    before, found, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    return f"{before}{BEGIN}\n{figures}{END}{after}" if found and ended else None
