"""Preflight, doctor and the reading of the hardware."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import LlamaConfig

from tui_ft import hardware
from tui_ft.errors import ConfigError
from tui_ft.findings import Finding
from tui_ft.hardware import GpuReading, Hardware
from tui_ft.planning import doctor, model_facts, preflight
from tui_ft.planning.data_facts import DataFacts
from tui_ft.recipe import files
from tui_ft.recipe.schema import Model, Recipe

CPU = Hardware(cpus=2, ram_total=2**35, ram_free=2**34, note="no NVIDIA GPU")


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A folder as a saved model leaves it; weights and tokenizer are only looked at by name."""
    folder = tmp_path / "model"
    LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=128
    ).save_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture
def wanted(tmp_path: Path, model_folder: Path) -> Callable[..., Recipe]:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "hello"}\n')
    plain = files.validate({"model": {"name": str(model_folder)}, "data": {"source": str(rows)}, "prompt": {"max_length": 64}})
    return lambda **settings: files.with_settings(plain, [f"{key.replace('__', '.')}={value}" for key, value in settings.items()])


def errors(recipe: Recipe, machine: Hardware = CPU) -> list[Finding]:
    return [finding for finding in preflight.check(recipe, machine) if finding.severity == "error"]


def test_nothing_speaks_against_a_sound_recipe(wanted: Callable[..., Recipe], tui_ft_home: Path) -> None:
    assert preflight.check(wanted(), CPU) == []
    assert not tui_ft_home.exists(), "a check leaves nothing behind"


