"""Checkpoints without a training: hostile and damaged folders, leftovers of killed workers, the quarantine, the command."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import synthetic
from runs import tui_ft, tui_ft_json

from tui_ft import hardware
from tui_ft.recipe import Plan, presets
from tui_ft.runs import checkpoints, identity, store
from tui_ft.runs.checkpoints import MANIFEST
from tui_ft.runs.manifest import self_hash
from tui_ft.runs.progress import Progress
from tui_ft.runs.store import Run


@pytest.fixture
def run() -> Run:
    return store.create(presets.open_recipe("demo"), Plan(micro_batch=1, accumulation=1, effective_batch=1, precision="fp32"))


def publish(run: Run, step: int, loss: float | None = None, size: int = 1000) -> Path:
    staged = checkpoints.staging(run)
    (staged / "model.safetensors").write_bytes(os.urandom(size))
    (staged / "optimizer.pt").write_bytes(b"state" * step)
    return checkpoints.publish(staged, run, step, {"eval_loss": loss})


def rewrite(place: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest as somebody would who knows how it is sealed."""
    body = json.loads((place / MANIFEST).read_text())
    del body["self"]
    change(body)
    (place / MANIFEST).write_text(json.dumps({**body, "self": self_hash(body)}))


def _swap(place: Path) -> None:
    one, other = place / "model.safetensors", place / "optimizer.pt"
    one.rename(place / "x")
    other.rename(one)
    (place / "x").rename(other)


def _link(place: Path) -> None:
    file = place / "optimizer.pt"
    file.rename(place.parent / "elsewhere")
    file.symlink_to(place.parent / "elsewhere")


HOSTILE: dict[str, Callable[[Path], object]] = {
    "no object": lambda place: (place / MANIFEST).write_text("[]"),
    "deeply nested": lambda place: (place / MANIFEST).write_text("[" * 100_000),
    "no text": lambda place: (place / MANIFEST).write_bytes(b"\xff\xfe\x00"),
    "no files": lambda place: rewrite(place, lambda body: body.pop("files")),
    "files of no shape": lambda place: rewrite(place, lambda body: body.update(files={"model.safetensors": 3})),
    "hash of no shape": lambda place: rewrite(place, lambda body: body["files"]["optimizer.pt"].update(xxh3="../..")),
    "a step in words": lambda place: rewrite(place, lambda body: body.update(step="nine")),
    "another step": lambda place: rewrite(place, lambda body: body.update(step=7)),
    "a way out": lambda place: rewrite(place, lambda body: body["files"].update({"../../run.json": body["files"]["optimizer.pt"]})),
    "an absolute way": lambda place: rewrite(place, lambda body: body["files"].update({"/etc/passwd": body["files"]["optimizer.pt"]})),
    "a file more": lambda place: (place / "adapter_model.bin").write_bytes(b"pickle"),
    "a folder more": lambda place: ((place / "nested").mkdir(), (place / "nested" / "code.py").write_text("import os")),
    "swapped files": _swap,
    "a link for a file": _link,
    "a manifest that is a link": lambda place: ((place / MANIFEST).rename(place.parent / "m"), (place / MANIFEST).symlink_to(place.parent / "m")),
    "a file that is a folder": lambda place: ((place / "optimizer.pt").unlink(), (place / "optimizer.pt").mkdir()),
}


@pytest.mark.parametrize("damage", HOSTILE)
def test_what_is_hostile_counts_as_damage_and_the_one_before_is_used(run: Run, damage: str) -> None:
    publish(run, 5)
    place = publish(run, 9)
    HOSTILE[damage](place)
    assert [bool(one.damage) for one in checkpoints.listing(run)] == [False, True], "seen without a hash of the files"
    newest, notes = checkpoints.newest_valid(run)
    assert newest == checkpoints.folder(run, 5)
    assert len(notes) == 1 and notes[0].startswith("checkpoint 9 is set aside: ")


def test_hidden_files_of_file_systems_are_no_damage(run: Run) -> None:
    (publish(run, 5) / ".nfs0001").write_bytes(b"x")
    assert checkpoints.newest_valid(run)[0] == checkpoints.folder(run, 5)


def test_leftovers_of_a_killed_worker_are_cleaned_up(run: Run) -> None:
    publish(run, 5)
    checkpoints.folder(run, 5).rename(run.checkpoints / ".replaced-5")  # killed between the two renames
    publish(run, 9)
    publish(run, 3)
    checkpoints.folder(run, 3).rename(run.checkpoints / ".trash-checkpoint-3-17")
    (checkpoints.staging(run) / "half").write_bytes(b"x")
    (run.checkpoints / ".checkpoint-9.zip.abc").write_bytes(b"x")
    checkpoints.clean_up(run)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["checkpoint-5", "checkpoint-9"]
    assert all(not checkpoints.verify(checkpoints.folder(run, step)) for step in (5, 9))


