"""`tui-ft plan` on folders that hold nothing but the config of a model people train, for each method, on a machine without a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tui_ft.cli import main
from tui_ft.modeling.inventory import inventory
from tui_ft.planning import child, model_facts
from tui_ft.recipe.schema import Model

GIB = 2**30
METHODS = {
    "full": ["method.kind=full"],
    "last-layers": ["method.kind=last-layers", "method.layers=2"],
    "lora": [],
    "rslora": ["method.variant=rslora"],
    "dora": ["method.variant=dora"],
    "int8": ["method.quantization=int8"],
    "nf4": ["method.quantization=nf4"],
}


def _llama(kind: str, hidden: int, inner: int, layers: int, heads: int, groups: int, vocabulary: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": kind, "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": groups, "vocab_size": vocabulary, "max_position_embeddings": 4096, **more,
    }  # fmt: skip


_OPT = {"hidden_size": 1024, "ffn_dim": 4096, "word_embed_proj_dim": 512, "do_layer_norm_before": False, "vocab_size": 50272}
_TIED = {"tie_word_embeddings": True}
MODELS = {  # the config as published, and the parameters that its card names, in millions
    "gpt2": ({"model_type": "gpt2"}, 124.4),
    "opt-350m": ({"model_type": "opt", "num_hidden_layers": 24, "num_attention_heads": 16, **_OPT}, 331),
    "phi-2": (_llama("phi", 2560, 10240, 32, 32, 32, 51200, partial_rotary_factor=0.4), 2780),
    "stablelm-3b": (_llama("stablelm", 2560, 6912, 32, 32, 32, 50304), 2795),
    "llama-3.2-1b": (_llama("llama", 2048, 8192, 16, 32, 8, 128256, **_TIED), 1236),
    "llama-3.2-3b": (_llama("llama", 3072, 8192, 28, 24, 8, 128256, **_TIED), 3213),
    "llama-3.1-8b": (_llama("llama", 4096, 14336, 32, 32, 8, 128256), 8030),
    "mistral-7b": (_llama("mistral", 4096, 14336, 32, 32, 8, 32000), 7242),
    "qwen2.5-0.5b": (_llama("qwen2", 896, 4864, 24, 14, 2, 151936, **_TIED), 494),
    "qwen2.5-7b": (_llama("qwen2", 3584, 18944, 28, 28, 4, 152064), 7616),
    "qwen3-8b": (_llama("qwen3", 4096, 12288, 36, 32, 8, 151936, head_dim=128), 8191),
    "gemma-2-2b": (_llama("gemma2", 2304, 9216, 26, 8, 4, 256000, head_dim=256), 2614),
    "gemma-3-1b": (_llama("gemma3_text", 1152, 6912, 26, 4, 1, 262144, head_dim=256), 1000),
}


WITHOUT_ESTIMATE = {"mistral-7b", "gemma-2-2b", "gemma-3-1b"}
"""Their windows and soft caps are in no shipped estimate."""


@pytest.mark.parametrize("name", MODELS)
def test_a_config_is_enough_for_a_plan(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    config, millions = MODELS[name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps({"model": {"name": str(tmp_path)}, "data": {"source": "no/data"}, "prompt": {"max_length": 1024}}))
    # What the child does, in this process: its imports cost eight seconds for each model.
    monkeypatch.setattr(child, "ask", lambda module, *, stdin, **_: inventory(**json.loads(stdin)))
    facts = model_facts.facts(Model(name=str(tmp_path)))
    assert facts is not None and facts.total / 1e6 == pytest.approx(millions, rel=0.002)
    needs, tiers = {}, set()
    for method, settings in METHODS.items():
        changes = [part for setting in settings for part in ("--set", setting)]
        assert main(["plan", str(file), "--json", "--instant", "--gpu-memory", "200GiB", *changes]) == 0
        made = json.loads(capsys.readouterr().out)
        assert made["parameters"] >= facts.total and made["trainable_parameters"] and made["disk_bytes"]
        assert (made["tier"], made["fits"]) in (("lower-bound", None), ("estimate", True)), "200 GiB is enough for each"
        tiers.add(made["tier"])
        assert made["setup"] and all(made["reasons"].values())
        needs[method] = sum(made["memory"][part] for part in ("weights", "adapters"))
        if method == "full":
            assert made["tier"] == "estimate" or made["memory"]["total_bytes"] == 16 * facts.total, "fp32 weights, gradients and AdamW's two states"
            assert made["memory"]["total_bytes"] >= 16 * facts.total
    assert tiers == ({"lower-bound"} if name in WITHOUT_ESTIMATE else {"lower-bound", "estimate"})
    assert needs["nf4"] < needs["int8"] < needs["lora"] == needs["rslora"] <= needs["dora"] < needs["last-layers"] < needs["full"]
