"""What is said about a template before any row is read, a pad that no text can hold, and a vocabulary that outgrows its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from data_material import byte_tokenizer
from test_data_masks import control_tokens

from tui_ft.data import tokenizer
from tui_ft.data.template_check import check
from tui_ft.recipe.schema import Model, Prompt

LOOP = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|e|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"


def said(folder: Path, source: str = "", bos: str = "<s>", special: list[str] | None = None, **prompt: Any) -> dict[str, str]:
    """Message → severity."""
    tokens = control_tokens(source) if special is None else special
    made = byte_tokenizer(folder, bos=bos, pad="<pad>", special=tokens, template=source)
    wanted = Prompt.model_validate({"template": "model", **prompt})
    loaded = tokenizer.load(Model(name=str(made), revision=None), wanted)
    found = check(loaded, wanted)
    assert all(finding.where == "prompt.template" and "\n" not in finding.message for finding in found)
    assert all(finding.hint for finding in found if finding.severity != "ok")
    return {finding.message: finding.severity for finding in found}


def severity(found: dict[str, str], words: str) -> str:
    return next((level for message, level in found.items() if words in message), "")


@pytest.mark.parametrize(
    ("name", "words", "level"),
    [
        ("google-gemma-2-2b-it.jinja", "refuses a system text", "warning"),
        ("google-gemma-2-2b-it.jinja", "refuses two user turns in a row", "ok"),
        ("mistralai-Mistral-Nemo-Instruct-2407.jinja", "drops system texts", "warning"),
        ("NousResearch-Hermes-3-Llama-3.1-8B-tool_use.jinja", "only conversations with tool definitions", "warning"),
        ("Qwen-Qwen3-0.6B.jinja", "drops thinking of all but the last answer", "ok"),
        ("meta-llama-Llama-3.1-8B-Instruct.jinja", "drops thinking given apart", "ok"),
        ("LFM2-8B-A1B.jinja", "drops tool calls", "ok"),
        ("google-gemma-4-31B-it.jinja", "asks for an answer by other text", "ok"),
        ("microsoft-Phi-3.5-mini-instruct.jinja", "does not begin with the bos token", "warning"),
    ],
)
def test_what_real_templates_do(tmp_path: Path, shared_data: Path, name: str, words: str, level: str) -> None:
    source = (shared_data / "chat_templates" / name).read_text("utf-8")
    assert severity(said(tmp_path, source), words) == level


def test_a_template_without_surprises_is_told_nothing_of_weight(tmp_path: Path) -> None:
    found = said(tmp_path, "{{ bos_token }}" + LOOP)
    assert set(found.values()) <= {"ok"} and not severity(found, "two user turns") and not severity(found, "asks")


def test_bos_written_twice_is_an_error(tmp_path: Path) -> None:
    assert severity(said(tmp_path, "{{ bos_token }}{{ bos_token }}" + LOOP), "twice") == "error"
    assert severity(said(tmp_path / "same", "{{ bos_token }}{{ bos_token }}" + LOOP, bos="</s>"), "twice") == "error"


def test_markers_that_are_no_tokens_of_a_base_model(tmp_path: Path) -> None:
    words = "markers are not tokens of this model"
    assert severity(said(tmp_path / "base", template="chatml"), words) == "warning"
    assert not severity(said(tmp_path / "base", template="chatml", add_tokens=True), words)
    assert not severity(said(tmp_path / "base", template="human-assistant"), words)
    assert not severity(said(tmp_path / "chat", special=["<|im_start|>", "<|im_end|>"], template="chatml"), words)


def test_another_family_than_the_models_own(tmp_path: Path) -> None:
    words = "of another family: it marks turns by <|assistant|>, <|e|>"
    assert severity(said(tmp_path / "own", LOOP, template="chatml"), words) == "warning"
    assert not severity(said(tmp_path / "own", LOOP), words)
    chatml = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    assert not severity(said(tmp_path / "same", chatml, template="chatml"), "another family")
    assert severity(said(tmp_path / "same", chatml, template="alpaca"), "another family") == "warning"


def test_an_unknown_token_pads_only_where_no_text_can_make_it(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = byte_tokenizer(tmp_path / "bytes", unk="<unk>")
    assert tokenizer.load(Model(name=str(folder), revision=None), Prompt(template="chatml")).pad_token == "<unk>"
    words = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "a": 2, ":": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.add_special_tokens(["<unk>", "</s>"])
    words.save(str(folder / "tokenizer.json"))
    loaded = tokenizer.load(Model(name=str(folder), revision=None), Prompt(template="chatml"))
    assert loaded.pad_token == "[PAD]" and loaded.unk_token_id == 0


def test_a_vocabulary_larger_than_the_embedding(tmp_path: Path) -> None:
    folder = byte_tokenizer(tmp_path, unk="<unk>")
    loaded = tokenizer.load(Model(name=str(folder), revision=None), Prompt(template="chatml", add_tokens=True))
    finding = tokenizer.vocabulary_finding(loaded, len(loaded) - 2)
    assert finding and finding.severity == "warning" and "grows by 2 rows" in finding.message
    assert tokenizer.vocabulary_finding(loaded, len(loaded)) is None and tokenizer.vocabulary_finding(loaded, 10**6) is None
