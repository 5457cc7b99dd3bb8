"""Preparation: cutting, splitting, counting, refusing, and the same result every time."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from data_material import byte_tokenizer, chats, recipe, write_rows

from tui_ft.data import cache, prepare, tokenizer
from tui_ft.data.prepare import Prepared
from tui_ft.errors import ConfigError, RequestError, TuiFtError
from tui_ft.recipe.schema import Recipe


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of two megabytes."""
    small = tmp_path / "small"
    small.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)], capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield small
    subprocess.run(["umount", "-l", str(small)], check=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_tokenizer(tmp_path_factory.mktemp("model"), unk="<unk>")


def run(wanted: Recipe, progress: list[tuple[str, int, int | None]] | None = None) -> Prepared:
    loaded = tokenizer.load(wanted.model, wanted.prompt)
    return prepare.prepare(wanted, loaded, None if progress is None else lambda *call: progress.append(call))


def decoded(wanted: Recipe, dataset: Any, learned: bool = False) -> list[str]:
    loaded = tokenizer.load(wanted.model, wanted.prompt)
    return [loaded.decode([i for i, label in zip(row["input_ids"], row["labels"], strict=True) if not learned or label != -100]) for row in dataset]


def test_labels_are_the_learned_tokens(tmp_path: Path, model: Path) -> None:
    wanted = recipe(model, write_rows(tmp_path / "a.jsonl", chats(3)))
    prepared = run(wanted)
    assert decoded(wanted, prepared.train, learned=True) == [f"Answer {n}</s>" for n in range(3)]
    for row in prepared.train:
        assert all(label in (-100, number) for number, label in zip(row["input_ids"], row["labels"], strict=True))
    report = prepared.report
    assert (report.rows, report.kept, report.train_samples, report.validation_samples, prepared.validation) == (3, 3, 3, 0, None)
    assert report.tokens == sum(len(row["input_ids"]) for row in prepared.train) == round(prepared.mean_tokens * 3)
    assert report.learned_tokens == 3 * (len("Answer 0") + 1)
    assert prepared.stop_token_ids == [tokenizer.load(wanted.model, wanted.prompt).eos_token_id]


def test_the_same_recipe_gives_the_same_samples(tmp_path: Path, model: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", chats(50))
    first, again = (run(recipe(model, path, data={"validation": 0.2})) for _ in range(2))
    assert first.fingerprint == again.fingerprint and list(first.train) == list(again.train) and list(first.validation) == list(again.validation)
    others = [
        run(recipe(model, path, data={"validation": 0.2}, train={"seed": 8})),
        run(recipe(model, path, data={"validation": 0.1})),
        run(recipe(model, path, data={"validation": 0.2}, prompt={"learn": "all"})),
        run(recipe(model, path, data={"validation": 0.2}, prompt={"template": "human-assistant"})),
        run(recipe(model, path, data={"validation": 0.2, "max_rows": 49})),
        run(recipe(model, write_rows(tmp_path / "b.jsonl", chats(50)[::-1]), data={"validation": 0.2})),
    ]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 7


def test_truncated_samples_and_lost_answers_are_counted(tmp_path: Path, model: Path) -> None:
    rows = [{"prompt": "p" * size, "completion": "c" * 50} for size in (10, 60, 150)]
    wanted = recipe(model, write_rows(tmp_path / "a.jsonl", rows), prompt={"max_length": 120})
    prepared = run(wanted)
    lengths = prepared.report.lengths
    assert (prepared.report.kept, lengths.truncated, lengths.answer_lost) == (2, 2, 1)
    assert prepared.report.dropped == {"the whole answer is beyond max_length": 1}
    assert [len(row["input_ids"]) for row in prepared.train] == [112, 120] and lengths.max == 252
    assert decoded(wanted, prepared.train, learned=True)[1] == "c" * (120 - 60 - 50)  # cut: no end of turn is invented
    assert "2 of 3 samples are cut to 120 tokens, 1 of them lost" in prepared.report.warnings[0]


def test_longer_samples_are_dropped_on_request(tmp_path: Path, model: Path) -> None:
    rows = [{"prompt": "p" * size, "completion": "c" * 50} for size in (10, 60, 150)]
    prepared = run(recipe(model, write_rows(tmp_path / "a.jsonl", rows), prompt={"max_length": 120, "overlong": "drop"}))
    assert prepared.report.kept == 1 and prepared.report.dropped == {"longer than max_length": 2} and prepared.report.lengths.truncated == 0


def test_text_is_cut_into_blocks_that_all_train(tmp_path: Path, model: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"text": f"{n:02d}" * 8} for n in range(40)])
    wanted = recipe(model, path, prompt={"template": "text", "overlong": "split", "max_length": 100})
    prepared = run(wanted)
    lengths = [len(row["input_ids"]) for row in prepared.train]
    assert lengths == [100] * 6 + [80]
    assert all(row["input_ids"] == row["labels"] for row in prepared.train)
    assert "".join(decoded(wanted, prepared.train)) == "".join(f"{n:02d}" * 8 + "</s>" for n in range(40))


