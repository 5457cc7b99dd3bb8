"""Every method really trains: what shall learn changes in fp32, what shall not stays bit for bit, and the model that comes out is whole.

The worker's own entry point runs in this process: its imports cost eight seconds, once in place of twenty times.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from data_material import chats, write_rows
from in_process import own_process
from peft import AutoPeftModelForCausalLM, PeftModel
from runs import tui_ft_json, weights
from safetensors import safe_open
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from tui_ft.hardware import Hardware
from tui_ft.modeling.load import load_model
from tui_ft.planning.planner import make_plan
from tui_ft.recipe.files import validate
from tui_ft.recipe.schema import Model
from tui_ft.runs import checkpoints, store
from tui_ft.runs.events import Event, EventReader
from tui_ft.runs.progress import Progress
from tui_ft.runs.store import Run
from tui_ft.worker import __main__ as worker
from tui_ft.worker import train
from tui_ft.worker.trainer import Trainer

LINEAR_WIDTHS = 2 * (4 * (32 + 32) + 3 * (32 + 64))
"""Input plus output widths of all linear layers of the small llama but its head: two layers of four and three matrices."""


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def in_process() -> Iterator[None]:
    with own_process():
        yield


class Bench:
    """Runs recipes on one small model, and keeps the model as it was when training ended."""

    model: Any

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        finish: Callable[..., None] = train.finish

        def keep_model(run: Run, recipe: Any, trainer: Any, *rest: Any) -> None:
            finish(run, recipe, trainer, *rest)
            self.model = trainer.model

        monkeypatch.setattr(train, "finish", keep_model)

    def run(self, model: Path, source: Path | None = None, **sections: dict[str, Any]) -> Run:
        """Twelve steps of four chats each, unless a section says otherwise."""
        recipe = validate(
            {
                "name": "method",
                "model": {"name": str(model)},
                "data": {"source": str(source or write_rows(self.folder / "chats.jsonl", chats(40))), **sections.get("data", {"validation": 0.1})},
                "prompt": {"template": "chatml", "max_length": 128, **sections.get("prompt", {})},
                "method": {"kind": "lora", "r": 4, "alpha": 32, **sections.get("method", {})},
                "train": {"max_steps": 12, "effective_batch": 4, "micro_batch": 2, "learning_rate": 1e-2, **sections.get("train", {})},
                "evaluate": {"every": 6, **sections.get("evaluate", {})},
                "checkpoints": {"every": 6, "keep": 9, **sections.get("checkpoints", {})},
                "output": sections.get("output", {}),
            }
        )
        run = store.create(recipe, make_plan(recipe, hardware=Hardware()))
        return self.attempt(run, 1)

    def attempt(self, run: Run, number: int) -> Run:
        sys.argv = ["worker", str(run.path), str(number)]
        worker.main()
        progress = Progress.read(run)
        assert progress.state == "finished", progress.reason
        return run


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: None) -> Bench:
    return Bench(tmp_path, monkeypatch)


def events(run: Run, kind: str) -> list[Event]:
    return [event for event in EventReader(run).poll() if event["type"] == kind]


def assert_learned(run: Run, share: float = 0.97) -> None:
    """The loss falls, and the evaluations tell their token accuracy."""
    progress = Progress.read(run)
    first, last = progress.first_loss(), progress.last_loss()
    assert first and last and last < share * first
    assert [event["step"] for event in events(run, "eval")] == [6, 12]
    assert all(0 < event["loss"] < 10 and 0 <= event["accuracy"] <= 1 for event in events(run, "eval"))


def dtypes(folder: Path) -> set[str]:
    with safe_open(next(iter(folder.glob("*.safetensors"))), framework="pt") as file:
        return {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - not a dict


def frozen_bytes(model: torch.nn.Module) -> dict[str, bytes]:
    """The base weights of a model with adapters or without, by their names in the plain model; 4-bit ones as they are packed."""
    state = {name.replace("base_model.model.", "").replace(".base_layer", ""): p for name, p in model.named_parameters() if "lora_" not in name}
    return {name: p.detach().contiguous().view(torch.uint8).numpy().tobytes() for name, p in state.items()}


def assert_whole(run: Run, stops: list[str]) -> None:
    """The model's folder says how to talk to it: tokenizer, template, where to stop; and pads are never an end."""
    tokenizer = AutoTokenizer.from_pretrained(str(run.model))
    generation = json.loads((run.model / "generation_config.json").read_text())
    assert generation["eos_token_id"] == tokenizer.convert_tokens_to_ids(stops)
    assert tokenizer.pad_token_id not in generation["eos_token_id"] and generation["pad_token_id"] == tokenizer.pad_token_id
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Question 1"}], tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\nQuestion 1<|im_end|>\n<|im_start|>assistant\n"


