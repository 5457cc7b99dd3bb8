"""The dashboard: it shows what the files say, its keys write the right commands, and leaving it changes nothing."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
import synthetic
from pilots import until
from textual.events import Resize
from textual.geometry import Size
from textual.pilot import Pilot
from textual.widgets import Input, Log, OptionList

from tui_ft.hardware import GpuReading
from tui_ft.recipe import Plan
from tui_ft.runs import checkpoints
from tui_ft.runs.store import Run
from tui_ft.runs.summary import summarize
from tui_ft.tui.app import TuiFtApp
from tui_ft.tui.feed import BATCH, Feed
from tui_ft.tui.screens.confirm import Confirm, Prompt
from tui_ft.tui.screens.controls import learning_rate_problem
from tui_ft.tui.screens.dashboard import DashboardScreen, GpuRead
from tui_ft.tui.screens.home import HomeScreen
from tui_ft.tui.widgets import run_facts, run_header, sample_list
from tui_ft.tui.widgets.loss_chart import LossChart, StepSparkline
from tui_ft.tui.widgets.run_log import wrapped
from tui_ft.tui.widgets.telling import told

SIZES = [(60, 15), (80, 24), (120, 40)]


async def opened(app: TuiFtApp, pilot: Pilot[int], run: Run) -> DashboardScreen:
    """The dashboard of `run`, once it has read all there is."""
    await until(pilot, lambda: isinstance(app.screen, HomeScreen) and app.screen.is_mounted)
    app.open_run(run)
    await until(pilot, lambda: isinstance(app.screen, DashboardScreen) and app.screen.summary is not None)
    screen = app.screen
    assert isinstance(screen, DashboardScreen)
    last = synthetic.Progress.read(run).step
    await until(pilot, lambda: screen.feed.curves.progress.step == last)
    return screen


def screen_text(app: TuiFtApp) -> str:
    return "\n".join("".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips())


def commands(run: Run) -> list[dict[str, Any]]:
    """What lies in the run's inbox, oldest first."""
    return [json.loads(file.read_text()) for file in sorted((run.commands / "new").iterdir())]


@pytest.mark.parametrize(
    ("state", "size"),
    [(state, (80, 24)) for state in ("running", "paused", "finished", "failed", "lost")] + [("diverged", size) for size in SIZES],
)
async def test_every_state_is_shown_with_its_reason_at_every_size(state: str, size: tuple[int, int]) -> None:
    run = synthetic.recorded(state, steps=120, total=200)
    app = TuiFtApp()
    async with app.run_test(size=size) as pilot:
        screen = await opened(app, pilot, run)
        await until(pilot, lambda: "120" in screen_text(app))
        shown = screen_text(app)
        assert {"diverged": "paused"}.get(state, state) in shown.splitlines()[0]
        if size[1] > 15:
            reason = {"failed": "shape [/INST] is wrong", "lost": "supervisor are gone", "diverged": "not a number since step 96"}
            assert reason.get(state, "loss 2.") in shown
        chart = screen.query_one(LossChart)
        assert chart.badge == ("diverged at step 96" if state == "diverged" else "")
        assert ("diverged at step 96" in shown) == (state == "diverged")


def test_the_peak_stands_beside_its_forecast() -> None:
    run = synthetic.recorded("running", steps=20, total=100)
    peak = summarize(run).peak_memory_bytes
    assert peak and run_header.peak(summarize(run)) == f"memory {peak / 2**30:.1f} GiB", "nothing was forecast"
    memory = {"total_bytes": 14 * 2**30, "overhead": 2 * 2**30}
    gpu = {"name": "Card", "total_bytes": 2**34, "free_bytes": 2**34}
    for tier, words in (
        ("traced", f"{peak / 2**30:.1f} of 12.0 GiB forecast"),
        ("lower-bound", f"{peak / 2**30:.1f} GiB, at least 12.0 GiB forecast"),
    ):
        run.write_plan(1, Plan.model_validate({**run.plan().model_dump(), "tier": tier, "memory": memory, "gpu": gpu}))
        assert run_header.peak(summarize(run)) == f"memory {words}"
        assert words in run_facts.facts(run, summarize(run), 60).plain