def test_blocks_of_validation_hold_other_documents(tmp_path: Path, model: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"text": f"<{n:02d}>" * 8} for n in range(40)])
    wanted = recipe(model, path, data={"validation": 0.25}, prompt={"template": "text", "overlong": "split", "max_length": 64})
    prepared = run(wanted)
    held, trained = ("".join(decoded(wanted, side)).split("</s>")[:-1] for side in (prepared.validation, prepared.train))
    assert len(held) == 10 and len(trained) == 30 and not set(held) & set(trained)


def test_plain_text_learns_all_with_its_end_whatever_the_template(tmp_path: Path, model: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"text": "Once upon"}])
    for template in ("text", "chatml"):
        wanted = recipe(model, path, prompt={"template": template})
        prepared = run(wanted)
        assert decoded(wanted, prepared.train, learned=True) == ["Once upon</s>"]
        assert bool(prepared.report.warnings) == (template == "chatml")


def test_validation_never_shares_a_tree_or_a_duplicate(tmp_path: Path, model: Path) -> None:
    rows = []
    for tree in range(20):
        rows.append({"message_id": f"{tree}", "parent_id": None, "message_tree_id": f"{tree}", "text": f"Q{tree}.", "role": "prompter"})
        rows += [
            {"message_id": f"{tree}.{n}", "parent_id": f"{tree}", "message_tree_id": f"{tree}", "text": f"A{n}", "role": "assistant"}
            for n in range(4)
        ]
    wanted = recipe(model, write_rows(tmp_path / "trees.jsonl", rows), data={"validation": 0.2, "oasst": "all"})
    prepared = run(wanted)
    trained, held = ({text.split("\n")[1] for text in decoded(wanted, side)} for side in (prepared.train, prepared.validation))
    assert len(held) == 4 and len(trained) == 16 and not trained & held and len(prepared.validation) == 16

    copies = recipe(model, write_rows(tmp_path / "copies.jsonl", chats(10) * 3), data={"validation": 0.3})
    prepared = run(copies)
    assert len(prepared.validation) == 9 and not set(decoded(copies, prepared.train)) & set(decoded(copies, prepared.validation))


@pytest.mark.parametrize(("count", "fraction", "expected"), [(2, 0.01, 1), (2, 0.99, 1), (10, 0.3, 3), (1, 0.5, 0), (10, 0, 0)])
def test_both_sides_have_something_where_that_is_possible(tmp_path: Path, model: Path, count: int, fraction: float, expected: int) -> None:
    prepared = run(recipe(model, write_rows(tmp_path / "a.jsonl", chats(count)), data={"validation": fraction}))
    assert prepared.report.validation_samples == expected and prepared.report.train_samples == count - expected
    assert any("no validation" in warning for warning in prepared.report.warnings) == (count == 1)


def test_validation_by_the_name_of_a_split(tmp_path: Path, model: Path) -> None:
    write_rows(tmp_path / "data" / "train.jsonl", chats(5))
    write_rows(tmp_path / "data" / "test.jsonl", chats(3, answer="Held"))
    wanted = recipe(model, tmp_path / "data", data={"validation": "test"})
    prepared = run(wanted)
    assert len(prepared.train) == 5 and decoded(wanted, prepared.validation, learned=True) == [f"Held {n}</s>" for n in range(3)]
    part = run(recipe(model, tmp_path / "data", data={"split": "train[:80%]", "validation": "train[80%:]"}))
    assert (len(part.train), len(part.validation)) == (4, 1)
    with pytest.raises(RequestError, match="has no split dev"):
        run(recipe(model, tmp_path / "data", data={"validation": "dev"}))


