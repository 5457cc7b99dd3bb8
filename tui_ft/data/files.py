"""Reading dataset files row by row, each row with the place a person would look for it.

Own readers rather than `datasets`' loaders: those infer one schema for the whole file, so that a single odd row
fails the load without naming its line; and they copy the file into a cache.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from tui_ft.errors import RequestError
from tui_ft.text import one_line

SUFFIXES = (".parquet", ".arrow", ".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".tsv", ".txt", ".txt.gz")
"""What can be read, the surest to be data first."""
_LIST_KEYS = ("data", "rows", "train", "examples", "instances")
_LOOK_AHEAD = 2000  # lines of a text file that decide between paragraphs and lines
_PIECE = 1 << 20  # characters of a JSON list read at once
_TAIL = 16  # an error so near the end of a piece may be of the piece alone: an escape or a word cut in two
_SPACE = re.compile(r"\s*")
_BETWEEN = re.compile(r"[\s,]*")
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
NOT_UTF8 = "not UTF-8 text"


@dataclass(frozen=True, slots=True)
class Row:
    place: str
    """`file.jsonl:12` (a line) or `file.json row 12`, counted from 1."""
    values: dict[str, Any] | None
    problem: str = ""
    """Why there are no values: the reason that bad rows are counted by."""


def suffix(path: Path) -> str:
    """The file's kind: its last suffix, or the last two where it is compressed; in small letters."""
    parts = path.name.lower().split(".")
    return "." + ".".join(parts[-2:] if parts[-1] == "gz" else parts[-1:]) if len(parts) > 1 else ""


def read_file(path: Path) -> Iterator[Row]:
    """The rows of one file.

    Raises:
        RequestError: it cannot be read, is not of a known kind, or is broken as a whole.
    """
    kind = suffix(path)
    try:
        if kind == ".parquet":
            yield from _parquet(path)
        elif kind == ".arrow":
            yield from _arrow(path)
        elif kind in (".jsonl", ".jsonl.gz"):
            yield from _json_lines(path)
        elif kind in (".json", ".json.gz"):
            yield from _json(path)
        elif kind in (".csv", ".tsv", ".csv.gz"):
            yield from _csv(path, "\t" if kind == ".tsv" else ",")
        elif kind in (".txt", ".txt.gz"):
            yield from _text(path)
        else:
            raise RequestError(f"{path.name} is of no known kind", f"Known: {', '.join(SUFFIXES)}.")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not {error.encoding.upper()} text (byte {error.start:,})", "Convert it, e.g. with iconv -t UTF-8.") from None
    except gzip.BadGzipFile:
        raise RequestError(f"{path} is not a gzip file, in spite of its name") from None
    except (OSError, EOFError) as error:
        raise RequestError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}", "Check the path and its permissions.") from None


def _open(path: Path, newline: str | None = None) -> IO[str]:
    """Text; lines end where `newline` says, as in `open`. A byte order mark chooses UTF-16 or is skipped.

    Bytes that are not UTF-8 become lone surrogates, so that they spoil their own row and not the file: `_is_text` finds them.
    """
    with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb") as file:
        start = file.read(2)
    encoding, errors = ("utf-16", "strict") if start in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "surrogateescape")
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding=encoding, errors=errors, newline=newline)
    return path.open(encoding=encoding, errors=errors, newline=newline)


def _is_text(raw: str) -> bool:
    return raw.isascii() or not _NOT_UTF8.search(raw)


def _json_lines(path: Path) -> Iterator[Row]:
    with _open(path, newline="\n") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _json_row(line, f"{path.name}:{number}")


def _json_row(line: str, place: str) -> Row:
    if not _is_text(line):
        return Row(place, None, NOT_UTF8)
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return Row(place, None, "not valid JSON")
    return _as_row(value, place)


def _as_row(value: object, place: str) -> Row:
    if isinstance(value, dict):
        return Row(place, value)
    return Row(place, None, "not an object") if not isinstance(value, str) else Row(place, {"text": value})


def _json(path: Path) -> Iterator[Row]:
    """A list of rows, a mapping that holds one under a usual name, or one row; a `.json` that is really JSON Lines reads as such.

    A list is read as it goes along, the others whole.
    """
    with _open(path) as file:
        first, second = _first_lines(file)
        file.seek(0)
        if first.lstrip()[:1] == "[":
            yield from _json_list(path, file)
        elif second and isinstance(_json_row(first, "").values, dict):
            yield from _json_lines(path)
        else:
            yield from _json_whole(path, file.read())


def _first_lines(file: IO[str]) -> tuple[str, str]:
    """The first two lines that hold something; of a line without an end, its beginning."""
    lines: list[str] = []
    while len(lines) < 2 and (line := file.readline(_PIECE)):
        lines += [line] if line.strip() else []
    return lines[0] if lines else "", lines[1] if len(lines) > 1 else ""