async def test_all_series_and_the_log_are_there() -> None:
    run = synthetic.recorded("running", steps=400, total=1000)
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot, run)
        values = {spark.id: spark.value for spark in screen.query(StepSparkline)}
        assert values["learning-rate"] == "0.000131"
        assert values["speed"].endswith("k")
        assert values["memory"].endswith("GiB")
        assert float(values["grad-norm"] or "nan") > 0
        shown = screen_text(app)
        assert "step 400/1 000 · 40 % · epoch 0.40" in shown
        assert "min" in shown.splitlines()[1]
        log = "\n".join(screen.query_one("#lines", Log).lines)
        assert "step 400: validation loss" in log
        assert "attempt 1 begins" in log
        assert "step 390: loss" in log
        assert "step 391: loss" not in log  # each n-th, as the recipe says


@pytest.mark.parametrize(
    ("keys", "name", "args"),
    [
        (["p"], "pause", {"free_gpu": False}),
        (["f"], "pause", {"free_gpu": True}),
        (["c"], "checkpoint", {}),
        (["s", "y"], "stop", {"now": False}),
        (["S", "y"], "stop", {"now": True}),
    ],
)
async def test_a_key_writes_its_command_and_shows_what_became_of_it(keys: list[str], name: str, args: dict[str, Any]) -> None:
    run = synthetic.recorded("running", steps=20, total=100)
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot, run)
        for key in keys:
            await pilot.press(key)
        await until(pilot, lambda: commands(run))
        (command,) = commands(run)
        assert (command["name"], command["args"], command["attempt"]) == (name, args, 1)
        await until(pilot, lambda: "asked" in screen.requests.line)
        log = synthetic.Recorder(run)
        log.write("command", id=command["id"], name=name, args=args, phase="applied", step=20, reason="")
        log.write("command", id=command["id"], name=name, args=args, phase="effected", step=21, reason="")
        log.flush()
        await until(pilot, lambda: "done at step 21" in screen_text(app).splitlines()[2])


async def test_before_the_first_step_it_says_what_is_being_done() -> None:
    run = synthetic.new_run(steps=50)
    synthetic.own(run, alive=True)
    log = synthetic.Recorder(run)
    log.write("attempt_started", attempt=1, from_step=0, versions={})
    log.write("progress", stage="tokenize", done=1_200, total=5_000)
    log.write("alert", kind="data", severity="warning", cause="3 rows are empty", remedy="")
    log.flush()
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot, run)
        await until(pilot, lambda: "tokenizing the data · 24 %" in screen_text(app))
        assert "○ starting" in screen_text(app).splitlines()[0]
        assert "waiting for the first step" in screen_text(app)
        assert any(line.endswith("! 3 rows are empty") for line in screen.query_one("#lines", Log).lines)
        assert "3 rows" not in screen_text(app).splitlines()[2]  # a warning does not take the place of the figures


async def test_stopping_asks_and_no_is_the_default() -> None:
    run = synthetic.recorded("running", steps=20, total=100)
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot, run)
        for key, answer in (("s", "enter"), ("S", "enter"), ("s", "escape"), ("S", "n")):
            await pilot.press(key)
            await until(pilot, lambda: isinstance(app.screen, Confirm))
            await pilot.press(answer)
            await until(pilot, lambda: app.screen is screen)
        assert commands(run) == []


async def test_the_learning_rate_is_checked_before_it_is_asked_for() -> None:
    run = synthetic.recorded("running", steps=20, total=100)
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot, run)
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, Prompt))
        field = app.screen.query_one(Input)
        assert field.value == "0.0002"
        field.value = "1234567890123456x"
        await pilot.press("enter")
        await until(pilot, lambda: "not a number" in screen_text(app))
        assert isinstance(app.screen, Prompt)
        field.value = "5e-5"
        await pilot.press("enter")
        await until(pilot, lambda: commands(run))
        assert commands(run)[0]["args"] == {"learning_rate": 5e-5}
        assert app.screen is screen


async def test_a_refused_request_tells_why_and_a_dead_worker_is_not_waited_for() -> None:
    run = synthetic.recorded("running", steps=20, total=100)
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot, run)
        await pilot.press("c")
        await until(pilot, lambda: len(commands(run)) == 1)
        log = synthetic.Recorder(run)
        log.write("command", id=commands(run)[0]["id"], name="checkpoint", args={}, phase="rejected", step=20, reason="the disk is full [/b]")
        log.flush()
        await until(pilot, lambda: "rejected, the disk is full [/b]" in screen_text(app))
        await pilot.press("p")
        await until(pilot, lambda: len(commands(run)) == 2 and screen.requests.pending)
        synthetic.own(run, alive=False)
        await until(pilot, lambda: "the worker ended before it came to this" in screen_text(app))
        assert not screen.requests.pending


