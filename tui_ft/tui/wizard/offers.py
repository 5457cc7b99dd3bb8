"""What the dataset step offers to choose from: datasets on this machine, and the answers to what the data leave open."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option
from textual.worker import Worker

from tui_ft import units
from tui_ft.text import one_line, visible
from tui_ft.tui import hub
from tui_ft.tui.text import MUTED, content, line
from tui_ft.tui.widgets.options import Narrowed, Options, by_name_and_size
from tui_ft.tui.wizard.finding import Finding

if TYPE_CHECKING:
    from tui_ft.data.preview import Preview

ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt", ".arrow", ".gz")
_MOST_ENTRIES = 2000
_MOST_FILES = 50
_CELL = 100


class Offers(Vertical):
    """Shown while no dataset is chosen: files in and below the current folder, and what the Hub's cache holds."""

    def __init__(self) -> None:
        super().__init__(id="offers", classes="list")
        self.border_title = "Datasets on this machine"

    def compose(self) -> ComposeResult:
        yield Narrowed(Options(id="datasets"))

    def on_mount(self) -> None:
        self._list()

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        from tui_ft.tui.screen import TuiScreen

        if isinstance(self.screen, TuiScreen):
            self.screen.tui.worker_failed(event)

    @work(exclusive=True, group="cached", exit_on_error=False)
    async def _list(self) -> None:
        listed = self.query_one("#datasets", Options)
        files = local_files(Path.cwd())
        here = [Option(Content.assemble(line(f"./{path}", style="bold"), (f"  {units.size(size)}", MUTED)), f"./{path}") for path, size in files]
        listed.offer([*here, Option(Content.styled("looking into the Hub's cache …", MUTED), disabled=True)])
        answer = await hub.cached("dataset")
        if not self.is_mounted:
            return
        hits = answer.value.hits if answer.value else []
        cached = [
            Option(Content.assemble(line(hit.name, style="bold"), (f"  {units.size(hit.cached_bytes)}, cached", MUTED)), hit.name) for hit in hits
        ]
        nothing = "" if here or cached else "No data file here, none in the Hub's cache. A path may be typed above; F3 searches the Hub."
        note = answer.error or nothing
        sizes = {f"./{path}": size for path, size in files} | {hit.name: hit.cached_bytes for hit in hits}
        listed.offer([*here, *cached, *([Option(content(note, MUTED), disabled=True)] if note else [])], by_name_and_size(sizes))


def local_files(folder: Path) -> list[tuple[Path, int]]:
    """Data files in a folder and one below it, with their sizes in bytes; a folder of a million entries costs no more than one of thousands."""
    found: list[tuple[Path, int]] = []
    below: list[Path] = []
    seen = _collect(folder, folder, found, below, 0)
    for place in sorted(below)[:_MOST_FILES]:
        seen = _collect(place, folder, found, [], seen)
    return sorted(found, key=lambda pair: (len(pair[0].parts), str(pair[0])))[:_MOST_FILES]


def _collect(place: Path, root: Path, found: list[tuple[Path, int]], below: list[Path], seen: int) -> int:
    try:
        with os.scandir(place) as entries:
            for entry in entries:
                seen += 1
                if seen > _MOST_ENTRIES:
                    break
                if entry.name.startswith(".") or visible(entry.name) != entry.name:
                    continue
                if entry.is_dir():
                    below.append(Path(entry.path))
                elif entry.name.lower().endswith(ENDINGS) and entry.is_file():
                    found.append((Path(entry.path).relative_to(root), entry.stat().st_size))
    except OSError:  # a folder that may not be read holds nothing to offer
        pass
    return seen


@dataclass(frozen=True)
class Question:
    """What the data leave open, as their error tells."""

    part: str
    """A part of the conversation, or format, config, split."""
    choices: tuple[str, ...]
    """Foreign text."""
    samples: dict[str, str]
    """A value of each choice that is a column."""

    @property
    def text(self) -> str:
        named = {"format": "How do these rows hold a conversation?", "config": "Which configuration?", "split": "Which split to learn from?"}
        answers = {"output": "Which column is the answer?", "completion": "Which column is the answer?", "prompt": "Which column is the question?"}
        return named.get(self.part) or answers.get(self.part) or f"Which column is the {one_line(self.part, 40)}?"


def question_of(found: Finding[Preview]) -> Question | None:
    """What the error of a preview leaves to choose; None where there is nothing."""
    told = found.details.get("choices")
    if found.busy or not isinstance(told, dict) or not isinstance(told.get("columns"), list):
        return None
    rows: Any = found.details.get("rows_shown")
    first = rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else {}
    choices = tuple(str(choice) for choice in told["columns"])
    return Question(str(told.get("part")), choices, {choice: str(first[choice]) for choice in choices if choice in first})


class Choices(Vertical):
    """One question with its answers, a line each."""

    @dataclass
    class Chosen(Message):
        part: str
        choice: str

    def __init__(self) -> None:
        super().__init__(id="choices", classes="list")
        self._question: Question | None = None

    def compose(self) -> ComposeResult:
        yield Options(id="answers")

    def show(self, question: Question | None) -> None:
        """Ask it, once; nobody who is typing elsewhere is interrupted."""
        self.display = question is not None
        if question is None or question == self._question:
            return
        self._question = question
        self.border_title = question.text
        listed = self.query_one(Options)
        listed.clear_options()
        listed.add_options([Option(_choice(choice, question.samples.get(choice)), str(number)) for number, choice in enumerate(question.choices)])
        listed.highlighted = 0
        if self.screen.focused is None or self.screen.focused.id == "next":
            self.call_after_refresh(listed.focus)

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        if self._question:
            self.post_message(self.Chosen(self._question.part, self._question.choices[event.option_index]))


def _choice(choice: str, sample: str | None) -> Content:
    return Content.assemble(line(choice, 40, "bold"), line(f"  {sample}" if sample else "", _CELL, MUTED))
