"""The contact sheet of a choice: the picked photos in the order of their rank, each with its name and what it stands for."""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

MOST = 400
"""More photos than these are not drawn; the sheet says so."""
WHITE, BLACK, GREY = (255, 255, 255), (20, 20, 20), (110, 110, 110)
EDGE = 12
"""Pixels between thumbnails."""


def contact_sheet(photos: Iterator[np.ndarray], names: Sequence[str], captions: Sequence[str], *, title: str) -> Image.Image:
    """Photos uint8[H,W,3] side by side, each above `<rank>  <name>` and its caption (which may be empty); read one at a time."""
    count = min(len(names), MOST)
    width = 240 if count <= 60 else 160
    height, size = width * 3 // 4, max(11, width // 16)
    columns = max(1, min(count, math.ceil(math.sqrt(count * 1.25))))
    columns = max(columns, math.ceil(640 / (width + EDGE)))
    line = size + 5
    cell = (width + EDGE, height + 2 * line + EDGE + 4)
    head = 2 * line + EDGE
    sheet = Image.new("RGB", (EDGE + columns * cell[0], head + math.ceil(count / columns) * cell[1] + EDGE), WHITE)
    draw = ImageDraw.Draw(sheet)
    told = title if count == len(names) else f"{title}; the first {count} are shown"
    draw.text((EDGE, EDGE), _fitting(told, sheet.width - 2 * EDGE, size + 3), BLACK, _font(size + 3))
    for place, (photo, name, caption) in enumerate(zip(photos, names[:count], captions, strict=False)):
        left, top = EDGE + place % columns * cell[0], head + place // columns * cell[1]
        thumbnail = ImageOps.contain(Image.fromarray(photo), (width, height), Image.Resampling.LANCZOS)
        sheet.paste(thumbnail, (left + (width - thumbnail.width) // 2, top + (height - thumbnail.height) // 2))
        draw.text((left, top + height + 4), _fitting(f"{place + 1}  {name}", width, size), BLACK, _font(size))
        draw.text((left, top + height + 4 + line), _fitting(caption, width, size), GREY, _font(size))
    return sheet


def _fitting(text: str, width: int, size: int) -> str:
    """The text, with its middle left out where it is wider than `width` pixels."""
    if _font(size).getlength(text) <= width:
        return text
    kept = len(text) - 1
    while kept > 2 and _font(size).getlength(_without_middle(text, kept)) > width:
        kept -= 1
    return _without_middle(text, kept)


def _without_middle(text: str, kept: int) -> str:
    """The ends tell one file from the next, so they get more room."""
    front = kept // 3
    return f"{text[:front]}…{text[len(text) - (kept - front) :]}"


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font that matplotlib brings: it has more alphabets than Pillow's."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
