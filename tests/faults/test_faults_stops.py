"""Stop-and-save at every step of a training with every feature: the resumed run ends in the same weights, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models
from in_process import FEATURES, STEPS, small_recipe, state_of, train_in_process
from ledger import Row
from runs import weights


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.mark.parametrize("feature", FEATURES)
def test_stop_and_save_at_every_step(llama: Path, tmp_path: Path, feature: str, row: Row) -> None:
    """`tests/test_resume_exact.py` stops at two steps in every run of the tests; this buys all the others."""
    row.promise, row.fault = "resume is bit-identical", f"stop and save at each step: {feature}"
    sections = dict(FEATURES[feature])
    plan = sections.pop("plan", {})
    recipe = small_recipe(llama, tmp_path, **sections)
    whole = weights(train_in_process(recipe, plan=plan).model)
    for step in range(1, STEPS):
        run = train_in_process(recipe, plan=plan, stop_at=step)
        assert state_of(run) == f"stopped: by request, at step {step}"
        train_in_process(run=run)
        assert state_of(run).startswith("finished"), f"resumed from step {step}"
        assert weights(run.model) == whole, f"stopped at step {step}"
        row.cases += 1
