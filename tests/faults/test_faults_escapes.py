"""Escape sequences, markup and bidirectional controls in every foreign text: none of it gets through to the bytes a terminal is sent.

The commands and the screens run on a real pseudo terminal; what they wrote is searched for each payload as it was put in.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import synthetic
from ledger import FULL, Row
from pty_terminal import Terminal

from tui_ft import home
from tui_ft.runs.store import Run

TUI_FT = [sys.executable, "-m", "tui_ft"]
PAYLOADS = {
    "clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "title": "\x1b]0;evil title\x07",
    "link": "\x1b]8;;http://evil.example\x07link\x1b]8;;\x07",
    "colour": "\x1b[31;107m",
    "cursor": "\x1b[77;66H",
    "erase": "\x1b[3J",
    "other screen": "\x1b[?47h",
    "report": "\x1b[5n",
    "device control": "\x1bP$qevil\x1b\\",
    "application program": "\x1b_evil\x1b\\",
    "tmux": "\x1bkevil\x1b\\",
    "reset": "\x1bc",
    "C1 CSI": "\x9b31;107m",
    "C1 OSC": "\x9d0;evil\x9c",
    "backspaces": "safe\x08\x08\x08\x08evil",
    "bell": "evil\x07",
    "override": "\u202eexe.gnp",
    "isolate": "\u2067evil\u2069",
    "marks": "evil\u200f\u200e\u061c",
    "tags": "\U000e0065\U000e0076\U000e0069\U000e006c",
    "separators": "evil\u2028evil\u2029",
    "markup": "[bold red]evil[/] [@click=app.quit]evil[/] [link=http://evil.example]evil[/]",
}
TEXT = "x ".join(PAYLOADS.values())
QUIET = {"markup"}
"""Has no bytes of its own: that it is written as it stands, and not obeyed, is looked for instead."""


@pytest.fixture
def hostile() -> Run:
    """A run whose every foreign text holds all of them: events, logs, reasons, metadata."""
    run = synthetic.recorded("running", steps=20, total=100)
    log = synthetic.Recorder(run)
    log.write("alert", kind=TEXT, severity="error", cause=TEXT, remedy=TEXT, key=TEXT)
    log.write("sample", step=20, prompt=TEXT, text=f"{TEXT}\n{TEXT}")
    log.write("checkpoint", step=20, path=TEXT, bytes=5, outcome=TEXT)
    log.write("command", id=TEXT, name=TEXT, args={TEXT: TEXT}, phase=TEXT, step=20, reason=TEXT)
    log.write("progress", stage=TEXT, done=1, total=2)
    log.write("step", step=21, loss=1.0, epoch=0.1, tokens=5, learning_rate=1e-3)
    log.write("state", **{"from": TEXT, "to": "running", "reason": TEXT})
    log.write("attempt_ended", outcome="failed", reason=TEXT, cause=TEXT)
    log.flush()
    for kind in ("out", "err"):
        (run.logs / f"1.{kind}").write_bytes(f"{TEXT}\r 10%|{TEXT}\n".encode() + b"\xff\xfe")
    run.write_exit_record(1, {"outcome": "failed", "reason": TEXT, "cause": TEXT})
    synthetic.own(run, alive=False)
    return run


def preset() -> None:
    text = json.dumps(TEXT)  # JSON is YAML
    file = home.private_folder(home.user_presets_folder()) / "evil.yaml"
    file.write_text(f"name: evil\nabout: {text}\nmodel: {{name: {text}}}\ndata: {{source: {text}}}\nevaluate: {{samples: [{text}]}}\n")


def dataset() -> None:
    rows = [{"messages": [{"role": "user", "content": TEXT}, {"role": "assistant", "content": TEXT}]} for _ in range(30)]
    rows += [{"messages": [{"role": TEXT, "content": TEXT}]}] * 2
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


COMMANDS: dict[str, list[str]] = {
    "runs": ["runs"],
    "show": ["show", "latest"],
    "status": ["status"],
    "logs": ["logs", "latest"],
    "checkpoints": ["checkpoints", "latest"],
    "queue": ["queue"],
    "presets": ["presets", "list"],
    "preset": ["presets", "show", "evil"],
    "unknown run": ["show", TEXT],
    "unknown preset": ["plan", TEXT],
    "bad setting": ["plan", "demo", "--set", f"train.{TEXT}={TEXT}"],
    "bad value": ["plan", "demo", "--set", f"train.precision={json.dumps(TEXT)}"],
    "resume": ["resume", "latest", "--from", "7"],
    "plan": ["plan", "evil", "--instant"],
    "rows": ["preview", "demo", "--set", "data.source=rows.jsonl", "--set", "data.max_rows=30", "-n", "1"],
}


@pytest.mark.parametrize("command", COMMANDS if FULL else ["runs", "show", "logs", "presets", "bad setting", "rows"])
def test_commands(hostile: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, row: Row) -> None:
    row.promise, row.fault = "no foreign text commands the terminal", "raw bytes of commands"
    monkeypatch.chdir(tmp_path)
    preset()
    dataset()
    terminal = Terminal()
    terminal.run([*TUI_FT, *COMMANDS[command]]).wait(120)
    time.sleep(0.2)
    assert len(terminal.output) > 10
    _assert_harmless(terminal.output)
    assert b"\x1b" not in terminal.output.replace(b"\r\x1b[K", b""), "a command itself writes nothing but lines"
    row.cases = len(PAYLOADS)


SCREENS: dict[str, Callable[[Terminal], None]] = {
    "dashboard": lambda terminal: [terminal.type("v") or time.sleep(0.7) for _ in range(3)] and None,
    "home": lambda terminal: terminal.type("q") or time.sleep(1.0),
}


@pytest.mark.parametrize("size", [(80, 24), (120, 40)] if FULL else [(120, 40)])
def test_screens(hostile: Run, size: tuple[int, int], row: Row) -> None:
    row.promise, row.fault = "no foreign text commands the terminal", f"raw bytes of the screens at {size[0]}×{size[1]}"
    preset()
    terminal = Terminal(*size)
    dashboard = terminal.run([*TUI_FT, "attach", hostile.id])
    terminal.wait_for(hostile.id)
    for act in SCREENS.values():
        act(terminal)
        row.cases += len(PAYLOADS)
    terminal.type("q")
    dashboard.wait(30)
    time.sleep(0.2)
    _assert_harmless(terminal.output)
    assert terminal.is_sane()


def _assert_harmless(output: bytes) -> None:
    for name, payload in PAYLOADS.items():
        if name not in QUIET:
            assert payload.encode() not in output, f"{name} came through"
    text = output.decode(errors="replace")
    for char in "\u202e\u2067\u2069\u200f\u200e\u061c\u2028\u2029\x9b\x9d\x9c\x08":
        assert char not in text, f"U+{ord(char):04X} came through"
    assert not any("\U000e0000" <= char <= "\U000e007f" for char in text), "a tag character came through"
    for piece in (
        b"\x1b]52",
        b"\x1b]8;;http",
        b"\x1b]0;evil",
        b"\x1b[31;107m",
        b"\x1b[77;66H",
        b"\x1b[3J",
        b"\x1b[?47h",
        b"\x1b[5n",
        b"\x1bP$q",
        b"\x1bk",
        b"\x1bc",
    ):
        assert piece not in output, f"{piece!r} came through"