def test_a_checkpoint_of_the_same_step_takes_the_place_of_the_old_one(run: Run) -> None:
    publish(run, 5, loss=2.0)
    publish(run, 5, loss=1.0)
    assert [(one.step, one.eval_loss, one.damage) for one in checkpoints.listing(run)] == [(5, 1.0, "")]
    assert not list(run.checkpoints.glob(".*"))


def test_the_quarantine_is_bounded_and_says_so(run: Run) -> None:
    for step in range(1, 7):
        publish(run, step)
        checkpoints.archive(run, step).write_bytes(b"zip") if step == 6 else None
        checkpoints.set_aside(run, step)
    assert checkpoints.clean_up(run) == ["4 of what was set aside earlier is deleted; the newest 3 stay"]
    left = sorted(path.name.split("-")[1] for path in (run.checkpoints / "quarantine").iterdir())
    assert left == ["5", "6", "6"], "the ZIP went along"
    assert checkpoints.clean_up(run) == []


def test_rotation_takes_the_zip_along_and_leaves_the_best(run: Run) -> None:
    for step, loss in ((1, 3.0), (2, 1.0), (3, float("nan")), (4, 2.0)):
        publish(run, step, loss)
        checkpoints.archive(run, step).write_bytes(b"zip")
    assert [one.best for one in checkpoints.listing(run)] == [False, True, False, False]
    checkpoints.rotate(run, keep=1, best=2)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["checkpoint-2", "checkpoint-2.zip", "checkpoint-4", "checkpoint-4.zip"]


def test_room_for_the_next_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checkpoints.room_for_checkpoint(run) is None, "nothing to judge by"
    size = sum(file.stat().st_size for file in publish(run, 5, size=100_000).iterdir())
    assert checkpoints.room_for_checkpoint(run) is None
    monkeypatch.setattr(hardware, "free_disk", lambda _: size)
    assert checkpoints.room_for_checkpoint(run) == round(1.2 * size) - size


def test_the_command_lists_verifies_zips_and_deletes(run: Run) -> None:
    assert tui_ft("checkpoints", run.id).stdout == f"{run.id} has no checkpoints.\n"
    for step, loss in ((5, 1.5), (9, None)):
        publish(run, step, loss)
    assert [(one["step"], one["best"], one["verified"], one["damage"]) for one in tui_ft_json("checkpoints", run.id)] == [
        (5, True, None, ""),
        (9, False, None, ""),
    ]
    tui_ft("checkpoints", run.id, "verify")
    assert all(one["verified"] for one in tui_ft_json("checkpoints", run.id))
    weights = checkpoints.folder(run, 9) / "model.safetensors"
    weights.write_bytes(os.urandom(1000))
    assert [one["verified"] is None for one in tui_ft_json("checkpoints", run.id)] == [False, True], "it was changed since"
    assert "content of model.safetensors" in tui_ft_json("checkpoints", run.id, "verify", "9", code=1)[0]["damage"]
    assert "content of model.safetensors" in tui_ft("checkpoints", run.id).stdout, "what was found is remembered"
    tui_ft("checkpoints", run.id, "zip", "9", code=2)
    assert Path(tui_ft_json("checkpoints", run.id, "zip", "5")["zip"]).is_file()
    refused = tui_ft("checkpoints", run.id, "delete", "5", code=2).stderr
    assert "--yes" in refused and "best by validation loss" in refused
    assert tui_ft_json("checkpoints", run.id, "delete", "5", "--yes")["freed_bytes"] > 2000
    assert [path.name for path in run.checkpoints.glob("checkpoint-*")] == ["checkpoint-9"]
    assert "There are: 9." in tui_ft("checkpoints", run.id, "delete", "5", "--yes", code=2).stderr


def test_the_newest_of_a_live_run_stays(run: Run) -> None:
    publish(run, 5)
    publish(run, 9)
    run.owner_file.write_text(json.dumps({**identity.of(os.getpid()).model_dump(), "attempt": 1}))
    Progress(attempt=1, state="running").write(run)
    assert "the newest" in tui_ft("checkpoints", run.id, "delete", "9", "--yes", code=2).stderr
    tui_ft("checkpoints", run.id, "delete", "5", "--yes")
    assert checkpoints.steps(run) == [9]


def test_who_looks_every_second_sees_at_once_what_came_and_went_and_damage_before_long() -> None:
    run = synthetic.recorded("stopped", steps=40, total=60)
    shelf = checkpoints.Listing(run)
    first = shelf.read()
    assert shelf.read() is first and [info.step for info in first] == checkpoints.steps(run)
    shutil.rmtree(checkpoints.folder(run, first[-1].step))
    assert [info.step for info in shelf.read()] == [info.step for info in first[:-1]]
    (checkpoints.folder(run, first[0].step) / "adapter_model.safetensors").unlink()
    assert any(shelf.read()[0].damage for _ in range(checkpoints.Listing.EVERY))
