"""Links of docs/ to lines of code, checked and corrected (`python tests/line_links.py`)."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\[`([^`\n]+)`\]\(([^)#\s]+)#L(\d+)\)")
"""[`words`](file#L93): the words are on that line and on no other, and end where its names end."""


class Link(NamedTuple):
    """One link of a page, and the lines of its file that hold its words."""

    page: Path
    words: str
    file: str
    line: int
    held: tuple[int, ...]

    @property
    def right(self) -> bool:
        return self.held == (self.line,)

    def __str__(self) -> str:
        where = ", ".join(map(str, self.held)) or "no line"
        return (
            f"{self.page.relative_to(ROOT)}: {self.words!r} links to line {self.line} of {self.file}, but is on {where}"
        )


def pages() -> list[Path]:
    """Every page under docs/."""
    return sorted((ROOT / "docs").rglob("*.md"))


def links(page: Path) -> Iterator[Link]:
    """The page's links to lines, in order."""
    for words, file, line in LINK.findall(page.read_text(encoding="utf-8")):
        target = page.parent / file
        lines = target.read_text(encoding="utf-8").splitlines() if target.is_file() else []
        whole = re.compile(
            rf"(?<!\w){re.escape(words)}(?!\w)" if words[-1:].isidentifier() else rf"(?<!\w){re.escape(words)}"
        )
        yield Link(page, words, file, int(line), tuple(at for at, text in enumerate(lines, 1) if whole.search(text)))


def mend(page: Path) -> list[Link]:
    """Correct the line of each link; returns those whose words are on no line or on several."""
    lost = []
    text = page.read_text(encoding="utf-8")
    for link in links(page):
        if len(link.held) != 1:
            lost.append(link)
        elif not link.right:
            begin = f"[`{link.words}`]({link.file}#L"
            text = text.replace(f"{begin}{link.line})", f"{begin}{link.held[0]})")
    page.write_text(text, encoding="utf-8")
    return lost


if __name__ == "__main__":
    for each in pages():
        for gone in mend(each):
            print(gone)
