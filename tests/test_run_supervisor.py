"""The supervisor with a worker of a few lines: how it takes an end, when it tries again, what it survives and what it gives up."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from waiting import Waiters, let_go, until, until_state

from tui_ft.cli import main
from tui_ft.errors import RequestError
from tui_ft.planning import doctor
from tui_ft.runs import control, endings, heartbeat, launch, logs
from tui_ft.runs.events import EventReader, EventWriter
from tui_ft.runs.store import Run
from tui_ft.runs.summary import summarize
from tui_ft.tui.feed import Feed


def supervisor(run: Run) -> int:
    owner = run.owner()
    assert owner is not None
    return owner[0].pid


def worker(run: Run) -> int:
    until(lambda: psutil.Process(supervisor(run)).children())
    return psutil.Process(supervisor(run)).children()[0].pid


def working(waiters: Waiters) -> Run:
    run = waiters.start(queued=False, hold=True)
    until(lambda: run.id in waiters.began())
    return run


def test_a_killed_worker_is_told_of_and_started_again_and_knows_it(waiters: Waiters) -> None:
    run = working(waiters)
    with (run.events / "1.jsonl").open("ab") as file:
        file.write(b'{"seq": 41, "type": "step", "step": 1}\n{"seq": 42, "type": "st')  # its last line, torn
    os.kill(worker(run), signal.SIGKILL)
    until(lambda: len(waiters.began()) == 2)
    assert waiters.told()[-1]["given"] == ["2", "restart"]
    alert = EventReader(run).poll()[-1]
    assert (alert["kind"], alert["seq"], alert["attempt"]) == ("restart", 42, 1)
    assert "SIGKILL" in alert["cause"] and "from the beginning in 1 s (restart 1 of at most 3" in alert["remedy"]
    record = run.exit_record(1)
    assert (record["signal"], record["cause"]) == (signal.SIGKILL, "signal")
    os.kill(supervisor(run), signal.SIGKILL)
    until_state(run, "lost")
    let_go(run)


def test_an_end_between_two_attempts_is_lost_not_a_state_of_its_own(waiters: Waiters) -> None:
    run = working(waiters)
    os.kill(worker(run), signal.SIGKILL)
    until(lambda: run.exit_record(1))
    os.kill(supervisor(run), signal.SIGKILL)
    until_state(run, "lost")
    assert control.lost_runs() == [run]
    let_go(run)


@pytest.mark.parametrize(
    ("code", "killed", "cause", "words"),
    [
        (-signal.SIGKILL, True, "host-oom", "main memory ran out"),
        (-signal.SIGKILL, False, "signal", "somebody outside"),
        (-signal.SIGSEGV, False, "signal", "crashed in native code (SIGSEGV)"),
        (3, False, "code", "code 3"),
    ],
)
def test_an_end_without_a_word(waiters: Waiters, code: int, killed: bool, cause: str, words: str) -> None:
    record = endings.record(waiters.create(), 1, code, killed)
    assert record["cause"] == cause and words in record["reason"]


def test_last_words_are_found_at_the_end_of_a_long_file_at_once(waiters: Waiters) -> None:
    run = waiters.create()
    writer = EventWriter(run, 1)
    with writer.file.open("ab") as file:
        file.write(b'{"type": "step", "step": 1}\n' * 3_000_000)
    writer.write("attempt_ended", outcome="paused", reason="no number", cause="not-finite")
    before = psutil.Process().cpu_times().user
    record = endings.record(run, 1, 0, False)
    assert psutil.Process().cpu_times().user - before < 0.2
    assert (record["outcome"], record["cause"], record["reason"]) == ("paused", "not-finite", "no number")


@pytest.mark.skipif(os.geteuid() != 0, reason="limiting the memory of a process needs root")
def test_the_out_of_memory_killer_is_told_from_a_person(waiters: Waiters) -> None:
    """A control group of 200 MB in which the worker asks for more: the kernel's own killer."""
    group = Path("/sys/fs/cgroup/memory") / f"tui-ft-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(200 << 20))
    except OSError:
        pytest.skip("no control group of version 1 can be made here")
    try:
        (waiters.folder / "sitecustomize.py").write_text(
            'import sys\nif "tui_ft.worker" in sys.orig_argv: x = [bytearray(1 << 26) for _ in range(50)]\n'
        )
        run = waiters.create(queued=False)
        command = f"echo $$ > {group}/cgroup.procs; exec {sys.executable} -m tui_ft.runs.supervisor {run.path}"
        process = subprocess.Popen(["sh", "-c", command], start_new_session=True)
        until(lambda: run.exit_record(1))
        process.send_signal(signal.SIGTERM)
        process.wait()
        assert (run.exit_record(1)["cause"], run.exit_record(1)["oom_kill"]) == ("host-oom", True)
    finally:
        until(lambda: not (group / "cgroup.procs").read_text().strip())
        group.rmdir()


