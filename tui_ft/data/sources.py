"""Where rows come from: a file, a folder, a saved dataset or the Hub. Rows are read one after the other, never guessed at."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from tui_ft import demo
from tui_ft.data import files
from tui_ft.data.files import Row
from tui_ft.errors import ChoiceError, Problem, RequestError
from tui_ft.hub import network
from tui_ft.recipe.schema import Data
from tui_ft.text import one_line

_PIECE = 1 << 22  # bytes read at once
_A_LINE_A_ROW = (".jsonl", ".csv", ".tsv")
_SPLIT_IN_NAME = re.compile(r"(?:^|[^a-z])(train|training|validation|valid|val|dev|test|eval)(?:$|[^a-z])")
_SAME_SPLIT = {"training": "train", "valid": "validation", "val": "validation", "dev": "validation", "eval": "validation"}


@dataclass(frozen=True)
class Source:
    """Rows that can be read as often as needed, each time in the same order."""

    name: str
    """For a person: a file, a folder or a Hub id, with the split."""
    read: Callable[[], Iterator[Row]]
    total: int | None = None
    """Number of rows, where it is known without reading them; `count` estimates it else."""
    paths: tuple[Path, ...] = ()
    """The files that are read; empty where a library keeps the rows, which then names their `version`."""
    version: str = ""

    def identity(self) -> str:
        """A hash of what the rows are: of the bytes of the files, whatever they are called. A gigabyte takes about a second."""
        import xxhash

        state = xxhash.xxh3_128(f"{self.version}\0{[files.suffix(path) for path in self.paths]}\0{self.total}".encode())
        for path in self.paths:
            with path.open("rb") as file:
                state.update(path.stat().st_size.to_bytes(8, "little"))
                while piece := file.read(_PIECE):
                    state.update(piece)
        return state.hexdigest()

    def count(self) -> int | None:
        """About how many rows there are, to show progress against: known, or the lines of the files where a row is a line; else None."""
        if self.total is not None:
            return self.total
        if not self.paths or not all(files.suffix(path) in _A_LINE_A_ROW for path in self.paths):
            return None
        return sum(_lines(path) for path in self.paths)


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(piece.count(b"\n") for piece in iter(lambda: file.read(_PIECE), b""))


def open_source(data: Data, split: str | None = None) -> Source:
    """The rows of `data.source`; `split` (default: `data.split`) may carry a slice, `train[:80%]`.

    Raises:
        RequestError: there is nothing readable there.
    """
    split = split or data.split
    if data.source == demo.NAME:
        return _local(demo.dataset_file(), split, "the demo dataset")
    path = Path(data.source).expanduser()
    if path.exists():
        return _local(path, split, str(path))
    if _written_as_path(data.source):
        raise RequestError(f"{one_line(data.source)} does not exist", "Check data.source; paths in a recipe are relative to its file.")
    return _hub(data, split)


def columns_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Every column that occurs, in the order of first sight."""
    return list(dict.fromkeys(str(key) for row in rows for key in row))


def _written_as_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or name.lower().endswith(tuple(files.SUFFIXES))


def _local(path: Path, split: str, name: str) -> Source:
    base, slice_text = _parse_split(split)
    if path.is_dir():
        whole = _folder(path, base)
    elif base == "train":
        whole = _of_files((path,))
    else:
        raise RequestError(f"{name} is a single file and has the split train only, not {one_line(base)}", "Set data.split: train.")
    if slice_text is None:
        return replace(whole, name=name if base == "train" else f"{name} [{base}]")
    count = whole.total if whole.total is not None else sum(1 for _ in whole.read())
    start, stop = _bounds(slice_text, count)
    name, version = f"{name} [{split}]", f"{whole.version}[{start}:{stop}]"
    return replace(whole, name=name, read=lambda: islice(whole.read(), start, stop), total=max(0, stop - start), version=version)


def _of_files(paths: Sequence[Path]) -> Source:
    return Source("", lambda: (row for path in paths for row in files.read_file(path)), paths=tuple(paths))


def _folder(path: Path, split: str) -> Source:
    try:
        inside = sorted(path.iterdir()) + sorted(path.glob("*/*"))  # two levels: the Hub keeps files in data/
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}", "Check the folder's permissions.") from None
    names = {entry.name for entry in inside if entry.parent == path}
    if names & {"dataset_dict.json", "state.json"}:
        return _saved(path, split)
    found = [entry for entry in inside if entry.is_file() and files.suffix(entry) in files.SUFFIXES and not entry.name.startswith(".")]
    if not found:
        raise RequestError(f"{path} holds no dataset file", f"Looked for {', '.join(files.SUFFIXES)}, or a dataset saved by save_to_disk.")
    # A README.txt or a dataset_infos.json beside the data is not data: only the kind that is surest to be data is read.
    kind = min((files.suffix(entry) for entry in found), key=files.SUFFIXES.index).removesuffix(".gz")
    found = [entry for entry in found if files.suffix(entry).removesuffix(".gz") == kind]
    by_split: dict[str, list[Path]] = {}
    for file in found:
        by_split.setdefault(_split_of(file), []).append(file)
    if split not in by_split:
        raise _no_split(str(path), split, sorted(by_split), "Its splits, by file names")
    return _of_files(by_split[split])