async def test_a_run_paused_with_its_memory_goes_on_by_either_key() -> None:
    run = synthetic.recorded("paused", steps=20, total=100)
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot, run)
        await pilot.press("r")
        await until(pilot, lambda: len(commands(run)) == 1)
        await pilot.press("p")
        await until(pilot, lambda: len(commands(run)) == 2)
        assert [command["name"] for command in commands(run)] == ["resume", "resume"]


async def test_what_cannot_be_done_now_is_dimmed_with_its_reason() -> None:
    run = synthetic.recorded("finished", steps=20, total=20)
    app = TuiFtApp()
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        screen = await opened(app, pilot, run)
        for action in ("pause", "free", "checkpoint", "learning_rate", "stop", "stop_now", "resume"):
            assert screen.unavailable(action) == "the run is finished"
            assert screen.check_action(action, ()) is None
        assert screen.unavailable("chat") == ""
        await pilot.press("p", "s", "r")
        await until(pilot, lambda: "Resume: the run is finished" in screen_text(app))
        assert app.screen is screen
        assert commands(run) == []
    lost = synthetic.recorded("lost", steps=20, total=40)
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot, lost)
        assert screen.unavailable("resume") == ""
        assert "no model yet" in screen.unavailable("chat")


async def test_leaving_says_that_training_continues_and_changes_nothing() -> None:
    run = synthetic.recorded("running", steps=20, total=100)
    before = sorted((str(path), path.stat().st_mtime_ns) for path in run.path.rglob("*") if path.is_file())
    app = TuiFtApp()
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        for key in ("q", "escape"):
            await opened(app, pilot, run)
            await pilot.press(key)
            await until(pilot, lambda: isinstance(app.screen, HomeScreen))
            await until(pilot, lambda: "training continues" in screen_text(app))
            app.clear_notifications()
            await until(pilot, lambda: "training continues" not in screen_text(app))
    assert sorted((str(path), path.stat().st_mtime_ns) for path in run.path.rglob("*") if path.is_file()) == before


HOSTILE = "[/INST] [@click=app.quit]x[/] [bold red]\x1b]52;c;aGk=\x07\x1b[2J\u202e\udcff$accent"


async def test_hostile_text_in_every_event_is_harmless() -> None:
    run = synthetic.recorded("running", steps=20, total=100)
    log = synthetic.Recorder(run)
    text = HOSTILE.replace("\udcff", "")
    log.write("sample", step=20, prompt=text, text=f"{text}\n{text}")
    log.write("alert", kind=text, severity=text, cause=text, remedy=text)
    log.write("checkpoint", step=20, path=text, bytes=5, outcome=text)
    log.write("command", id=text, name=text, args={text: text}, phase=text, step=20, reason=text)
    log.write("eval", step=20, loss=1.0, accuracy=text)
    log.write("no-such-thing", step=text)
    log.write("state", **{"from": text, "to": "running", "reason": text})
    log.flush()
    (run.logs / "1.err").write_bytes(f"{text}\r 10%|{text}\n".encode() * 3 + b"\xff\xfe half")
    app = TuiFtApp()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(app, pilot, run)
        lines = screen.query_one("#lines", Log)
        await until(pilot, lambda: any("10%" in line for line in lines.lines))
        for _ in range(3):
            await pilot.press("v")
            await pilot.pause()
            shown = screen_text(app)
            assert "[/INST]" in shown
            assert not {"\x1b", "\x07", "\u202e"} & set(shown)
        assert not {"\x1b", "\x07", "\u202e"} & set("".join(lines.lines))


async def test_damaged_events_lose_themselves_alone() -> None:
    run = synthetic.recorded("running", steps=20, total=100)
    with (run.events / "1.jsonl").open("a") as file:
        file.write('{"type": "step"\nnot json\n[]\n{"type": "step", "step": 21, "loss": 1.25, "mono": 99999}\n{"type": "st')
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))
        app.open_run(run)
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen) and app.screen.feed.curves.progress.step == 21)
        assert app.screen.feed.curves.loss[-1] == 1.25


