"""The six presets on this machine: all can be planned, and the five reference ones train, with small models in place of the downloads."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from data_material import write_rows
from in_process import state_of, train_in_process
from runs import tui_ft_json

from tui_ft import start
from tui_ft.hardware import Hardware
from tui_ft.planning import model_facts
from tui_ft.planning.planner import make_plan
from tui_ft.recipe import files, presets
from tui_ft.recipe.schema import Model
from tui_ft.runs.events import Event, EventReader
from tui_ft.runs.store import Run

STEPS = 3


@pytest.fixture(scope="module", autouse=True)
def one_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One home for the whole file, so that each small model is looked into once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("TUI_FT_HOME", str(folder))
        patch.setenv("OMP_NUM_THREADS", "1")  # so small a model gains nothing from a second thread
        yield folder


@pytest.fixture(autouse=True)
def tui_ft_home(one_home: Path) -> Path:
    """In place of the home that each test elsewhere has to itself."""
    return one_home


@pytest.fixture(scope="module")
def opt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.opt(tmp_path_factory.mktemp("models") / "opt")


def trees(file: Path) -> Path:
    """Message rows as oasst1 has them: 12 English trees of a question and two answers, and as many Spanish ones."""
    rows: list[dict[str, Any]] = []
    for number in range(24):
        common = {"message_tree_id": f"t{number}", "lang": "en" if number % 2 else "es", "deleted": False, "review_result": True}
        rows.append({**common, "message_id": f"q{number}", "parent_id": None, "role": "prompter", "text": f"What follows {number}?", "rank": None})
        for rank in (0, 1):
            text = f"It is {number + 1}." if rank == 0 else "I do not know."
            rows.append({**common, "message_id": f"a{number}-{rank}", "parent_id": f"q{number}", "role": "assistant", "text": text, "rank": rank})
    return write_rows(file, rows)


def texts(file: Path) -> Path:
    return write_rows(file, [{"text": f"### Human: What is {n} and {n}?### Assistant: It is {2 * n}. " + "And so on. " * 40} for n in range(40)])


def instructions(file: Path) -> Path:
    """Every third has no input; one is longer than any context."""
    rows = [{"instruction": f"Print {n}", "input": "" if n % 3 else "in Python", "output": f"print({n})"} for n in range(30)]
    return write_rows(file, [*rows, {"instruction": "Go on", "input": "", "output": "x" * 17_000}])


def run_preset(name: str, model: Path, source: Path, *, by_command: bool = False) -> tuple[Run, list[Event], dict[str, Any]]:
    """Three steps of a preset with another model and other data, and nothing else changed.

    Args:
        by_command: `tui-ft run PRESET`; else its parts, checks, plan and worker, in this process, which saves twelve seconds of imports.
    """
    changes = [f"model.name={model}", f"data.source={source}", f"train.max_steps={STEPS}"]
    if by_command:
        told = tui_ft_json("run", name, *(part for change in changes for part in ("--set", change)))
        run = Run(Path(told["dir"]))
        assert (told["recipe"], told["state"], told["total_steps"]) == (name, "finished", STEPS)
        assert (run.report / "loss.png").read_bytes().startswith(b"\x89PNG")
    else:
        ready = start.get_ready(files.with_settings(presets.get(name), changes), hardware=Hardware())
        run = train_in_process(ready.recipe, plan=ready.plan)
        assert state_of(run).startswith("finished")
        told = tui_ft_json("show", run.id)
    assert told["step"] == STEPS and all(math.isfinite(told[key]) for key in ("first_loss", "last_loss", "best_eval_loss"))
    events = EventReader(run).poll()
    assert [event["step"] for event in events if event["type"] == "step"] == [1, 2, 3]
    evaluations = [event for event in events if event["type"] == "eval"]
    assert evaluations and all(0 <= event["accuracy"] <= 1 for event in evaluations)
    assert {"tokenizer.json", "generation_config.json", "chat_template.jinja"} <= {file.name for file in run.model.iterdir()}
    return run, events, told


def plan_of(events: list[Event]) -> dict[str, Any]:
    return [event for event in events if event["type"] == "plan"][-1]


@pytest.mark.parametrize("preset", presets.names(), ids=lambda preset: preset.name)
def test_every_preset_loads_and_can_be_planned(preset: presets.PresetInfo) -> None:
    recipe = presets.get(preset.name)
    assert recipe.name == preset.name and recipe.about
    plan = make_plan(recipe, hardware=Hardware(), rows=10_000)
    assert plan.steps and plan.micro_batch * plan.accumulation == plan.effective_batch == recipe.train.effective_batch
    assert plan.precision == "fp32" and plan.gpu is None
    assert not any("None" in reason for reason in plan.reasons.values())


def test_there_are_six() -> None:
    assert len([preset for preset in presets.names() if preset.bundled]) == 6


def test_full_fine_tune_on_message_trees(opt: Path, tmp_path: Path) -> None:
    run, events, told = run_preset("opt-350m-oasst1", opt, trees(tmp_path / "rows.jsonl"))
    assert [c["step"] for c in told["checkpoints"]] == [STEPS], "the last one, though one is due only every 10,000 steps"
    counts = plan_of(events)
    assert counts["trainable_parameters"] == counts["parameters"] == model_facts.facts(Model(name=str(opt))).total
    assert json.loads((run.model / "config.json").read_text())["dtype"] == "float32"


def test_plain_text_in_large_batches(opt: Path, tmp_path: Path) -> None:
    _, events, _ = run_preset("sft-config", opt, texts(tmp_path / "texts.jsonl"))
    plan = plan_of(events)
    assert (plan["micro_batch"], plan["accumulation"], plan["effective_batch"]) == (64, 16, 1024)


def test_nf4_with_a_paged_optimizer_and_zipped_checkpoints(tmp_path: Path) -> None:
    """Phi: a paged optimizer and 4-bit weights without a GPU, activations recomputed, the checkpoint in one file as well."""
    run, events, told = run_preset("phi-2-oasst1-qlora", tiny_models.phi(tmp_path / "phi"), trees(tmp_path / "rows.jsonl"), by_command=True)
    archive = Path(told["checkpoints"][-1]["path"]).with_suffix(".zip")
    with zipfile.ZipFile(archive) as zipped:
        assert zipped.testzip() is None
        assert any(name.endswith("adapter_model.safetensors") for name in zipped.namelist())
    adapter = json.loads((run.model / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"], set(adapter["target_modules"])) == (16, 32, {"q_proj", "k_proj", "v_proj", "dense"})
    assert plan_of(events)["trainable_parameters"] == 2 * 4 * 2 * 16 * 32, "layers x modules x two matrices x rank x width"


def test_blocks_of_text_with_validation_and_early_stopping(tmp_path: Path) -> None:
    _, events, told = run_preset("gpt-openwebtext", tiny_models.gpt2(tmp_path / "gpt2"), texts(tmp_path / "texts.jsonl"))
    assert told["epoch"] >= 1
    evaluated = {event["step"]: event["loss"] for event in events if event["type"] == "eval"}
    assert evaluated[STEPS] == told["best_eval_loss"] == min(evaluated.values()), "a fresh model learns at every step"
    assert set(evaluated) == {checkpoint["step"] for checkpoint in told["checkpoints"]}
    assert plan_of(events)["tokens_per_step"] > 16 * 400, "blocks of 512, nearly all of them full"


def test_nf4_of_every_linear_layer_with_an_8_bit_optimizer(tmp_path: Path) -> None:
    """Stable Code: a memory limit where no GPU is, and a sample beyond the context left out."""
    run, events, _ = run_preset("stable-code-3b-qlora", tiny_models.stablelm(tmp_path / "stablelm"), instructions(tmp_path / "rows.jsonl"))
    assert not any(event["type"] == "alert" and event["severity"] == "error" for event in events)
    targets = json.loads((run.model / "adapter_config.json").read_text())["target_modules"]
    assert {target.rpartition(".")[2] for target in targets} == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert (plan_of(events)["micro_batch"], plan_of(events)["accumulation"]) == (1, 4)
