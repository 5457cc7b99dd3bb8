"""The flat SFT file: every key has its place."""

from __future__ import annotations

import json

import pytest
import yaml

from tui_ft.errors import ConfigError
from tui_ft.recipe import files, presets
from tui_ft.recipe.flat_sft import FlatSft, import_text

EVERYTHING = {
    "model_name": "EleutherAI/pythia-160m", "dataset_name": "imdb", "dataset_text_field": "review", "learning_rate": 3e-5, "batch_size": 4,
    "seq_length": 256, "gradient_accumulation_steps": 8, "num_train_epochs": 2, "max_steps": 500, "load_in_8bit": False, "load_in_4bit": True,
    "logging_steps": 5, "save_steps": 50, "save_total_limit": 3, "use_peft": True, "peft_lora_r": 12, "peft_lora_alpha": 24,
    "trust_remote_code": True, "use_auth_token": "hf_AbCdEfGhIjKlMnOpQrStUv", "output_dir": "./results", "push_to_hub": True,
    "hub_model_id": "me/pythia-imdb", "gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False},
}  # fmt: skip


def as_tabbed_json(tree: object) -> str:
    return json.dumps(tree, indent="\t")


@pytest.mark.parametrize("write", [yaml.safe_dump, json.dumps, as_tabbed_json])
def test_every_key_finds_its_place(write: object) -> None:
    assert set(EVERYTHING) == set(FlatSft.model_fields)
    recipe, notices = import_text(write(EVERYTHING), "configs/my config.yml")  # type: ignore[operator]
    assert recipe.name == "my-config"
    assert (recipe.model.name, recipe.data.source, recipe.data.format, recipe.data.columns) == (
        "EleutherAI/pythia-160m", "imdb", "text", {"text": "review"},
    )  # fmt: skip
    assert (recipe.prompt.template, recipe.prompt.max_length, recipe.prompt.learn) == ("text", 256, "all")
    method = recipe.method
    assert (method.kind, method.quantization, method.r, method.alpha) == ("lora", "nf4", 12, 24)
    train = recipe.train
    assert (train.learning_rate, train.micro_batch, train.effective_batch, train.epochs, train.max_steps) == (3e-5, 4, 32, 2, 500)
    assert (train.activation_checkpointing, train.schedule, train.warmup) == (True, "linear", 0)
    assert (recipe.log.every, recipe.checkpoints.every, recipe.checkpoints.keep) == (5, 50, 3)
    assert (recipe.output.dir, recipe.output.push_to_hub) == ("./results", "me/pythia-imdb")
    dropped = {notice.split()[0] for notice in notices if "was dropped" in notice}
    assert dropped == {"trust_remote_code", "use_auth_token", "gradient_checkpointing_kwargs"}
    assert any("--trust-remote-code" in notice for notice in notices) and any("hf auth login" in notice for notice in notices)
    assert "hf_AbCd" not in "".join(notices) + files.dump(recipe)


def test_an_empty_file_means_the_scripts_defaults_which_are_the_preset() -> None:
    recipe, notices = import_text("{}", "sft-config.yaml")
    preset = presets.get("sft-config")
    assert notices == []
    assert recipe.model_copy(update={"about": preset.about}) == preset


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max_steps: -1", {"train.max_steps": None}),
        ("load_in_8bit: true", {"method.kind": "lora", "method.quantization": "int8"}),
        ("use_peft: true", {"method.kind": "lora", "method.quantization": "none", "method.r": 64, "method.alpha": 16, "method.dropout": 0.0}),
        ("gradient_checkpointing: false", {"train.activation_checkpointing": False}),
        ("push_to_hub: true\noutput_dir: out/my-model", {"output.push_to_hub": "my-model"}),
        ("hub_model_id: me/x", {"output.push_to_hub": None}),
        ("learning_rate: 2e-4\nhub_model_id: None", {"train.learning_rate": 2e-4}),
    ],
)
def test_what_a_value_means(text: str, expected: dict[str, object]) -> None:
    recipe, _ = import_text(text, "c.yml")
    for key, value in expected.items():
        section, leaf = key.split(".")
        assert getattr(getattr(recipe, section), leaf) == value


def test_all_errors_at_once_at_their_lines_without_repeating_a_token() -> None:
    text = "use_auth_token: [hf_AbCdEfGhIjKlMnOpQrStUv]\nmodel_nam: x\nbatch_size: true\nlearning_rate: fast\nmax_steps: -7\nseq_length: 1.5\n"
    with pytest.raises(ConfigError) as caught:
        import_text(text, "c.yml")
    found = [str(problem) for problem in caught.value.problems]
    assert len(found) == 5
    for line, key in ((2, "model_nam"), (3, "batch_size"), (4, "learning_rate"), (5, "max_steps"), (6, "seq_length")):
        assert any(problem.startswith(f"c.yml:{line}: {key}: ") for problem in found), found
    assert "Did you mean model_name?" in "".join(found) and "hf_AbCd" not in "".join(found)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "model_name: [", '{"a": ', "load_in_4bit: true\nload_in_8bit: true\n", "batch_size: 0"])
def test_what_is_no_flat_file_is_one_clear_error(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        import_text(text, "c.yml")
    assert len(caught.value.problems) == 1 and "c.yml" in str(caught.value)
