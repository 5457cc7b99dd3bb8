"""Two cards, thirty runs that wait for them, supervisors killed at random: no card is given twice, and nobody who waits is passed over."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress

from ledger import SEED, Row, scaled
from waiting import Waiters, until

from tui_ft.runs.summary import summarize


def test_no_card_twice(waiters: Waiters, row: Row) -> None:
    row.promise, row.fault = "one GPU is never given twice", "supervisors killed at random, waiting and training, two cards"
    chance = random.Random(SEED)
    waiters.driver()
    waiters.cards(10, 10)
    runs = [waiters.start(card=number, hold=True) for number in range(2)]
    until(lambda: len(waiters.began()) == 2)
    runs += [waiters.start(card=number % 2) for number in range(scaled(28, 8))]
    killed: dict[str, float] = {}
    victims = chance.sample(runs[2:], len(runs) // 4)
    for run in [*victims, *runs[:2]]:  # while they wait; then the two at work, so that the others get their cards at once
        owner = run.owner()
        assert owner and owner[0].is_alive()
        killed[run.id] = time.monotonic()
        os.kill(owner[0].pid, signal.SIGKILL)
        row.cases += 1
    for run in chance.sample([run for run in runs if run.id not in killed], len(runs) // 4):
        time.sleep(chance.uniform(0, 0.4))  # waiting, at work, or done by then
        owner = run.owner()
        if owner and owner[0].is_alive():
            with suppress(ProcessLookupError):
                os.kill(owner[0].pid, signal.SIGKILL)
                killed[run.id] = time.monotonic()
                row.cases += 1
    until(lambda: all(summarize(run).state in ("finished", "lost") for run in runs), 120)
    assert all(summarize(run).state == "finished" for run in runs if run.id not in killed)
    told = waiters.told()
    ends = {item["run"]: item["t"] for item in told if item["what"] == "end"} | killed
    begun = [(item["t"], ends[item["run"]], run.plan().gpu.uuid) for item in told if item["what"] == "begin" for run in runs if run.id == item["run"]]
    for began, _, card in begun:
        assert sum(other <= began < end for other, end, same in begun if same == card) == 1, "two at once on one card"
    assert {card for _, _, card in begun} == {"GPU-0", "GPU-1"}
    row.note = f"{len(runs)} runs"
