"""SIGKILL at every instant that matters: between any two file operations of a worker, and at random ones for worker, supervisor and terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ledger import Row, scaled

STANDIN = Path(__file__).parent / "standin"
PARTS = 4
"""Each scenario's instants are shared out to so many tests, which run beside one another."""


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("scenario", ["settings", "pauses"])
def test_worker_killed_between_any_two_file_operations(tui_ft_home: Path, scenario: str, part: int, row: Row) -> None:
    row.promise, row.fault = "no acknowledged command lost or doubled", f"worker killed before and after each file operation: {scenario}"
    every = scaled(PARTS, 23 * PARTS)
    offset = part if every == PARTS else 23 * part
    done = subprocess.run(
        [sys.executable, str(STANDIN / "every_instant.py"), scenario, str(every), str(offset)],
        env={**os.environ, "TUI_FT_HOME": str(tui_ft_home)}, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    row.cases = told["cases"]
    assert told["operations"] > 300 and told["cases"] > 0
    assert not told["failures"], "\n".join(told["failures"])
