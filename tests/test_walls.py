"""The walls between rooms: who imports whom, and what the terminal's process never loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {"torch", "transformers", "datasets", "trl", "peft", "bitsandbytes", "accelerate", "pandas", "pyarrow", "matplotlib"}


def test_imports_go_one_way():
    done = subprocess.run([Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def loaded_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"],
        capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import tui_ft.tui.app, tui_ft.tui.screens.home, tui_ft.tui.screens.dashboard, tui_ft.tui.screens.chat, tui_ft.tui.wizard.screen",
        "import tui_ft.tui.screens.hub_search, tui_ft.tui.screens.hub_login, tui_ft.tui.screens.consent, tui_ft.hub.download, tui_ft.hub.details",
        "import tui_ft.start, tui_ft.planning.doctor, tui_ft.planning.preflight, tui_ft.data.preview, tui_ft.results.chat",
        "from tui_ft.cli import main; main(['runs', '--json']); main(['presets', 'list', '--json']); main(['status', '--json'])",
        "from tui_ft.recipe import presets; from tui_ft.planning.planner import make_plan; make_plan(presets.open_recipe('phi-2-oasst1-qlora'))",
    ],
    ids=["screens", "hub", "start", "commands", "plan"],
)
def test_the_terminal_loads_no_torch(code):
    assert not loaded_after(code) & HEAVY


def test_the_supervisor_is_small():
    assert not loaded_after("import tui_ft.runs.supervisor") & {*HEAVY, "textual", "jinja2", "huggingface_hub", "numpy"}


def test_the_rules_of_a_run_need_no_torch():
    assert not loaded_after("import tui_ft.worker.conductor, tui_ft.worker.__main__") & {*HEAVY, "textual", "jinja2"}


def test_a_first_frame_loads_no_torch(tmp_path):
    """The app itself, up to its first frame and a look at every wizard step's module."""
    code = """
import asyncio
from tui_ft.tui.app import TuiFtApp
async def look():
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
asyncio.run(look())
"""
    assert not loaded_after(code) & HEAVY
