"""The links of docs/ to single lines of code: which lead astray, and new numbers for them (`python tests/line_links.py`)."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\[`([^`\n]+)`\]\(([^)#\s]+)#L(\d+)\)")
"""[`words`](file#L93): the words stand on that line."""


class Link(NamedTuple):
    """One link of a page, and the lines of its file that hold its words."""

    page: Path
    words: str
    file: str
    line: int
    held: tuple[int, ...]

    @property
    def right(self) -> bool:
        return self.line in self.held

    def __str__(self) -> str:
        where = f"but on {', '.join(map(str, self.held))}" if self.held else "nor on any other"
        return f"{self.page.relative_to(ROOT)}: {self.words!r} is not on line {self.line} of {self.file}, {where}"


def pages() -> list[Path]:
    """Every page under docs/."""
    return sorted((ROOT / "docs").rglob("*.md"))


def links(page: Path) -> Iterator[Link]:
    """The page's links to lines, in order."""
    for words, file, line in LINK.findall(page.read_text(encoding="utf-8")):
        target = page.parent / file
        lines = target.read_text(encoding="utf-8").splitlines() if target.is_file() else []
        yield Link(page, words, file, int(line), tuple(at for at, text in enumerate(lines, 1) if words in text))


def mend(page: Path) -> list[Link]:
    """Give each link that leads astray the nearest line that holds its words; returns those for which there is none."""
    lost = []
    text = page.read_text(encoding="utf-8")
    for link in links(page):
        if link.held and not link.right:
            nearest = min(link.held, key=lambda at: abs(at - link.line))
            begin = f"[`{link.words}`]({link.file}#L"
            text = text.replace(f"{begin}{link.line})", f"{begin}{nearest})")
        elif not link.held:
            lost.append(link)
    page.write_text(text, encoding="utf-8")
    return lost


if __name__ == "__main__":
    for each in pages():
        for gone in mend(each):
            print(gone)