def test_full_changes_every_weight(bench: Bench, llama: Path) -> None:
    run = bench.run(llama, method={"kind": "full"}, train={"learning_rate": 3e-3})
    assert_learned(run)
    assert_whole(run, ["</s>"])
    before, after = weights(llama), weights(run.model)
    assert before.keys() == after.keys() and all(before[name] != after[name] for name in before)
    assert dtypes(run.model) == {"F32"}
    loading = [event for event in events(run, "progress") if event["stage"] == "load"]
    assert loading[-1]["done"] == loading[-1]["total"] == len(before), "weights, as they are loaded"
    plan = events(run, "plan")[-1]
    assert plan["parameters"] == plan["trainable_parameters"] == sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(str(llama)).parameters())


def test_last_layers_leave_the_others_untouched(bench: Bench, llama: Path) -> None:
    run = bench.run(llama, method={"kind": "last-layers", "layers": 1})
    assert_learned(run)
    before, after = weights(llama), weights(run.model)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if name.startswith(("model.layers.1.", "model.norm.", "lm_head."))}
    assert events(run, "plan")[-1]["trainable_parameters"] == sum(p.numel() for p in bench.model.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("method", "more"),
    [
        pytest.param({}, {}, id="lora"),
        pytest.param({"variant": "rslora"}, {}, id="rslora"),
        pytest.param({"variant": "dora"}, {}, id="dora"),
        pytest.param({}, {"activation_checkpointing": True}, id="checkpointing"),
        pytest.param({}, {"activation_checkpointing": 2}, id="checkpointing-every-second"),
        pytest.param({}, {"precision": "bf16"}, id="bf16"),
        pytest.param({"quantization": "int8"}, {}, id="int8"),
        pytest.param({"quantization": "nf4"}, {}, id="nf4-double"),
        pytest.param({"quantization": "nf4", "double_quantization": False}, {"activation_checkpointing": True}, id="nf4-single"),
    ],
)
def test_adapters_learn_beside_frozen_weights(bench: Bench, llama: Path, method: dict[str, Any], more: dict[str, Any]) -> None:
    run = bench.run(llama, method=method, train=more)
    assert_learned(run)
    assert_whole(run, ["</s>"])
    assert dtypes(run.model) == {"F32"}
    trained = {name: p for name, p in bench.model.named_parameters() if p.requires_grad}
    assert {p.dtype for p in trained.values()} == {torch.float32}
    assert all("lora_" in name for name in trained)
    assert all(p.abs().sum() > 0 for name, p in trained.items() if "lora_B" in name), "each adapter moved away from its start at zero"

    quantization = method.get("quantization", "none")
    double = method.get("double_quantization", True)
    base = load_model(Model(name=str(llama)), precision=more.get("precision", "fp32"), quantization=quantization, double_quantization=double)
    assert frozen_bytes(bench.model) == frozen_bytes(base)

    everything, counted = events(run, "plan")[-1]["parameters"], events(run, "plan")[-1]["trainable_parameters"]
    assert (counted, everything) == bench.model.get_nb_trainable_parameters()
    assert counted == 4 * LINEAR_WIDTHS + (2 * (4 * 32 + 2 * 64 + 32) if method.get("variant") == "dora" else 0)

    if quantization == "none":
        plain = AutoPeftModelForCausalLM.from_pretrained(str(run.model), dtype=base.dtype)
        ids = torch.arange(20, 60)[None]
        with torch.no_grad():
            said, learned = base(ids).logits, plain(ids).logits
            assert torch.allclose(learned.float(), bench.model.eval()(ids).logits.float(), atol=0.2 if base.dtype == torch.bfloat16 else 0)
            assert not torch.allclose(said, learned, atol=0.05)