def test_a_long_run_is_read_in_pieces_between_which_keys_are_heard() -> None:
    run = synthetic.recorded("running", steps=6_000, total=20_000)
    feed = Feed(run)
    looks = [feed.look()]
    while looks[-1].more:
        looks.append(feed.look())
    assert len(looks) >= 2
    assert max(look.events for look in looks) <= BATCH
    assert list(feed.curves.steps) == list(range(1, 6_001))
    assert feed.look().events == 0


async def test_resizing_keeps_what_was_chosen() -> None:
    run = synthetic.recorded("finished", steps=200, total=200)
    app = TuiFtApp()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(app, pilot, run)
        await pilot.press("l", "v")
        await pilot.resize_terminal(60, 15)
        await pilot.pause()
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        assert screen.query_one(LossChart).log_scale
        assert "★ best" in screen_text(app)
        steps = [option.id for option in screen.query_one("#checkpoint-list", OptionList).options]
        assert steps == [str(step) for step in range(200, 0, -20)]
        await pilot.press("o")
        assert "★ best" in str(screen.query_one("#checkpoint-list", OptionList).options[0].prompt), "by validation loss"
        await pilot.press("slash", *"best")
        screen.look()  # with checkpoints that have not changed
        assert "★ best" in screen_text(app) and len(screen.query_one("#checkpoint-list", OptionList).options) == 1


async def test_two_sizes_at_once_do_not_follow_each_other_for_ever() -> None:
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot, synthetic.recorded("finished", steps=20, total=20))
        layouts: list[object] = []
        screen.screen_layout_refresh_signal.subscribe(screen, layouts.append)
        for width, height in ((120, 40), (80, 24)):  # in its queue together, as when it was busy while a window was dragged
            size = Size(width, height)
            screen.post_message(Resize(size, size))
            screen.call_later(lambda: None)  # neighbours would be taken for one
        await asyncio.sleep(0.5)
        seen = len(layouts)  # a pilot's pause would wait for the rest for ever
        await asyncio.sleep(0.5)
        assert screen.size == (80, 24) and len(layouts) == seen, "it is at rest"


async def test_facts_that_come_between_a_change_of_style_and_its_layout_are_all_shown() -> None:
    app = TuiFtApp()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(app, pilot, synthetic.recorded("finished", steps=20, total=20))
        facts = screen.query_one("#facts")
        before = facts.size.height
        facts.refresh(layout=True)
        screen._refresh_layout()
        screen.on_gpu_read(GpuRead(GpuReading(0, "GPU-1", "a card", None, 8 * 2**30, 6 * 2**30, None, None, None)))
        screen.show_head()
        await until(pilot, lambda: "gpu " in screen_text(app))
        assert facts.size.height == before + 1


async def test_in_a_terminal_made_smaller_the_log_still_follows_and_the_way_out_is_shown() -> None:
    run = synthetic.recorded("finished", steps=120, total=200)
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot, run)
        log = screen.query_one("#lines", Log)
        await until(pilot, lambda: log.max_scroll_y > 0 and log.is_vertical_scroll_end)
        assert "Pause" in screen_text(app).splitlines()[-1]
        await pilot.resize_terminal(60, 15)
        await until(pilot, lambda: log.size.height < 8 and log.is_vertical_scroll_end)
        keys = screen_text(app).splitlines()[-1]
        assert "Leave" in keys and "Help" in keys and "Pause" not in keys


async def test_a_checkpoint_becomes_one_file() -> None:
    run = synthetic.recorded("finished", steps=40, total=40)
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot, run)
        await pilot.press("v", "tab", "z")
        newest = run.checkpoints / "checkpoint-40.zip"
        await until(pilot, newest.is_file)
        await until(pilot, lambda: "zip of step 40: done" in screen.requests.line)
        await until(pilot, lambda: "  zip" in screen_text(app))


