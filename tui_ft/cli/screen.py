"""Commands that need a screen: the terminal UI, and the dashboard of one run."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys

from tui_ft.errors import RequestError


def home(arguments: argparse.Namespace) -> int:
    if not _has_terminal():
        from tui_ft.cli.parser import build_parser

        build_parser().print_help(sys.stderr)
        return 2
    return open_screen("home", mouse=not arguments.no_mouse)


def attach(arguments: argparse.Namespace) -> int:
    from tui_ft.runs import store

    run = store.find(arguments.run)
    if arguments.json or not _has_terminal():
        raise RequestError("the dashboard needs a terminal", f"`tui-ft show {run.id} --json` and `tui-ft logs {run.id} -f` do without.")
    return open_screen(run.id, mouse=not arguments.no_mouse)


def open_screen(start: str, mouse: bool = True) -> int:
    from tui_ft.tui.app import run_app

    _heal_terminal()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where `nohup` is above us: a screen without its terminal would spin for ever
    return run_app(start, mouse)


def _heal_terminal() -> None:
    """A screen that was killed here has left the terminal raw, and ours would give it back as it found it."""
    import termios

    flags = termios.tcgetattr(sys.stdin)[3]
    if not flags & termios.ICANON or not flags & termios.ECHO:
        subprocess.run(["stty", "sane"], check=False)


def _has_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()
