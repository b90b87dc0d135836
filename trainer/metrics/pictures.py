"""Pictures to look at: label maps in their colours, overlays, and captioned sheets of samples."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trainer.batch import Classes

GAP = 4
LINE = 14
PAPER, INK, MISSING = (255, 255, 255), (20, 20, 20), (225, 225, 225)


def colourise(indices: np.ndarray, classes: Classes) -> np.ndarray:
    """A label map in its classes' colours: [H,W] class indices -> uint8[H,W,3]; whatever is no class takes the void colour."""
    colours = np.empty((256, 3), dtype=np.uint8)
    colours[:] = classes.void_color
    colours[: classes.count] = classes.palette
    return colours[indices]


def overlay(photo: np.ndarray, coloured: np.ndarray, *, opacity: float = 0.5) -> np.ndarray:
    """The coloured label map laid over the photo; both uint8[H,W,3] of one size."""
    mixed = (1 - opacity) * photo.astype(np.float32) + opacity * coloured.astype(np.float32)
    return np.rint(mixed).astype(np.uint8)


def shrink(picture: np.ndarray, width: int, *, ids: bool = False) -> np.ndarray:
    """The picture at this width at most, its aspect ratio kept; with `ids` nothing is blended."""
    if picture.shape[1] <= width:
        return picture
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST if ids else Image.Resampling.BOX))


def sheet(
    columns: Sequence[str],
    rows: Sequence[Sequence[np.ndarray | None]],
    *,
    scale: int = 1,
    names: Sequence[str] | None = None,
    caption: str | None = None,
) -> Image.Image:
    """A table of pictures under column headings: cells are uint8[H,W,3] of any size, or None where there is none.

    `scale` enlarges every cell by whole pixels; `names` puts a line over each row; `caption` puts lines at the foot.
    """
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"a row of {len(row)} pictures does not fit under {len(columns)} columns")
    font = ImageFont.load_default(size=11)
    widths = [
        max([_text_width(title, font), *(cell.shape[1] * scale for cell in cells if cell is not None)])
        for title, cells in _by_column(columns, rows)
    ]
    heights = [max([LINE, *(cell.shape[0] * scale for cell in row if cell is not None)]) for row in rows]
    name_line = LINE if names else 0
    foot = caption.splitlines() if caption else []
    width = max([sum(widths) + GAP * (len(widths) + 1), *(_text_width(line, font) + 2 * GAP for line in [*foot, *(names or [])])])
    height = GAP + LINE + sum(tall + name_line + GAP for tall in heights) + LINE * len(foot) + GAP
    page = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(page)
    lefts = [GAP + sum(widths[:column]) + GAP * column for column in range(len(widths))]
    for left, title in zip(lefts, columns, strict=True):
        draw.text((left, GAP), title, fill=INK, font=font)
    top = GAP + LINE
    for index, row in enumerate(rows):
        if names:
            draw.text((GAP, top), names[index], fill=INK, font=font)
            top += name_line
        for left, wide, cell in zip(lefts, widths, row, strict=True):
            if cell is None:
                draw.rectangle((left, top, left + wide - 1, top + heights[index] - 1), fill=MISSING)
            else:
                size = (cell.shape[1] * scale, cell.shape[0] * scale)
                page.paste(Image.fromarray(cell).resize(size, Image.Resampling.NEAREST), (left, top))
        top += heights[index] + GAP
    for line in foot:
        draw.text((GAP, top), line, fill=INK, font=font)
        top += LINE
    return page


def _by_column(columns: Sequence[str], rows: Sequence[Sequence[np.ndarray | None]]) -> list[tuple[str, list[np.ndarray | None]]]:
    return [(title, [row[index] for row in rows]) for index, title in enumerate(columns)]


def _text_width(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    return int(font.getlength(text)) + 1
