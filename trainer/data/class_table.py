"""Class tables: read from CSV and checked line by line; those of published datasets are in classes/."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from serving.imaging.domain import ClassRow
from trainer.batch import IGNORE, Classes
from trainer.errors import UserError


def read_classes(path: Path) -> Classes:
    """Read `id,name,r,g,b,ignore`, or `index,...` without `ignore`: there void or unlabeled rows are ignored."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = [column.strip().lower() for column in reader.fieldnames or ()]
            if len(columns) == 1 and (columns[0].count(";") > 2 or columns[0].count("\t") > 2):
                separator = "semicolons" if ";" in columns[0] else "tabs"
                raise UserError(
                    f"{path} separates its columns by {separator}, but a class table needs commas: save it as CSV "
                    "with commas (spreadsheets in many languages write semicolons)"
                )
            reader.fieldnames = columns
            identity = "id" if "id" in columns else "index"
            missing = [column for column in (identity, "name", "r", "g", "b") if column not in columns]
            if missing:
                raise UserError(
                    f"{path} line 1: the column {', '.join(missing)} is missing; the first line must be "
                    "id,name,r,g,b,ignore"
                )
            rows: list[ClassRow] = []
            for record in reader:
                row = _class_row(f"{path} line {reader.line_num}", record, identity=identity)
                for field in ("id", "name", "color"):
                    value = getattr(row, field)
                    earlier = next((each for each in rows if getattr(each, field) == value), None)
                    if earlier is not None:
                        what = f"{field.replace('color', 'colour')} {value!r}"
                        raise UserError(
                            f"{path} line {reader.line_num}: {what} is already taken by {earlier.name} (id "
                            f"{earlier.id})"
                        )
                rows.append(row)
    except UnicodeDecodeError as error:
        character = error.object[error.start : error.end].decode("latin-1")
        raise UserError(
            f'{path} is not UTF-8 (it holds {character!r} as in Latin-1 or Windows-1252): save it as "CSV UTF-8"'
        ) from error
    except (OSError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a class table ({error})") from error
    classes = Classes(tuple(rows))
    if classes.count == 0:
        raise UserError(f"{path} has no class that is not ignored; each row is id,name,r,g,b,ignore")
    return classes


def class_rows(classes: Classes) -> str:
    """The text of a file that `read_classes` reads."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["id", "name", "r", "g", "b", "ignore"])
    writer.writerows((row.id, row.name, *row.color, int(row.ignore)) for row in classes.rows)
    return file.getvalue()


def shipped(name: str) -> Classes:
    """The class table of a published dataset, as the package ships it."""
    return read_classes(Path(__file__).parent / "classes" / f"{name}.csv")


def _class_row(where: str, record: Mapping[str, str | None], *, identity: str) -> ClassRow:
    def number(column: str) -> int:
        text = (record.get(column) or "").strip()
        if not text.isascii() or not text.isdigit() or int(text) > 255:
            raise UserError(f"{where}: {column} is {text!r}, but must be a whole number from 0 to 255")
        return int(text)

    name = (record.get("name") or "").strip()
    if not name:
        raise UserError(f"{where}: the class has no name")
    if "ignore" in record:
        word = (record["ignore"] or "").strip().lower()
        if word not in ("", "0", "1", "true", "false", "yes", "no"):
            raise UserError(f"{where}: ignore is {word!r}, but must be 0 or 1")
        ignore = word in ("1", "true", "yes")
    else:
        ignore = name.lower() in ("void", "unlabeled", "unlabelled")
    if number(identity) == IGNORE and not ignore:
        raise UserError(f"{where}: {name} has the id 255, which means not labelled; give it and its pixels another")
    return ClassRow(number(identity), name, (number("r"), number("g"), number("b")), ignore)
