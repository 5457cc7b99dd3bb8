"""What runs took against what was forecast: shown by the command line, learned from by the next plan, robust against anything in the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import synthetic
from forecasts import FACTS, GIB, fit

from tui_ft.cli import main
from tui_ft.hardware import GpuReading, Hardware
from tui_ft.planning import history
from tui_ft.planning.data_facts import DataFacts
from tui_ft.planning.forecast import Setup
from tui_ft.planning.history import History
from tui_ft.planning.planner import make_plan, setups_wanted
from tui_ft.recipe import files
from tui_ft.recipe.plan import Plan

CARD = Hardware(gpus=(GpuReading(0, "GPU-0", "Card", (9, 0), 80 * GIB, 60 * GIB, None, None, None, cores=16896, clock_mhz=1980),))
FIRST = {"model": {"name": "a/model"}, "data": {"source": "a/dataset"}, "prompt": {"max_length": 1024}, "method": {"dropout": 0}}
DATA = DataFacts.of(files.validate(FIRST), 1000, None, (), [(500, 10, 1000)])


def plan(**changes: Any) -> Plan:
    """With what the runs of this home have recorded."""
    wanted = files.with_settings(files.validate(FIRST), [f"{key.replace('__', '.')}={value}" for key, value in changes.items()])
    told = {setup: fit(setup) for setup in setups_wanted(wanted, facts=FACTS, hardware=CARD)}
    return make_plan(wanted, facts=FACTS, hardware=CARD, data=DATA, forecasts=told, history=history.read())


def attempt(made: Plan, **changes: Any) -> dict[str, Any]:
    """As a worker writes it of a run of `made` that went exactly as forecast."""
    tensors = made.memory.total_bytes - made.memory.overhead
    return {
        "attempt": 1, "gpu": "Card", "tier": made.tier, "outcome": "finished", "cause": "", "predicted_bytes": tensors,
        "predicted_total_bytes": made.memory.total_bytes, "allocated_bytes": tensors, "reserved_bytes": tensors + GIB // 4,
        "process_bytes": tensors + GIB // 2, "predicted_seconds_per_step": made.seconds and made.steps and made.seconds / made.steps,
        "seconds_per_step": 2.0, "tokens_per_second": 4000.0, "flops_per_token": made.flops_per_token, "rows": made.micro_batch, "length": 500,
        "rank": made.rank, "packed": False, "setup": made.setup, "model": "a/model", "largest_rows": made.micro_batch, "largest_length": 500,
        **changes,
    }  # fmt: skip


def record(*attempts: object) -> Path:
    run = synthetic.recorded("finished")
    file = run.path / history.FILE
    file.write_text(json.dumps({"attempts": attempts}))
    return file


def test_the_history_shows_each_error_and_their_mean_and_worst(capsys: pytest.CaptureFixture[str]) -> None:
    made = plan()
    tensors = made.memory.total_bytes - made.memory.overhead
    short = {"allocated_bytes": tensors // 2, "largest_length": 100}
    record(
        attempt(made, allocated_bytes=round(tensors / 1.01)),
        attempt(made, attempt=2, allocated_bytes=round(tensors / 0.98), seconds_per_step=None),
        attempt(made, attempt=3, outcome="out-of-memory", model="b/other"),
        attempt(made, attempt=4, **short),
    )
    assert main(["plan", "--history", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["attempt"] for row in told["attempts"]] == [4, 3, 2, 1], "the newest first"
    assert [row["memory_error"] for row in told["attempts"]] == [None, None, pytest.approx(-0.02), pytest.approx(0.01)]
    assert told["errors"]["memory"] == {"mean": pytest.approx(0.015), "worst": pytest.approx(-0.02)}
    assert main(["plan", "--history"]) == 0
    said = capsys.readouterr().out
    assert "-2.0 %" in said and "memory: mean error 1.5 %, worst -2.0 %" in said and "Card" in said
    assert main(["plan", "--history", "demo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["attempts"] == [], "with a recipe, those of its model"


def test_without_a_record_and_without_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--history"]) == 0 and "No run has recorded" in capsys.readouterr().out
    assert main(["plan"]) == 2 and "needs a RECIPE" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{", '{"attempts": 7}', '{"attempts": [7, null, {}, []]}', '{"attempts": [{"allocated_bytes": -1, "gpu": "Card"}]}',
        '{"attempts": [{"seconds_per_step": NaN, "gpu": "Card"}]}', '{"attempts": [{"setup": {"kind": 7}, "gpu": "Card"}]}',
        '{"attempts": [{"gpu": "Card", "outcome": "out-of-memory", "rows": 0, "length": 0, "setup": {"kind": "lora"}}]}',
    ],
)  # fmt: skip
def test_what_is_damaged_is_left_out(content: str, capsys: pytest.CaptureFixture[str]) -> None:
    record().write_text(content)
    assert plan() == make_plan(
        files.validate(FIRST), facts=FACTS, hardware=CARD, data=DATA,
        forecasts={setup: fit(setup) for setup in setups_wanted(files.validate(FIRST), facts=FACTS, hardware=CARD)},
    )  # fmt: skip
    assert main(["plan", "--history", "--json"]) == 0
    json.loads(capsys.readouterr().out)


def test_a_forecast_that_was_too_low_raises_the_next_and_one_that_was_too_high_does_not() -> None:
    before = plan(train__micro_batch=4)
    tensors = before.memory.total_bytes - before.memory.overhead
    record(attempt(before, allocated_bytes=round(tensors * 0.9), reserved_bytes=None))
    assert plan(train__micro_batch=4).memory == before.memory
    record(attempt(before, allocated_bytes=round(tensors * 1.1), reserved_bytes=None))
    after = plan(train__micro_batch=4).memory
    assert after.total_bytes == pytest.approx((1.1 * tensors + GIB / 2) / 0.85, rel=1e-3)
    assert after.total_bytes - after.overhead == tensors, "the parts stay, the safety grows"
    assert plan(train__micro_batch=4, method__quantization="nf4").memory.safety < after.safety, "another method is another forecast"
    record(attempt(before, process_bytes=round(before.memory.total_bytes * 1.05), reserved_bytes=None))
    assert plan(train__micro_batch=4).memory.total_bytes >= before.memory.total_bytes * 1.05, "what the process held must have had room"


def test_the_context_is_what_the_driver_counted_beside_torch() -> None:
    made = plan()
    record(attempt(made, process_bytes=40 * GIB, reserved_bytes=39 * GIB))
    assert plan().memory.context == GIB


def test_what_ran_out_of_memory_is_not_suggested_again() -> None:
    before = plan()
    assert before.fits and before.micro_batch > 1
    record(attempt(before, outcome="out-of-memory", cause="cuda-oom"))
    after = plan()
    level = after.activation_checkpointing
    assert level != before.activation_checkpointing or after.micro_batch < before.micro_batch
    same = plan(train__activation_checkpointing=str(before.activation_checkpointing).lower())
    assert same.micro_batch < before.micro_batch and "ran out of memory in an earlier run" in same.reasons["micro_batch"]
    forced = {"train__micro_batch": before.micro_batch, "train__activation_checkpointing": str(before.activation_checkpointing).lower()}
    assert any("ran out of memory" in warning for warning in plan(**forced).warnings), "a person who insists is warned"
    other = History(tuple(row.model_copy(update={"gpu": "Other"}) for row in history.read().rows))
    setup = Setup.model_validate(before.setup)
    ended = history.read().rows[0]
    assert history.read().most_tokens("Card", "a/model", setup, rank=16, packed=False) == ended.tokens - 1 > 0
    assert other.most_tokens("Card", "a/model", setup, rank=16, packed=False) is None
    more = setup.model_copy(update={"activation_checkpointing": "offload"})
    assert history.read().most_tokens("Card", "a/model", more, rank=16, packed=False) is None, "what keeps less may still fit"


def test_the_time_comes_from_earlier_runs_of_like_size() -> None:
    made = plan()
    assert made.seconds and made.steps and made.seconds_range
    record(attempt(made, tokens_per_second=4000.0))
    after = plan()
    assert after.seconds == pytest.approx(made.steps * 16 * 500 / 4000) and "1 earlier attempt on Card" in after.reasons["seconds"]
    assert after.seconds_range and after.seconds_range[1] / after.seconds < made.seconds_range[1] / made.seconds, "measured is surer than guessed"
    record(attempt(made, tokens_per_second=10.0, flops_per_token=1e6))
    assert plan().seconds == after.seconds, "a tiny model leaves a GPU idle, and says nothing of a large one"