def test_every_error_comes_at_once_with_a_hint(wanted: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = wanted(
        model__name=tmp_path / "nowhere", data__source=tmp_path / "missing.jsonl", prompt__template="chatmll", train__precision="fp16",
        train__optimizer="lomo", log__trackers="[mlflow]", output__dir="/proc/version/out",
    )  # fmt: skip
    found = errors(recipe)
    assert {finding.where for finding in found} >= {
        "model.name",
        "data.source",
        "prompt.template",
        "train.precision",
        "train.optimizer",
        "output.dir",
    }
    assert all(finding.hint for finding in found)
    assert any("Did you mean chatml?" in finding.hint for finding in found)


@pytest.mark.parametrize(
    ("missing", "expected"), [("config.json", "no config.json"), ("model.safetensors", "no weights"), ("tokenizer.json", "no tokenizer")]
)
def test_an_incomplete_model_folder(wanted: Callable[..., Recipe], model_folder: Path, missing: str, expected: str) -> None:
    (model_folder / missing).unlink()
    assert [expected in finding.message for finding in errors(wanted())] == [True]


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_broken_config(wanted: Callable[..., Recipe], model_folder: Path, content: str) -> None:
    (model_folder / "config.json").write_text(content)
    assert [finding.where for finding in errors(wanted())] == ["model.name"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_what_may_not_be_read_or_written(wanted: Callable[..., Recipe], model_folder: Path, tmp_path: Path) -> None:
    (model_folder / "model.safetensors").chmod(0)
    (tmp_path / "rows.jsonl").chmod(0)
    (tmp_path / "out").mkdir(mode=0o500)
    assert {finding.where for finding in errors(wanted(output__dir=tmp_path / "out"))} == {"model.name", "data.source", "output.dir"}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [("a.jsonl", b"", "is empty"), ("a.docx", b"x", "ending"), ("folder", None, "no data files"), ("gone.csv", None, "no file or folder")],
)
def test_data_that_is_none(wanted: Callable[..., Recipe], tmp_path: Path, name: str, content: bytes | None, expected: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    elif name == "folder":
        path.mkdir()
        (path / "readme.md").write_text("nothing")
    assert [expected in finding.message for finding in errors(wanted(data__source=path))] == [True]


def test_template_files(wanted: Callable[..., Recipe], tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("{{ messages }}")
    assert errors(wanted(prompt__template=tmp_path / "mine.jinja")) == []
    assert [finding.where for finding in errors(wanted(prompt__template=tmp_path / "none.jinja"))] == ["prompt.template"]


def test_names_that_are_neither_paths_nor_ids(wanted: Callable[..., Recipe]) -> None:
    found = errors(wanted(model__name="bad name!", data__source=r'"no\e[2J/good"'))
    assert {"model.name", "data.source"} <= {finding.where for finding in found}
    assert not any("\x1b" in finding.message + finding.hint for finding in found)


@pytest.mark.parametrize("name", ["x" * 5000, "/" + "x" * 5000, "~nobody-at-all/model", "a/b/c/d"])
def test_odd_names_are_errors_not_crashes(wanted: Callable[..., Recipe], name: str) -> None:
    found = errors(wanted(model__name=name, data__source=name))
    assert {finding.where for finding in found} == {"model.name", "data.source"}


def test_known_facts_enter_the_checks(wanted: Callable[..., Recipe], model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert errors(wanted(method__targets="[c_attn]")) == []  # without facts nobody knows
    facts = model_facts.facts(Model(name=str(model_folder)))
    assert facts is not None
    assert [finding.where for finding in errors(wanted(method__targets="[c_attn]"))] == ["method.targets"]
    assert [f.severity for f in preflight.check(wanted(prompt__max_length=512), CPU)] == ["warning"]
    tiny = Hardware(gpus=(GpuReading(0, "", "Tiny", (8, 0), 10_000, 5_000, None, None, None),))
    assert [(f.severity, "cannot fit" in f.message) for f in preflight.check(wanted(), tiny)] == [("warning", True)]
    need = 3 * facts.total * 12 + facts.total * 4
    for free, severity in ((need - 1, "error"), (need, "warning"), (need * 2, None)):
        monkeypatch.setattr(preflight, "free_disk", lambda _, free=free: free)
        assert [f.severity for f in preflight.check(wanted(method__kind="full"), CPU)] == ([severity] if severity else [])


def test_a_push_needs_a_token(wanted: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert [f.where for f in preflight.check(wanted(output__push_to_hub="me/model"), CPU)] == ["output.push_to_hub"]
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret")
    assert preflight.check(wanted(output__push_to_hub="me/model"), CPU) == []


def test_doctor_never_shows_the_token_and_finds_the_home(monkeypatch: pytest.MonkeyPatch, tui_ft_home: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret")
    found = doctor.examine()
    text = "\n".join(f"{f.severity} {f.where} {f.message} {f.hint}" for f in found)
    assert "a token is there" in text and "secretsecret" not in text
    assert f"{tui_ft_home} can be written" in text and list(tui_ft_home.iterdir()) == []
    assert {"python", "package", "gpu", "memory", "home", "disk", "terminal", "hub"} <= {f.where for f in found}


def test_doctor_names_a_home_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUI_FT_HOME", "/proc/version/home")
    assert [f.where for f in doctor.examine() if f.severity == "error"] == ["home"]


def test_free_disk_is_told_for_what_does_not_exist_yet(tmp_path: Path) -> None:
    free = hardware.free_disk(tmp_path / "a" / "b" / "c")
    assert free is not None and free > 0
    assert hardware.free_disk(tmp_path / "file" / "x") is not None


def test_a_start_is_refused_for_memory_unless_forced_and_for_disk_always(
    wanted: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch, tui_ft_home: Path
) -> None:
    from tui_ft import start

    monkeypatch.setattr(start, "TRACE_SECONDS", 0.1)  # what a trace would add is no part of this
    seen = DataFacts(None, ())
    tiny = Hardware(gpus=(GpuReading(0, "", "Tiny", (8, 0), 10_000, 5_000, None, None, None),))
    with pytest.raises(ConfigError, match=r"cannot fit(.|\n)*--force"):
        start.get_ready(wanted(), data=seen, hardware=tiny)  # looks at the model by itself
    full = Hardware(gpus=(replace(tiny.gpus[0], total_bytes=10**10),))
    with pytest.raises(ConfigError, match="cannot fit"):
        start.get_ready(wanted(), data=seen, hardware=full)
    waiting = start.get_ready(wanted(), data=seen, hardware=full, queued=True).plan
    assert waiting.fits is not False and waiting.gpu and waiting.gpu.free_bytes == 10**10, "who queues finds the GPU empty"
    forced = start.get_ready(wanted(), data=seen, hardware=tiny, force=True)
    assert forced.plan.fits is False and any("cannot fit" in warning.message for warning in forced.warnings)
    trusted = start.get_ready(wanted(), data=seen, hardware=tiny, trust={wanted().model.name: "0" * 40})
    assert trusted.plan.parameters is None
    monkeypatch.setattr(preflight, "free_disk", lambda _: 1000)
    with pytest.raises(ConfigError, match="the run writes up to"):
        start.get_ready(wanted(), data=seen, hardware=CPU, force=True)
    assert [item.name for item in tui_ft_home.iterdir()] == ["cache"]
