"""A fault before and after each file operation of a worker, in turn: `python every_instant.py kill|full SCENARIO EVERY OFFSET`.

Each case is a fork of this process, which holds all imports: a training with its saves, commands and rotations in some hundredths of a
second. `kill` sends SIGKILL, and the run is gone on with, as its supervisor would; `full` fills the disk that TUI_FT_HOME lies on (a
small one), and frees it a tenth of a second later. When the run has ended, its weights, its commands and its checkpoints are held against
what they must be. Prints one JSON object: {"cases": n, "operations": n, "failures": [text]}.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import standin_training

from tui_ft import home
from tui_ft.recipe import Plan
from tui_ft.recipe.files import validate
from tui_ft.runs import checkpoints, store
from tui_ft.runs.commands import Command, send
from tui_ft.runs.events import EventReader
from tui_ft.runs.progress import Progress
from tui_ft.runs.store import Run
from tui_ft.worker import __main__ as worker
from tui_ft.worker import conductor
from tui_ft.worker.conductor import Conductor

STEPS, RATE = 14, 0.01
Script = dict[int, list[tuple[str, str, dict[str, Any]]]]
SCENARIOS: dict[str, Script] = {
    "settings": {
        2: [("a", "set", {"learning_rate": 0.03})],
        3: [("b", "checkpoint", {})],
        5: [("c", "set", {"learning_rate": 0.002}), ("d", "set", {"learning_rate": 0.005})],
        7: [("e", "set", {"max_steps": 12}), ("f", "checkpoint", {})],
        9: [("g", "set", {"learning_rate": 0.02})],
    },
    "pauses": {
        2: [("a", "set", {"learning_rate": 0.03})],
        4: [("b", "pause", {"free_gpu": False})],
        6: [("d", "pause", {"free_gpu": True})],
        8: [("e", "stop", {"now": False}), ("f", "set", {"learning_rate": 0.002})],
        10: [("g", "checkpoint", {}), ("h", "stop", {"now": True})],
    },
}
FULL_SECONDS = 0.1
ATTEMPTS = 12
"""More than any case needs: two stops, two pauses, a kill."""


def main() -> int:
    fault, scenario, every, offset = FAULTS[sys.argv[1]], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    sys.modules["tui_ft.worker.train"] = standin_training
    standin_training.STEP_SECONDS = 0.0
    folder = Path(os.environ["TUI_FT_HOME"])
    base = _new_run()
    operations = _run_to_its_end(_copy(base, folder, "undisturbed"), SCENARIOS[scenario], None, 0)
    failures, cases = _check(Run(folder / "undisturbed"), scenario), 0
    for number in range(1 + offset, operations + 1, every):
        run = _copy(base, folder, "disturbed")
        try:
            _run_to_its_end(run, SCENARIOS[scenario], fault, number)
            failures += [f"fault at operation {number}: {failure}" for failure in _check(run, scenario)]
        except AssertionError as error:
            failures.append(f"fault at operation {number}: {error}")
        cases += 1
    print(json.dumps({"cases": cases, "operations": operations, "failures": failures[:20]}))
    return 0


def _new_run() -> Run:
    recipe = validate(
        {
            "name": "standin", "model": {"name": "none"}, "data": {"source": "none"}, "train": {"max_steps": STEPS, "learning_rate": RATE},
            "checkpoints": {"every": 3, "keep": 2}, "evaluate": {"every": 4},
        }
    )  # fmt: skip
    return store.create(recipe, Plan(micro_batch=1, accumulation=1, effective_batch=1, precision="fp32"))


def _copy(run: Run, folder: Path, name: str) -> Run:
    shutil.rmtree(folder / name, ignore_errors=True)
    shutil.copytree(run.path, folder / name)
    return Run(folder / name)


def _killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _disk_filled() -> None:
    """To the last byte; another process frees it while the training waits, or goes on, as it can."""
    filler = home.home() / "filler"
    freeing = os.fork()
    if not freeing:
        time.sleep(FULL_SECONDS)
        filler.unlink(missing_ok=True)
        os._exit(0)
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


FAULTS: dict[str, Callable[[], None]] = {"kill": _killed, "full": _disk_filled}


def _run_to_its_end(run: Run, script: Script, fault: Callable[[], None] | None, number: int) -> int:
    """Attempt after attempt, as supervisor and person would; the file operations of the first one, which has the fault at its `number`th."""
    restart, operations = False, 0
    for attempt in range(1, ATTEMPTS):
        if attempt > 1:
            run.write_plan(attempt, run.plan(attempt - 1))
        made = fault if attempt == 1 else None
        code, counted = _forked(partial(_attempt, run, attempt, restart, script, made, number))
        operations = counted if attempt == 1 else operations
        assert code in (0, -signal.SIGKILL), f"attempt {attempt} ended with code {code}"
        said = [event for event in EventReader(run).poll() if event["type"] == "attempt_ended" and event["attempt"] == attempt]
        if said and said[-1]["outcome"] == "finished":
            return operations
        assert not said or said[-1]["outcome"] in ("paused", "stopped") or said[-1]["cause"] == "disk", said  # a person resumes each of them
        restart = not said  # a worker without last words was killed, and its supervisor starts the next one
    raise AssertionError(f"not finished after {ATTEMPTS} attempts: {Progress.read(run).state}")


def _attempt(run: Run, attempt: int, restart: bool, script: Script, fault: Callable[[], None] | None, number: int) -> int:
    """In the fork: one worker, with a terminal that sends its commands at their steps, and resumes what waits paused."""
    step_end = Conductor.step_end

    def with_commands(self: Conductor, state: Any, control: Any) -> None:
        for name, kind, args in script.get(state.global_step, []):
            _send_once(run, Command(id=name, name=kind, args=args, attempt=attempt))
        step_end(self, state, control)

    Conductor.step_end = with_commands  # type: ignore[method-assign]
    resumes = iter(range(9))

    def resume_instead_of_waiting(_: float) -> None:
        if Progress.read(run).reason.startswith("by request"):
            _send_once(run, Command(id=f"resume-{attempt}-{next(resumes)}", name="resume", args={}, attempt=attempt))
        else:
            time.sleep(0.01)  # it waits for room on the disk

    conductor.time = SimpleNamespace(monotonic=time.monotonic, time=time.time, sleep=resume_instead_of_waiting)  # type: ignore[assignment]
    sys.argv = ["worker", str(run.path), str(attempt), *(["restart"] if restart else [])]
    log = os.open(run.logs / f"{attempt}.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    count = _count_operations(fault, number)
    worker.main()
    return count()


def _send_once(run: Run, command: Command) -> None:
    """A terminal that was killed while it sent sends again, and one that met a full disk tries again; one that is through does not."""
    while not any(f'"id":"{command.id}"' in file.read_text() for file in _command_files(run)):
        try:
            send(run, command)
        except OSError:
            time.sleep(0.02)


def _command_files(run: Run) -> list[Path]:
    return [file for place in ("new", "done") for file in (run.commands / place).iterdir()]


def _count_operations(fault: Callable[[], None] | None, number: int) -> Callable[[], int]:
    """Count what changes the disk, before and after it is done; the fault is made at the given number."""
    counted = 0

    def count() -> None:
        nonlocal counted
        counted += 1
        if fault and counted == number:
            fault()

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def counted_function(*arguments: Any, **named: Any) -> Any:
            count()
            result = function(*arguments, **named)
            count()
            return result

        return counted_function

    for name in ("write", "fsync", "rename", "replace", "unlink", "remove", "mkdir", "rmdir", "ftruncate", "truncate"):
        setattr(os, name, counting(getattr(os, name)))
    for name in ("rename", "replace", "unlink", "mkdir", "write_text", "write_bytes"):
        setattr(Path, name, counting(getattr(Path, name)))
    return lambda: counted


def _forked(body: Callable[[], int]) -> tuple[int, int]:
    """(exit code or minus signal, what `body` gave) of a fork that runs `body`."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        write = os.write
        code = 1
        try:
            write(writing, str(body()).encode())
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), int(told or 0)


