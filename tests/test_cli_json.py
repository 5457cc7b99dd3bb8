"""What other programs rely on: the JSON of each command, its exit codes, and what Ctrl+C does to a followed run."""

from __future__ import annotations

import contextlib
import json
import math
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import synthetic
from runs import COMMAND, SMALL_LORA, WAIT_SECONDS, start, tui_ft, tui_ft_json, wait_for_state, wait_for_step, worker_pid

from tui_ft.cli import main
from tui_ft.cli.preview_text import print_preview
from tui_ft.data.preview import Preview
from tui_ft.runs import store
from tui_ft.runs.events import EventReader
from tui_ft.runs.store import Run
from tui_ft.runs.summary import summarize
from tui_ft.worker.journal import Journal

RUN_KEYS = {
    "run", "dir", "recipe", "state", "step", "total_steps", "epoch", "first_loss", "last_loss", "best_eval_loss", "tokens", "tokens_per_second",
    "peak_memory_bytes", "checkpoints", "model", "reason",
}  # fmt: skip
PLAN_KEYS = {
    "tier", "memory", "gpu", "fits", "micro_batch", "accumulation", "effective_batch", "precision", "packing", "attention",
    "activation_checkpointing", "steps", "tokens_per_step", "seconds", "disk_bytes", "trainable_parameters", "parameters", "reasons", "warnings",
}  # fmt: skip
MEMORY_PARTS = {"weights", "gradients", "optimizer", "adapters", "activations", "head", "overhead"}
LONG = ["--set", "train.max_steps=400", "--set", "evaluate.every=never", "--set", "checkpoints.every=1000"]


@pytest.fixture(scope="module")
def demo_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's model and what was found out about it, made once for the file."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUI_FT_HOME", str(folder))
        tui_ft("plan", "demo", "--set", "train.max_steps=1")
    return folder / "cache"


@pytest.fixture
def warm(tui_ft_home: Path, demo_cache: Path) -> Iterator[None]:
    """A home without runs in which the demo's model is known."""
    tui_ft_home.mkdir()
    (tui_ft_home / "cache").symlink_to(demo_cache)
    yield
    for run in store.all_runs():  # a test that failed must not leave its run behind
        with contextlib.suppress(Exception):
            tui_ft("stop", run.id, "--now")


