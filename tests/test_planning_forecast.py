"""What the planner makes of forecasts: the suggestion, its alternatives, the way out, the time; and what the cache keeps of them."""

from __future__ import annotations

import random
import stat
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from forecasts import FACTS, GIB, fit

from tui_ft import home, start
from tui_ft.data.lengths import Entry
from tui_ft.errors import TuiFtError
from tui_ft.hardware import GpuProcess, GpuReading, Hardware
from tui_ft.planning import forecasts, preflight
from tui_ft.planning.data_facts import DataFacts
from tui_ft.planning.forecast import Fit, Setup
from tui_ft.planning.planner import make_plan, setups_wanted
from tui_ft.recipe import files
from tui_ft.recipe.plan import Plan
from tui_ft.recipe.schema import Model, Recipe

FIRST = {"model": {"name": "a/model"}, "data": {"source": "a/dataset"}, "prompt": {"max_length": 1024}, "method": {"dropout": 0}}


def machine(free: float, **changes: Any) -> Hardware:
    card = GpuReading(0, "GPU-0", "Card", (9, 0), 200 * GIB, int(free * GIB), None, None, None, cores=16896, clock_mhz=1980)
    return Hardware(gpus=(replace(card, **changes),), ram_total=64 * GIB, ram_free=48 * GIB)


def recipe(**settings: Any) -> Recipe:
    return files.with_settings(files.validate(FIRST), [f"{key.replace('__', '.')}={value}" for key, value in settings.items()])


def known(wanted: Recipe, on: Hardware) -> dict[Setup, Fit]:
    return {setup: fit(setup) for setup in setups_wanted(wanted, facts=FACTS, hardware=on)}


def plan(free: float, data: DataFacts | None = None, wanted: Recipe | None = None, **settings: Any) -> Plan:
    on, wanted = machine(free), wanted or recipe(**settings)
    return make_plan(wanted, facts=FACTS, hardware=on, data=data, forecasts=known(wanted, on))


def lengths(*table: Entry, wanted: Recipe | None = None) -> DataFacts:
    return DataFacts.of(wanted or recipe(), sum(count for *_, count in table), None, (), table)


@pytest.mark.parametrize("settings", [{}, {"method__kind": "full"}, {"method__quantization": "nf4"}, {"train__packing": "true"}])
def test_the_parts_add_up_and_fit_or_not_at_a_bound_of_085(settings: dict[str, Any]) -> None:
    for free in (12, 20, 30, 60, 150, 190):
        made = plan(free, **settings)
        need = made.memory
        tensors = need.weights + need.adapters + need.gradients + need.optimizer + need.activations + need.head
        assert need.total_bytes == tensors + need.context + need.safety and need.overhead == need.context + need.safety
        assert need.context == GIB // 2 and need.total_bytes == pytest.approx((tensors + need.context) / 0.85, abs=2)
        assert made.tier == "traced" and made.fits is (need.total_bytes <= free * GIB)
        assert made.memory.phase in made.reasons["memory"]
        assert made.setup is not None and Setup.model_validate(made.setup).activation_checkpointing == made.activation_checkpointing


def test_more_memory_means_the_same_batch_or_a_larger_one_and_never_a_slower_training() -> None:
    data = lengths((100, 10, 500), (600, 10, 300), (1000, 10, 20))
    before: dict[str, Plan] = {}
    for free in range(20, 120, 3):
        for name, level in (("off", "false"), ("on", "true"), ("chosen", "auto")):
            made = plan(free, data, train__activation_checkpointing=level)
            last = before.get(name)
            if last and last.fits:
                assert made.fits and made.seconds is not None and last.seconds is not None and made.seconds <= last.seconds
                assert name == "chosen" or made.micro_batch >= last.micro_batch
            before[name] = made
    assert before["chosen"].activation_checkpointing is False and before["chosen"].fits


def test_the_ladder_is_climbed_no_further_than_memory_asks() -> None:
    levels = [plan(free).activation_checkpointing for free in (190, 40, 30, 24)]
    assert levels[0] is False and levels[-1] is True
    roomy, tight = plan(190), plan(24)
    assert roomy.micro_batch == 16 and "would take 1.46 times as long" in roomy.reasons["activation_checkpointing"]
    assert "even one sequence at a time takes" in tight.reasons["activation_checkpointing"]
    assert "would take" in tight.reasons["micro_batch"] and "that may be used" in tight.reasons["micro_batch"]


