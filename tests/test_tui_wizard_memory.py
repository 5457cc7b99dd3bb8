"""The memory in the wizard: the bar at every width, what is shown while a forecast is under way, the other settings to take from."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import recorded_nvml as recorded
import tiny_models
from data_material import chats, write_rows
from test_tui_wizard_screen import open_wizard, texts, until
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from tui_ft.hardware import GpuReading, Hardware
from tui_ft.planning import planner
from tui_ft.recipe import Gpu, Memory, Plan
from tui_ft.recipe.plan import Option
from tui_ft.tui.app import TuiFtApp
from tui_ft.tui.draft import Draft
from tui_ft.tui.widgets import memory_bar
from tui_ft.tui.widgets.memory_bar import MemoryBar, MemoryView
from tui_ft.tui.widgets.plan_panel import Known, plan_content, plan_line
from tui_ft.tui.wizard import alternatives, lookups
from tui_ft.tui.wizard.alternatives import Alternatives
from tui_ft.tui.wizard.backstage import Backstage
from tui_ft.tui.wizard.finding import Finding
from tui_ft.tui.wizard.screen import WizardScreen

GIB = 2**30


def planned(total_gib: float = 8.0, *, tier: str = "traced", free: float = 9.0, **changes: object) -> Plan:
    """A plan of round numbers: half of it activations, little of the adapters."""
    total = round(total_gib * GIB)
    parts = {"weights": total // 4, "adapters": 40 * 2**20, "gradients": 40 * 2**20, "optimizer": 80 * 2**20, "head": GIB // 4, "context": GIB // 2}
    rest = total - sum(parts.values())
    memory = Memory(total_bytes=total, **parts, activations=rest - GIB // 2, safety=GIB // 2, overhead=GIB, phase="backward: last layer #2")
    gpu = Gpu(name="Card", total_bytes=10 * GIB, free_bytes=round(free * GIB), index=1)
    settings = {"micro_batch": 4, "accumulation": 4, "effective_batch": 16, "precision": "bf16", "fits": total <= free * GIB, **changes}
    return Plan.model_validate({"tier": tier, "memory": memory, "gpu": gpu, **settings})


@pytest.mark.parametrize("width", [12, 16, 39, 76, 96])
@pytest.mark.parametrize("total", [3.0, 8.0, 14.0])
def test_every_part_has_its_cell_and_the_rest_goes_by_size(width: int, total: float) -> None:
    made = memory_bar.layout(planned(total), None)
    drawn = memory_bar.bar(made, width).plain
    assert len(drawn) == width and set("W+GOAHCSx") <= set(drawn)
    assert ("." in drawn) == (made.over == 0), "where it does not fit nothing is free"
    if width > 30:
        for part in made.parts:
            share = part.bytes / sum(other.bytes for other in made.parts)
            assert abs(drawn.count(part.sign) - width * share) <= 0.1 * width, part.name


def test_a_bar_without_colours_says_it_all() -> None:
    shown = memory_bar.bar_content(MemoryView(planned()), memory_bar.layout(planned(), None), 39).plain
    assert "Memory  on GPU 1\ntraced on this very model\nWWW" in shown
    assert "8.0 GiB of 9.0 GiB free: fits" in shown and "backward: last layer\n" in shown
    sizes = {line.split()[1]: " ".join(line.split()[2:]) for line in shown.splitlines()[5:]}
    assert (sizes["weights"], sizes["adapters"], sizes["others"], sizes["free"]) == ("2.0 GiB", "40.0 MiB", "1.0 GiB", "1.0 GiB")
    over = planned(14.0)
    assert "14.0 GiB of 9.0 GiB free: 5.0 GiB too much" in memory_bar.bar_content(MemoryView(over), memory_bar.layout(over, None), 39).plain
    least = planned(tier="lower-bound", fits=None)
    told = memory_bar.bar_content(MemoryView(least, "estimating … 1 of 4"), memory_bar.layout(least, None), 76).plain
    assert "at least 8.0 GiB of 9.0 GiB free" in told and "? not counted yet" in told and "estimating … 1 of 4" in told and "fits" not in told


def test_without_a_gpu_it_is_main_memory() -> None:
    plan = planned(gpu=None, fits=None)
    made = memory_bar.layout(plan, Hardware(ram_total=16 * GIB, ram_free=10 * GIB))
    assert (made.capacity, made.free, made.over) == (16 * GIB, 10 * GIB, 0)
    assert [part.bytes for part in made.parts if part.name in ("others", "free")] == [6 * GIB, 2 * GIB]
    assert memory_bar.bar(memory_bar.layout(plan, None), 120).plain.strip("W+GOAHCS") == ""


def test_an_old_value_is_never_shown_as_if_it_were_right() -> None:
    found: Finding[Plan] = Finding(value=planned())
    known = Known(found, MemoryView(planned(), "estimating … 0 of 3", faded=True), None)
    line = plan_line(known)
    assert "8.0 of 9.0 GiB  estimating" in line.plain and "fits" not in line.plain
    drawn = memory_bar.bar_content(known.memory, memory_bar.layout(planned(), None), 39)
    assert "estimating … 0 of 3; the value before" in drawn.plain and "traced" not in drawn.plain
    colours = {str(span.style) for span in drawn.spans}
    assert not any("on $" in colour for colour in colours), "all of it is faded"
    assert "8.0 of 9.0 GiB traced  fits" in plan_line(Known(found, MemoryView(planned()), None)).plain


def test_time_and_disk_stand_beside_what_there_is() -> None:
    plan = planned(seconds=5000.0, seconds_range=(3600.0, 7200.0), disk_bytes=3 * GIB, tokens_per_step=9000)
    shown = plan_content(Known(Finding(value=plan), None, None, disk_free=80 * GIB, moved="GPU 0: 3.0 GiB free now, 9.0 GiB before")).plain
    assert "1 h 23 min (1 h to 2 h)" in shown and "3.0 GiB of 80.0 GiB free" in shown and "9.0k a step" in shown
    assert "! GPU 0: 3.0 GiB free now, 9.0 GiB before" in shown


def test_memory_that_moved_is_told_from_a_quarter_gigabyte_on() -> None:
    backstage = Backstage()
    moved = [
        backstage.read_machine(Hardware(gpus=(GpuReading(0, "GPU-0", "Card", None, 10 * GIB, round(free * GIB), None, None, None),)))
        for free in (9.0, 8.9, 8.8, 8.7, 3.0, 3.1)
    ]
    assert moved == [False, False, False, True, True, False], "slow drift counts as well"
    assert backstage.moved == "GPU 0: 3.0 GiB free now, 8.7 GiB before"


def test_what_is_taken_comes_back() -> None:
    draft = Draft.of_preset("demo")
    before = dict(draft.tree["train"])
    option = Option(changes={"train.micro_batch": 1, "prompt.max_length": 64}, words="less", text="less: half the memory", total_bytes=1)
    taken = alternatives.take(draft, option)
    assert draft.value("train.micro_batch") == 1 and draft.recipe is not None and draft.recipe.prompt.max_length == 64
    alternatives.take_back(draft, taken)
    assert draft.tree["train"] == before and not draft.changed


@pytest.fixture
def small_model(tmp_path: Path) -> Draft:
    """A LoRA on a small model, its data on this machine; the demo's would be too small to tell parts apart."""
    model = tiny_models.llama(tmp_path / "llama", hidden_size=256, intermediate_size=512, num_hidden_layers=4, vocab_size=4096)
    draft = Draft.of_preset("demo")
    rows = write_rows(tmp_path / "rows.jsonl", chats(30))
    values = {"model.name": str(model), "data.source": str(rows), "data.format": "auto", "method.kind": "lora", "prompt.max_length": 256}
    for key, value in {**values, "train.effective_batch": 16, "train.micro_batch": 4, "train.activation_checkpointing": False}.items():
        draft.put(key, value)
    assert draft.recipe is not None, draft.problems
    draft.keep()
    return draft


