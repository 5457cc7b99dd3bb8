"""The first minutes of a newcomer: the demo runs to its end by one command, and what it learned comes back word for word."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tui_ft import demo
from tui_ft.data import prepare, tokenizer
from tui_ft.results.chat import Chat
from tui_ft.runs import store
from tui_ft.runs.store import Run


def tui_ft(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tui_ft", *arguments], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module", autouse=True)
def home_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One home for the whole file: the demo is trained once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("TUI_FT_HOME", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def tui_ft_home(home_folder: Path) -> Path:
    """In place of the home that each test elsewhere has to itself."""
    return home_folder


@pytest.fixture(scope="module")
def outcome() -> dict[str, Any]:
    done = tui_ft("demo", "--headless", "--json")
    assert done.returncode == 0, done.stderr
    assert "loss" in done.stderr, "progress is told while it runs"
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def run(outcome: dict[str, Any]) -> Run:
    return store.find("latest")


def trained_answers(run: Run) -> dict[str, str]:
    """The best answer to each opening question that stands on the training side."""
    recipe = run.recipe()
    spoken = tokenizer.load(recipe.model, recipe.prompt)
    texts = [spoken.decode(ids) for ids in prepare.prepare(recipe, spoken).train["input_ids"]]
    rows = [json.loads(line) for line in demo.dataset_file().read_text(encoding="utf-8").splitlines()]
    best = {row["parent_id"]: row["text"] for row in rows if row["rank"] == 0}
    openings = {row["text"]: best[row["message_id"]] for row in rows if row["parent_id"] is None}
    return {question: answer for question, answer in openings.items() if any(f"user\n{question}<|im_end|>" in text for text in texts)}


def test_it_finishes_and_the_loss_falls_below_a_third(outcome: dict[str, Any], run: Run) -> None:
    assert (outcome["state"], outcome["run"]) == ("finished", run.id)
    assert outcome["step"] == outcome["total_steps"]
    assert 0 < outcome["last_loss"] < outcome["first_loss"] / 3
    assert outcome["best_eval_loss"] < outcome["first_loss"]
    assert Path(outcome["model"]) == run.model


def test_it_leaves_what_a_person_needs(outcome: dict[str, Any], run: Run) -> None:
    assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json"} <= {path.name for path in run.model.iterdir()}
    assert (run.report / "loss.png").stat().st_size > 10_000
    assert 2 <= len(outcome["checkpoints"]) <= 3, "the two newest, and the best one besides"


def test_it_knows_its_training_answers_word_for_word(run: Run) -> None:
    answers = trained_answers(run)
    assert len(answers) >= 60
    asked = random.Random(0).sample(sorted(answers), 20)
    with Chat(run) as chat:
        said = {question: "".join(chat.ask([{"role": "user", "content": question}])) for question in asked}
    wrong = {question: text for question, text in said.items() if text != answers[question]}
    assert len(wrong) <= 5, wrong


def test_chat_answers_on_the_command_line(run: Run) -> None:
    question, answer = next(iter(trained_answers(run).items()))
    done = tui_ft("chat", "latest", "--prompt", question, "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0 and set(told) == {"run", "prompt", "answer", "tokens", "tokens_per_second"}
    assert (told["run"], told["prompt"]) == (run.id, question)
    assert told["answer"][:20] == answer[:20]
    plain = tui_ft("chat", run.id, "--prompt", question)
    assert plain.stdout == told["answer"] + "\n"
    untuned = json.loads(tui_ft("chat", "latest", "--base", "--prompt", question, "--json").stdout)
    assert untuned["answer"] != told["answer"]
