"""A GGUF file as a model: looked at, tokenized, loaded in every way, trained and saved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_models
import torch
from data_material import write_rows
from runs import start, tui_ft_json, wait_for_state

from tui_ft.data import tokenizer
from tui_ft.errors import RequestError, TuiFtError
from tui_ft.findings import Finding
from tui_ft.hub import details
from tui_ft.modeling.inventory import inventory
from tui_ft.modeling.load import load_model
from tui_ft.planning import model_facts, preflight
from tui_ft.recipe import files
from tui_ft.recipe.schema import Model, Prompt

pytest.importorskip("gguf", reason="the package gguf writes the file")


def test_it_is_loaded_as_the_very_model_it_was_made_of(tmp_path: Path) -> None:
    file, original = tiny_models.gguf(tmp_path / "g")
    for name in (file, file.parent):  # a folder that holds one file means that file
        loaded = load_model(Model(name=str(name)), precision="fp32")
        state = loaded.state_dict()
        assert all(torch.equal(state[key], value) for key, value in original.state_dict().items())
    assert loaded.name_or_path == str(file) and not hasattr(loaded.config, "quantization_config")
    loaded.save_pretrained(tmp_path / "saved")
    ids = torch.arange(12).unsqueeze(0)
    again = load_model(Model(name=str(tmp_path / "saved")))
    assert torch.allclose(again(ids).logits, original.eval()(ids).logits, atol=1e-5)


@pytest.mark.parametrize(("quantization", "precision"), [("nf4", "fp32"), ("none", "bf16")])
def test_it_can_be_quantized_anew_and_held_in_16_bits(tmp_path: Path, quantization: str, precision: str) -> None:
    file, original = tiny_models.gguf(tmp_path)
    loaded = load_model(Model(name=str(file)), quantization=quantization, precision=precision)
    kinds = {parameter.dtype for parameter in loaded.parameters()}
    assert torch.uint8 in kinds if quantization == "nf4" else kinds == {torch.bfloat16}
    ids = torch.arange(12).unsqueeze(0)
    with torch.no_grad():
        assert float(loaded(ids, labels=ids).loss) == pytest.approx(float(original(ids, labels=ids).loss), rel=0.2)


def test_it_is_known_without_being_unpacked(tmp_path: Path) -> None:
    file, original = tiny_models.gguf(tmp_path)
    told = inventory(str(file))
    assert told["layers"] == 2 and told["context_length"] == 256 and told["quantized"] is None and told["vocab_size"] == 259
    facts = model_facts.facts(Model(name=str(file)))
    assert facts is not None and facts.total == original.num_parameters() and facts == model_facts.facts(Model(name=str(file)), compute=False)
    described = details.of_folder(file)
    assert described.gguf and described.parameters == original.num_parameters() and described.context_length == 256 and described.chat
    assert details.of_folder(tmp_path).architecture == "llama" and described.bytes == file.stat().st_size


def test_its_tokenizer_comes_with_it(tmp_path: Path) -> None:
    file, _ = tiny_models.gguf(tmp_path)
    loaded = tokenizer.load(Model(name=str(file)), Prompt(template="model"))
    assert loaded.eos_token == "<|im_end|>" and loaded.decode(loaded("Hello")["input_ids"]) == "Hello"
    assert loaded.pad_token not in (loaded.eos_token, None) and "im_start" in loaded.chat_template


def problems(name: Path) -> list[Finding]:
    recipe = files.validate({"model": {"name": str(name)}, "data": {"source": "builtin:demo"}})
    return [finding for finding in preflight.check(recipe) if finding.where == "model.name"]


def test_several_files_and_broken_ones_are_told(tmp_path: Path) -> None:
    file, _ = tiny_models.gguf(tmp_path)
    assert problems(file) == problems(tmp_path) == []
    (tmp_path / "second.gguf").write_bytes(b"GGUF nothing")
    assert "holds 2 GGUF files: second.gguf, tiny.gguf" in problems(tmp_path)[0].message
    with pytest.raises(RequestError, match="2 GGUF files"):
        inventory(str(tmp_path))
    for refused in (inventory, lambda name: details.of_folder(Path(name)), lambda name: load_model(Model(name=name))):
        with pytest.raises(TuiFtError, match=r"second\.gguf"):
            refused(str(tmp_path / "second.gguf"))


def test_a_lora_is_trained_on_it_and_merged_into_a_usual_model(tmp_path: Path) -> None:
    file, _ = tiny_models.gguf(tmp_path / "g")
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": f"Say {n}", "completion": f"{n}"} for n in range(40)])
    settings = {
        "model.name": file, "data.source": rows, "data.validation": 0, "prompt.template": "model", "prompt.max_length": 64, "train.max_steps": 3,
        "method.kind": "lora", "method.r": 4, "method.targets": "all-linear", "train.effective_batch": 2, "train.micro_batch": 2,
        "data.format": "auto", "data.languages": "[]", "output.merge": "true",
        "train.learning_rate": "1e-3", "evaluate.every": "never", "evaluate.samples": "[]", "train.packing": "false",
    }  # fmt: skip
    run = start("demo", *[part for key, value in settings.items() for part in ("--set", f"{key}={value}")])
    summary = wait_for_state(run, "finished")
    assert summary.step == 3 and json.loads((run.model / "config.json").read_text())["model_type"] == "llama"
    assert (run.model / "model.safetensors").exists() and "quantization_config" not in json.loads((run.model / "config.json").read_text())
    assert tui_ft_json("show", run.id)["model"] == str(run.model)