def test_nf4_resumes_exactly(bench: Bench, llama: Path) -> None:
    """Adapters on 4-bit weights with dropout: from the checkpoint of step 6 the same numbers come out, bit for bit."""
    run = bench.run(llama, method={"quantization": "nf4", "dropout": 0.1}, checkpoints={"every": 3}, prompt={"add_tokens": True})
    whole = weights(run.model)
    run.write_plan(2, run.plan().model_copy(update={"from_step": 6}))
    bench.attempt(run, 2)
    assert [event["from_step"] for event in events(run, "attempt_started")] == [0, 6]
    assert weights(run.model) == whole


def test_new_tokens_are_trained_saved_and_answered_with(bench: Bench, llama: Path, tmp_path: Path) -> None:
    """ChatML's markers as tokens of their own on 4-bit weights, through to `tui-ft chat`."""
    one = write_rows(tmp_path / "one.jsonl", [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "aaaa"}]}] * 8)
    run = bench.run(llama, one, prompt={"add_tokens": True}, method={"quantization": "nf4", "r": 16}, train={"max_steps": 30, "learning_rate": 2e-2},
                    data={"validation": 0}, evaluate={"every": "never"}, checkpoints={"every": 30})  # fmt: skip
    progress = Progress.read(run)
    assert progress.last_loss() < 0.5 * progress.first_loss()
    tokenizer = AutoTokenizer.from_pretrained(str(run.model))
    assert len(tokenizer.encode("<|im_start|><|im_end|>", add_special_tokens=False)) == 2
    assert_whole(run, ["<|im_end|>", "</s>"])
    rows = {name: p for name, p in bench.model.named_parameters() if "trainable_tokens" in name}
    assert len(rows) == 2, "in the embedding, and in the head that has weights of its own"
    assert all(p.requires_grad and p.dtype == torch.float32 and p.shape == (2, 32) for p in rows.values())
    assert len([name for name in weights(run.model) if "trainable_tokens" in name]) == 2

    plain = AutoPeftModelForCausalLM.from_pretrained(str(run.model))
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], add_generation_prompt=True, return_tensors="pt", return_dict=True)
    said = plain.generate(**asked, generation_config=GenerationConfig.from_pretrained(str(run.model)), max_new_tokens=8, do_sample=False)
    assert tokenizer.decode(said[0, asked["input_ids"].shape[1] :]) == "aaaa<|im_end|>"

    tuned = tui_ft_json("chat", run.id, "--prompt", "Hi", "--max-new-tokens", "8")
    untuned = tui_ft_json("chat", run.id, "--base", "--prompt", "Hi", "--max-new-tokens", "8")
    assert tuned["answer"] == "aaaa" and tuned["run"] == run.id
    assert untuned["answer"] != "aaaa"


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_merged_model_needs_no_peft(bench: Bench, llama: Path, quantization: str) -> None:
    run = bench.run(llama, method={"quantization": quantization}, output={"merge": True}, prompt={"add_tokens": quantization == "nf4"})
    assert not (run.model / "adapter_config.json").exists() and not (run.model / "adapter").exists()
    merged = AutoModelForCausalLM.from_pretrained(str(run.model))
    tokenizer = AutoTokenizer.from_pretrained(str(run.model))
    base = load_model(Model(name=str(llama)), vocabulary=len(tokenizer), vocabulary_multiple=1)
    adapted = PeftModel.from_pretrained(base, str(checkpoints.folder(run, 12)))
    ids = torch.arange(20, 60)[None]
    with torch.no_grad():
        assert torch.allclose(merged(ids).logits[..., :258], adapted(ids).logits[..., :258], atol=1e-4)
        assert not torch.allclose(merged(ids).logits[..., :258], load_model(Model(name=str(llama)))(ids).logits, atol=0.05)


def test_a_llama_packs(bench: Bench, llama: Path) -> None:
    run = bench.run(llama, prompt={"max_length": 256}, train={"packing": True, "effective_batch": 8})
    assert_learned(run)
    plan = events(run, "plan")[-1]
    assert (plan["packing"], plan["micro_batch"]) == (True, 1)
    assert plan["accumulation"] < 8, "a row holds several samples"
    assert not [event for event in events(run, "alert") if event["kind"] != "data"]