def _json_list(path: Path, file: IO[str]) -> Iterator[Row]:
    """The items of a JSON list, one by one: memory holds the longest of them, not the file."""
    read = json.JSONDecoder().raw_decode
    text, place, line, number, piece = "", 0, 1, 0, _PIECE
    opened = False  # the bracket of the list was met
    while True:
        place = _next(text, place, opened)
        try:
            if place >= len(text):
                raise json.JSONDecodeError("the file is cut off", text, len(text))
            if not opened:
                opened, place = True, place + 1
                continue
            if text[place] == "]":
                if (text[place + 1 :] + file.read(_PIECE)).strip():
                    raise RequestError(f"{path} goes on after its list of rows ends", "Several lists in one file? Join them, or write .jsonl.")
                return
            value, end = read(text, place)
            if end >= len(text) - 1 and not isinstance(value, (dict, list, str)):  # 12 may be the beginning of 123
                raise json.JSONDecodeError("the file is cut off", text, len(text))
        except RecursionError:
            raise RequestError(f"{path} is nested too deeply to be a dataset") from None
        except json.JSONDecodeError as error:
            line += text.count("\n", 0, place)
            text, at = text[place:], error.pos - place
            place = 0
            unfinished = at >= len(text) - _TAIL or error.msg.startswith("Unterminated string")
            more = file.read(piece) if unfinished else ""
            if more:
                text, piece = text + more, 2 * piece  # a long item is tried again at each doubling, so the whole work stays linear
                continue
            if unfinished and number:  # what is whole is used, what is not is a bad row like any other
                yield Row(f"{path.name} row {number + 1}", None, "the file is cut off here")
                return
            line += text.count("\n", 0, at)
            message = f"{path}:{line} is not valid JSON: {one_line(error.msg, 100)}"
            raise RequestError(message, "The file may be damaged; mend it, or write one object a line as .jsonl.") from None
        number, piece = number + 1, _PIECE
        where = f"{path.name} row {number}"
        yield _as_row(value, where) if _is_text(text[place:end]) else Row(where, None, NOT_UTF8)
        place = end
        if place > _PIECE:
            line += text.count("\n", 0, place)
            text, place = text[place:], 0


def _next(text: str, place: int, opened: bool) -> int:
    """The place of what comes next: after white space and, between items, a comma."""
    match = (_BETWEEN if opened else _SPACE).match(text, place)
    return match.end() if match else place


def _json_whole(path: Path, text: str) -> Iterator[Row]:
    try:
        value = json.loads(text)
    except RecursionError:
        raise RequestError(f"{path} is nested too deeply to be a dataset") from None
    except json.JSONDecodeError as error:
        message = f"{path}:{error.lineno} is not valid JSON: {one_line(error.msg, 100)} (column {error.colno})"
        raise RequestError(message, "The file may be cut off; mend it, or write one object a line as .jsonl.") from None
    if isinstance(value, dict):
        lists = [value[key] for key in _LIST_KEYS if isinstance(value.get(key), list)]
        value = lists[0] if lists else [value]
    if not isinstance(value, list):
        raise RequestError(f"{path} holds a single {type(value).__name__}, not rows", "A dataset is a list of objects.")
    utf8 = _is_text(text)  # one look at the whole is enough where all is well
    for number, item in enumerate(value, 1):
        place = f"{path.name} row {number}"
        yield _as_row(item, place) if utf8 or _is_text(json.dumps(item, ensure_ascii=False)) else Row(place, None, NOT_UTF8)


def _csv(path: Path, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)  # the default of 131 072 characters is shorter than one long document
    with _open(path, newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        try:
            header = [name.strip() for name in next(reader, [])]
            if len(set(header)) != len(header):
                raise RequestError(f"{path} names a column twice in its first line", "Give every column its own name.")
            for cells in reader:
                place = f"{path.name}:{reader.line_num}"
                if not all(map(_is_text, cells)):
                    yield Row(place, None, NOT_UTF8)
                elif len(cells) == len(header):
                    yield Row(place, dict(zip(header, cells, strict=True)))
                elif cells:
                    yield Row(place, None, f"not {len(header)} cells as the header has")
        except csv.Error as error:
            raise RequestError(f"{path}:{reader.line_num} is not valid CSV: {one_line(error, 100)}") from None


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(f"{path.name} row {number}", values)
    except pyarrow.ArrowException as error:
        raise RequestError(f"{path} is not a readable parquet file: {one_line(error, 200)}") from None


def _arrow(path: Path) -> Iterator[Row]:
    import datasets
    import pyarrow

    try:
        table = datasets.Dataset.from_file(str(path))
    except (pyarrow.ArrowException, ValueError) as error:
        raise RequestError(f"{path} is not a readable arrow file: {one_line(error, 200)}") from None
    yield from dataset_rows(table, path.name)


def dataset_rows(dataset: Any, name: str = "") -> Iterator[Row]:
    """The rows of a `datasets.Dataset`, a batch at a time."""
    number = 0
    for batch in dataset.iter(batch_size=1000):
        columns = list(batch)
        for values in zip(*batch.values(), strict=True):
            number += 1
            yield Row(f"{name} row {number}".strip(), dict(zip(columns, values, strict=True)))


def _text(path: Path) -> Iterator[Row]:
    """One document a paragraph, where blank lines part paragraphs; in a file without blank lines, one a line.

    So hard-wrapped prose stays whole, and a file of one text a line does not become a single document. One document a
    file would be useless: a corpus is usually a single file. Blank lines themselves are no rows.
    """
    with _open(path) as file:
        start = list(islice(file, _LOOK_AHEAD))
        inner = "".join(start).strip().split("\n")
        by_line = all(line.strip() for line in inner)
        paragraph: list[str] = []
        first = 1
        number = 0
        for lines in (start, file):
            for line in lines:
                number += 1
                if line.strip():
                    first = first if paragraph else number
                    paragraph.append(line.rstrip("\n"))
                if paragraph and (by_line or not line.strip()):
                    yield _paragraph(f"{path.name}:{first}", paragraph)
                    paragraph = []
        if paragraph:
            yield _paragraph(f"{path.name}:{first}", paragraph)


def _paragraph(place: str, lines: list[str]) -> Row:
    text = "\n".join(lines)
    return Row(place, {"text": text}) if _is_text(text) else Row(place, None, NOT_UTF8)
