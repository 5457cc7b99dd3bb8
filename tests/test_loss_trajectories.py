"""However the same samples are grouped into passes, what is learned is the same: the losses of every step, and the weights at the end.

Each step sees all of the eight training samples, so that packing, padding and grouping can only differ in how they compute it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from data_material import chats, write_rows
from in_process import train_in_process

from tui_ft.recipe.files import validate
from tui_ft.runs.events import EventReader
from tui_ft.runs.store import Run
from tui_ft.worker.trainer import Trainer

STEPS = 6
SAME = 1e-5
"""Where only the grouping into passes differs."""
CLOSE = 1e-3
"""Where other kernels compute it."""
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any], float]] = {  # train section, plan, tolerance
    "one at a time": ({"micro_batch": 1}, {}, SAME),
    "two at a time": ({"micro_batch": 2}, {}, SAME),
    "like lengths together": ({"micro_batch": 2}, {"length_grouped": True}, SAME),
    "packed": ({"packing": True}, {}, CLOSE),
    "checkpointing": ({"micro_batch": 4, "activation_checkpointing": True}, {}, SAME),
    "checkpointing every second layer": ({"micro_batch": 4, "activation_checkpointing": 2}, {}, SAME),
    "peft's own adapters": ({"micro_batch": 8}, {"fused_lora": False}, CLOSE),
    "plain attention": ({"micro_batch": 8}, {"attention": "eager"}, CLOSE),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {"llama": tiny_models.llama(folder / "llama"), "opt": tiny_models.opt(folder / "opt", dropout=0.0)}


@pytest.fixture(scope="module")
def references() -> dict[str, Run]:
    """All eight in one pass, by method and model; made by the first who asks."""
    return {}


def trained(model: Path, folder: Path, kind: str, train: dict[str, Any], plan: dict[str, Any]) -> Run:
    rows = chats(8)
    for number, row in enumerate(rows):
        row["messages"][1]["content"] += " and so on" * (number * 3 % 7)
    recipe = validate(
        {
            "name": "ways",
            "model": {"name": str(model)},
            "data": {"source": str(write_rows(folder / "rows.jsonl", rows)), "validation": 0},
            "prompt": {"template": "chatml", "max_length": 256},
            "method": {"kind": kind, "r": 4, "dropout": 0},
            "train": {"max_steps": STEPS, "effective_batch": 8, "learning_rate": 1e-2, **train},
            "evaluate": {"every": "never"},
            "checkpoints": {"every": 100},
        }
    )
    return train_in_process(recipe, plan=plan)


def losses(run: Run) -> np.ndarray[Any, Any]:
    return np.array([event["loss"] for event in EventReader(run).poll() if event["type"] == "step"])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("setup", ["llama, lora", "opt, full"])
def test_the_losses_are_the_same(models: dict[str, Path], references: dict[str, Run], tmp_path: Path, setup: str, way: str) -> None:
    name, kind = setup.split(", ")
    train, plan, tolerance = WAYS[way]
    if setup not in references:
        references[setup] = trained(models[name], tmp_path, kind, {"micro_batch": 8}, {})
    expected, run = references[setup], trained(models[name], tmp_path, kind, train, plan)
    assert len(losses(expected)) == STEPS and losses(expected)[-1] < 0.9 * losses(expected)[0], "something is learned"
    np.testing.assert_allclose(losses(run), losses(expected), rtol=tolerance)
    told = [event["tokens"] for event in EventReader(run).poll() if event["type"] == "step"]
    assert told == [event["tokens"] for event in EventReader(expected).poll() if event["type"] == "step"], "the same tokens a step"


@pytest.mark.parametrize("packing", [False, True], ids=["padded", "packed"])
def test_our_loss_is_the_librarys(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packing: bool) -> None:
    """Ours leaves out what only a tracker would be told; another version of trl may compute the loss otherwise, and this is who tells."""
    train = {"packing": packing, **({} if packing else {"micro_batch": 2})}
    ours = trained(models["llama"], tmp_path, "lora", train, {})
    monkeypatch.delattr(Trainer, "compute_loss")
    theirs = trained(models["llama"], tmp_path, "lora", train, {})
    assert losses(ours).tolist() == losses(theirs).tolist()
    tokens = [[event["tokens"] for event in EventReader(run).poll() if event["type"] == "step"] for run in (ours, theirs)]
    assert tokens[0] == tokens[1]