def test_what_cannot_be_learned_from_is_refused(tmp_path: Path, model: Path) -> None:
    rows = write_rows(tmp_path / "a.jsonl", [{**row, "lang": "en"} for row in chats(10)])
    for sections, words in [
        ({"data": {"languages": ["fi"]}}, "another language: 10"),
        ({"prompt": {"max_length": 20}}, "the whole answer is beyond max_length: 10"),
        ({"prompt": {"max_length": 20, "overlong": "drop"}}, "longer than max_length: 10"),
        ({"data": {"split": "train[:0%]"}}, "is empty"),
    ]:
        with pytest.raises(RequestError) as error:
            run(recipe(model, rows, **sections))
        assert words in error.value.message
    with pytest.raises(RequestError) as error:
        run(recipe(model, write_rows(tmp_path / "b.jsonl", [*chats(30), {"messages": []}])))
    assert "1 of 31 rows are unusable" in error.value.message and "b.jsonl:31" in error.value.message
    assert run(recipe(model, tmp_path / "b.jsonl", data={"max_bad_rows": 0.05})).report.bad_rows == 1


def test_progress_counts_rows_and_conversations(tmp_path: Path, model: Path) -> None:
    calls: list[tuple[str, int, int | None]] = []
    run(recipe(model, write_rows(tmp_path / "a.jsonl", chats(2500)), data={"language_column": "detect"}), calls)
    for stage in ("languages", "tokenize"):
        assert [call[1:] for call in calls if call[0] == stage] == [(done, 2500) for done in (500, 1000, 1500, 2000, 2500, 2500)]
    assert [stage for stage, _, _ in calls] == sorted((stage for stage, _, _ in calls), key=["languages", "tokenize", "write"].index)


