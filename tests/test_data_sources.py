"""Sources: what can be read, and what is said when it cannot."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from data_material import write_rows

from tui_ft.data import sources
from tui_ft.data.files import Row
from tui_ft.errors import RequestError
from tui_ft.recipe.schema import Data

ROWS = [{"text": f"Text {n}"} for n in range(10)]


def read(source: Path | str, split: str = "train") -> list[Row]:
    return list(sources.open_source(Data(source=str(source), split=split)).read())


def texts(source: Path | str, split: str = "train") -> list[str]:
    return [row.values["text"] for row in read(source, split) if row.values]


def make(path: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    if path.name.endswith(".jsonl"):
        return write_rows(path, ROWS)
    if path.name.endswith(".jsonl.gz"):
        path.write_bytes(gzip.compress("\n".join(map(json.dumps, ROWS)).encode()))
    elif path.suffix == ".json":
        path.write_text(json.dumps(ROWS))
    elif path.suffix in (".csv", ".tsv"):
        path.write_text("\n".join(["text", *(row["text"] for row in ROWS)]))
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    else:
        path.write_text("\n".join(row["text"] for row in ROWS))
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.csv", "a.tsv", "a.parquet", "a.txt"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    assert texts(make(tmp_path / name)) == [row["text"] for row in ROWS]


def test_json_as_it_is_found_in_the_wild(tmp_path: Path) -> None:
    wrapped = tmp_path / "wrapped.json"
    wrapped.write_text(json.dumps({"version": 1, "data": ROWS}))
    single = tmp_path / "single.json"
    single.write_text(json.dumps(ROWS[0]))
    lines = tmp_path / "lines.json"
    lines.write_text("\n".join(map(json.dumps, ROWS)))
    marked = tmp_path / "marked.json"
    marked.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROWS).encode())
    wide = tmp_path / "wide.jsonl"
    wide.write_bytes("\n".join(map(json.dumps, ROWS)).encode("utf-16"))
    assert texts(single) == ["Text 0"]
    for path in (wrapped, lines, marked, wide):
        assert texts(path) == [row["text"] for row in ROWS]


def test_csv_cells_may_be_long_and_hold_line_breaks(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    long = "x" * 300_000
    path.write_text(f'text,lang\n"two\nlines",en\n{long},de\nonly one cell\n')
    first, second, third = read(path)
    assert first.values == {"text": "two\nlines", "lang": "en"}
    assert second.values and second.values["text"] == long
    assert third.values is None and third.place == "a.csv:5" and "2 cells" in third.problem


def test_text_is_cut_at_blank_lines_and_by_line_without_them(tmp_path: Path) -> None:
    prose = tmp_path / "prose.txt"
    prose.write_text("\nIt was a dark\nand stormy night.\n \n\nThe end.\n")
    lines = tmp_path / "lines.txt"
    lines.write_text("One.\nTwo.\nThree.\n\n\n")
    assert texts(prose) == ["It was a dark\nand stormy night.", "The end."]
    assert [row.place for row in read(prose)] == ["prose.txt:2", "prose.txt:6"]
    assert texts(lines) == ["One.", "Two.", "Three."]


def test_a_folder_is_read_by_splits(tmp_path: Path) -> None:
    write_rows(tmp_path / "train-00000.jsonl", ROWS[:4])
    write_rows(tmp_path / "train-00001.jsonl", ROWS[4:8])
    write_rows(tmp_path / "valid.jsonl", ROWS[8:])
    (tmp_path / "README.txt").write_text("not data")
    (tmp_path / "dataset_infos.json").write_text('{"default": {}}')
    assert texts(tmp_path) == [row["text"] for row in ROWS[:8]]
    assert texts(tmp_path, "validation") == ["Text 8", "Text 9"]
    with pytest.raises(RequestError) as error:
        read(tmp_path, "test")
    assert "train, validation" in str(error.value)


def test_a_folder_as_the_hub_lays_it_out(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    make(tmp_path / "data" / "train-00000-of-00001.parquet")
    make(tmp_path / "data" / "test-00000-of-00001.parquet")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "README.md").write_text("# A dataset")
    assert texts(tmp_path) == texts(tmp_path, "test") == [row["text"] for row in ROWS]


def test_a_saved_dataset_is_read_with_its_splits(tmp_path: Path) -> None:
    import datasets

    whole = datasets.Dataset.from_list(ROWS)
    whole.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": whole, "test": whole.select(range(2))}).save_to_disk(str(tmp_path / "both"))
    assert texts(tmp_path / "one") == texts(tmp_path / "both") == [row["text"] for row in ROWS]
    assert texts(tmp_path / "both", "test") == ["Text 0", "Text 1"]
    (tmp_path / "one" / "state.json").write_text("{")
    with pytest.raises(RequestError, match="not a readable saved dataset"):
        read(tmp_path / "one")


@pytest.mark.parametrize(
    ("split", "expected"), [("train[:30%]", [0, 1, 2]), ("train[80%:]", [8, 9]), ("train[2:4]", [2, 3]), ("train[-1:]", [9]), ("train[20:30]", [])]
)
def test_slices(tmp_path: Path, split: str, expected: list[int]) -> None:
    assert texts(make(tmp_path / "a.jsonl"), split) == [f"Text {n}" for n in expected]


def test_two_slices_of_one_file_share_no_row(tmp_path: Path) -> None:
    path = make(tmp_path / "a.jsonl")
    assert texts(path, "train[:35%]") + texts(path, "train[35%:]") == [row["text"] for row in ROWS]


def test_a_broken_line_is_a_row_with_its_place(tmp_path: Path) -> None:
    rows = read(write_rows(tmp_path / "a.jsonl", [ROWS[0], '{"text": "cut o', "[1, 2]", "7", ROWS[1]]))
    assert [(row.place, row.problem) for row in rows if row.values is None] == [
        ("a.jsonl:2", "not valid JSON"),
        ("a.jsonl:3", "not an object"),
        ("a.jsonl:4", "not an object"),
    ]
    assert sum(row.values is not None for row in rows) == 2


def test_what_cannot_be_read_is_said_with_its_place(tmp_path: Path) -> None:
    cut = tmp_path / "cut.json"
    cut.write_text('[\n {"text": "tw')
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 100_000)
    (tmp_path / "none").mkdir()
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 this is none")
    (tmp_path / "bad.jsonl.gz").write_bytes(b"plain")
    (tmp_path / "scalar.json").write_text("3")
    (tmp_path / "twice.csv").write_text("a,a\n1,2\n")
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    for source, words in {
        cut: "cut.json:2 is not valid JSON",
        deep: "nested too deeply",
        tmp_path / "none": "holds no dataset file",
        tmp_path / "bad.parquet": "not a readable parquet file",
        tmp_path / "bad.jsonl.gz": "not a gzip file",
        tmp_path / "scalar.json": "a single int",
        tmp_path / "twice.csv": "names a column twice",
        tmp_path / "image.png": "no known kind",
        tmp_path / "missing.jsonl": "does not exist",
        "./missing": "does not exist",
    }.items():
        with pytest.raises(RequestError) as error:
            read(source)
        assert words in error.value.message, source


def test_bad_splits(tmp_path: Path) -> None:
    path = make(tmp_path / "a.jsonl")
    for split in ("validation", "train[", "train[x:y]", "train[1:2:3]", "train+test"):
        with pytest.raises(RequestError):
            read(path, split)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file_and_folder(tmp_path: Path) -> None:
    path = make(tmp_path / "a.jsonl")
    path.chmod(0)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    for source in (path, closed):
        with pytest.raises(RequestError, match="cannot be read"):
            read(source)


def test_a_hub_name_without_network_is_one_clear_error() -> None:
    with pytest.raises(RequestError) as error:
        read("nobody/no-such-dataset")
    assert "nobody/no-such-dataset" in error.value.message and error.value.hint


def test_the_demo_dataset_needs_no_file() -> None:
    assert {"message_id", "parent_id", "text", "role"} <= read("builtin:demo")[0].values.keys()


def test_a_list_is_read_as_it_goes_along_and_may_be_cut_off(tmp_path: Path) -> None:
    rows = [{"text": "é\U0001f600\\" * 400, "n": n, "inner": [{"deep": [n]}]} for n in range(3000)]
    whole = json.dumps(rows, ensure_ascii=False, indent=1)
    path = tmp_path / "rows.json"
    path.write_text(whole)
    assert [row.values for row in read(path)] == rows
    path.write_text(json.dumps([*range(200_000)]))
    assert len(read(path)) == 200_000, "a number at the end of a piece is not half a number"
    for share in (0.3, 0.99):
        path.write_text(whole[: int(len(whole) * share)])
        *good, last = read(path)
        assert [row.values for row in good] == rows[: len(good)] and len(good) > 3000 * share - 2
        assert (last.place, last.values, last.problem) == (f"rows.json row {len(good) + 1}", None, "the file is cut off here")
    path.write_text('[{"text": "one"}]\n[{"text": "two"}]')
    with pytest.raises(RequestError, match="goes on after its list"):
        read(path)
    path.write_text('[{"text": "one"},\n{"text" "two"}, ' + '{"text": "three"},' * 10)
    with pytest.raises(RequestError, match=r"rows.json:2 is not valid JSON"):
        read(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "wrapped.json", "a.csv", "a.txt"])
def test_bytes_of_another_encoding_spoil_their_row_alone(tmp_path: Path, name: str) -> None:
    good, bad = '{"text": "gut"}', '{"text": "schön"}'
    texts = {"a.jsonl": f"{good}\n{bad}\n{good}", "a.json": f"[{good}, {bad}, {good}]", "wrapped.json": f'{{"data": [{good}, {bad}, {good}]}}'}
    (tmp_path / name).write_bytes(texts.get(name, ("text\n" if name == "a.csv" else "") + "gut\nschön\ngut\n").encode("latin-1"))
    assert [row.values for row in read(tmp_path / name)] == [{"text": "gut"}, None, {"text": "gut"}]
    assert read(tmp_path / name)[1].problem == "not UTF-8 text"
