"""Commands that need a screen: the terminal UI, and the dashboard of one run."""

from __future__ import annotations

import argparse
import sys

from tui_ft.errors import RequestError


def home(_: argparse.Namespace) -> int:
    if not _has_terminal():
        from tui_ft.cli.parser import build_parser

        build_parser().print_help(sys.stderr)
        return 2
    return open_screen("home")


def attach(arguments: argparse.Namespace) -> int:
    from tui_ft.runs import store

    run = store.find(arguments.run)
    if arguments.json or not _has_terminal():
        raise RequestError("the dashboard needs a terminal", f"`tui-ft show {run.id} --json` and `tui-ft logs {run.id} -f` do without.")
    return open_screen(run.id)


def open_screen(start: str) -> int:
    from tui_ft.tui.app import run_app

    return run_app(start)


def _has_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()
