"""SIGKILL at every instant that matters: between any two file operations of a worker, and at random ones for worker, supervisor and terminal."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from ledger import FULL, SEED, Row, scaled

from tui_ft.recipe import Plan
from tui_ft.recipe.files import validate
from tui_ft.runs import checkpoints, control, launch, store
from tui_ft.runs.events import EventReader
from tui_ft.runs.summary import summarize

STANDIN = Path(__file__).parent / "standin"
sys.path.append(str(STANDIN))
from standin_training import expected_weights  # noqa: E402 - the stand-in's folder is on the path of its processes alone

PARTS = 4
"""Each scenario's instants are shared out to so many tests, which run beside one another."""


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("scenario", ["settings", "pauses"])
def test_worker_killed_between_any_two_file_operations(tui_ft_home: Path, scenario: str, part: int, row: Row) -> None:
    row.promise, row.fault = "no acknowledged command lost or doubled", f"worker killed before and after each file operation: {scenario}"
    row.cases = every_instant("kill", scenario, part, tui_ft_home)


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("scenario", ["settings", "pauses"])
def test_disk_full_between_any_two_file_operations(small_disk: Path, scenario: str, part: int, row: Row) -> None:
    row.promise, row.fault = "a full disk loses nothing valid", f"disk full from each file operation on, freed later: {scenario}"
    row.cases = every_instant("full", scenario, part, small_disk)


def every_instant(fault: str, scenario: str, part: int, home: Path) -> int:
    """Make the fault at each of this part's instants; how many there were."""
    every, offset = (PARTS, part) if FULL else (23 * PARTS, 23 * part)
    done = subprocess.run(
        [sys.executable, str(STANDIN / "every_instant.py"), fault, scenario, str(every), str(offset)],
        env={**os.environ, "TUI_FT_HOME": str(home)}, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["operations"] > 300 and told["cases"] > 0
    assert not told["failures"], "\n".join(told["failures"])
    return told["cases"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


class Standin:
    """One run of the stand-in training under a real supervisor, with two restless terminals."""

    STEPS = 4000
    RATE = 0.01

    def __init__(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(STANDIN), os.environ.get("PYTHONPATH", "")]))
        self.chance = random.Random(seed)
        recipe = validate(
            {
                "name": "standin", "model": {"name": "none"}, "data": {"source": "none"},
                "train": {"max_steps": self.STEPS, "learning_rate": self.RATE}, "checkpoints": {"every": 3, "keep": 2}, "evaluate": {"every": 7},
            }
        )  # fmt: skip
        self.run = store.create(recipe, Plan(micro_batch=1, accumulation=1, effective_batch=1, precision="fp32"))
        self.terminals: list[subprocess.Popen[bytes]] = []
        launch.start(self.run)

    def kill_something(self) -> None:
        """Who is killed is drawn anew each time; what was killed is on its feet again afterwards."""
        if self.chance.random() < 0.7:  # the others come while the worker starts
            self._wait(lambda: summarize(self.run).state == "running")
        time.sleep(self.chance.uniform(0.0, 0.6))
        while len(self.terminals) < 2:
            self._open_terminal()
        victim = self.chance.choice(["worker", "worker", "supervisor", "supervisor", "terminal"])
        owner = self.run.owner()
        assert owner
        if victim == "terminal":
            self._close(self.terminals.pop(self.chance.randrange(2)))
        elif victim == "supervisor":
            os.kill(owner[0].pid, signal.SIGKILL)
            self._wait(lambda: summarize(self.run).state == "lost")
            control.resume(self.run)
        else:
            worker = json.loads(self.run.owner_file.read_text()).get("worker_pid")
            if worker:
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
                self._wait(lambda: self.run.attempt() > owner[1] or summarize(self.run).state == "failed")
                if summarize(self.run).state == "failed":  # killed four times before it came to a checkpoint
                    control.resume(self.run)

    def end(self) -> None:
        """No more terminals; the run shortens itself to where it is and finishes."""
        self.close_terminals()
        self._wait(lambda: summarize(self.run).state == "running")
        for _ in range(20):
            asked = control.change(self.run, max_steps=summarize(self.run).step + 100)
            if control.wait(self.run, asked).phase == "effected":
                break
        self._wait(lambda: summarize(self.run).state == "finished")

    def close_terminals(self) -> None:
        while self.terminals:
            self._close(self.terminals.pop())

    def failures(self) -> list[str]:
        """What is wrong with the run now that it has ended."""
        commands = [event for event in EventReader(self.run).poll() if event["type"] == "command"]
        answers = Counter(event["id"] for event in commands if event["phase"] in ("effected", "rejected"))
        found = [f"command {name} was answered {number} times" for name, number in answers.items() if number > 1]
        found += [f"command {e['id']} was acknowledged and never answered" for e in commands if e["phase"] == "applied" and e["id"] not in answers]
        found += [f"{file.name} was never looked at" for file in (self.run.commands / "new").iterdir()]
        changes = [(event["step"], event["args"]) for event in commands if event["phase"] == "effected" and event["name"] == "set"]
        last = next(args["max_steps"] for _, args in reversed(changes) if "max_steps" in args)
        if json.loads((self.run.model / "weights.json").read_text()) != expected_weights(self.RATE, int(last), changes):
            found.append(f"other weights than those of an undisturbed run with {len(changes)} changes")
        places = checkpoints.steps(self.run)
        found += [f"checkpoint {step}: {why}" for step in places if (why := checkpoints.verify(checkpoints.folder(self.run, step)))]
        return found

    def _open_terminal(self) -> None:
        command = [sys.executable, str(STANDIN / "terminal.py"), str(self.run.path), str(self.chance.random()).removeprefix("0."), "terminal"]
        self.terminals.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def _close(self, terminal: subprocess.Popen[bytes]) -> None:
        terminal.kill()
        terminal.wait()

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, summarize(self.run)
            time.sleep(0.02)


@pytest.mark.parametrize("number", range(scaled(8, 1)))
def test_random_kills_of_worker_supervisor_and_terminal(monkeypatch: pytest.MonkeyPatch, number: int, row: Row) -> None:
    row.promise, row.fault = "no acknowledged command lost or doubled", "SIGKILL at random instants: worker, supervisor, terminal"
    standin = Standin(SEED + number, monkeypatch)
    try:
        for _ in range(scaled(20, 8)):
            standin.kill_something()
            row.cases += 1
        standin.end()
    finally:
        standin.close_terminals()
    sent = {event["id"] for event in EventReader(standin.run).poll() if event["type"] == "command"}
    assert len(sent) > scaled(8, 3), "the terminals did send commands meanwhile"
    assert not standin.failures()
