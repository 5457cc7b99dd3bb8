"""Recipe files: errors at their place, `--set` for every key, paths, and writing back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tui_ft.errors import ConfigError, RequestError
from tui_ft.recipe import files, schema
from tui_ft.recipe.schema import Recipe

MINIMAL = {"model": {"name": "a/model"}, "data": {"source": "a/dataset"}}

# A value for each key that is neither its default nor that of MINIMAL.
VALUES: dict[str, Any] = {
    "name": "other", "about": "what for", "version": 1, "model.name": "b/model", "model.revision": "v2",
    "data.source": "b/dataset", "data.config": "small", "data.split": "train[:80%]", "data.format": "alpaca", "data.columns": {"text": "body"},
    "data.languages": ["en", "es"], "data.language_column": "lang", "data.oasst": "all", "data.max_bad_rows": 0.5, "data.validation": "test",
    "data.max_rows": 7, "prompt.template": "chatml", "prompt.learn": "all", "prompt.max_length": 99, "prompt.overlong": "drop",
    "prompt.add_tokens": True, "method.kind": "full", "method.quantization": "nf4", "method.double_quantization": False,
    "method.variant": "dora", "method.layers": 3, "method.r": 4, "method.alpha": 5, "method.dropout": 0.1, "method.targets": ["q_proj"],
    "train.epochs": 2.5, "train.max_steps": 11, "train.effective_batch": 6, "train.micro_batch": 2, "train.learning_rate": 3e-6,
    "train.schedule": "constant", "train.warmup": 20.0, "train.optimizer": "adafactor", "train.precision": "fp32",
    "train.length_grouped": False,
    "train.activation_checkpointing": 3, "train.packing": True, "train.weight_decay": 0.2, "train.max_grad_norm": 0.0, "train.seed": 0,
    "evaluate.every": 5, "evaluate.early_stopping": 2, "evaluate.samples": ["Hello?"], "checkpoints.every": "epoch", "checkpoints.keep": 9,
    "checkpoints.zip": True, "log.every": 1, "log.trackers": ["tensorboard"], "hardware.gpus": [1], "hardware.memory_limit": "6GB",
    "output.dir": "/tmp/out", "output.push_to_hub": "me/model", "output.merge": True,
}  # fmt: skip
SECTIONS = {"model", "data", "prompt", "method", "train", "evaluate", "checkpoints", "log", "hardware", "output"}


def as_yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n")


def at(recipe: Recipe, key: str) -> Any:
    value: Any = recipe
    for part in key.split("."):
        value = getattr(value, part)
    return value


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        files.parse(text, "my.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_every_key_of_the_format_can_be_set() -> None:
    assert set(files.known_keys()) - SECTIONS == set(VALUES), "a key without a value here, or the other way round"
    for key, value in VALUES.items():
        recipe = files.with_settings(files.validate(MINIMAL), [f"{key}={as_yaml(value)}"])
        assert at(recipe, key) == value, key


def test_settings_reach_into_a_free_mapping_and_numbers_may_be_written_as_people_do() -> None:
    recipe = files.with_settings(files.validate(MINIMAL), ["data.columns.output=answer", "train.learning_rate=1e-5", "model.revision=null"])
    assert recipe.data.columns == {"output": "answer"}
    assert recipe.train.learning_rate == 1e-5


def test_all_wrong_settings_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        files.with_settings(files.validate(MINIMAL), ["train.lr=1", "train", "train=3", "learning_rte=1", "train.epochs=[1"])
    text = str(caught.value)
    assert len(caught.value.problems) == 5
    assert "key=value" in text and "is a section" in text and "Did you mean train.learning_rate?" in text and "not a YAML value" in text
    with pytest.raises(ConfigError, match=r"train\.epochs"):
        files.with_settings(files.validate(MINIMAL), ["train.epochs=-1"])


def test_all_errors_come_at_once_each_at_its_line() -> None:
    text = "model:\n  name: a/b\n  nme: c\ndata:\n  source: d\n  languages: en\ntrain:\n  learning_rate: fast\n  max_steps: true\nextra: 1\n"
    found = problems(text)
    assert len(found) == 5
    for line, key in ((3, "model.nme"), (6, "data.languages"), (8, "train.learning_rate"), (9, "train.max_steps"), (10, "extra")):
        assert any(problem.startswith(f"my.yaml:{line}: {key}: ") for problem in found), (line, key, found)
    assert any("Did you mean model.name?" in problem for problem in found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: {name: a/b}\n", "my.yaml: data: is missing"),
        ("- just\n- a list\n", "mapping of keys"),
        ("", "mapping of keys"),
        ("model: {name: a\n  b: [\n", "not valid YAML"),
        ("a: !!python/object/apply:os.system [id]\n", "not valid YAML"),
        ("model: {name: a/b}\ndata: {source: c}\nmethod: {kind: full, quantization: nf4}\n", "my.yaml:3: method: quantized weights cannot"),
        ("model: {name: a/b}\ndata: {source: c}\ntrain:\n  optimizer: adamw_tourch\n", "did you mean adamw_torch"),
        ("model: {name: a/b}\ndata: {source: c}\ntrain:\n  effective_batch: 6\n  micro_batch: 4\n", "not a multiple"),
        ("model: {name: a/b}\ndata: {source: c}\ntrain: {learning_rate: .nan}\n", "train.learning_rate"),
        ("model: {name: a/b}\ndata: {source: c}\nversion: 2\n", "my.yaml:3: version"),
        ("model: {name: a/b}\ndata: {source: c}\nhardware: {memory_limit: lots}\n", "not a size"),
        ("[" * 5000, "not valid YAML"),
    ],
)  # fmt: skip
def test_one_clear_error(text: str, expected: str) -> None:
    assert expected in "\n".join(problems(text))


def test_errors_show_control_characters_instead_of_obeying_them() -> None:
    assert "\x1b" not in "\n".join(problems('model: {name: a/b}\ndata: {source: c}\ntrain: {precision: "\\e]0;gotcha\\a"}\n"\\e[2J": 1\n'))


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    (tmp_path / "huge.yaml").write_bytes(b"#" * 2_000_000)
    for name, reason in (("binary.yaml", "UTF-8"), ("huge.yaml", "too large"), ("none.yaml", "cannot be read"), (".", "is a folder")):
        with pytest.raises(RequestError, match=reason):
            files.load(tmp_path / name)


def test_what_is_written_reads_back_as_the_same_recipe_and_begins_with_its_name() -> None:
    settings = [f"{key}={as_yaml(value)}" for key, value in VALUES.items() if key != "method.kind"]
    for recipe in (files.validate(MINIMAL), files.with_settings(files.validate(MINIMAL), settings)):
        text = files.dump(recipe)
        assert text.startswith("name:")
        assert files.parse(text) == recipe


def test_paths_become_absolute_and_hub_ids_stay(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    tree = {"model": {"name": "model"}, "data": {"source": "./d.jsonl"}, "prompt": {"template": "mine.jinja"}, "output": {"dir": "out"}}
    recipe = files.absolute(files.validate(tree), tmp_path)
    assert (recipe.model.name, recipe.data.source) == (str(tmp_path / "model"), str(tmp_path / "d.jsonl"))
    assert (recipe.prompt.template, recipe.output.dir) == (str(tmp_path / "mine.jinja"), str(tmp_path / "out"))
    assert files.absolute(files.validate(MINIMAL), tmp_path) == files.validate(MINIMAL)
    assert files.absolute(recipe, Path("/")) == recipe


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-at-all/model", "a\0b"])
def test_odd_names_are_no_crash(tmp_path: Path, name: str) -> None:
    recipe = files.validate({"model": {"name": name}, "data": {"source": name}})
    assert files.absolute(recipe, tmp_path).model.name.endswith(name)


def test_names_of_optimizers_and_schedules_are_those_of_transformers() -> None:
    from transformers import SchedulerType
    from transformers.training_args import OptimizerNames

    assert {item.value for item in OptimizerNames} == set(schema.OPTIMIZERS) - {"auto"}
    assert {item.value for item in SchedulerType} == set(schema.SCHEDULES)
