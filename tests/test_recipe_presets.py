"""Presets: the bundled ones, the user's own, and how a person's word for a recipe is understood."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml

from tui_ft import home
from tui_ft.errors import ConfigError, RequestError
from tui_ft.recipe import files, presets
from tui_ft.recipe.schema import Recipe

REFERENCE = ("gpt-openwebtext", "opt-350m-oasst1", "phi-2-oasst1-qlora", "sft-config", "stable-code-3b-qlora")

# The numbers of the published scripts.
PUBLISHED = {
    "opt-350m-oasst1": {
        "model.name": "facebook/opt-350m", "data.source": "OpenAssistant/oasst1", "data.languages": ["en"], "method.kind": "full",
        "prompt.max_length": 512, "train.epochs": 3, "train.effective_batch": 4, "train.micro_batch": 4, "train.learning_rate": 5e-5,
        "train.schedule": "linear", "train.warmup": 0, "checkpoints.every": 10000, "checkpoints.keep": 2, "log.every": 1000,
    },
    "sft-config": {
        "model.name": "facebook/opt-350m", "data.columns": {"text": "text"}, "train.learning_rate": 1.41e-5, "train.micro_batch": 64,
        "train.effective_batch": 1024, "prompt.max_length": 512, "train.epochs": 3, "train.max_steps": None, "log.every": 1,
        "checkpoints.every": 100, "checkpoints.keep": 10, "method.kind": "full", "method.r": 64, "method.alpha": 16,
    },
    "phi-2-oasst1-qlora": {
        "model.name": "microsoft/phi-2", "data.source": "OpenAssistant/oasst1", "data.languages": ["en"], "method.kind": "lora",
        "method.quantization": "nf4", "method.double_quantization": True, "method.r": 16, "method.alpha": 32, "method.dropout": 0.05,
        "method.targets": ["q_proj", "k_proj", "v_proj", "dense"], "train.micro_batch": 4, "train.effective_batch": 16,
        "train.learning_rate": 2e-4, "train.schedule": "cosine", "train.warmup": 0.03, "train.optimizer": "paged_adamw_32bit",
        "prompt.max_length": 2048, "train.activation_checkpointing": True, "train.epochs": 1, "prompt.template": "human-assistant",
        "checkpoints.every": 100, "checkpoints.keep": 2, "checkpoints.zip": True,
    },
    "gpt-openwebtext": {
        "model.name": "PingVortex/VLM-1", "data.source": "stas/openwebtext-10k", "data.format": "text", "data.validation": 0.1,
        "prompt.max_length": 512, "prompt.overlong": "split", "train.epochs": 3, "train.micro_batch": 8, "train.effective_batch": 16,
        "train.learning_rate": 2e-5, "train.weight_decay": 0.01, "evaluate.every": "epoch", "checkpoints.every": "epoch",
        "evaluate.early_stopping": 2, "log.every": 50, "method.kind": "full",
    },
    "stable-code-3b-qlora": {
        "model.name": "stabilityai/stable-code-3b", "data.columns": {"instruction": "instruction", "input": "input", "output": "output"},
        "method.quantization": "nf4", "hardware.memory_limit": "6000MB", "method.r": 8, "method.alpha": 32, "method.dropout": 0.05,
        "method.targets": "all-linear", "train.micro_batch": 1, "train.effective_batch": 4, "train.warmup": 20, "train.max_steps": 2000,
        "train.learning_rate": 2e-5, "train.optimizer": "paged_adamw_8bit", "train.weight_decay": 0.01, "log.every": 2,
        "prompt.overlong": "drop", "prompt.template": "alpaca",
    },
}  # fmt: skip


def recipe(**changes: str) -> Recipe:
    plain = files.validate({"model": {"name": "a/model"}, "data": {"source": "a/dataset"}})
    return files.with_settings(plain, [f"{key.replace('__', '.')}={value}" for key, value in changes.items()])


@pytest.mark.parametrize("name", REFERENCE)
def test_reference_presets_hold_the_published_numbers(name: str) -> None:
    preset = presets.get(name)
    assert preset.name == name and preset.about and preset.train.precision == "auto"
    for key, value in PUBLISHED[name].items():
        section, leaf = key.split(".")
        assert getattr(getattr(preset, section), leaf) == value, key
    assert files.parse(files.dump(preset)) == preset


def test_all_bundled_presets_are_listed_first_and_load() -> None:
    presets.save(recipe(about="mine"), "aaa")
    listed = presets.names()
    bundled = [info.name for info in listed if info.bundled]
    assert set(REFERENCE) <= set(bundled)
    assert [info.name for info in listed] == [*sorted(bundled), "aaa"]
    assert listed[-1].about == "mine" and not listed[-1].bundled
    for info in listed:
        assert presets.get(info.name).name == info.name


def test_a_saved_preset_is_private_whole_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = presets.save(recipe(data__source="./rows.jsonl", train__epochs="3"), "mine")
    assert path == home.user_presets_folder() / "mine.yaml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [item.name for item in path.parent.iterdir()] == ["mine.yaml"]
    saved = presets.get("mine")
    assert (saved.name, saved.train.epochs, saved.data.source) == ("mine", 3, str(tmp_path / "rows.jsonl"))


def test_overwriting_is_asked_for(tmp_path: Path) -> None:
    presets.save(recipe(), "mine")
    with pytest.raises(RequestError, match="already"):
        presets.save(recipe(train__epochs="9"), "mine")
    assert presets.get("mine").train.epochs == 1
    presets.save(recipe(train__epochs="9"), "mine", overwrite=True)
    assert presets.get("mine").train.epochs == 9


def test_a_failed_save_leaves_the_old_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    presets.save(recipe(), "mine")
    home.user_presets_folder().chmod(0o500)
    try:
        if (home.user_presets_folder() / "probe").parent.stat().st_uid == 0:
            monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))  # root writes anywhere
        with pytest.raises(RequestError, match="cannot be saved"):
            presets.save(recipe(train__epochs="9"), "mine", overwrite=True)
    finally:
        home.user_presets_folder().chmod(0o700)
    assert presets.get("mine").train.epochs == 1
    assert [item.name for item in home.user_presets_folder().iterdir()] == ["mine.yaml"]


def test_bundled_presets_stay_as_they_are() -> None:
    for action in (lambda: presets.save(recipe(), "sft-config"), lambda: presets.save(recipe(), "sft-config", overwrite=True)):
        with pytest.raises(RequestError, match="comes with tui-ft") as caught:
            action()
        assert "another name" in caught.value.hint
    with pytest.raises(RequestError, match="comes with tui-ft"):
        presets.delete("sft-config")
    assert presets.get("sft-config").name == "sft-config"


def test_delete() -> None:
    presets.save(recipe(), "mine")
    presets.delete("mine")
    with pytest.raises(RequestError, match="no preset"):
        presets.get("mine")
    with pytest.raises(RequestError, match="no preset"):
        presets.delete("mine")


@pytest.mark.parametrize("name", ["", ".hidden", "../outside", "a/b", "a b", "x" * 101, "a\n", "\x1b[2J"])
def test_names_that_are_no_names(name: str) -> None:
    for action in (lambda: presets.save(recipe(), name), lambda: presets.delete(name), lambda: presets.get(name)):
        with pytest.raises(RequestError) as caught:
            action()
        assert "\x1b" not in str(caught.value)
    assert not home.user_presets_folder().exists()


@pytest.mark.parametrize(
    ("key", "secret"),
    [
        ("about", "my token is hf_AbCdEfGhIjKlMnOpQrStUv"),
        ("output.push_to_hub", "hf_AbCdEfGhIjKlMnOpQrStUv/model"),
        ("data.source", "https://me:secretpassword@example.org/x.jsonl"),
        ("evaluate.samples", ["what is sk-proj-abcdefghijklmnopqrstuvwxyz"]),
        ("data.columns", {"ghp_abcdefghijklmnopqrstuvwxyz0123": "text"}),
        ("about", "0123456789abcdef0123456789abcdef01234567"),
    ],
)
def test_secrets_are_refused_and_never_repeated(tmp_path: Path, key: str, secret: object) -> None:
    wrong = files.with_settings(recipe(), [f"{key}={yaml.safe_dump(secret, default_flow_style=True)}"])
    file = tmp_path / "r.yaml"
    file.write_text(files.dump(wrong))
    for action in (lambda: presets.save(wrong, "mine"), lambda: presets.open_recipe(str(file))):
        with pytest.raises(ConfigError, match=f"{key}.*token or password") as caught:
            action()
        assert not any(part in str(caught.value) for part in ("AbCdEf", "secretpassword", "abcdefghij", "0123456789abcdef"))
    assert not home.user_presets_folder().exists()


def test_a_commit_is_no_secret() -> None:
    presets.save(recipe(model__revision="'0123456789abcdef0123456789abcdef01234567'"), "pinned")


def test_a_path_wins_over_a_preset_and_a_preset_over_a_file_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("sft-config", "sft-config.yaml", "elsewhere"):
        Path(name).write_text("name: from-file\nmodel: {name: a/b}\ndata: {source: c/d}\n")
    assert presets.open_recipe("sft-config").name == "sft-config"
    for ref in ("./sft-config", "sft-config.yaml", "elsewhere", str(tmp_path / "elsewhere")):
        assert presets.open_recipe(ref).name == "from-file"


def test_paths_count_from_the_recipes_folder_and_settings_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, here = tmp_path / "recipes", tmp_path / "here"
    folder.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    (folder / "r.yaml").write_text("model: {name: ./model}\ndata: {source: rows.jsonl}\noutput: {dir: out}\n")
    opened = presets.open_recipe("../recipes/r.yaml", ["data.source=./mine.jsonl", "train.epochs=2"])
    assert Path(opened.model.name).resolve() == folder / "model" and Path(opened.output.dir or "").resolve() == folder / "out"
    assert opened.data.source == str(here / "mine.jsonl") and opened.train.epochs == 2


def test_unknown_references_name_the_nearest() -> None:
    for ref in ("opt-350-oasst1", "opt-350m-oasst1.yaml", "./opt-350m-oasst1.yml"):
        with pytest.raises(RequestError) as caught:
            presets.open_recipe(ref)
        assert "opt-350m-oasst1" in caught.value.hint
    for ref in ("", "x" * 5000, "/" + "x" * 5000, "\x1b[2J"):
        with pytest.raises(RequestError) as caught:
            presets.open_recipe(ref)
        assert "\x1b" not in str(caught.value)


def test_a_broken_user_preset_is_listed_with_its_fault() -> None:
    presets.save(recipe(), "mine")
    (home.user_presets_folder() / "mine.yaml").write_text("model: [")
    info = presets.names()[-1]
    assert info.name == "mine" and "cannot be used" in info.about and "not valid YAML" in info.about
    with pytest.raises(ConfigError):
        presets.open_recipe("mine")
