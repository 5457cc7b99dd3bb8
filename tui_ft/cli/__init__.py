"""The command line: every action of the wizard has a command."""

from __future__ import annotations

import os
import sys

from tui_ft.errors import TuiFtError
from tui_ft.text import visible


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code as the design names them."""
    os.umask(0o077)
    from tui_ft.cli.parser import build_parser

    parser = build_parser()
    arguments = parser.parse_args(argv)
    try:
        return arguments.action(arguments)
    except TuiFtError as error:
        print(visible("\n".join(("error: " + error.lines()[0], *error.lines()[1:]))), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `tui-ft logs | head` is no fault
        return 0