def test_a_second_supervisor_ends_with_words(waiters: Waiters, monkeypatch: pytest.MonkeyPatch) -> None:
    run = working(waiters)
    second = subprocess.run([sys.executable, "-m", "tui_ft.runs.supervisor", str(run.path)], capture_output=True, encoding="utf-8", check=False)
    assert second.returncode == 1 and second.stderr == f"another supervisor holds {run.id}\n"
    assert summarize(run).state == "starting"
    with pytest.raises(RequestError, match="already being run"):
        launch.start(run)
    let_go(run)
    until_state(run, "finished")


def test_a_deleted_run_ends_its_processes(waiters: Waiters) -> None:
    run = working(waiters)
    pids = supervisor(run), worker(run)
    shutil.rmtree(run.path)
    until(lambda: not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids))
    assert not run.path.exists(), "nobody made it anew"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_run_on_a_disk_that_turns_read_only_ends(waiters: Waiters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder laid over itself, read-only, as a file server does: what is open stays open, nothing new can be written."""
    monkeypatch.setenv("TUI_FT_HOME", str(tmp_path / "with space é"))
    run = working(waiters)
    pid, log = supervisor(run), (run.logs / "supervisor.err").open()
    if subprocess.run(["mount", "--bind", str(run.path), str(run.path)], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(run.path)], check=True)
        until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie", 25)
        assert summarize(run).state == "lost"
        assert log.read().count("cannot be written any more") == 1
    finally:
        subprocess.run(["umount", "-l", str(run.path)], check=False)
    let_go(run)
    control.resume(run)
    until_state(run, "finished")


def test_a_long_log_is_begun_anew_and_its_readers_go_on(waiters: Waiters, capsys: pytest.CaptureFixture[str]) -> None:
    run = working(waiters)
    log, feed = run.logs / "1.err", Feed(run)
    with log.open("ab") as file:
        file.write(b"an old line\n" * ((logs.MOST_BYTES // 12) + 1))
    assert any("an old line" in line for line in feed.look().lines)
    until(lambda: log.stat().st_size == 0)
    assert logs.older_part(log).stat().st_size > logs.MOST_BYTES
    with log.open("ab") as file:
        file.write(b"a new line\n")
    assert feed.look().lines == ["  │ a new line"]
    main(["logs", run.id])
    assert capsys.readouterr().out.endswith("a new line\n")
    let_go(run)
    until_state(run, "finished")


def elsewhere(run: Run) -> None:
    """Make the run one of another machine of this shared home."""
    record = json.loads(run.owner_file.read_text())
    run.owner_file.write_text(json.dumps({**record, "host": "gpu7"}))


def test_a_run_of_another_machine_is_judged_by_its_sign_of_life_alone(waiters: Waiters, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "STILL_SECONDS", 1.0)
    run = working(waiters)
    until(lambda: (run.path / "heartbeat").exists())
    os.kill(supervisor(run), signal.SIGSTOP)  # alive or not: nobody can tell from another machine
    elsewhere(run)
    os.utime(run.owner_file, (0, 0))
    beat = heartbeat.Heart(run)
    assert (summarize(run).state, summarize(run).reason) == ("starting", "on gpu7, not seen from here")
    beat.beat()
    assert summarize(run).reason == "on gpu7"
    told: list[float] = []

    def waits(left: float) -> None:
        told.append(left)
        beat._next = 0.0
        beat.beat()

    with pytest.raises(RequestError, match="is alive on gpu7"):
        control.resume(run, on_wait=waits)
    assert told and summarize(run).state == "starting"
    until(lambda: summarize(run).state == "lost")
    os.kill(int(json.loads(run.owner_file.read_text())["pid"]), signal.SIGKILL)
    let_go(run)
    until(lambda: control.resume(run) is None)
    until_state(run, "finished")


def test_all_lost_goes_on_with_each_and_tells_of_the_one_that_cannot(waiters: Waiters, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [working(waiters), working(waiters)]
    queued = waiters.start()
    for run in [*runs, queued]:
        os.kill(supervisor(run), signal.SIGKILL)
        until_state(run, "lost")
        let_go(run)
    (runs[0].path / "plan" / "1.json").write_text("{")
    assert main(["resume", "--all-lost", "--json"]) == 1
    told = {entry["run"]: entry.get("error", "") for entry in json.loads(capsys.readouterr().out)}
    assert set(told) == {run.id for run in [*runs, queued]}
    assert "missing or damaged" in told[runs[0].id] and not told[runs[1].id] and not told[queued.id]
    for run in (runs[1], queued):
        until_state(run, "finished")
    assert main(["resume", "--all-lost"]) == 1


STAND_IN = """#!/bin/sh
for word in "$@"; do echo "$word"; done > "$RECORD"
shift 4
exec "$@"
"""


def test_under_systemd_with_linger_the_supervisor_is_started_in_a_scope_of_its_own(
    waiters: Waiters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in named systemd-run: the real one needs a machine that systemd has booted."""
    tools, record = tmp_path / "tools", tmp_path / "record"
    (tmp_path / "runtime" / "systemd").mkdir(parents=True)
    tools.mkdir()
    (tools / "systemd-run").write_text(STAND_IN)
    (tools / "systemd-run").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(record))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setattr(launch, "LINGER_FOLDER", tmp_path / "linger")
    without = waiters.start(queued=False)
    assert not record.exists(), "without linger a scope would die at logout"
    (tmp_path / "linger").mkdir()
    (tmp_path / "linger" / psutil.Process().username()).touch()
    run = waiters.start(queued=False)
    assert record.read_text().split("\n")[:7] == [
        "--user", "--scope", "--quiet", "--collect", sys.executable, "-m", "tui_ft.runs.supervisor",
    ]  # fmt: skip
    (tools / "systemd-run").write_text("#!/bin/sh\necho no bus >&2\nexit 1\n")
    refused = waiters.start(queued=False)
    for each in (without, run, refused):
        until_state(each, "finished")
    assert "no bus" in (refused.logs / "supervisor.err").read_text()


