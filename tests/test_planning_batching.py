"""How samples become batches: by the padding that a person would pay for, with the tokens of a step held."""

from __future__ import annotations

import random
from statistics import fmean
from typing import Any

import pytest
from forecasts import FACTS, GIB, fit
from test_planning_forecast import lengths, machine, recipe

from tui_ft.data.lengths import Entry
from tui_ft.hardware import Hardware
from tui_ft.planning import batching
from tui_ft.planning.history import History, Measured
from tui_ft.planning.model_facts import ModelFacts
from tui_ft.planning.planner import make_plan, setups_wanted
from tui_ft.recipe.plan import Plan

PACKS = FACTS.model_copy(update={"packs": True})
CHATS: tuple[Entry, ...] = tuple((length, 1, 40) for length in (20, 30, 40, 60, 80, 100, 150, 200, 400, 1000))
ALIKE: tuple[Entry, ...] = tuple((length, 1, 50) for length in (950, 970, 990, 1000))
MEAN = 208


def plan(
    table: tuple[Entry, ...] = (), on: Hardware | None = None, facts: ModelFacts = PACKS, history: History | None = None, **settings: Any
) -> Plan:
    on, wanted = on or machine(60), recipe(**settings)
    told = {setup: fit(setup) for setup in setups_wanted(wanted, facts=facts, hardware=on)}
    return make_plan(wanted, facts=facts, hardware=on, data=lengths(*table, wanted=wanted) if table else None, forecasts=told, history=history)


def test_short_samples_are_packed_on_a_gpu_and_a_step_keeps_its_tokens() -> None:
    made = plan(CHATS)
    assert made.packing and made.attention == "varlen" and not made.length_grouped and made.micro_batch == 1
    assert made.row_length and made.row_length >= 1000
    assert made.row_length * made.accumulation == pytest.approx(16 * MEAN, rel=0.05)
    assert "padded" in made.reasons["packing"] and "mean tokens of 16 samples" in made.reasons["accumulation"]
    assert plan(CHATS, train__effective_batch=64).tokens_per_step == pytest.approx(64 * MEAN, rel=0.02)


@pytest.mark.parametrize("effective", [1, 2, 4, 16, 48, 256])
@pytest.mark.parametrize("free", [22, 40, 150])
def test_a_row_holds_the_longest_sample_and_no_more_than_a_step(effective: int, free: int) -> None:
    made = plan(CHATS, on=machine(free), train__effective_batch=effective, train__packing="true")
    assert made.row_length and 1000 <= made.row_length <= max(1000, effective * MEAN * 1.06, batching.LONGEST_ROW)
    if effective * MEAN > 2000:
        assert made.row_length * made.accumulation == pytest.approx(effective * MEAN, rel=0.2)


def test_on_a_cpu_passes_stay_small() -> None:
    made = plan(CHATS, on=Hardware())
    assert made.packing and made.row_length and 1000 <= made.row_length <= 2048
    assert made.row_length * made.accumulation == pytest.approx(16 * MEAN, rel=0.2)


def test_less_memory_makes_shorter_rows_or_recomputes() -> None:
    roomy, tight = plan(CHATS, on=machine(150), train__effective_batch=256), plan(CHATS, on=machine(24), train__effective_batch=256)
    assert roomy.fits and tight.fits and roomy.row_length and tight.row_length
    assert tight.row_length < roomy.row_length or (tight.activation_checkpointing and not roomy.activation_checkpointing)
    assert tight.memory.total_bytes <= 24 * GIB < roomy.memory.total_bytes


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"table": ALIKE}, "much the same length"),
        ({"facts": FACTS}, "not known to keep packed samples apart"),
        ({"train__precision": "fp32"}, "16 bits"),
        ({"train__effective_batch": 2}, "fewer tokens than the longest"),
        ({"table": ()}, "until the samples' lengths are known"),
        ({"train__packing": "false"}, "set in the recipe"),
    ],
)
def test_where_packing_does_not_pay_or_cannot_be_it_is_off_and_says_why(changes: dict[str, Any], why: str) -> None:
    made = plan(**{"table": CHATS, **changes})
    assert not made.packing and made.row_length is None and made.attention == "sdpa" and why in made.reasons["packing"]
    assert made.micro_batch * made.accumulation == made.effective_batch
    assert made.length_grouped is ("table" not in changes or not changes["table"]) and made.reasons["length_grouped"]


def test_the_recipe_has_the_last_word_on_like_lengths() -> None:
    assert not plan(CHATS, facts=FACTS, train__length_grouped="false").length_grouped
    assert plan(ALIKE, train__length_grouped="true").length_grouped
    assert not plan(CHATS, train__length_grouped="true").length_grouped, "packed rows are of one length"


def test_a_family_that_cannot_pack_is_planned_as_it_will_be_trained() -> None:
    made = plan(CHATS, facts=FACTS, train__packing="true")
    assert made.packing and made.length_grouped and made.row_length is None and made.micro_batch * made.accumulation == 16
    assert any("read one another" in warning for warning in made.warnings)


def test_packed_rows_that_ran_out_of_memory_are_not_tried_again() -> None:
    before = plan(CHATS, train__effective_batch=256, train__activation_checkpointing="false")
    ended = Measured(
        gpu="Card", model="a/model", outcome="out-of-memory", rows=1, length=before.row_length, rank=16, packed=True,
        setup=before.setup, largest_rows=1, largest_length=3000,
    )  # fmt: skip
    after = plan(CHATS, train__effective_batch=256, train__activation_checkpointing="false", history=History((ended,)))
    assert before.row_length and after.row_length and after.row_length < 3000 < before.row_length
    assert "ran out of memory" in after.reasons["micro_batch"] and after.tokens_per_step == before.tokens_per_step


def test_shorter_packed_rows_are_among_the_alternatives() -> None:
    made = plan(CHATS, train__effective_batch=256)
    shorter = [option for option in made.options if "packed rows" in option.words]
    assert shorter
    for option in shorter:
        other = plan(CHATS, train__effective_batch=256, train__micro_batch=option.changes["train.micro_batch"])
        assert other.row_length and f"{other.row_length:,}" in option.words


def test_fill_is_the_share_of_real_tokens_in_batches_as_they_come() -> None:
    dice = random.Random(7)
    values = sorted(round(dice.lognormvariate(5, 1)) + 1 for _ in range(50))
    longest = [max(dice.choices(values, k=8)) for _ in range(20_000)]
    assert batching.fill(values, 8) == pytest.approx(fmean(values) / fmean(longest), rel=0.02)
    assert batching.fill(values, 1) == pytest.approx(1) and batching.fill([], 8) is None
    assert fmean(values) <= batching.grouped(values) <= batching.padded(values, 8)
