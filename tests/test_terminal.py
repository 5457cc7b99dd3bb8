"""The real program in a real terminal: what it asks of it, what it leaves behind, and that nothing of it depends on colours or size."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import synthetic

from tui_ft.runs import store
from tui_ft.runs.summary import summarize
from tui_ft.tui.wizard.screen import STEPS

SECONDS = 60.0


class Terminal:
    """`tui-ft` in a pty; what it has written stands in `seen`."""

    def __init__(self, *arguments: str, width: int = 80, height: int = 24, **environment: str) -> None:
        self.seen = b""
        self.pid, self.fd = pty.fork()
        size = struct.pack("HHHH", height, width, 0, 0)
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, size)
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where the tests were started in the background
            for name in ("COLUMNS", "LINES", "NO_COLOR"):
                os.environ.pop(name, None)
            os.environ |= {"TERM": "xterm-256color", **environment}
            os.execv(sys.executable, [sys.executable, "-m", "tui_ft", *arguments])

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        os.kill(self.pid, signal.SIGWINCH)

    def until(self, true: Callable[[], object]) -> None:
        deadline = time.monotonic() + SECONDS
        while not true():
            assert time.monotonic() < deadline, self.seen[-2000:]
            if select.select([self.fd], [], [], 0.05)[0]:
                try:
                    self.seen += os.read(self.fd, 1 << 16)
                except OSError:  # its other side is closed
                    time.sleep(0.02)

    def sees(self, words: str) -> None:
        """Wait until these words have been written since the last look."""
        start = len(self.seen)
        self.until(lambda: words.encode() in re.sub(rb"\x1b\[[0-9;]*m", b"", self.seen[start:]))

    def press(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def ends(self) -> int:
        """Wait for its end; the exit code."""
        status: list[int] = []

        def ended() -> bool:
            pid, code = os.waitpid(self.pid, os.WNOHANG)
            status.extend([code] if pid else [])
            return bool(pid)

        self.until(ended)
        return os.waitstatus_to_exitcode(status[0])


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    made: list[Terminal] = []
    yield made
    for terminal in made:
        try:
            os.kill(terminal.pid, signal.SIGKILL)
            os.waitpid(terminal.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        os.close(terminal.fd)


def test_it_leaves_the_terminal_as_it_found_it(terminals: list[Terminal]) -> None:
    run = synthetic.recorded("running", steps=60, total=100, name="watched")
    terminal = Terminal("attach", run.id)
    terminals.append(terminal)
    terminal.sees("step 60/100")
    assert b"\x1b[22;0t" in terminal.seen and f"\x1b]2;60% {run.id} · tui-ft\x07".encode() in terminal.seen, "the title tells how far it is"
    for width, height in ((60, 15), (200, 50), (30, 8), (80, 24)):
        terminal.resize(width, height)
        terminal.sees("watched")
    for width, height in ((60, 15), (200, 50), (30, 8), (80, 24)) * 3:
        terminal.resize(width, height)
        time.sleep(0.03)  # faster than it is drawn
    terminal.press(b"q")
    terminal.sees("Runs")
    terminal.press(b"q")
    assert terminal.ends() == 0
    for undone in (b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?1000l", b"\x1b[?2004l", b"\x1b[23;0t"):
        assert terminal.seen.rfind(undone) > terminal.seen.rfind(b"Runs"), undone
    assert termios.tcgetattr(terminal.fd)[3] & (termios.ECHO | termios.ICANON) == termios.ECHO | termios.ICANON


def test_without_colours_and_mouse_it_sends_neither(terminals: list[Terminal]) -> None:
    run = synthetic.recorded("failed", steps=60, total=100, name="grey")
    terminal = Terminal("attach", run.id, "--no-mouse", NO_COLOR="1")
    terminals.append(terminal)
    terminal.sees("failed")
    assert b"\x1b[?1000h" not in terminal.seen and b"\x1b[?1003h" not in terminal.seen
    for red, green, blue in re.findall(rb"[34]8;2;(\d+);(\d+);(\d+)", terminal.seen):
        assert red == green == blue, "only greys"


def test_a_terminated_program_gives_the_terminal_back(terminals: list[Terminal]) -> None:
    terminal = Terminal()
    terminals.append(terminal)
    terminal.sees("No runs yet")
    terminal.press(b"\x11")  # ctrl+q
    assert terminal.ends() == 0
    assert terminal.seen.rfind(b"\x1b[?1049l") > terminal.seen.rfind(b"\x1b[?1049h")


def test_the_status_stands_in_place_on_a_terminal_and_fits_it(terminals: list[Terminal]) -> None:
    for number in range(3):
        synthetic.recorded("running", steps=60, total=100, name=f"watched-{number}-{'x' * 60}")
    terminal = Terminal("status", "--watch", width=60)
    terminals.append(terminal)
    terminal.until(lambda: terminal.seen.count(b"\x1b[3A") >= 1)
    lines = re.sub(rb"\x1b\[\d*[A-Z]", b"", terminal.seen).decode().replace("\r", "").strip().splitlines()
    assert len(lines) == 6 and all(len(line) < 60 for line in lines)
    terminal.press(b"\x03")
    assert terminal.ends() == 130


class Tmux:
    """A shell in tmux at 80×24, that thinks its terminal is a `term`; keys go in, what is on the screen comes out."""

    def __init__(self, term: str, home: Path) -> None:
        self.server = ["tmux", "-L", f"tui-ft-test-{os.getpid()}-{term}", "-f", "/dev/null"]
        self.echoes = 0
        shell = f"env TUI_FT_HOME={home} TERM={term} PS1='ready> ' PYTHONPATH={os.environ.get('PYTHONPATH', '')} sh"
        self("new-session", "-d", "-x", "80", "-y", "24", shell)
        self.shows("ready>")

    def __call__(self, *arguments: str) -> str:
        return subprocess.run([*self.server, *arguments], capture_output=True, text=True, check=False).stdout

    def press(self, *names: str) -> None:
        self("send-keys", *names)

    def shows(self, pattern: str, seconds: float = SECONDS) -> str:
        """Wait until the screen holds it; the whole screen."""
        deadline = time.monotonic() + seconds
        while not re.search(pattern, seen := self("capture-pane", "-p")):
            assert time.monotonic() < deadline, seen
            time.sleep(0.1)
        return seen

    def is_clean(self) -> None:
        """The shell is back on its own screen, and echoes what is typed."""
        self.shows("ready> *\\n*$")
        self.echoes += 1
        self.press(f"echo it is $((40 + {self.echoes}))", "Enter")
        seen = self.shows(f"it is {40 + self.echoes}")
        assert "No runs yet" not in seen and "Leave" not in seen and self("display-message", "-p", "#{alternate_on}").strip() == "0"


@pytest.fixture
def tmux(tui_ft_home: Path, no_run_stays: None) -> Iterator[Callable[[str], Tmux]]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    made: list[Tmux] = []

    def begun(term: str) -> Tmux:
        made.append(Tmux(term, tui_ft_home))
        return made[-1]

    yield begun
    for one in made:
        one("kill-server")


def test_in_tmux_the_wizard_is_resized_left_and_the_shell_is_back(tmux: Callable[[str], Tmux]) -> None:
    shell = tmux("xterm-256color")
    shell.press(f"{sys.executable} -m tui_ft", "Enter")
    shell.shows("No runs yet")
    shell.press("d")
    shell.shows("Begin from a preset")
    shell("resize-window", "-x", "60", "-y", "15")
    shell.shows("Next")
    shell("resize-window", "-x", "80", "-y", "24")
    shell.press("Escape")
    shell.shows("No runs yet")
    shell.press("q")
    shell.is_clean()


def test_in_tmux_the_whole_way_with_a_real_run(tmux: Callable[[str], Tmux]) -> None:
    """Launch, wizard, run, detach, attach, pause, resume, stop, quit: what is promised, by the keys of a person in `screen`'s terminal."""
    shell = tmux("screen")
    shell.press(f"{sys.executable} -m tui_ft", "Enter")
    shell.shows("No runs yet")
    shell.press("d")
    for number, step in enumerate(STEPS, 1):
        shell.shows(re.escape(step.LEAD))
        if number < len(STEPS):
            shell.press("F8")
    shell.shows("Nothing speaks against starting", 2 * SECONDS)
    shell.press("s")
    shell.shows(r"step [1-9]\d*/\d+", 3 * SECONDS)
    shell.press("q")
    shell.shows("Runs")
    shell.press("q")
    shell.is_clean()
    shell.press(f"{sys.executable} -m tui_ft attach latest", "Enter")
    shell.shows("▶ running")
    shell.press("p")
    paused = re.search(r"step (\d+)/", shell.shows("‖ paused"))
    shell.press("r")
    shell.shows("▶ running")
    shell.press("s")
    shell.shows("Stop this run")
    shell.press("y")
    shell.shows("■ stopped")
    shell.press("q")
    shell.shows("Runs")
    shell.press("q")
    shell.is_clean()
    ended = summarize(store.find("latest"))
    assert ended.state == "stopped" and paused and ended.step >= int(paused[1]) and ended.checkpoints[-1].step == ended.step