@pytest.mark.parametrize(
    ("files", "linger", "severity", "words"),
    [
        ({}, False, "ok", "does not end"),
        ({"logind.conf": "[Login]\n#KillUserProcesses=yes\nKillUserProcesses=yes # all\n"}, False, "warning", "ends all your processes"),
        (
            {"logind.conf": "[Login]\nKillUserProcesses=no\n", "logind.conf.d/50-lab.conf": "[Login]\nKillUserProcesses = 1\n"},
            False,
            "warning",
            "50-lab",
        ),
        (
            {"logind.conf": "[Login]\nKillUserProcesses=yes\n", "logind.conf.d/9.conf": "[Login]\nKillUserProcesses=off\n"},
            False,
            "ok",
            "does not end",
        ),
        ({"logind.conf": "[Login]\nKillUserProcesses=yes\n"}, True, "ok", "linger is on"),
    ],
)
def test_doctor_reads_what_happens_at_logout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], linger: bool, severity: str, words: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(launch, "LINGER_FOLDER", tmp_path)
    if linger:
        (tmp_path / psutil.Process().username()).touch()
    monkeypatch.setattr(doctor, "SYSTEMD", tmp_path)
    monkeypatch.setattr(doctor, "LOGIND", (tmp_path,))
    (found,) = [finding for finding in doctor.examine() if finding.where == "logout"]
    assert found.severity == severity and words in found.message
    assert severity == "ok" or "loginctl enable-linger" in found.hint
