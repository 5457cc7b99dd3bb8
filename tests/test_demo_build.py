"""The demo's dataset has the shape of the real thing, and its model folder is whole, the same each time, and made once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tui_ft import demo, home
from tui_ft.errors import TuiFtError
from tui_ft.recipe import files

FILES = {"chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return [json.loads(line) for line in demo.dataset_file().read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def built() -> Path:
    return demo.model_folder()


def test_dataset_is_a_few_hundred_messages_with_all_that_the_form_allows(rows: list[dict]) -> None:
    by_id = {row["message_id"]: row for row in rows}
    assert 300 <= len(rows) <= 450 and len(by_id) == len(rows)
    assert Counter(row["lang"] for row in rows)["en"] > len(rows) / 2
    assert {"es", "de", "fr", "pt-BR", "zh"} <= {row["lang"] for row in rows}
    assert sum(row["deleted"] for row in rows) >= 5
    assert any(parent and by_id[parent]["parent_id"] for parent in (row["parent_id"] for row in rows)), "no multi-turn tree"
    for row in rows:
        parent = by_id.get(row["parent_id"])
        assert (row["role"] == "prompter") == (parent is None or parent["role"] == "assistant")
        assert row["message_tree_id"] == (parent["message_tree_id"] if parent else row["message_id"])
        assert row["text"] == row["text"].strip() != ""


def test_ranks_order_the_answers_to_each_question(rows: list[dict]) -> None:
    answers: dict[str, list[int]] = {}
    for row in rows:
        assert (row["rank"] is None) == (row["role"] == "prompter" or row["deleted"])
        if row["rank"] is not None:
            answers.setdefault(row["parent_id"], []).append(row["rank"])
    assert all(sorted(ranks) == list(range(len(ranks))) for ranks in answers.values())
    assert sum(len(ranks) > 1 for ranks in answers.values()) > 60
    assert any(ranks[0] != 0 for ranks in answers.values()), "the best answer must not simply be the first"


def test_rows_have_the_columns_of_oasst1(rows: list[dict], shared_data: Path) -> None:
    with (shared_data / "datasets/oasst/oasst1_en_validation_rows.jsonl").open(encoding="utf-8") as real:
        assert set(rows[0]) <= set(json.loads(next(real)))


def test_model_folder_is_whole_private_and_cached(built: Path) -> None:
    assert {path.name for path in built.iterdir()} == FILES
    assert built.parent == home.cache_folder()
    assert all(path.stat().st_mode & 0o077 == 0 for path in (built, *built.iterdir()))
    before = {path: path.stat().st_mtime_ns for path in built.iterdir()}
    assert demo.model_folder() == built
    assert {path: path.stat().st_mtime_ns for path in built.iterdir()} == before


def test_model_is_the_same_each_time(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUI_FT_HOME", str(tmp_path / "second"))
    again = demo.model_folder()
    assert again != built and all((again / name).read_bytes() == (built / name).read_bytes() for name in FILES)


def test_several_first_uses_at_once_agree(tui_ft_home: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: demo.model_folder(), range(8)))
    assert len(folders) == 1
    assert [path.name for path in home.cache_folder().iterdir()] == [folders.pop().name]


def test_build_needs_neither_torch_nor_transformers() -> None:
    code = "import sys; from tui_ft import demo; demo.model_folder(); sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'datasets')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unwritable_cache_is_one_clear_error(tui_ft_home: Path) -> None:
    tui_ft_home.mkdir()
    home.cache_folder().write_text("a file where the folder belongs")
    with pytest.raises(TuiFtError, match="cannot be written") as raised:
        demo.model_folder()
    assert "TUI_FT_HOME" in raised.value.hint


def test_transformers_loads_it_without_a_warning(built: Path) -> None:
    code = f"""
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer, model = AutoTokenizer.from_pretrained({str(built)!r}), AutoModelForCausalLM.from_pretrained({str(built)!r})
assert len(tokenizer) == model.config.vocab_size
assert len({{tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id}}) == 4
assert tokenizer.decode(tokenizer.encode("naïve 你好 🙂\\n\\tx")) == "naïve 你好 🙂\\n\\tx"
turn = tokenizer.apply_chat_template([{{"role": "user", "content": "Hi"}}], add_generation_prompt=True, tokenize=False)
assert turn == "<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n", turn
ids = tokenizer.encode(turn)
assert [tokenizer.decode(i) for i in ids if i in tokenizer.all_special_ids] == ["<|im_start|>", "<|im_end|>", "<|im_start|>"]
assert set(model.generation_config.eos_token_id) == {{tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")}}
"""
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if line.strip() and not line.lstrip("\r").startswith("Loading weights")]
    assert done.returncode == 0 and not complaints, done.stderr


def test_preset_trains_on_the_demo_itself() -> None:
    recipe = files.load(home.bundled_presets_folder() / "demo.yaml")
    assert recipe.model.name == recipe.data.source == demo.NAME
    assert files.absolute(recipe, Path("/elsewhere")) == recipe