def test_what_was_prepared_is_found_again(tmp_path: Path, model: Path, tui_ft_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time no row is read; another length tokenizes nothing; a file with other bytes is another file, one moved is not."""
    monkeypatch.setenv("HOME", str(tmp_path / "person"))
    path = write_rows(tmp_path / "a.jsonl", chats(200))
    wanted = recipe(model, path, data={"validation": 0.2})
    calls: list[tuple[str, int, int | None]] = []

    def stages(wanted: Recipe) -> tuple[Prepared, set[str]]:
        calls.clear()
        return run(wanted, calls), {stage for stage, _, _ in calls}

    first, told = stages(wanted)
    assert told == {"tokenize", "write"}
    again, told = stages(wanted)
    assert told == set() and again.fingerprint == first.fingerprint and list(again.train) == list(first.train) and again.report == first.report
    moved = path.rename(tmp_path / "b.jsonl")
    again, told = stages(recipe(model, moved, data={"validation": 0.2}))
    assert told == set() and again.report.source == first.report.source.replace("a.jsonl", "b.jsonl")
    shorter, told = stages(recipe(model, moved, data={"validation": 0.2}, prompt={"max_length": 72}))
    assert told == {"write"} and max(len(row["input_ids"]) for row in shorter.train) == 72
    write_rows(moved, [*chats(199), *chats(1, answer="Another")])
    changed, told = stages(recipe(model, moved, data={"validation": 0.2}))
    assert told == {"tokenize", "write"} and changed.fingerprint != first.fingerprint
    assert not (tmp_path / "person").exists(), "everything stays in TUI_FT_HOME"
    for file in (tui_ft_home / "cache" / "data").rglob("*"):
        assert file.stat().st_mode & 0o077 == 0 and not file.name.startswith(".")


def test_what_is_damaged_is_prepared_anew(tmp_path: Path, model: Path, tui_ft_home: Path) -> None:
    wanted = recipe(model, write_rows(tmp_path / "a.jsonl", chats(50)), data={"validation": 0.2})
    first = run(wanted).fingerprint
    names = [file.relative_to(tui_ft_home) for file in sorted((tui_ft_home / "cache" / "data").rglob("*")) if file.is_file()]
    assert len(names) == 7
    for name in names:
        for damage in (Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1]), lambda path: path.write_bytes(b"")):
            damage(tui_ft_home / name)
            again = run(wanted)
            assert again.fingerprint == first and len(list(again.train)) == 40, name


def test_the_cache_keeps_what_was_used_last(tmp_path: Path, model: Path, tui_ft_home: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", chats(5))
    folder = tui_ft_home / "cache" / "data"
    prepared = run(recipe(model, path))
    long_ago = time.time() - 10**6
    for number in range(30):
        (folder / f"{number:032x}").mkdir()
        os.utime(folder / f"{number:032x}", (long_ago + number,) * 2)
    (folder / ".left-by-a-killed-process").mkdir()
    os.utime(folder / ".left-by-a-killed-process", (long_ago,) * 2)
    run(recipe(model, path, prompt={"max_length": 100}))
    left = sorted(entry.name for entry in folder.iterdir())
    assert len(left) == cache.KEPT and not [name for name in left if name.startswith(".")]
    assert f"{29:032x}" in left and f"{0:032x}" not in left
    assert next(iter(prepared.train))["input_ids"], "what is open stays readable"


def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path: Path, model: Path, tui_ft_home: Path, small_disk: Path) -> None:
    (tui_ft_home / "cache").mkdir(parents=True)
    (tui_ft_home / "cache" / "data").symlink_to(small_disk)
    wanted = recipe(model, write_rows(tmp_path / "a.jsonl", chats(30_000)))
    with pytest.raises(TuiFtError, match="disk is full"):
        run(wanted)
    assert not list(small_disk.iterdir())


def test_a_validation_split_that_repeats_the_training_is_told(tmp_path: Path, model: Path) -> None:
    write_rows(tmp_path / "data" / "train.jsonl", chats(8))
    write_rows(tmp_path / "data" / "test.jsonl", [*chats(2), *chats(3, answer="Held")])
    report = run(recipe(model, tmp_path / "data", data={"validation": "test"})).report
    (finding,) = (finding for finding in report.findings if finding.where == "data.validation")
    assert finding.message == "2 samples of the validation split test are in the training split, too" and finding.hint
    write_rows(tmp_path / "data" / "test.jsonl", [*chats(2), "{", "{"])
    with pytest.raises(ConfigError, match="the validation split test: 2 of 4 rows are unusable"):
        run(recipe(model, tmp_path / "data", data={"validation": "test"}))


def test_every_error_is_told_at_once_with_its_rows(tmp_path: Path, model: Path) -> None:
    """Nothing is left at this length, and rows are bad besides: both are said."""
    rows = write_rows(tmp_path / "a.jsonl", [*chats(3), "{", {"messages": None}])
    with pytest.raises(ConfigError) as error:
        run(recipe(model, rows, prompt={"max_length": 10, "overlong": "drop"}))
    assert len(error.value.problems) == 2
    assert "2 of 5 rows are unusable (40.0%, allowed 1.0%)" in str(error.value) and "longer than max_length: 3" in str(error.value)
    assert "a.jsonl:4" in str(error.value) and "a.jsonl:5" in str(error.value)


def test_duplicates_are_reported_with_their_places(tmp_path: Path, model: Path) -> None:
    report = run(recipe(model, write_rows(tmp_path / "a.jsonl", [*chats(5), chats(5)[1], chats(5)[4]]))).report
    finding, of_template = report.findings
    assert (
        of_template.where == "prompt.template"
        and report.duplicates == 2
        and finding.places == ("a.jsonl:6 repeats a.jsonl:2", "a.jsonl:7 repeats a.jsonl:5")
    )


REAL = {
    # file: format, rows, conversations kept, template
    "oasst/oasst1_en_validation_rows.jsonl": ("oasst", 2022, 188, "chatml"),
    "oasst/oasst2_multilingual_rows.jsonl": ("oasst", 1552, 94, "chatml"),
    "oasst/oasst2_multilingual_trees.jsonl": ("oasst", 1552, 94, "chatml"),
    "oasst/oasst_fr_top1_chat.jsonl": ("messages", 256, 256, "human-assistant"),
    "alpaca/rasbt_instruction_data_1100.json": ("alpaca", 1100, 1100, "alpaca"),
    "chat/fastchat_dummy_conversation.json": ("sharegpt", 500, 500, "human-assistant"),
    "preference/rasbt_instruction_preference_1100.json": ("alpaca", 1100, 1100, "alpaca"),
    "text/wikitext2_valid.txt": ("text", 1160, 1160, "text"),
}


@pytest.mark.parametrize("name", REAL)
def test_every_real_dataset_is_understood_without_help(shared_data: Path, name: str) -> None:
    form, rows, kept, template = REAL[name]
    wanted = recipe(shared_data / "models" / "stories260K-hf", shared_data / "datasets" / name, prompt={"template": template, "max_length": 100_000})
    prepared = run(wanted)
    report = prepared.report
    assert (report.format, report.rows, report.kept, report.bad_rows, report.lengths.truncated) == (form, rows, kept, 0, 0)
    eos = prepared.stop_token_ids[-1]
    for row in prepared.train.select(range(20)):
        learned = [label for label in row["labels"] if label != -100]
        assert learned[-1] == eos and row["input_ids"][0] == 1 != row["input_ids"][1] and row["labels"][0] == -100


def test_real_trees_give_the_same_from_rows_and_from_trees(shared_data: Path) -> None:
    model = shared_data / "models" / "stories260K-hf"
    rows, trees = (
        run(recipe(model, shared_data / "datasets" / "oasst" / f"oasst2_multilingual_{kind}.jsonl", data={"languages": ["es", "pt"]}))
        for kind in ("rows", "trees")
    )
    assert rows.fingerprint == trees.fingerprint and rows.report.languages["es"] == 25