async def test_a_checkpoint_is_verified_and_deleted_by_key() -> None:
    run = synthetic.recorded("stopped", steps=40, total=60)
    app = TuiFtApp()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(app, pilot, run)
        await pilot.press("v", "tab", "V")
        await until(pilot, lambda: "verify checkpoint 36: done" in screen.requests.line and "verified" in screen_text(app))
        weights = run.checkpoints / "checkpoint-36" / "adapter_model.safetensors"
        weights.write_bytes(bytes(4095) + b"1")
        await pilot.press("V")
        await until(pilot, lambda: "damaged: the content of adapter_model.safetensors was changed" in screen.requests.line)
        await pilot.press("x")
        await until(pilot, lambda: "Delete the checkpoint at step 36?" in screen_text(app))
        await pilot.press("y")
        await until(pilot, lambda: checkpoints.steps(run) == [6, 12, 18, 24, 30])


async def test_a_resume_that_would_end_elsewhere_asks_first() -> None:
    run = synthetic.recorded("stopped", steps=20, total=60)
    staged = checkpoints.staging(run)
    (staged / "adapter_model.safetensors").write_bytes(b"w")
    checkpoints.publish(staged, run, 20, {"settings": {"train.seed": 7}, "versions": {"torch": "1.0"}})
    app = TuiFtApp()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(app, pilot, run)
        await pilot.press("r")
        await until(pilot, lambda: "torch was 1.0 and is" in screen_text(app) and "train.seed was 7 and is 42" in screen_text(app))
        await pilot.press("n")
        await until(pilot, lambda: app.screen is screen)
        assert run.attempt() == 1


async def test_an_attempt_that_goes_back_takes_its_steps_out_of_the_chart() -> None:
    run = synthetic.recorded("running", steps=100, total=100)
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(app, pilot, run)
        run.write_plan(2, run.plan())
        log = synthetic.Recorder(run, attempt=2)
        log.write("attempt_started", attempt=2, from_step=50, versions={})
        log.write("step", step=51, loss=7.0, mono=1.0)
        synthetic.own(run, alive=True, attempt=2)
        log.flush()
        await until(pilot, lambda: len(screen.feed.curves.steps) == 51)
        assert screen.query_one(LossChart).rows_as_text()
        assert max(screen.feed.curves.loss) == 7.0
        await until(pilot, lambda: "attempt 2 begins from step 50" in "\n".join(screen.query_one("#lines", Log).lines))


@pytest.mark.parametrize(("value", "fine"), [("1e-5", True), ("fast", False), ("0", False), ("-1e-5", False), ("nan", False), ("12", False)])
def test_a_learning_rate_as_typed(value: str, fine: bool) -> None:
    assert (learning_rate_problem(value) == "") == fine


def test_answers_stand_under_their_prompt_the_newest_first_and_equal_ones_once() -> None:
    told = [(20, "A?", "aaa"), (20, "B?", "b"), (40, "A?", "an\x1b[31m A"), (40, "B?", "b"), (60, "A?", "an\x1b[31m A"), (60, "B?", "bee")]
    shown = sample_list.shown([{"type": "sample", "step": step, "prompt": prompt, "text": text} for step, prompt, text in told]).plain
    assert "\x1b" not in shown
    assert [row.strip()[:13] for row in shown.splitlines()] == ["A?", "step 40 to 60", "step 20  aaa", "B?", "step 60  bee", "step 20 to 40"]


def test_a_gpu_is_told_as_far_as_its_driver_tells() -> None:
    silent = GpuReading(0, "GPU-1", "old card", None, 8 * 2**30, 6 * 2**30, None, None, None)
    assert run_header.gpu(silent) == "2.0 GiB of 8.0 GiB"
    assert run_header.memory(1.5 * 2**30, silent) == "1.5 GiB"
    busy = replace(silent, utilisation=100, temperature=71, power_watts=239.6)
    assert run_header.gpu(busy) == "100 % · 71 °C · 2.0 GiB of 8.0 GiB · 240 W"
    assert run_header.memory(7.6 * 2**30, busy) == "7.6G 100%"


def test_long_log_lines_are_broken_below_their_words() -> None:
    assert wrapped(["12:00:00 " + "word " * 10], 40) == ["12:00:00 word word word word word word", "         word word word word"]
    assert wrapped(["x" * 100], 0) == ["x" * 100]


def test_an_unknown_event_tells_nothing() -> None:
    assert told({"type": "tomorrow", "step": 1}) == ""
    assert told({"type": "step", "step": 3, "loss": None}).endswith("step 3: loss not a number")