def answer(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    """The JSON of a command run in this process, where nothing but that may stand on stdout."""
    assert main([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ")
    return said.err


def test_runs_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "runs") == []
    finished, live = synthetic.recorded("finished"), synthetic.recorded("running")
    listed = answer(capsys, "runs")
    assert {entry["run"]: entry["state"] for entry in listed} == {finished.id: "finished", live.id: "running"}
    shown = answer(capsys, "show", finished.id)
    assert shown in listed and shown.keys() >= RUN_KEYS
    assert shown["dir"] == str(finished.path)
    assert all(checkpoint.keys() >= {"step", "path", "bytes", "eval_loss"} for checkpoint in shown["checkpoints"])
    assert [entry["run"] for entry in answer(capsys, "status")] == [live.id]
    assert answer(capsys, "show", "latest")["run"] in {finished.id, live.id}
    logs = answer(capsys, "logs", finished.id)
    assert logs.keys() == {"run", "attempt", "out", "err"}


def test_looking_never_changes_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    run = synthetic.recorded("finished")
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    for command in ("show", "logs"):
        answer(capsys, command, run.id)
    answer(capsys, "runs")
    answer(capsys, "status")
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


def test_plan(capsys: pytest.CaptureFixture[str], warm: None) -> None:
    plan = answer(capsys, "plan", "demo")
    assert plan.keys() >= PLAN_KEYS and plan["memory"].keys() == MEMORY_PARTS | {"total_bytes", "context", "safety", "phase"}
    assert plan["tier"] == "traced" and plan["gpu"] is None and plan["fits"] is None
    assert sum(plan["memory"][part] for part in MEMORY_PARTS) == plan["memory"]["total_bytes"] > 0
    assert plan["memory"]["overhead"] == plan["memory"]["context"] + plan["memory"]["safety"]
    assert plan["longest"] and plan["memory"]["activations"] and plan["memory"]["phase"] and plan["options"]
    assert plan["micro_batch"] * plan["accumulation"] == plan["effective_batch"]
    assert plan["trainable_parameters"] == plan["parameters"] > 0

    tight = answer(capsys, "plan", "demo", "--gpu-memory", "1MiB", "--instant", "--set", "method.kind=full")
    assert tight["fits"] is False and tight["gpu"]["free_bytes"] == 2**20, "a plan that cannot fit is an answer, not an error"
    instant = answer(capsys, "plan", "phi-2-oasst1-qlora", "--instant")
    assert instant["parameters"] is None and instant["steps"] is None
    assert "--gpu-memory" in refusal(capsys, "plan", "demo", "--gpu-memory", "much")


def test_preview(capsys: pytest.CaptureFixture[str], warm: None) -> None:
    told = tui_ft_json("preview", "demo", "-n", "2")
    assert told.keys() >= {"sampled", "rows", "kept", "dropped", "languages", "lengths", "samples", "warnings"}
    assert told["lengths"].keys() == {"mean", "p50", "p95", "max", "truncated", "answer_lost"}
    assert told["sampled"] is None and len(told["samples"]) == 2
    assert all(token.keys() >= {"id", "text", "learned"} for sample in told["samples"] for token in sample["tokens"])
    counted = tui_ft_json("plan", "demo", "--set", "train.max_steps=null", "--set", "train.epochs=2")
    assert counted["steps"] == 2 * math.ceil(round(told["kept"] * 0.95) / counted["effective_batch"]), "the plan counts the same rows"
    learned = "".join(token["text"] for token in told["samples"][0]["tokens"] if token["learned"])

    print_preview(Preview.model_validate(told))
    text = capsys.readouterr().out
    marked = text[text.index("sample 1:") : text.index("sample 2:")]
    inside = marked[marked.index("⟦") + 1 : marked.index("⟧")]
    assert inside.replace("·", "").replace("⏎", "") == learned and learned.endswith("<|im_end|>")
    assert "<|im_start|>·" in marked and "\x1b" not in text


def test_presets(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    listed = answer(capsys, "presets", "list")
    assert listed == answer(capsys, "presets")
    assert {"demo", "phi-2-oasst1-qlora"} <= {entry["name"] for entry in listed}
    assert all(entry.keys() == {"name", "about", "bundled", "path"} for entry in listed)
    shown = answer(capsys, "presets", "show", "demo", "--set", "train.epochs=2")
    assert shown["train"]["epochs"] == 2 and shown["version"] == 1
    flat = tmp_path / "config.yml"
    flat.write_text("model_name: facebook/opt-125m\ndataset_name: imdb\ndataset_text_field: text\ntrust_remote_code: true\n")
    imported = answer(capsys, "presets", "import", str(flat), "--name", "mine")
    assert imported["name"] == "mine" and any("trust_remote_code" in notice for notice in imported["notices"])
    assert answer(capsys, "presets", "show", "mine")["model"]["name"] == "facebook/opt-125m"
    assert answer(capsys, "presets", "delete", "mine") == {"name": "mine", "deleted": True}


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    findings = answer(capsys, "doctor")
    assert all(finding.keys() == {"severity", "where", "message", "hint"} for finding in findings)
    assert {finding["severity"] for finding in findings} <= {"ok", "warning"}


def test_without_a_terminal() -> None:
    """No command waits for keys that nobody can press."""
    bare = tui_ft(code=2)
    assert bare.stdout == "" and "usage: tui-ft" in bare.stderr
    assert "usage" in tui_ft("no-such-command", code=2).stderr


def test_what_needs_a_person_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    finished, live = synthetic.recorded("finished"), synthetic.recorded("running")
    assert "needs a terminal" in refusal(capsys, "attach", finished.id)
    assert "--yes" in refusal(capsys, "rm", finished.id)
    assert finished.path.is_dir()
    assert f"tui-ft stop {live.id}" in refusal(capsys, "rm", live.id, "--yes")
    assert answer(capsys, "rm", finished.id, "--yes").keys() == {"run", "freed_bytes"}
    assert not finished.path.exists()
    assert [path.name for path in finished.path.parent.iterdir()] == [live.id], "nothing hidden stays either"


def test_compare_tells_only_what_differs(capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (synthetic.recorded("finished", steps=9, total=9, name=name) for name in ("one", "phi-2-oasst1-qlora"))
    told = answer(capsys, "compare", one.id, two.id)
    assert [run["run"] for run in told["runs"]] == [one.id, two.id] and all(run.keys() >= RUN_KEYS for run in told["runs"])
    assert told["differs"]["method.quantization"] == ["none", "nf4"] and "train.seed" not in told["differs"]
    assert main(["compare", one.id, two.id]) == 0
    shown = capsys.readouterr().out
    assert f"A  {one.id} · finished" in shown and re.search(r"method\.quantization +none +nf4", shown)
    assert main(["compare", one.id, one.id]) == 2
    assert "one run cannot be compared with itself" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["show", "logs", "attach", "pause", "resume", "checkpoint", "stop", "rm", "chat"])
def test_unknown_runs(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert "there are no runs yet" in refusal(capsys, command, "nothing")
    known = synthetic.recorded("finished")
    assert f"the newest is {known.id}" in refusal(capsys, command, "nothing")


def test_runs_that_cannot_be_controlled(capsys: pytest.CaptureFixture[str]) -> None:
    finished = synthetic.recorded("finished")
    for command in ("pause", "checkpoint", "stop", "resume"):
        assert "is finished and cannot be" in refusal(capsys, command, finished.id)
    assert "key=value" in refusal(capsys, "set", finished.id, "learning_rate")


def test_a_run_is_over_only_when_all_is_written() -> None:
    """While its supervisor lives, whatever the ending worker writes must not let a follower leave: the report is still to come."""
    seen = []

    class Watched(Journal):
        def write_status(self) -> None:
            super().write_status()
            seen.append(summarize(self.run).state)

    for outcome in ("finished", "stopped", "failed", "paused"):
        run = synthetic.recorded("running")
        journal = Watched(run, 1, log_every=10)
        journal.begin(0, {})
        journal.state("running")
        seen.clear()
        journal.end(outcome, "over", "done")
        assert set(seen) == {"running"}
        run.write_exit_record(1, {"outcome": outcome, "reason": "over"})
        synthetic.own(run, alive=False)
        assert summarize(run).state == outcome


def follower_of(*arguments: str) -> subprocess.Popen[bytes]:
    """A command that follows a run, as a process that can be interrupted."""
    return subprocess.Popen([*COMMAND, *arguments, "--json"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_run_that_another_command_stops(warm: None) -> None:
    """`run --detach` answers at once; whoever follows it sees the stop, and exit code 3 says that it can be resumed."""
    run = start(*SMALL_LORA, *LONG)
    wait_for_step(run, 2)
    follower = follower_of("resume", run.id)
    assert b"is running and cannot be resumed" in follower.communicate()[1] and follower.returncode == 2
    paused = tui_ft_json("pause", run.id)
    assert paused.keys() == {"run", "phase", "step", "reason", "acknowledged_seconds", "seconds"} and paused["phase"] == "effected"
    wait_for_state(run, "paused")
    follower = follower_of("resume", run.id)
    wait_for_step(run, paused["step"] + 2)
    assert tui_ft_json("stop", run.id)["phase"] == "effected"
    told, _ = follower.communicate()
    assert follower.returncode == 3
    summary = json.loads(told)
    assert summary["state"] == "stopped" and summary["checkpoints"][-1]["step"] == summary["step"]
    assert tui_ft_json("runs")[0].keys() >= RUN_KEYS


def follow_until(step: int, *settings: str) -> tuple[subprocess.Popen[bytes], Run]:
    """Start a run, followed by a process of its own, and wait for a step of it."""
    follower = follower_of("run", *SMALL_LORA, *LONG, *settings)
    while not store.all_runs():
        assert follower.poll() is None, follower.stderr.read().decode()
    run = store.find("latest")
    wait_for_step(run, step)
    return follower, run


def test_ctrl_c_saves_and_stops(warm: None) -> None:
    follower, _ = follow_until(2, "--set", "prompt.max_length=520")
    follower.send_signal(signal.SIGINT)
    told, said = follower.communicate()
    assert follower.returncode == 3, said.decode()
    summary = json.loads(told)
    assert summary["state"] == "stopped" and summary["checkpoints"][-1]["step"] == summary["step"] < 400
    assert b"Ctrl+C again stops now" in said
    assert b"warning: prompt.max_length 520 is longer than the model's context of 512 tokens" in said


def test_ctrl_c_twice_stops_now(warm: None) -> None:
    """The second one may come while the first is being sent. The worker stands still meanwhile, so that both are there when it looks."""
    follower, run = follow_until(2)
    worker = psutil.Process(worker_pid(run))
    worker.suspend()
    follower.send_signal(signal.SIGINT)
    assert follower.stderr is not None
    while b"Ctrl+C again stops now" not in follower.stderr.readline():
        assert follower.poll() is None
    follower.send_signal(signal.SIGINT)
    deadline = time.monotonic() + WAIT_SECONDS
    while len(list((run.commands / "new").iterdir())) < 2:
        assert follower.poll() is None and time.monotonic() < deadline
    worker.resume()
    told, _ = follower.communicate()
    assert follower.returncode == 130
    summary = json.loads(told)
    assert summary["state"] == "stopped" and summary["checkpoints"] == []
    [ended] = [event for event in EventReader(run).poll() if event["type"] == "attempt_ended"]
    assert ended["reason"].startswith("stopped at once")
