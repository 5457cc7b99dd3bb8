"""The forecast against what training really allocates: our trainer on the CPU, counted by torch's profiler instead of by our own tracker."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
import trl.trainer.utils
from data_material import write_rows
from in_process import small_recipe, state_of, train_in_process
from peft import PeftModel
from torch.profiler import ProfilerActivity, profile

from tui_ft.modeling import inventory
from tui_ft.modeling.trace import measure, step
from tui_ft.modeling.trace.fit import fit
from tui_ft.modeling.trace.setup import Setup
from tui_ft.planning.forecast import Fit, is_fused
from tui_ft.recipe.schema import Method
from tui_ft.worker.trainer import Hooks, Trainer

WIDE = {"hidden_size": 64, "num_attention_heads": 4, "vocab_size": 258, "max_position_embeddings": 4096}
CLOSE = 0.01


def _llama_like(kind: str, layers: int, **changes: Any) -> Any:
    import transformers

    sizes = {**WIDE, "intermediate_size": 160, "num_key_value_heads": 2, "num_hidden_layers": layers, "head_dim": 16}
    return getattr(transformers, f"{kind}Config")(**sizes | changes)


def config_of(family: str, layers: int) -> Any:
    """A narrow model of a family: what a token takes then outweighs the weights, as in a large one it does not, so that errors show."""
    import transformers

    if family == "gpt2":
        return transformers.GPT2Config(n_embd=64, n_layer=layers, n_head=4, n_positions=4096, vocab_size=258)
    if family == "opt":
        return transformers.OPTConfig(**WIDE, ffn_dim=160, num_hidden_layers=layers, word_embed_proj_dim=32, do_layer_norm_before=False)
    if family == "gemma3_text":
        kinds = ["full_attention" if (index + 1) % 2 == 0 else "sliding_attention" for index in range(layers)]
        return _llama_like("Gemma3Text", layers, sliding_window=1024, layer_types=kinds)
    if family == "gemma2":
        return _llama_like("Gemma2", layers, sliding_window=4096)
    names = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", "phi": "Phi", "stablelm": "StableLm"}
    return _llama_like(names[family], layers, **({"num_key_value_heads": 4} if family in ("phi", "stablelm") else {}))


@dataclass
class Step:
    """What the second step of a training took."""

    rows: int = 0
    length: int = 0
    bytes: int = 0


class Bench:
    """Trains for two steps, the second one under torch's profiler."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.step = Step()
        self.models: dict[tuple[str, int], Path] = {}
        self._profile: Any = None
        ended, trained = Hooks.on_step_end, Trainer.training_step

        def begin(hooks: Hooks, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 1:
                self._held = _bytes_held(hooks.conductor.trainer)
                self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
                self._profile.__enter__()

        def end(hooks: Hooks, *args: Any, **kwargs: Any) -> None:
            if self._profile is not None:
                self._profile.__exit__(None, None, None)
                self.step.bytes = self._held + _peak(self._profile)
                self._profile = None
            ended(hooks, *args, **kwargs)

        def training(trainer: Trainer, model: Any, inputs: Any, *args: Any) -> Any:
            self.step.rows, self.step.length = inputs["input_ids"].shape
            return trained(trainer, model, inputs, *args)

        patch.setattr(trl.trainer.utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", 128)  # else the head would outweigh layers as narrow as these
        patch.setattr(Hooks, "on_step_begin", begin, raising=False)
        patch.setattr(Hooks, "on_step_end", end)
        patch.setattr(Trainer, "training_step", training)

    def model(self, family: str, layers: int) -> Path:
        if (family, layers) not in self.models:
            special = {"opt": {"bos": "</s>", "eos": "</s>", "pad": "<pad>"}}.get(family, {"eos": "</s>", "pad": "<pad>"})
            self.models[family, layers] = tiny_models.save(self.folder / f"{family}-{layers}", config_of(family, layers), **special)
        return self.models[family, layers]

    def train(self, model: Path, method: dict[str, Any], plan: dict[str, Any], rows: int, length: int) -> Step:
        lengths = [length - 200, length - 264] * rows  # tokens of the template come on top
        samples = [{"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "a" * size}]} for size in lengths]
        recipe = small_recipe(
            model,
            self.folder,
            method={"r": 4, "dropout": 0.0, **method},
            prompt={"max_length": 4096},
            train={"max_steps": 2, "effective_batch": rows, "micro_batch": rows, "learning_rate": 1e-5, "seed": 3},
            data={"source": str(write_rows(self.folder / "rows.jsonl", samples)), "validation": 0},
        )
        run = train_in_process(recipe, plan={"micro_batch": rows, "accumulation": 1, **plan})
        assert state_of(run).startswith("finished"), state_of(run)
        return self.step


def _bytes_held(trainer: Any) -> int:
    """Weights, buffers and the optimizer's state, each storage once."""
    model = trainer.model.get_base_model() if isinstance(trainer.model, PeftModel) else trainer.model
    tensors = [*trainer.model.parameters(), *trainer.model.buffers()]
    for module in model.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None:
            tensors += [state.absmax, state.code, *([state.offset, state.state2.absmax, state.state2.code] if state.nested else [])]
        scales = getattr(getattr(module, "state", None), "SCB", None)
        tensors += [scales] if isinstance(scales, torch.Tensor) else []
    tensors += [value for state in trainer.optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    return sum({tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}.values())


def _peak(profiled: Any) -> int:
    """The most that was allocated at once, above what was there when the profile began."""
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def setup_of(method: dict[str, Any], plan: dict[str, Any]) -> tuple[Setup, int]:
    """What such a training is traced as, and its rank."""
    section = Method.model_validate({"kind": "lora", "r": 4, "dropout": 0.0, **method})
    usual = {"precision": "fp32", "optimizer": "adamw_torch", "device": "cpu", "fused": is_fused(section)}
    return Setup.parse({**usual, **section.model_dump(), "dropout": section.dropout > 0, **plan}), section.r


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield Bench(tmp_path_factory.mktemp("bench"), patch)


SLOW = os.environ.get("TUI_FT_SLOW") == "1"
LAYERS = 4
"""Of the trained model; its forecast is put together from two and three."""

# name: family, method, what the plan says, rows, about how many tokens each
ALWAYS: dict[str, tuple[str, dict[str, Any], dict[str, Any], int, int]] = {
    "llama, lora, padded": ("llama", {}, {}, 2, 700),
    "gpt2, nf4": ("gpt2", {"quantization": "nf4"}, {}, 2, 500),
    "llama, nf4, every second layer": ("llama", {"quantization": "nf4"}, {"activation_checkpointing": 2}, 2, 600),
}
MORE: dict[str, tuple[str, dict[str, Any], dict[str, Any], int, int]] = {
    "llama, full, one row": ("llama", {"kind": "full"}, {}, 1, 1300),
    "gpt2, int8": ("gpt2", {"quantization": "int8"}, {}, 2, 500),
    "gpt2, full, recomputed": ("gpt2", {"kind": "full"}, {"activation_checkpointing": True}, 3, 500),
    "gpt2, lora, eager": ("gpt2", {}, {"attention": "eager"}, 2, 500),
    "opt, last layers": ("opt", {"kind": "last-layers", "layers": 2}, {}, 2, 700),
    "opt, lora, recomputed, one row": ("opt", {"dropout": 0.1}, {"activation_checkpointing": True}, 1, 1500),
    "phi, nf4": ("phi", {"quantization": "nf4", "double_quantization": False}, {}, 2, 600),
    "phi, last layers, recomputed": ("phi", {"kind": "last-layers", "layers": 1}, {"activation_checkpointing": True}, 2, 600),
    "stablelm, int8": ("stablelm", {"quantization": "int8"}, {}, 2, 600),
    "stablelm, full, every second layer": ("stablelm", {"kind": "full"}, {"activation_checkpointing": 2}, 1, 1200),
    "mistral, dora": ("mistral", {"variant": "dora"}, {}, 2, 600),
    "mistral, int8, recomputed": ("mistral", {"quantization": "int8"}, {"activation_checkpointing": True}, 2, 700),
    "qwen2, dora, recomputed": ("qwen2", {"variant": "dora"}, {"activation_checkpointing": True}, 1, 1200),
    "qwen2, full, bf16": ("qwen2", {"kind": "full"}, {"precision": "bf16"}, 2, 600),
    "qwen3, lora, bf16": ("qwen3", {"dropout": 0.1}, {"precision": "bf16"}, 2, 600),
    "qwen3, full, adafactor": ("qwen3", {"kind": "full"}, {"optimizer": "adafactor"}, 1, 1200),
    "gemma2, lora": ("gemma2", {}, {"attention": "eager"}, 2, 500),
    "gemma2, full": ("gemma2", {"kind": "full"}, {"activation_checkpointing": True}, 1, 900),
    "gemma3, lora, within the window": ("gemma3_text", {}, {}, 1, 1000),
    "gemma3, full, beyond the window": ("gemma3_text", {"kind": "full"}, {}, 1, 1500),
    "llama, targets": ("llama", {"targets": ["q_proj", "v_proj"], "r": 8}, {}, 2, 600),
}


@pytest.mark.parametrize("case", ALWAYS)
def test_the_forecast_is_what_a_real_training_allocates(bench: Bench, case: str) -> None:
    compare(bench, *ALWAYS[case])


@pytest.mark.parametrize("case", MORE)
@pytest.mark.skipif(not SLOW, reason="twenty-one trainings: set TUI_FT_SLOW=1")
def test_the_forecast_holds_for_each_family(bench: Bench, case: str) -> None:
    compare(bench, *MORE[case])


def compare(bench: Bench, family: str, method: dict[str, Any], plan: dict[str, Any], rows: int, length: int) -> None:
    """A forecast from traces of fewer layers, other rows and other lengths, against two steps of training."""
    folder = bench.model(family, LAYERS)
    step = bench.train(folder, method, plan, rows, length)
    setup, rank = setup_of(method, plan)
    told = Fit.model_validate(fit(inventory.read_config(str(folder)), setup)).memory(step.rows, step.length, rank)
    print(
        f"{step.rows} × {step.length}: {step.bytes:,} bytes, forecast {told.total_bytes:,} ({told.phase}): {told.total_bytes / step.bytes - 1:+.3%}"
    )
    assert told.total_bytes == pytest.approx(step.bytes, rel=CLOSE)


def test_what_a_real_step_takes_beyond_the_trace_enters_the_measured_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that holds 8 MiB more than it should, run for real: the measured forecast holds 8 MiB more in every phase, and nothing else."""
    more = 8 << 20
    setup = Setup.parse({"kind": "lora", "precision": "fp32", "optimizer": "adamw_torch", "device": "cpu"})
    traced = fit(config_of("llama", 2), setup)
    run = step.run

    def greedy(model: Any, setup: Setup, meter: step.Meter, **sizes: Any) -> None:
        held = torch.empty(more if isinstance(meter, measure.CountingMeter) else 0, dtype=torch.uint8)
        meter.tag(held, "activations")
        run(model, setup, meter, **sizes)
        assert held.nbytes in (0, more)

    monkeypatch.setattr(measure, "TOKENS", (256, 512))
    monkeypatch.setattr(measure.step, "run", greedy)
    measured, seconds = measure.measured(config_of("llama", 2), setup, traced)
    before, after = Fit.model_validate(traced), Fit.model_validate(measured)
    assert after.tier == "measured" and seconds > 0 and after.flops_per_second and after.flops_per_second > 1e9
    for batch in ((4, 512, 16), (1, 1024, 16), (8, 2048, 16)):
        assert after.memory(*batch).total_bytes - before.memory(*batch).total_bytes == pytest.approx(more, rel=1e-6)
