"""No terminal can end a run: windows closed, terminals killed in the middle of drawing, SSH connections cut; the next one attaches."""

from __future__ import annotations

import getpass
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ledger import FULL, SEED, Row, scaled
from pty_terminal import Terminal, kill

from tui_ft.recipe import Plan
from tui_ft.recipe.files import validate
from tui_ft.runs import control, launch, store
from tui_ft.runs.store import Run
from tui_ft.runs.summary import summarize

STANDIN = Path(__file__).parent / "standin"
TUI_FT = [sys.executable, "-m", "tui_ft"]
SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/sbin")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A training that goes on until it is stopped."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(STANDIN), os.environ.get("PYTHONPATH", "")]))
    recipe = validate(
        {
            "name": "standin", "model": {"name": "none"}, "data": {"source": "none"},
            "train": {"max_steps": 1_000_000}, "checkpoints": {"every": 100}, "evaluate": {"every": "never"},
        }
    )  # fmt: skip
    made = store.create(recipe, Plan(micro_batch=1, accumulation=1, effective_batch=1, precision="fp32"))
    launch.start(made)
    yield made
    if summarize(made).state in control.ALIVE:
        control.wait(made, control.stop(made))
        _wait(lambda: summarize(made).state == "stopped")


def goes_on(run: Run) -> None:
    """The same attempt trains on: nothing of it noticed."""
    before = summarize(run)
    _wait(lambda: summarize(run).step > before.step + 20)
    assert (summarize(run).attempt, summarize(run).state) == (before.attempt, "running")


def attaches(run: Run, terminal: Terminal) -> None:
    """A new dashboard opens, shows the run, and leaves the terminal as a shell wants it."""
    terminal.output = b""
    dashboard = terminal.run([*TUI_FT, "attach", run.id])
    terminal.wait_for(run.id)
    terminal.wait_for("running")
    terminal.type("q")
    time.sleep(0.5)
    terminal.type("q")
    assert dashboard.wait(30) == 0
    _wait(lambda: b"\x1b[?1049l" in terminal.output)
    assert terminal.is_sane()


ENDS: dict[str, Callable[[Terminal, subprocess.Popen[bytes]], None]] = {
    "window closed": lambda terminal, process: terminal.hang_up(),
    "SIGHUP": lambda terminal, process: os.killpg(process.pid, signal.SIGHUP),
    "SIGTERM": lambda terminal, process: os.killpg(process.pid, signal.SIGTERM),
    "SIGKILL": lambda terminal, process: os.killpg(process.pid, signal.SIGKILL),
}


@pytest.mark.parametrize("end", ENDS if FULL else ["window closed"])
@pytest.mark.parametrize("command", ["attach", "follow"])
def test_a_lost_terminal(run: Run, command: str, end: str, row: Row) -> None:
    row.promise, row.fault, row.cases = "no terminal can end a run", f"{command}: {end}", 1
    terminal = Terminal()
    if command == "follow":  # whoever follows has started the run: its own child must outlive it
        control.wait(run, control.stop(run))
        _wait(lambda: summarize(run).state == "stopped")
        process = terminal.run([*TUI_FT, "resume", run.id])
        terminal.wait_for("running")
    else:
        process = terminal.run([*TUI_FT, "attach", run.id])
        terminal.wait_for(run.id)
    ENDS[end](terminal, process)
    process.wait(30)
    goes_on(run)
    attaches(run, Terminal())


def test_a_lost_terminal_where_hang_ups_are_ignored(run: Run, row: Row) -> None:
    """As below `nohup`: a dashboard that nobody can see any more must not spin on a dead terminal."""
    row.promise, row.fault, row.cases = "no terminal can end a run", "attach below nohup: window closed", 1
    terminal = Terminal()
    process = terminal.run(["env", "--ignore-signal=HUP", *TUI_FT, "attach", run.id])
    terminal.wait_for(run.id)
    terminal.hang_up()
    process.wait(30)
    goes_on(run)


def test_killed_in_the_middle_of_drawing(run: Run, row: Row) -> None:
    """In one and the same window, which each of them leaves raw and on the other screen; the last one puts it right."""
    row.promise, row.fault = "no terminal can end a run", "dashboard killed while it draws, the next one in the same window"
    chance, terminal = random.Random(SEED), Terminal()
    for _ in range(scaled(20, 3)):
        dashboard = terminal.run([*TUI_FT, "attach", run.id])
        time.sleep(chance.uniform(0.4, 1.5))
        kill(dashboard)
        row.cases += 1
    goes_on(run)
    assert not terminal.is_sane(), "or this shows nothing"
    attaches(run, terminal)


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[list[str]]:
    """A real sshd on loopback that lets this user in; gives the command that logs in."""
    if not SSHD or not shutil.which("ssh"):
        pytest.skip("no sshd on this machine")
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / key)], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    Path("/run/sshd").mkdir(exist_ok=True)
    config = tmp_path / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path / 'host'}\nAuthorizedKeysFile {tmp_path / 'user.pub'}\nPidFile none\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nPermitUserEnvironment no\nAcceptEnv *\n"
    )
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(config)], stderr=subprocess.DEVNULL, start_new_session=True)
    command = [
        "ssh", "-tt", "-p", str(port), "-i", str(tmp_path / "user"), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
        "-o", "LogLevel=ERROR", "-o", "SendEnv=TUI_FT_HOME PYTHONPATH OMP_NUM_THREADS TERM", f"{getpass.getuser()}@127.0.0.1",
    ]  # fmt: skip
    deadline = time.monotonic() + 20
    while subprocess.run([*command, "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode:
        assert server.poll() is None and time.monotonic() < deadline, "sshd does not let us in"
        time.sleep(0.2)
    yield command
    server.kill()
    server.wait()


@pytest.mark.parametrize("cut", ["server side killed", "client killed"] if FULL else ["server side killed"])
def test_a_cut_ssh_connection(run: Run, ssh: list[str], cut: str, row: Row) -> None:
    """The run is started in the SSH session, so that its processes are that session's children; then the connection is cut."""
    row.promise, row.fault, row.cases = "no terminal can end a run", f"SSH connection cut: {cut}", 1
    control.wait(run, control.stop(run))
    _wait(lambda: summarize(run).state == "stopped")
    terminal = Terminal()
    remote = " ".join(TUI_FT)
    client = terminal.run([*ssh, f"cd {Path.cwd()} && exec {remote} resume {run.id}"])
    terminal.wait_for("running")
    if cut == "client killed":
        kill(client)
    else:
        owner = run.owner()
        assert owner
        for process in _sshd_sessions(int(ssh[ssh.index("-p") + 1])):
            os.kill(process, signal.SIGKILL)
        client.wait(30)
    goes_on(run)
    again = Terminal()
    client = again.run([*ssh, f"cd {Path.cwd()} && exec {remote} attach {run.id}"])
    again.wait_for(run.id)
    again.type("q")
    time.sleep(0.5)
    again.type("q")
    assert client.wait(30) == 0


def _sshd_sessions(port: int) -> list[int]:
    """The server's processes of established connections, not the one that listens."""
    import psutil

    return [
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.pid and connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_ESTABLISHED
    ]


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
