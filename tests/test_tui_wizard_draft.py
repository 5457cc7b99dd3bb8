"""The draft: text kept as typed, problems by field, the equivalent command, kept for next time."""

from __future__ import annotations

import json
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from tui_ft.recipe import files, presets
from tui_ft.tui import fields
from tui_ft.tui.draft import Draft

LEAVES = [key for key in files.known_keys() if "." in key]


def test_what_is_typed_stays_as_typed_while_the_last_good_value_is_used() -> None:
    draft = Draft.of_preset("demo")
    good = draft.require().train.learning_rate
    draft.type("train.learning_rate", "3e-")
    assert draft.text("train.learning_rate") == "3e-"
    assert "valid number" in draft.problems["train.learning_rate"]
    assert draft.recipe is None and draft.usable is not None and draft.usable.train.learning_rate == good
    draft.type("train.learning_rate", "3e-4")
    assert not draft.problems and draft.require().train.learning_rate == pytest.approx(3e-4)
    assert draft.text("train.learning_rate") == "3e-4"


@pytest.mark.parametrize(
    ("typed", "at"),
    [
        ({"train.micro_batch": "3"}, "train.effective_batch"),
        ({"evaluate.every": "never", "evaluate.early_stopping": "2"}, "evaluate.early_stopping"),
        ({"method.kind": "full", "method.quantization": "nf4"}, "method.quantization"),
        ({"method.kind": "last-layers"}, "method.layers"),
        ({"prompt.template": "chatml", "prompt.overlong": "split"}, "prompt.overlong"),
        ({"data.columns": "instruction"}, "data.columns"),
        ({"train.optimizer": "adamw"}, "train.optimizer"),
        ({"model.name": ""}, "model.name"),
    ],
)
def test_each_mistake_is_told_at_a_field_that_can_mend_it(typed: dict[str, str], at: str) -> None:
    draft = Draft.of_preset("demo")
    for key, text in typed.items():
        draft.type(key, text)
    assert list(draft.problems) == [at]


def test_an_empty_draft_asks_for_model_and_data_alone() -> None:
    draft = Draft.empty()
    assert draft.problems == {"model.name": "choose a model", "data.source": "choose a dataset"}
    draft.type("model.name", "facebook/opt-125m")
    draft.type("data.source", "rows.jsonl")
    assert draft.require().model.name == "facebook/opt-125m"


@pytest.mark.parametrize("info", presets.names(), ids=lambda info: info.name)
def test_every_field_of_every_preset_survives_being_shown_and_typed_again(info: presets.PresetInfo) -> None:
    draft = Draft.of_preset(info.name)
    for key in LEAVES:
        assert fields.from_text(key, draft.text(key)) == draft.value(key), key
        draft.raw[key] = draft.text(key)  # as if it had been typed
    again = Draft(draft.tree, raw=dict(draft.raw))
    assert again.require() == presets.get(info.name)


def test_every_field_has_help_and_a_label_that_fits() -> None:
    for key in LEAVES:
        spec = fields.spec(key)
        assert len(spec.help) > 20 and 2 < len(spec.label) <= 17, key


def test_the_command_makes_the_same_recipe() -> None:
    draft = Draft.of_preset("demo")
    assert draft.command() == "tui-ft run demo"
    draft.type("train.learning_rate", "2e-4")
    draft.type("data.languages", "en, no")
    draft.type("data.split", "no")
    draft.type("evaluate.samples", 'Hello, who\'s there? | $(id) "quoted"')
    draft.type("prompt.add_tokens", "true")
    words = shlex.split(draft.command())
    settings = [word for before, word in pairwise(words) if before == "--set"]
    assert words[:3] == ["tui-ft", "run", "demo"] and len(settings) == 5
    assert presets.open_recipe("demo", settings) == draft.require()


def test_a_draft_is_kept_with_its_mistakes_and_forgotten_on_request() -> None:
    draft = Draft.of_preset("demo")
    draft.type("train.epochs", "two")
    draft.type("model.name", "[red]x[/INST]")
    draft.keep()
    kept = Draft.kept()
    assert kept.text("train.epochs") == "two" and kept.problems == draft.problems
    assert kept.origin == "demo" and kept.changed and kept.base == draft.base
    Draft.forget()
    assert Draft.kept().origin == "" and Draft.kept().text("model.name") == ""


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"tree": 3}', '{"tree": {"model": 1}, "raw": {}, "base": {}, "origin": ""}', "\x00\xff"])
def test_a_damaged_kept_draft_is_an_empty_one(damage: str, tui_ft_home: Path) -> None:
    Draft.of_preset("demo").keep()
    next((tui_ft_home / "cache").glob("*.json")).write_text(damage, encoding="utf-8")
    assert Draft.kept().problems.keys() == {"model.name", "data.source"}


def test_a_kept_draft_of_another_version_loses_only_what_is_unknown(tui_ft_home: Path) -> None:
    draft = Draft.of_preset("demo")
    draft.type("train.epochs", "7")
    draft.keep()
    file = next((tui_ft_home / "cache").glob("*.json"))
    record = json.loads(file.read_text(encoding="utf-8"))
    record["tree"]["train"]["gone"] = 1
    record["raw"]["train.gone"] = "1"
    del record["tree"]["log"]
    file.write_text(json.dumps(record), encoding="utf-8")
    assert Draft.kept().require().train.epochs == 7
    assert file.stat().st_mode & 0o777 == 0o600


def test_restoring_a_field_gives_the_presets_value_back() -> None:
    draft = Draft.of_preset("phi-2-oasst1-qlora")
    draft.type("method.r", "many")
    draft.restore("method.r")
    assert draft.text("method.r") == "16" and not draft.changed and not draft.problems
