"""The inventory of a model and the counts made from it, against really built models of five families."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, OPTConfig, PhiConfig, PreTrainedModel, StableLmConfig

from tui_ft.errors import ConfigError, RequestError, TuiFtError
from tui_ft.modeling.adapters import make_trainable
from tui_ft.modeling.inventory import describe, inventory
from tui_ft.planning import memory, model_facts
from tui_ft.planning.model_facts import ModelFacts
from tui_ft.planning.trained import targeted, trained_tensors
from tui_ft.recipe.schema import Method, Model

_COMMON = {"vocab_size": 120, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 64}
FAMILIES = {
    "llama": LlamaConfig(**_COMMON, intermediate_size=48, num_key_value_heads=2),
    "llama-tied": LlamaConfig(**_COMMON, intermediate_size=48, tie_word_embeddings=True),
    "gpt2": GPT2Config(vocab_size=120, n_embd=32, n_layer=3, n_head=4, n_positions=64),
    "opt": OPTConfig(**_COMMON, ffn_dim=48, word_embed_proj_dim=32),
    "opt-350m": OPTConfig(**_COMMON, ffn_dim=48, word_embed_proj_dim=16, do_layer_norm_before=False),
    "phi": PhiConfig(**_COMMON, intermediate_size=48),
    "stablelm": StableLmConfig(**_COMMON, intermediate_size=48, num_key_value_heads=4),
}


def built(family: str) -> PreTrainedModel:
    return AutoModelForCausalLM.from_config(FAMILIES[family])


def facts_of(family: str) -> ModelFacts:
    with torch.device("meta"):
        return ModelFacts.model_validate_json(json.dumps(describe(AutoModelForCausalLM.from_config(FAMILIES[family]))))


def trainable(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def planned(facts: ModelFacts, **method: Any) -> int:
    return memory.parameters(trained_tensors(facts, Method(**method)))


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_equal_those_of_the_built_model(family: str) -> None:
    facts, model = facts_of(family), built(family)
    assert facts.total == model.num_parameters() == planned(facts, kind="full")
    assert (facts.layers, facts.context_length, facts.vocab_size) == (3, 64, 120)
    assert facts.tie_word_embeddings == (model.get_output_embeddings().weight is model.get_input_embeddings().weight)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layers", [1, 3])
def test_last_layers_are_what_the_worker_trains(family: str, layers: int) -> None:
    facts, model = facts_of(family), built(family)
    method = Method(kind="last-layers", layers=layers)
    assert planned(facts, kind="last-layers", layers=layers) == trainable(make_trainable(model, method, []))
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any(".2." in name for name in names) and any(".0." in name for name in names) == (layers == 3)
    if family != "opt-350m":  # which has no norm after its layers
        assert any("norm" in name or "ln_f" in name for name in names if ".2." not in name)


TARGETS = {"gpt2": ["c_attn"], "phi": ["q_proj", "k_proj", "v_proj", "dense"], "opt-350m": ["project_out", "fc1"]}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("variant", ["lora", "rslora", "dora"])
def test_adapters_are_counted_as_peft_reports_them(family: str, variant: str) -> None:
    facts = facts_of(family)
    for targets in ("all-linear", TARGETS.get(family, ["q_proj", "v_proj"])):
        config = LoraConfig(
            task_type=TaskType.CAUSAL_LM, r=4, target_modules=targets, use_dora=variant == "dora", use_rslora=variant == "rslora"
        )  # fmt: skip
        ours, everything = get_peft_model(built(family), config).get_nb_trainable_parameters()
        counted = planned(facts, variant=variant, r=4, targets=targets)
        assert counted == ours
        assert facts.total + counted == everything


def test_a_target_may_be_a_whole_or_partial_path() -> None:
    facts = facts_of("llama")
    whole, partial = "model.layers.1.self_attn.q_proj", "mlp.up_proj"
    config = LoraConfig(task_type=TaskType.CAUSAL_LM, r=4, target_modules=[whole, partial])
    assert planned(facts, r=4, targets=[whole, partial]) == get_peft_model(built("llama"), config).get_nb_trainable_parameters()[0]


def test_unknown_targets_and_layers_name_what_there_is() -> None:
    facts = facts_of("llama")
    with pytest.raises(ConfigError) as caught:
        targeted(facts, ["q_prj", "proj", "v_proj", "\x1b[2Jevil"])
    text = str(caught.value)
    assert len(caught.value.problems) == 3 and "Did you mean q_proj?" in text and "down_proj, gate_proj, k_proj" in text and "\x1b" not in text
    with pytest.raises(ConfigError, match="head"):
        targeted(facts, ["lm_head"])
    with pytest.raises(ConfigError, match="has 3 layers"):
        trained_tensors(facts, Method(kind="last-layers", layers=4))


def test_facts_come_from_a_child_once_and_then_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FAMILIES["phi"].save_pretrained(tmp_path / "phi")
    model = Model(name=str(tmp_path / "phi"))
    assert model_facts.facts(model, compute=False) is None
    found = model_facts.facts(model)
    assert found is not None and found.model_type == "phi" and found.total == built("phi").num_parameters()
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("the cache was not used"))
    assert model_facts.facts(model) == found == model_facts.facts(model, compute=False)
    FAMILIES["opt"].save_pretrained(tmp_path / "phi")  # another model in the same place is another model
    assert model_facts.facts(model, compute=False) is None


def test_a_broken_cache_is_no_answer(tmp_path: Path, tui_ft_home: Path) -> None:
    FAMILIES["phi"].save_pretrained(tmp_path / "phi")
    model = Model(name=str(tmp_path / "phi"))
    path = model_facts._cache_file(model)
    assert path is not None
    path.parent.mkdir(parents=True)
    path.write_text('{"architecture": ')
    assert model_facts.facts(model, compute=False) is None


def test_the_child_ends_when_cancelled_or_late(tmp_path: Path) -> None:
    FAMILIES["phi"].save_pretrained(tmp_path / "phi")
    model, cancelled = Model(name=str(tmp_path / "phi")), threading.Event()
    cancelled.set()
    assert model_facts.facts(model, cancelled=cancelled) is None
    with pytest.raises(TuiFtError, match="took longer"):
        model_facts.facts(model, timeout=0)


def test_errors_of_the_child_reach_the_person(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no model folder"):
        model_facts.facts(Model(name=str(tmp_path / "missing")))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, "no config.json"),
        ("{", "cannot be used"),
        ("{}", "architecture"),
        ('{"model_type": "nobody-knows"}', "architecture"),
        ('{"model_type": "bert"}', None),  # BERT can be a decoder as well
        ('{"model_type": "t5"}', "one stack"),
        ('{"model_type": "x", "auto_map": {"AutoConfig": "evil.Evil"}}', "its own code"),
        ('{"model_type": "llama", "hidden_size": "\\u001b[2J"}', "cannot be used"),
        ('{"model_type": "clip"}', "architecture"),
    ],
)
def test_models_that_are_none(tmp_path: Path, config: str | None, expected: str | None) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('foreign code ran')")
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    if expected is None:
        assert inventory(str(tmp_path))["architecture"]
        return
    with pytest.raises(RequestError, match=expected) as caught:
        inventory(str(tmp_path))
    assert caught.value.hint and "\x1b" not in str(caught.value) + caught.value.hint


def test_an_adapter_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(RequestError, match="adapter"):
        inventory(str(tmp_path))


@pytest.mark.parametrize("name", ["x" * 5000, "/" + "x" * 5000, "two words", "a/b/c"])
def test_odd_names_are_clear_errors(name: str) -> None:
    with pytest.raises(RequestError) as caught:
        inventory(name)
    assert caught.value.hint and len(caught.value.message) < 600


def test_a_hub_model_without_a_network_says_so() -> None:
    with pytest.raises(RequestError, match="Hub cannot be reached"):
        inventory("nobody-at-all/no-such-model")