def test_any_recipe_on_any_machine_is_planned_with_reasons() -> None:
    dice = random.Random(7)
    for _ in range(150):
        settings = {
            "method__kind": dice.choice(["lora", "lora", "full", "last-layers"]), "method__layers": dice.choice([1, 5]),
            "train__effective_batch": dice.choice([1, 6, 7, 16, 1000]),
            "train__activation_checkpointing": dice.choice(["auto", "true", 1, 4, "offload"]),
            "train__packing": dice.choice(["auto", "true"]), "prompt__max_length": dice.choice([8, 511, 4096, 131072]),
            "method__r": dice.choice([1, 16, 256]), "train__optimizer": dice.choice(["auto", "adamw_8bit", "sgd"]),
        }  # fmt: skip
        wanted = recipe(**settings)
        on = dice.choice([machine(dice.choice([0, 1, 15, 40, 190])), Hardware(ram_free=dice.choice([0, 16 * GIB])), machine(20, capability=(7, 0))])
        told = {setup: fit(setup) for setup in setups_wanted(wanted, facts=FACTS, hardware=on) if dice.random() < 0.8}
        data = dice.choice([None, lengths(wanted=wanted), lengths((300, 1, 10), (9000, 20, 2), wanted=wanted)])
        made = make_plan(wanted, facts=FACTS, hardware=on, data=data, forecasts=told)
        assert made.micro_batch * made.accumulation == made.effective_batch
        keys = "precision optimizer attention packing activation_checkpointing micro_batch accumulation gpu memory fits steps seconds"
        assert set(keys.split()) <= set(made.reasons) and all(made.reasons.values())
        assert made.fits is not True or (made.gpu and made.memory.total_bytes <= made.gpu.free_bytes)
        assert not made.gpu or made.tier == "lower-bound" or made.fits is not None
        assert Plan.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize("free", [15, 24, 70])
def test_each_alternative_takes_what_it_says(free: float) -> None:
    first = plan(free)
    assert len(first.options) > 4
    for option in first.options:
        again = {"train.micro_batch": first.micro_batch, "train.activation_checkpointing": first.activation_checkpointing, **option.changes}
        wanted = files.with_settings(recipe(), [f"{key}={str(value).lower() if value is not None else 'null'}" for key, value in again.items()])
        made = plan(free, wanted=wanted)
        assert (made.memory.total_bytes, made.fits) == (option.total_bytes, option.fits), option.text
    texts = [option.text for option in first.options]
    assert any("% more memory" in text or "% less memory" in text for text in texts)
    assert any(": fits" in text for text in texts) and (free > 60 or any("does not fit by" in text and "faster" in text for text in texts))


@pytest.mark.parametrize(
    ("free", "settings", "count"),
    [
        (15, {}, 1),
        (12.5, {"train__micro_batch": 4, "train__activation_checkpointing": "false"}, 2),
        (60, {"method__kind": "full"}, 1),
        (15, {"method__kind": "full"}, 1),
        (30, {"train__micro_batch": 16, "train__activation_checkpointing": "false"}, 1),
    ],
)
def test_what_does_not_fit_is_told_the_shortest_way_to_make_it(free: float, settings: dict[str, Any], count: int) -> None:
    refused = plan(free, **settings)
    assert refused.fits is False and refused.options[0].remedy
    wanted = recipe(**settings)
    changes = [f"{key}={str(value).lower() if value is not None else 'null'}" for key, value in refused.options[0].changes.items()]
    assert plan(free, wanted=files.with_settings(wanted, changes)).fits is True
    assert refused.options[0].words.count(" and with") + 1 == count
    assert refused.options[0].words in refused.reasons["fits"] and refused.reasons["fits"] in refused.warnings


def test_too_few_forecasts_are_no_verdict() -> None:
    wanted, on = recipe(), machine(20)
    every = known(wanted, on)
    without = {setup: one for setup, one in every.items() if setup.activation_checkpointing is False}
    made = make_plan(wanted, facts=FACTS, hardware=on, forecasts=without)
    assert made.tier == "lower-bound" and made.fits is None, "with checkpointing it may fit"
    assert (
        setups_wanted(wanted, facts=FACTS, hardware=on)[:2]
        == [s.model_copy(update={"activation_checkpointing": v}) for s in without for v in (False, True)][:2]
    )
    assert setups_wanted(wanted, hardware=on) == []