def _split_of(file: Path) -> str:
    """`validation-00000.parquet` → validation; a file that names no split belongs to train."""
    match = _SPLIT_IN_NAME.search(file.name.lower())
    return _SAME_SPLIT.get(match[1], match[1]) if match else "train"


def _saved(path: Path, split: str) -> Source:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:  # its reader raises errors of several libraries
        raise RequestError(f"{path} is not a readable saved dataset: {one_line(error, 200)}", "Save it again with save_to_disk.") from None
    if isinstance(loaded, datasets.DatasetDict):
        if split not in loaded:
            raise _no_split(str(path), split, list(loaded), "Its splits")
        loaded = loaded[split]
    elif split != "train":
        raise RequestError(f"{path} is one saved dataset without splits", "Set data.split: train.")
    return _of_dataset(loaded, "")


def _no_split(name: str, split: str, there_are: list[str], words: str) -> ChoiceError:
    hint = f"{words}: {one_line(', '.join(there_are), 300)}."
    return ChoiceError(Problem("data.split", f"{name} has no split {one_line(split)}", hint), "split", there_are)


def _of_dataset(dataset: Any, name: str) -> Source:
    return Source(name, lambda: files.dataset_rows(dataset), len(dataset), version=str(dataset._fingerprint))


def _hub(data: Data, split: str) -> Source:
    name, why = data.source, network.settle()  # before the library is imported: it takes over then whether there is a network
    import datasets

    try:
        loaded = datasets.load_dataset(name, data.config, split=split)
    except datasets.exceptions.DatasetNotFoundError as error:
        hint = f"Check the spelling; where it is gated, accept its terms at {network.page(name, 'dataset')}; then {network.LOG_IN}."
        if why or "offline" in str(error).lower() or "connect" in str(error).lower():
            hint = f"The Hub cannot be reached: {why or 'the connection broke'}. Check the network, or name a local file."
        raise RequestError(f"no dataset {one_line(name)!r} on the Hub or in its cache, and no file of that name", hint) from None
    except (ValueError, KeyError) as error:  # unknown configuration or split
        raise _choice(data, split, error) from None
    except (OSError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        if why:
            message = f"the dataset {one_line(name)} is not on this machine and the Hub cannot be reached: {why}"
            raise RequestError(message, "Check the network, or name a local file.") from None
        refusal = network.explained(error, name, "dataset")
        if refusal is not None:
            raise refusal from None
        raise RequestError(
            f"{one_line(name)} cannot be loaded: {one_line(error, 300)}", "Check the network and the name; a downloaded file works as well."
        ) from None
    return _of_dataset(loaded, f"{name} [{split}]")


def _choice(data: Data, split: str, error: Exception) -> RequestError:
    """What a Hub dataset offers in place of the configuration or split that was asked for; the library's own words where nobody can tell."""
    from tui_ft.hub import search

    name, base = one_line(data.source), _parse_split(split)[0]
    with suppress(RequestError):
        choices = search.choices(data.source)
        config = data.config or choices.default
        if config not in choices.configs:
            words = f"{name} has no configuration {one_line(data.config)}" if data.config else f"{name} has several configurations"
            hint = f"Choose one with data.config: {one_line(', '.join(choices.configs), 300)}."
            return ChoiceError(Problem("data.config", words, hint), "config", choices.configs)
        if base not in choices.configs[config]:
            return _no_split(name, base, choices.configs[config], "Its splits")
    return RequestError(f"{name}: {one_line(error, 400)}", "Set data.config and data.split to what the dataset offers.")


def _parse_split(split: str) -> tuple[str, str | None]:
    match = re.fullmatch(r"([\w.-]+)(?:\[([^\]]*)\])?", split.strip())
    if not match:
        raise RequestError(f"{one_line(split)} is not a split", "Write it as train, train[:80%] or train[1000:2000].")
    return match[1], match[2]


def _bounds(text: str, count: int) -> tuple[int, int]:
    """The slice of `train[10%:20%]` over `count` rows, as (start, stop)."""
    match = re.fullmatch(r"\s*(-?\d+%?)?\s*:\s*(-?\d+%?)?\s*", text)
    if not match:
        raise RequestError(f"[{one_line(text)}] is not a slice", "Write it as [:80%], [80%:] or [1000:2000].")

    def place(mark: str | None, default: int) -> int:
        if mark is None:
            return default
        number = round(int(mark[:-1]) * count / 100) if mark.endswith("%") else int(mark)
        return min(max(number + count if number < 0 else number, 0), count)

    return place(match[1], 0), place(match[2], count)