def _check(run: Run, scenario: str) -> list[str]:
    """What is wrong with a run that has ended."""
    failures = []
    events = [event for event in EventReader(run).poll() if event["type"] == "command"]
    effected = [event for event in events if event["phase"] == "effected"]
    refused = {event["id"] for event in events if event["phase"] == "rejected" and "the disk is full" in event["reason"]}
    for name, number in Counter(event["id"] for event in events if event["phase"] in ("effected", "rejected")).items():
        if number > 1:
            failures.append(f"command {name} was answered {number} times")
    sent = {name for commands in SCENARIOS[scenario].values() for name, _, _ in commands}
    answered = {event["id"] for event in events if event["phase"] in ("effected", "rejected")}
    acknowledged = {event["id"] for event in events if event["phase"] == "applied"}
    failures += [f"command {name} was acknowledged and never answered" for name in acknowledged - answered]
    if scenario == "settings" and (missing := sent - {event["id"] for event in effected} - refused):
        failures.append(f"not in effect: {missing}")
    changes = [(event["step"], event["args"]) for event in effected if event["name"] == "set"]
    if json.loads((run.model / "weights.json").read_text()) != standin_training.expected_weights(RATE, STEPS, changes):
        failures.append(f"other weights than an undisturbed run with {changes}")
    failures += [f"checkpoint {step}: {why}" for step in checkpoints.steps(run) if (why := checkpoints.verify(checkpoints.folder(run, step)))]
    failures += [f"left behind: {place.name}" for place in run.checkpoints.glob(".*")]
    return failures


if __name__ == "__main__":
    sys.exit(main())