def test_memory_is_counted_for_the_longest_sample_there_is() -> None:
    whole = plan(60, train__micro_batch=8, train__activation_checkpointing="true")
    short = plan(60, lengths((200, 10, 90), (300, 10, 10)), train__micro_batch=8, train__activation_checkpointing="true")
    assert (
        short.longest == 300
        and short.memory.total_bytes < whole.memory.total_bytes
        and "300 tokens, the longest there are" in short.reasons["memory"]
    )
    assert plan(60, lengths((5000, 10, 10)), train__micro_batch=8, train__activation_checkpointing="true").memory == whole.memory, (
        "longer samples are cut to prompt.max_length"
    )
    dropping = recipe(prompt__overlong="drop")
    assert lengths((5000, 10, 10), (70, 3, 1), wanted=dropping).longest == 70
    assert lengths((5000, 2000, 10), (70, 3, 1)).longest == 70, "a sample that would keep nothing to learn from is dropped"
    assert lengths((100, 3, 9), wanted=recipe(data__validation="test")).longest is None, "nobody has looked at the validation split"
    assert DataFacts.of(recipe(), 50, 1000, (), [(100, 3, 50)]).longest is None
    blocks = lengths((100, 0, 30), wanted=recipe(prompt__overlong="split", prompt__template="text"))
    assert (blocks.longest, blocks.lengths[-1]) == (1024, 1024)


def test_a_desktop_keeps_its_share_and_a_limit_is_honoured() -> None:
    wanted = recipe()
    desktop = machine(20, processes=(GpuProcess(9, "root", "Xorg", GIB),))
    made = make_plan(wanted, facts=FACTS, hardware=desktop, forecasts=known(wanted, desktop))
    assert made.gpu and made.gpu.free_bytes == 20 * GIB - GIB // 2 and "Xorg" not in made.reasons["gpu"] and "(xorg)" in made.reasons["gpu"]
    limited = plan(90, hardware__memory_limit="30GB", train__activation_checkpointing="true")
    assert limited.fits and limited.memory.total_bytes <= 30e9
    assert limited.micro_batch < plan(90, train__activation_checkpointing="true").micro_batch


def test_the_time_follows_the_tokens_and_says_how_sure_it_is() -> None:
    data = lengths((500, 10, 1000))
    made = plan(60, data, train__epochs=2)
    assert made.steps == 2 * 60 and made.tokens_per_step == 16 * 500
    assert made.seconds and made.seconds_range and made.seconds_range[0] < made.seconds < made.seconds_range[1]
    # 4 × 8 G forward and backward, a little attention, a third more where it recomputes; 30 % of 16896 × 1.98 GHz × 2 × 16
    per_token = made.seconds * 0.3 * 16896 * 1.98e9 * 32 / (120 * 8000)
    assert 4 * 7.5e9 < per_token < 7 * 8e9 and "30 %" in made.reasons["seconds"]
    assert plan(60, data, train__epochs=4).seconds == pytest.approx(2 * made.seconds)
    unknown = make_plan(recipe(), facts=FACTS, hardware=machine(60, cores=None), data=data)
    assert unknown.seconds is None and "how fast this device is" in unknown.reasons["seconds"]
    assert plan(60).seconds is None and "lengths" in plan(60).reasons["seconds"]


def test_a_plan_with_forecasts_is_made_within_a_frame() -> None:
    wanted, on, data = recipe(), machine(30), lengths(*((n, 1, 3) for n in range(20, 1000)))
    told, spent = known(wanted, on), []
    for _ in range(5):
        began = time.process_time()
        make_plan(wanted, facts=FACTS, hardware=on, data=data, forecasts=told)
        spent.append(time.process_time() - began)
    assert min(spent) < 0.03, "the wizard plans at every key: five milliseconds here, and a slow core's allowance"


@pytest.fixture
def model(tmp_path: Path) -> Model:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return Model(name=str(folder))


