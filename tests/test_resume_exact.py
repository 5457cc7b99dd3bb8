"""A stop leaves no trace: whatever is trained and however its rows are put in order, the final weights are the same bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models
from in_process import FEATURES, small_recipe, state_of, train_in_process
from runs import weights

from tui_ft.runs.events import EventReader
from tui_ft.runs.store import Run


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.mark.parametrize("feature", FEATURES)
def test_a_stop_leaves_no_trace(llama: Path, tmp_path: Path, feature: str) -> None:
    """Stopped in the second epoch, where a library's sampler would go on elsewhere; `make test-faults` stops at every step."""
    sections = dict(FEATURES[feature])
    plan = sections.pop("plan", {})
    recipe = small_recipe(llama, tmp_path, **sections)
    whole = weights(train_in_process(recipe, plan=plan).model)
    run = train_in_process(recipe, plan=plan, stop_at=8)
    assert state_of(run) == "stopped: by request, at step 8"
    train_in_process(run=run)
    assert state_of(run) == "finished: all 12 steps are done"
    assert weights(run.model) == whole


def test_a_stop_where_an_evaluation_was_due(llama: Path, tmp_path: Path) -> None:
    """The stop leaves the evaluation out; resume makes it, and the random numbers stay in step."""
    recipe = small_recipe(llama, tmp_path, evaluate={"every": 3}, method={"dropout": 0.1})
    whole = weights(train_in_process(recipe).model)
    run = train_in_process(recipe, stop_at=6)
    assert _evaluated(run) == [3]
    train_in_process(run=run)
    assert _evaluated(run) == [3, 6, 9, 12]
    assert weights(run.model) == whole


def _evaluated(run: Run) -> list[int]:
    return [event["step"] for event in EventReader(run).poll() if event["type"] == "eval"]


def test_tokens_go_on(llama: Path, tmp_path: Path) -> None:
    recipe = small_recipe(llama, tmp_path)
    whole = [event["tokens"] for event in EventReader(train_in_process(recipe)).poll() if event["type"] == "step"]
    run = train_in_process(recipe, stop_at=7)
    for file in run.events.iterdir():
        file.unlink()  # what a power cut may take: the checkpoint knows it as well
    train_in_process(run=run)
    assert [event["tokens"] for event in EventReader(run).poll() if event["type"] == "step"] == whole[7:]
