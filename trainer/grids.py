"""Captioned pictures on one page: sample grids with a legend of the classes, and contact sheets of selected photos."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from trainer.batch import Classes

GAP = 4
"""Pixels between pictures."""
PAPER, INK, MISSING = "white", (20, 20, 20), (225, 225, 225)
MOST, THUMBNAIL = 400, (240, 180)
"""How many photos a contact sheet shows at most, and the width and height of each."""


def sample_grid(
    rows: Sequence[Mapping[str, np.ndarray]],
    *,
    scale: int = 1,
    names: Sequence[str] = (),
    caption: str = "",
    classes: Classes | None = None,
) -> Image.Image:
    """Draw a table of pictures uint8[H,W,3] of any size: a column for each key of the rows, grey where a row lacks it.

    `scale` enlarges every picture; `names` are lines above the rows; the legend of `classes` and `caption` are below.
    """
    columns = list(dict.fromkeys(title for row in rows for title in row))
    widths = [max(row[title].shape[1] * scale for row in rows if title in row) for title in columns]
    widths = [max(width, _text(title).width) for width, title in zip(widths, columns, strict=True)]
    parts = [_joined([_widened(_text(title), width) for width, title in zip(widths, columns, strict=True)])]
    for index, row in enumerate(rows):
        tall = scale * max(picture.shape[0] for picture in row.values())
        cells = [Image.new("RGB", (width, tall), MISSING) for width in widths]
        for title, picture in row.items():
            enlarged = ImageOps.scale(Image.fromarray(picture), scale, Image.Resampling.NEAREST)
            place = columns.index(title)
            cells[place] = _widened(enlarged, widths[place])
        parts += [_text(names[index])] if names else []
        parts.append(_joined(cells))
    page = _joined(parts, down=True)
    below = [*_legend(classes, page.width), *map(_text, caption.splitlines())]
    return ImageOps.expand(_joined([page, *below], down=True), GAP, PAPER)


def contact_sheet(
    photos: Iterable[np.ndarray], names: Sequence[str], captions: Sequence[str], *, title: str
) -> Image.Image:
    """Draw photos uint8[H,W,3] side by side, each above `<rank>  <name>` and its caption."""
    count, cells = min(len(names), MOST), []
    for rank, (photo, *lines) in enumerate(zip(photos, names[:count], captions, strict=False), 1):
        thumbnail = ImageOps.pad(Image.fromarray(photo), THUMBNAIL, Image.Resampling.LANCZOS, PAPER)
        texts = [_text(_shortened(line, THUMBNAIL[0], 14), 14) for line in (f"{rank}  {lines[0]}", lines[1])]
        cells.append(_joined([thumbnail, *texts], down=True))
    columns = max(3, math.ceil(math.sqrt(1.25 * count)))
    rows = [_joined(cells[at : at + columns]) for at in range(0, count, columns)]
    heading = title if count == len(names) else f"{title}; the first {count} are shown"
    return ImageOps.expand(_joined([_text(heading, 17), *rows], down=True), 3 * GAP, PAPER)


def _legend(classes: Classes | None, width: int) -> list[Image.Image]:
    """Lines of class names beside their colours, void's last, that fit the width."""
    lines: list[list[Image.Image]] = []
    for row in (*classes.real, *[row for row in classes.rows if row.ignore][:1]) if classes else ():
        swatch = ImageOps.expand(Image.new("RGB", (9, 9), row.color), 1, INK)
        entry = _joined([swatch, _text(row.name)])
        if not lines or sum(each.width + GAP for each in lines[-1]) + entry.width > width:
            lines.append([])
        lines[-1].append(entry)
    return [_joined(line) for line in lines]


def _joined(images: Sequence[Image.Image], *, down: bool = False) -> Image.Image:
    """The images side by side, or `down` the page."""
    widths, heights = [image.width for image in images], [image.height for image in images]
    gaps = GAP * max(0, len(images) - 1)
    size = (max(widths), sum(heights) + gaps) if down else (sum(widths) + gaps, max(heights, default=0))
    page, place = Image.new("RGB", size, PAPER), 0
    for image in images:
        page.paste(image, (0, place) if down else (place, 0))
        place += image.size[down] + GAP
    return page


def _widened(image: Image.Image, width: int) -> Image.Image:
    return ImageOps.expand(image, (0, 0, width - image.width, 0), PAPER)


def _text(line: str, size: int = 11) -> Image.Image:
    font = _font(size)
    image = Image.new("RGB", (math.ceil(font.getlength(line)) + 1, size + 4), PAPER)
    ImageDraw.Draw(image).text((0, 0), line, INK, font)
    return image


def _shortened(text: str, width: int, size: int) -> str:
    """The text without its middle if it is wider than `width` pixels: file names differ at their ends."""
    kept = len(text)
    while kept > 3 and _font(size).getlength(text) > width:
        kept -= 1
        text = f"{text[: kept // 3]}…{text[len(text) - (kept - kept // 3) + 1 :]}"
    return text


def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans from matplotlib, which covers more alphabets than Pillow's font."""
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