SETUP = Setup(kind="lora")
OTHER = Setup(kind="lora", activation_checkpointing=True)
CHILD = """
import json, sys, time
from forecasts import fit
from tui_ft.planning.forecast import Setup
request = json.loads(sys.stdin.read())
first, *others = [Setup.model_validate(setup) for setup in request["setups"]]
print("a library says something")
print(json.dumps({"setup": 0, "fit": fit(first).model_dump(mode="json")}), flush=True)
print(json.dumps({"setup": 1, "error": "no such kernel", "hint": ""}), flush=True)
print(json.dumps({"setup": 99, "fit": None}), flush=True)
ENDING
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A process that answers as the trace does, and then ends as told."""

    def make(ending: str) -> None:
        (tmp_path / "tracing_child.py").write_text(CHILD.replace("ENDING", ending))
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parent}:{Path(start.__file__).parent.parent}")
        monkeypatch.setattr(forecasts, "TRACE", "tracing_child")

    return make


def test_what_arrives_is_kept_and_what_is_refused_is_not_asked_again(model: Model, child: Any) -> None:
    child('print(json.dumps({"done": True}))')
    refused: list[tuple[Setup, str]] = []
    found = forecasts.trace(model, [SETUP, OTHER], on_refusal=lambda *told: refused.append(told))
    assert list(found) == [SETUP] and refused == [(OTHER, "no such kernel")]
    assert forecasts.known(model, FACTS, [SETUP, OTHER]) == found == {SETUP: fit(SETUP)}
    assert forecasts.missing(model, [OTHER, SETUP, Setup(kind="full")]) == [Setup(kind="full")]
    assert forecasts.missing(model, [SETUP], measured_on="Card") == [SETUP], "traced is not measured"
    files_ = list((home.cache_folder() / "forecasts").iterdir())
    assert len(files_) == 2 and all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files_)
    for file in files_:
        file.write_text(file.read_text()[:-40])
    assert forecasts.cached(model, SETUP) is None and forecasts.missing(model, [SETUP, OTHER]) == [SETUP, OTHER]
    Path(model.name, "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 1}')
    forecasts.trace(model, [SETUP])
    assert forecasts.cached(model, SETUP) and len(list((home.cache_folder() / "forecasts").iterdir())) == 3, "another model is another file"


def test_a_cancelled_trace_loses_nothing(model: Model, child: Any) -> None:
    child("time.sleep(60)")
    enough = threading.Event()
    began = time.monotonic()
    assert list(forecasts.trace(model, [SETUP, OTHER], on_fit=lambda *_: enough.set(), cancelled=enough)) == [SETUP]
    assert list(forecasts.trace(model, [SETUP, OTHER], timeout=2)) == [SETUP], "what is there when the time is over"
    assert time.monotonic() - began < 20 and forecasts.cached(model, SETUP) == fit(SETUP)


def test_a_trace_that_fails_says_so_and_keeps_what_came(model: Model, child: Any) -> None:
    child('print(json.dumps({"error": "broken", "hint": "mend it"})); sys.exit(2)')
    with pytest.raises(TuiFtError, match="broken"):
        forecasts.trace(model, [SETUP, OTHER])
    assert forecasts.cached(model, SETUP) == fit(SETUP)
    child("raise SystemError('no memory')")
    with pytest.raises(TuiFtError, match="no memory"):
        forecasts.trace(model, [SETUP])
    assert forecasts.trace(model, []) == {}


def test_measured_on_one_gpu_says_nothing_of_another(model: Model, child: Any) -> None:
    child("pass")
    forecasts.trace(model, [SETUP], measure=True, gpu="Card")
    assert forecasts.cached(model, SETUP, "Card") and not forecasts.cached(model, SETUP) and not forecasts.cached(model, SETUP, "Other card")


@pytest.mark.parametrize("same", [True, False])
def test_each_disk_is_judged_by_itself(same: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = {str(home.runs_folder()): 10**12, str(tmp_path / "out"): 10**6}
    monkeypatch.setattr(preflight, "free_disk", lambda place: free[str(place)])
    monkeypatch.setattr(preflight, "_same_disk", lambda *_: same)
    wanted = recipe(output__dir=str(tmp_path / "out"), output__merge="true")
    made = plan(60, wanted=wanted)
    assert made.disk_bytes and made.output_bytes == 2 * FACTS.total
    found = list(preflight.disk_space(wanted, made))
    assert not found if same else [(finding.severity, str(tmp_path / "out") in finding.message) for finding in found] == [("error", True)]
