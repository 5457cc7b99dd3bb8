"""Children of the terminal: answered, refused, killed with all they started."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import psutil
import pytest

from tui_ft.tui import child


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Writes a module that a child can run, and gives its name."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(code: str) -> str:
        (tmp_path / "played_child.py").write_text(code, encoding="utf-8")
        return "played_child"

    return write


async def test_the_last_line_is_the_answer_whatever_else_was_printed(module) -> None:  # type: ignore[no-untyped-def]
    answer = await child.ask(module("import sys; print('noise'); print(sys.stdin.read())"), stdin='{"a": [1, "\\u001b"]}')
    assert answer == child.Answer({"a": [1, "\x1b"]})


async def test_an_error_comes_back_with_its_hint(module) -> None:  # type: ignore[no-untyped-def]
    code = """import json, sys; print(json.dumps({"error": "no such file", "hint": "check it"})); sys.exit(2)"""
    answer = await child.ask(module(code))
    assert (answer.error, answer.hint, answer.value) == ("no such file", "check it", None)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise SystemExit(3)", "code 3"),
        ("raise ValueError('\\x1b[31mboom')", "␛[31mboom"),
        ("print('not json')", "no answer"),
        ("import os; os.kill(os.getpid(), 9)", "code -9"),
        ("print('x' * 40_000_000)", "too large"),
    ],
)
async def test_whatever_goes_wrong_is_one_plain_line(module, code: str, says: str) -> None:  # type: ignore[no-untyped-def]
    answer = await child.ask(module(code))
    assert answer.value is None and says in answer.error and "\x1b" not in answer.error


async def test_a_child_that_never_reads_a_large_request_does_not_block(module) -> None:  # type: ignore[no-untyped-def]
    answer = await child.ask(module("print('[1]')"), stdin="x" * 3_000_000)
    assert answer.value == [1]


@pytest.mark.parametrize("way", ["timeout", "cancel"])
async def test_a_child_and_its_children_end_with_the_question(module, tmp_path: Path, way: str) -> None:  # type: ignore[no-untyped-def]
    pids = tmp_path / "pids"
    code = f"""
import os, subprocess, time
other = subprocess.Popen(["sleep", "300"])
with open({str(pids)!r} + ".part", "w") as file:
    file.write(f"{{os.getpid()}} {{other.pid}}")
os.rename({str(pids)!r} + ".part", {str(pids)!r})
time.sleep(300)
"""
    task = asyncio.create_task(child.ask(module(code), seconds=3 if way == "timeout" else 300))
    while not pids.exists():
        await asyncio.sleep(0.02)
    if way == "cancel":
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        assert "no answer within 3 seconds" in (await task).error
    deadline = time.monotonic() + 5
    while any(_lives(int(pid)) for pid in pids.read_text().split()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE  # an orphan waits for an init that may be slow to reap
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


async def test_how_far_it_is_is_told_on_the_way_and_is_no_answer(module) -> None:  # type: ignore[no-untyped-def]
    code = """
import json
for done in (0, 500, 1000):
    print(json.dumps({"progress": {"stage": "read", "done": done, "total": 1000}}), flush=True)
print(json.dumps({"progress": {"stage": "tokenize", "done": 7, "total": None}}))
print('{"progress": "broken"}')
print(json.dumps({"rows": 1000}))
"""
    told: list[tuple[str, int, int | None]] = []
    answer = await child.ask(module(code), on_progress=lambda *report: told.append(report))
    assert answer.value == {"rows": 1000}
    assert told == [("read", 0, 1000), ("read", 500, 1000), ("read", 1000, 1000), ("tokenize", 7, None)]


async def test_a_child_that_reports_is_given_more_time(module) -> None:  # type: ignore[no-untyped-def]
    code = """
import time
for done in range(4):
    print('{"progress": {"stage": "read", "done": %d, "total": null}}' % done, flush=True)
    time.sleep(0.5)
print("[1]")
"""
    assert (await child.ask(module(code), seconds=1.2)).value == [1]


async def test_an_error_brings_the_choices_there_are(module) -> None:  # type: ignore[no-untyped-def]
    code = """import json, sys; print(json.dumps({"error": "both fit", "choices": {"part": "output", "columns": ["a", "b"]}})); sys.exit(2)"""
    assert (await child.ask(module(code))).details == {"choices": {"part": "output", "columns": ["a", "b"]}}