def test_an_opt_packs_by_our_attention(bench: Bench, tmp_path: Path) -> None:
    """With the usual one its packed documents would read one another."""
    run = bench.run(tiny_models.opt(tmp_path / "opt"), train={"packing": True})
    assert_learned(run)
    plan = events(run, "plan")[-1]
    assert (plan["packing"], plan["attention"]) == (True, "varlen")
    assert "under varlen attention packed documents do not read one another" in plan["reasons"]["packing"]
    assert not [event for event in events(run, "alert") if event["kind"] != "data"]


def test_a_gemma2_trains_without_fused_attention(bench: Bench, tmp_path: Path) -> None:
    """Its scores are capped, which torch's kernels do not know: it takes the plain attention by itself."""
    run = bench.run(tiny_models.gemma2(tmp_path / "gemma2"))
    assert_learned(run)
    assert events(run, "plan")[-1]["attention"] == "eager"


def test_a_falcon_cannot_pack_and_pads(bench: Bench, tmp_path: Path) -> None:
    run = bench.run(tiny_models.falcon(tmp_path / "falcon"), train={"packing": True})
    assert_learned(run)
    plan = events(run, "plan")[-1]
    assert (plan["packing"], plan["length_grouped"]) == (False, True)
    assert "like lengths" in plan["reasons"]["length_grouped"]
    assert [event["kind"] for event in events(run, "alert") if event["kind"] != "data"] == ["packing"]


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_early_stopping_takes_the_best_weights_and_checkpoints_rotate(bench: Bench, llama: Path, tmp_path: Path, kind: str) -> None:
    """The validation side says the opposite of what is learned, so it soon gets worse."""
    source = tmp_path / "rows"
    write_rows(source / "train.jsonl", chats(16, "aaaaaaaa"))
    write_rows(source / "validation.jsonl", chats(4, "zzzzzzzz"))
    run = bench.run(
        llama, source, data={"validation": "validation"}, method={"kind": kind, "r": 16},
        train={"max_steps": 100, "learning_rate": 1e-2 if kind == "full" else 3e-2, "schedule": "constant", "warmup": 0},
        evaluate={"every": 2, "early_stopping": 2}, checkpoints={"every": 1, "keep": 2, "zip": True},
    )  # fmt: skip
    losses = {event["step"]: event["loss"] for event in events(run, "eval")}
    best, last = min(losses, key=lambda step: losses[step]), max(losses)
    assert last == best + 4 < 100, "two evaluations later it ends"
    assert Progress.read(run).reason.startswith("early stopping")
    folders = {path.name: path for path in run.checkpoints.iterdir() if path.is_dir() and not path.name.startswith(".")}
    kept = sorted({best, last - 1, last})
    assert sorted(int(name.rpartition("-")[2]) for name in folders) == kept
    assert {path.stem for path in run.checkpoints.glob("*.zip")} == set(folders)
    assert weights(run.model) == weights(next(path for name, path in folders.items() if int(name.rpartition("-")[2]) == best))


@pytest.mark.parametrize("packing", [False, True])
def test_nothing_waits_for_the_device_between_forward_and_backward(bench: Bench, llama: Path, monkeypatch: pytest.MonkeyPatch, packing: bool) -> None:
    """A number that is read from a GPU empties its queue. What is left stands before a pass: whether a mask masks anything."""
    readers: set[str] = set()
    step = Trainer.training_step

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten._local_scalar_dense.default:
                readers.add(next(f.name for f in reversed(traceback.extract_stack()) if "/transformers/" in f.filename or "/trl/" in f.filename))
            return func(*args, **kwargs or {})

    def watched(*args: Any, **kwargs: Any) -> Any:
        with Watch():
            return step(*args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", watched)
    run = bench.run(llama, method={"dropout": 0}, prompt={"max_length": 256}, train={"packing": packing, "effective_batch": 8})
    assert_learned(run)
    usual = {"find_packed_sequence_indices"} if packing else {"_ignore_causal_mask_sdpa"}
    assert readers == usual, readers
