"""Every fault against every promise: runs tests/faults in full and writes the table into docs/reliability.md.

    .venv/bin/python scripts/test_faults.py [--seed N] [pytest arguments]

At most an hour on two cores. The exit code is pytest's; a table with a failure in it is written all the same.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reliability.md"
HEAD = """# Runs that cannot be lost

What is promised, and what was done to break it. `make test-faults` runs all of this (at most an hour on two cores, seeded) and
writes this page; a part of it (four minutes) runs with every `make test`. How it works is told in
[architecture.md](architecture.md#the-life-of-a-run).

- **An acknowledged command is never lost and never done twice**, whoever is killed in between.
- **A checkpoint is verified before it is used.** A crash costs at most the work since the last one.
- **Resume is exact**: on the CPU, bit for bit, for the features listed.
- **No terminal can end a run**, and no text of a model, a dataset or a log reaches the terminal as a command to it.

"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=20261124, help="of all random instants")
    arguments, rest = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "rows.jsonl"
        env = {**os.environ, "TUI_FT_FAULTS": "full", "TUI_FT_FAULT_RESULTS": str(results), "TUI_FT_FAULT_SEED": str(arguments.seed)}
        started = time.monotonic()
        command = [sys.executable, "-m", "pytest", "tests/faults", "-n", "2", "--dist", "load", "-q", *rest]
        code = subprocess.run(command, cwd=ROOT, env=env, check=False).returncode
        rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.exists() else []
    if rest:
        print("not all tests were asked for: docs/reliability.md stays as it is")
    else:
        PAGE.write_text(HEAD + table(rows) + foot(arguments.seed, time.monotonic() - started), encoding="utf-8")
        print(f"written: {PAGE.relative_to(ROOT)}")
    return code


def table(rows: list[dict]) -> str:
    """Rows of the same promise and fault as one line, in the order of their promises."""
    lines = ["| promise | what was done to it | cases | held | seconds |", "|---|---|---:|---|---:|"]
    groups: dict[tuple[str, str], list[dict]] = {}
    for row in sorted(rows, key=lambda row: (row["promise"], row["fault"])):
        groups.setdefault((row["promise"], row["fault"]), []).append(row)
    for (promise, fault), same in groups.items():
        cases, seconds = sum(row["cases"] for row in same), sum(row["seconds"] for row in same)
        notes = "; ".join(dict.fromkeys(row["note"] for row in same if row["note"]))
        held = "not run here" if all(row["skipped"] for row in same) else "yes" if all(row["passed"] or row["skipped"] for row in same) else "**NO**"
        lines.append(f"| {promise} | {fault} | {cases} | {held}{f' ({notes})' if notes else ''} | {seconds:.0f} |")
    return "\n".join(lines) + "\n"


def foot(seed: int, seconds: float) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl", "peft", "bitsandbytes"))
    return (
        f"\nSeed {seed}, {seconds / 60:.0f} minutes, {time.strftime('%Y-%m-%d')}, Linux {platform.release()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {versions}. `make test-faults` writes this page anew.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
