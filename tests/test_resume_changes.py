"""What a person changes between two attempts: knowingly made and made again at its step, or refused with its name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from in_process import small_recipe, state_of, train_in_process
from runs import tui_ft, weights

from tui_ft.runs import checkpoints, control, identity, launch
from tui_ft.runs.commands import Command, send
from tui_ft.runs.events import Event, EventReader
from tui_ft.runs.fingerprint import Changed
from tui_ft.runs.manifest import MANIFEST, self_hash
from tui_ft.runs.store import Run


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.llama(tmp_path_factory.mktemp("models") / "llama")


def told(run: Run, kind: str, attempt: int = 0) -> list[Event]:
    return [event for event in EventReader(run).poll() if event["type"] == kind and attempt in (0, event["attempt"])]


def rates(run: Run, attempt: int = 0) -> dict[int, float]:
    return {event["step"]: event["learning_rate"] for event in told(run, "step", attempt)}


def supervised(run: Run, outcome: str) -> Run:
    """As the supervisor leaves a run whose worker ended so."""
    gone = identity.of(os.getpid()).model_copy(update={"start_ticks": "gone"})
    run.owner_file.write_text(json.dumps({**gone.model_dump(), "attempt": run.attempt()}))
    run.write_exit_record(run.attempt(), {"outcome": outcome, "reason": ""})
    return run


def resume(run: Run, monkeypatch: pytest.MonkeyPatch, outcome: str = "stopped", **how: Any) -> Run:
    """By the door that every terminal goes through; its attempt then runs in this process."""
    monkeypatch.setattr(launch, "start", lambda _: None)
    supervised(run, outcome)
    control.resume(run, **how)
    plan = run.plan()
    (run.path / "plan" / f"{run.attempt()}.json").unlink()
    return train_in_process(run=run, plan=plan.model_dump(include={"from_step", "settings", "settings_id", "accepted"}))


def seal(place: Path, **changes: Any) -> None:
    """A manifest as another program version, or another recipe, would have written it."""
    body = json.loads((place / MANIFEST).read_text())
    body.pop("self")
    for key, value in changes.items():
        body[key].update(value)
    (place / MANIFEST).write_text(json.dumps({**body, "self": self_hash(body)}))


def test_a_finished_run_goes_further_only_when_asked(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the schedule laid out anew for all steps; and a rollback before the extension makes it again at its step."""
    run = train_in_process(small_recipe(llama, tmp_path, train={"max_steps": 6}, checkpoints={"every": 4, "keep": 9}))
    supervised(run, "finished")
    assert "trains it further" in tui_ft("resume", run.id, code=2).stderr
    assert "step 6 is done already" in tui_ft("resume", run.id, "--set", "max_steps=6", code=2).stderr
    assert run.attempt() == 1
    resume(run, monkeypatch, "finished", settings={"max_steps": 10})
    assert state_of(run) == "finished: all 10 steps are done"
    changed = told(run, "command")[-1]
    assert (changed["name"], changed["phase"], changed["step"], changed["args"]) == ("set", "effected", 6, {"max_steps": 10})
    longer = rates(train_in_process(small_recipe(llama, tmp_path, train={"max_steps": 10})))
    assert {step: rate for step, rate in rates(run).items() if step > 6} == {step: rate for step, rate in longer.items() if step > 6}
    final = weights(run.model)
    train_in_process(run=run, plan={"from_step": 4})
    assert state_of(run) == "finished: all 10 steps are done"
    assert rates(run, 3) == {step: rates(run, 1 if step < 7 else 2)[step] for step in range(5, 11)}
    assert weights(run.model) == final


def test_a_rate_given_with_the_resume_takes_the_place_of_later_changes(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who goes back behind a change that did harm, with another rate, does not get the old one again; a restart repeats nothing."""
    recipe = small_recipe(llama, tmp_path, train={"schedule": "constant", "warmup": 0}, checkpoints={"every": 2, "keep": 9})
    run = train_in_process(recipe, stop_at=3)
    supervised(run, "stopped")
    send(run, Command(name="set", args={"learning_rate": 5e-2}, attempt=2))
    train_in_process(run=run, stop_at=7)
    assert rates(run, 2)[7] == 5e-2
    resume(run, monkeypatch, from_step=2, settings={"learning_rate": 1e-3})
    assert set(rates(run, 3).values()) == {1e-3}
    plan = run.plan().model_dump(include={"settings", "settings_id"})
    train_in_process(run=run, plan={**plan, "from_step": 4})
    assert set(rates(run, 4).values()) == {1e-3}
    assert len(told(run, "command", 3)) == 1 and not told(run, "command", 4)


def test_what_has_changed_is_refused_by_name_before_anything_is_written(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = supervised(train_in_process(small_recipe(llama, tmp_path), stop_at=5), "stopped")
    rows = tmp_path / "chats.jsonl"
    os.utime(rows)
    monkeypatch.setattr(launch, "start", lambda _: None)
    control.resume(run)  # another date alone is no difference
    (run.path / "plan" / "2.json").unlink()
    rows.write_text(rows.read_text() + rows.read_text().splitlines()[0] + "\n")
    seal(checkpoints.folder(run, 5), settings={"train.seed": 1, "train.effective_batch": 32}, versions={"peft": "0.1"})
    before = sorted(path for path in run.path.rglob("*"))
    refused = tui_ft("resume", run.id, code=2).stderr
    assert "train.seed was 1 and is 42 now" in refused and "train.effective_batch was 32 and is 4 now" in refused
    assert "peft was 0.1" in refused and f"data.source: {rows} was changed" in refused
    assert "--accept train.effective_batch,train.seed,peft,data.source" in refused
    assert sorted(path for path in run.path.rglob("*")) == before
    with pytest.raises(Changed) as error:
        control.resume(run, accept=["peft", "data.source"])
    assert {difference.key for difference in error.value.differences} == {"train.seed", "train.effective_batch"}


def test_the_worker_refuses_as_well_and_goes_on_with_what_is_accepted(llama: Path, tmp_path: Path) -> None:
    run = train_in_process(small_recipe(llama, tmp_path), stop_at=5)
    seal(checkpoints.folder(run, 5), versions={"torch": "1.0"})
    train_in_process(run=run)
    assert "torch was 1.0" in state_of(run) and state_of(run).startswith("failed")
    assert checkpoints.steps(run) == [5]
    rows = tmp_path / "chats.jsonl"
    rows.write_text("\n".join(rows.read_text().splitlines()[1:]) + "\n")
    train_in_process(run=run, plan={"accepted": ["torch"]})
    assert "data.source" in state_of(run) and "--accept data.source" in state_of(run)
    train_in_process(run=run, plan={"accepted": ["all"]})
    assert state_of(run) == "finished: all 12 steps are done"
    alerts = [event["cause"] for event in told(run, "alert", 4) if event["kind"] == "changed"]
    assert len(alerts) == 3 and all("accepted" in cause for cause in alerts)


def test_halving_the_micro_batch_is_no_difference_and_keeps_the_order(llama: Path, tmp_path: Path) -> None:
    run = train_in_process(small_recipe(llama, tmp_path), plan={"length_grouped": True}, stop_at=7)
    train_in_process(run=run, plan={"micro_batch": 1, "accumulation": 4})
    assert state_of(run) == "finished: all 12 steps are done"
    whole = train_in_process(small_recipe(llama, tmp_path), plan={"length_grouped": True})
    assert [event["tokens"] for event in told(run, "step")] == [event["tokens"] for event in told(whole, "step")], "the same rows at each step"
