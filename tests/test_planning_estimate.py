"""The estimate, compiled from traces of a family, against the trace of models that the compilation has not seen."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers

from tui_ft.hardware import GpuReading, Hardware
from tui_ft.modeling import inventory
from tui_ft.modeling.trace.fit import fit
from tui_ft.modeling.trace.setup import Setup as Asked
from tui_ft.planning import child, estimate, forecasts
from tui_ft.planning.forecast import Fit, Setup
from tui_ft.planning.model_facts import ModelFacts
from tui_ft.planning.planner import make_plan, setups_wanted
from tui_ft.recipe.files import validate
from tui_ft.recipe.schema import Model

GIB = 2**30
CLOSE = 0.007
"""Of models as small as these, whose tensors the allocator rounds up most."""
BATCHES = [(1, 200), (1, 3000), (4, 512), (16, 1024), (64, 2048)]


def config(kind: str = "Llama", **changes: Any) -> Any:
    sizes = {"hidden_size": 640, "intermediate_size": 1728, "num_hidden_layers": 7, "num_attention_heads": 10, "num_key_value_heads": 2}
    return getattr(transformers, f"{kind}Config")(**sizes | {"vocab_size": 40960, "tie_word_embeddings": True, **changes})


def facts_of(made: Any) -> ModelFacts:
    return ModelFacts.model_validate(inventory.describe(inventory.on_meta(made, "a/model")))


@pytest.fixture(autouse=True)
def read_anew() -> Iterator[None]:
    for cached in (estimate._families, estimate.estimated):
        cached.cache_clear()
    yield
    for cached in (estimate._families, estimate.estimated):
        cached.cache_clear()


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "llama, lora": (config(), {"kind": "lora", "fused": True}),
    "llama, one group a head, small vocabulary, nf4, recomputed": (
        config(num_key_value_heads=10, vocab_size=9000, tie_word_embeddings=False),
        {"kind": "lora", "quantization": "nf4", "fused": True, "activation_checkpointing": True},
    ),
    "qwen2, int8 with dropout": (config("Qwen2", head_dim=64), {"kind": "lora", "quantization": "int8", "dropout": True}),
    "gpt2, all weights, 8-bit states": (
        transformers.GPT2Config(n_embd=640, n_head=10, n_layer=5, n_inner=2000), {"kind": "full", "optimizer": "adamw_8bit"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_says_what_a_trace_would(name: str) -> None:
    made, settings = CASES[name]
    setup = Setup(**settings)
    told = estimate.estimated(facts_of(made), setup)
    traced = Fit.model_validate(fit(made, Asked.parse(setup.model_dump(mode="json"))))
    assert told is not None and told.tier == "estimate"
    for rows, length in BATCHES:
        for rank in (8, 100):
            one, other = told.memory(rows, length, rank), traced.memory(rows, length, rank)
            assert one.total_bytes == pytest.approx(other.total_bytes, rel=CLOSE), (rows, length, rank)


def test_what_is_not_exactly_of_the_family_gets_none() -> None:
    setup = Setup(kind="lora", fused=True)
    assert estimate.estimated(facts_of(config()), setup) is not None
    for other in (
        config(hidden_act="gelu"), config(attention_bias=True), config(mlp_bias=True), config(attention_dropout=0.1), config("Olmo2"),
        config("Mistral", vocab_size=32000, tie_word_embeddings=False, sliding_window=4096), config(tie_word_embeddings=True, vocab_size=32000),
    ):  # fmt: skip
        assert estimate.estimated(facts_of(other), setup) is None, other
    facts = facts_of(config())
    wider = [group.model_copy(update={"shape": (2, *group.shape[1:])}) if "up_proj" in group.name else group for group in facts.parameters]
    assert estimate.estimated(facts.model_copy(update={"parameters": tuple(wider)}), setup) is None
    for unknown in ({"variant": "dora"}, {"optimizer": "adafactor"}, {"targets": ("q_proj",)}, {"device": "cpu"}, {"clipping": False}):
        assert estimate.estimated(facts, setup.model_copy(update=unknown)) is None


@pytest.mark.parametrize("content", ["", "no gzip", "{", "[]", '{"versions": {}}'], ids=["empty", "no gzip", "torn", "a list", "other versions"])
def test_a_damaged_file_is_none(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken").write_bytes(gzip.compress(content.encode()) if content[:1] in ("{", "[") else content.encode())
    monkeypatch.setattr(estimate, "FILE", tmp_path / "broken")
    assert estimate.estimated(facts_of(config()), Setup(kind="lora", fused=True)) is None


def test_other_libraries_get_none(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = facts_of(config())
    now = estimate.versions()
    assert estimate.estimated(facts, Setup(kind="lora", fused=True)) is not None, "the file was compiled with what constraints.txt names"
    for library in now:
        estimate._families.cache_clear()
        estimate.estimated.cache_clear()
        monkeypatch.setattr(estimate, "versions", lambda library=library: {**now, library: "0.1"})
        assert estimate.estimated(facts, Setup(kind="lora", fused=True)) is None


def test_a_plan_is_an_estimate_until_the_trace_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = config()
    made.save_pretrained(tmp_path)
    facts, model = facts_of(made), Model(name=str(tmp_path))
    machine = Hardware(gpus=(GpuReading(0, "", "Card", (9, 0), 12 * GIB, 12 * GIB, None, None, None),))
    recipe = validate({"model": {"name": model.name}, "data": {"source": "a/dataset"}, "method": {"dropout": 0}})
    wanted = setups_wanted(recipe, facts=facts, hardware=machine)
    known = forecasts.known(model, facts, wanted)
    first = make_plan(recipe, facts=facts, hardware=machine, forecasts=known)
    assert first.tier == "estimate" and first.fits and first.options and "traces of models of this architecture" in first.reasons["memory"]
    assert set(forecasts.missing(model, wanted)) == set(wanted), "an estimate does not stand for a trace"

    def stream(*_: Any, stdin: str, **__: Any) -> Iterator[dict[str, Any]]:
        for number, asked in enumerate(json.loads(stdin)["setups"]):
            yield {"setup": number, "fit": fit(made, Asked.parse(asked))}

    monkeypatch.setattr(child, "stream", stream)  # what the child does, without its imports
    assert first.setup is not None
    forecasts.trace(model, [Setup.model_validate(first.setup)])
    second = make_plan(recipe, facts=facts, hardware=machine, forecasts=forecasts.known(model, facts, wanted))
    assert second.tier == "traced" and second.setup == first.setup and second.micro_batch == first.micro_batch
    assert second.memory.total_bytes == pytest.approx(first.memory.total_bytes, rel=0.001)