async def typed(pilot: Pilot[int], screen: WizardScreen, field: str, text: str) -> None:
    entry = screen.query_one(f"#field-{field} Input", Input)
    entry.focus()
    await pilot.pause()
    entry.value = text
    await pilot.pause()


async def test_the_bar_follows_every_change_and_a_new_forecast_is_traced_behind_it(small_model: Draft, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real tracing child, on a card that is replayed."""
    recorded.install(monkeypatch, recorded.RTX_WITH_A_DESKTOP)
    monkeypatch.setattr(WizardScreen, "PAUSE", 0.05)
    monkeypatch.setattr(lookups, "is_here", lambda recipe: False)  # no look at the data, which other tests are about
    monkeypatch.setattr(planner.options, "wanted_setups", lambda recipe, case: [])  # nor at other weights, each a trace more
    app = TuiFtApp()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_wizard(pilot, app)
        found = screen.backstage
        await pilot.press("6")
        await until(pilot, lambda: found.forecasting.found.busy, 120)
        await until(pilot, lambda: "estimating" in texts(app) and "at least" in texts(app))  # fp32 is in no shipped estimate
        await until(pilot, lambda: found.plan.value is not None and found.plan.value.tier == "traced", 120)
        await until(pilot, lambda: "traced on this very model" in texts(app) and ": fits" in texts(app))
        await until(pilot, lambda: not found.forecasting.found.busy, 120)
        assert not found.forecasting.found.error and not found.forecasting.wants_trace()
        activations = found.plan.value.memory.activations
        began = time.process_time()
        await typed(pilot, screen, "train-micro_batch", "8")
        assert found.plan.value.micro_batch == 8 and found.plan.value.memory.activations > 1.5 * activations
        assert screen.query_one(MemoryBar)._shown[0] == MemoryView(found.plan.value) and not found.forecasting.found.busy
        assert time.process_time() - began < 2, "with the key press, the plan, the screen, and the test's own pauses: no trace was waited for"

        listed = screen.query_one(Alternatives).query_one(OptionList)
        names = [option.prompt.plain for option in listed.options]
        at = next(index for index, name in enumerate(names) if "micro-batch of 1 " in name)
        listed.focus()
        listed.highlighted = at
        await pilot.press("enter")
        await until(pilot, lambda: found.plan.value.micro_batch == 1)
        assert screen.draft.value("train.micro_batch") == 1 and "undo" in listed.options[-1].prompt.plain
        listed.highlighted = listed.option_count - 1
        await pilot.press("enter")
        await until(pilot, lambda: found.plan.value.micro_batch == 8)

        old = found.plan.value.memory.total_bytes
        await typed(pilot, screen, "train-max_grad_norm", "0")
        assert found.plan.value.tier == "lower-bound"
        shown = found.memory_shown()
        assert shown.faded and shown.plan.memory.total_bytes == old and "the value before" in texts(app)
        await until(pilot, lambda: found.forecasting.found.busy)
        assert found.memory_shown().note.startswith("estimating") and found.forecasting.wants_trace() is False
        await typed(pilot, screen, "train-max_grad_norm", "1")
        assert found.plan.value.tier == "traced" and not found.memory_shown().faded, "what is known is back at once"
