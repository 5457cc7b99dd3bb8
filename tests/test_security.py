"""The lines of docs/security.md that no other test carries: pickles, YAML that unfolds, secrets, private files, planted commands."""

from __future__ import annotations

import os
import pickle
import stat
import time
from itertools import pairwise
from pathlib import Path

import pytest
import tiny_models
from in_process import small_recipe, state_of, train_in_process
from runs import republish, tui_ft, tui_ft_json

from tui_ft import home
from tui_ft.errors import ConfigError
from tui_ft.recipe import Recipe, files
from tui_ft.runs.commands import Command, pending, send
from tui_ft.runs.store import Run

TOKEN = "hf_" + "notarealtokenbutofitsform" * 2


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def recipe(llama: Path, tmp_path: Path) -> Recipe:
    return small_recipe(llama, tmp_path, train={"max_steps": 4})


class Evil:
    """Unpickled, it leaves a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple:
        return Path.touch, (self.canary,)


def test_our_pickle_would_work(tmp_path: Path) -> None:
    """Else the next two tests show nothing."""
    pickle.loads(pickle.dumps(Evil(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_pickle_in_a_checkpoint_is_not_run(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """By somebody who could also make the hashes fit, and where the environment tells torch to trust everything."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    run = train_in_process(recipe, stop_at=2)
    republish(run, 2, lambda staged: (staged / name).write_bytes(pickle.dumps(Evil(tmp_path / "canary"))))
    train_in_process(run=run)
    assert state_of(run).startswith("failed")
    assert not (tmp_path / "canary").exists()


def test_a_pickle_among_the_weights_is_not_run(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    model = tiny_models.llama(tmp_path / "evil")
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(tmp_path / "canary")))
    run = train_in_process(recipe.model_copy(update={"model": recipe.model.model_copy(update={"name": str(model)})}))
    assert state_of(run).startswith("failed")
    assert not (tmp_path / "canary").exists()


def test_a_run_is_private_and_holds_no_token(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    run = train_in_process(recipe)
    assert state_of(run).startswith("finished")
    for path in home.home().rglob("*"):
        assert stat.S_IMODE(path.lstat().st_mode) in ((0o700,) if path.is_dir() else (0o600,)), path
        assert path.is_dir() or TOKEN.encode() not in path.read_bytes(), path
    assert not list(run.checkpoints.rglob("training_args.bin")), "a pickle that nobody may load is not kept either"


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file to another user needs root")
def test_a_command_of_another_user_is_not_obeyed(recipe: Recipe) -> None:
    run = train_in_process(recipe, stop_at=2)
    send(run, Command(name="stop", args={"now": True}, attempt=2))
    planted = next((run.commands / "new").iterdir())
    os.chown(planted, 65534, 65534)
    assert [item.command for item in pending(run)] == [None]
    train_in_process(run=run)
    assert state_of(run).startswith("finished")
    assert not list((run.commands / "new").iterdir())


def test_a_home_that_others_can_write_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They could plant a run, a preset, or the model that the next run begins with."""
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o777)
    monkeypatch.setenv("TUI_FT_HOME", str(place))
    refused = tui_ft("run", "demo", "--detach", code=2)
    assert "every user of this machine can write there" in refused.stderr and "chmod" in refused.stderr
    assert not list(place.glob("runs/*"))
    assert any(finding["where"] == "home" and finding["severity"] == "error" for finding in tui_ft_json("doctor", code=1))
    place.chmod(0o700)
    assert not home.exposure(place)


def test_a_few_bytes_of_yaml_that_unfold_to_gigabytes() -> None:
    names = "abcdefghij"
    levels = [f"{name}: &{name} [{', '.join(['*' + before] * 8)}]" for before, name in pairwise(names)]
    bomb = "\n".join(["a: &a [x, x, x, x, x, x, x, x]", *levels, "model: {name: *j}", "data: {source: *j}"])
    started = time.monotonic()
    for text in (bomb, "model: &m [*m]"):
        with pytest.raises(ConfigError):
            files.parse(text)
    assert time.monotonic() - started < 5
    shared = files.parse("model: &m {name: org/model}\ndata: {source: x.jsonl}\nlog: {trackers: []}\n")
    assert shared.model.name == "org/model", "anchors as such are no crime"


def test_a_run_that_leads_elsewhere_is_no_run(tmp_path: Path) -> None:
    """A preset's or run's name cannot climb out of its folder."""
    for name in ("../escaped", "a/../../b", "/etc/passwd", ".."):
        tui_ft("show", name, code=2)
        tui_ft("presets", "delete", name, code=2)
        tui_ft("rm", name, "--yes", code=2)
    assert not Run(tmp_path / "escaped").path.exists()
