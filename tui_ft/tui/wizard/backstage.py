"""What the wizard finds out while the person chooses: the data as the model will see it, the model's structure, the plan.

Each is asked for again only when a part of the recipe that it depends on has changed; what is slow runs in a child process.
"""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from tui_ft import demo
from tui_ft.errors import ConfigError, TuiFtError
from tui_ft.recipe import Plan, Recipe
from tui_ft.tui import child

if TYPE_CHECKING:
    from tui_ft import findings
    from tui_ft.data.preview import Preview
    from tui_ft.planning.data_facts import DataFacts
    from tui_ft.planning.hardware import Hardware
    from tui_ft.planning.model_facts import ModelFacts

T = TypeVar("T")
SAMPLES = 3


@dataclass
class Finding(Generic[T]):
    """Something that is looked up: the newest value, whether a newer one is on its way, or why there is none."""

    value: T | None = None
    busy: bool = False
    error: str = ""
    hint: str = ""
    key: str = ""
    """What it was asked for, so that the same is not asked twice."""


class Backstage:
    """Holds the findings of one wizard. The methods that wait are meant for workers that can be cancelled."""

    def __init__(self) -> None:
        self.preview: Finding[Preview] = Finding()
        self.facts: Finding[ModelFacts] = Finding()
        self.plan: Finding[Plan] = Finding()
        self.hardware: Hardware | None = None
        self._files: dict[str, tuple[int, int]] = {}
        """The local files that the preview read, as they were."""

    def preview_key(self, recipe: Recipe) -> str:
        return json.dumps(
            [recipe.model.model_dump(mode="json"), recipe.data.model_dump(mode="json"), recipe.prompt.model_dump(mode="json"), recipe.train.seed]
        )

    def facts_key(self, recipe: Recipe) -> str:
        return recipe.model.model_dump_json()

    def expect_preview(self, recipe: Recipe) -> None:
        """From now on it is on its way, for all who look."""
        self.preview.busy, self.preview.key = True, self.preview_key(recipe)

    def expect_facts(self, recipe: Recipe) -> None:
        self.facts.busy, self.facts.key = True, self.facts_key(recipe)

    async def load_preview(self, recipe: Recipe, seconds: float = 300.0) -> None:
        """Ask the data child; the old value stays in sight meanwhile. `expect_preview` comes first."""
        self._files = await asyncio.to_thread(_local_files, recipe)
        try:
            answer = await child.ask("tui_ft.data.preview", "-n", str(SAMPLES), stdin=recipe.model_dump_json(), seconds=seconds)
        except OSError as error:
            answer = child.Answer(error=f"the data cannot be looked at: {error.strerror}")
        self.preview.busy = False
        self.preview.error, self.preview.hint = answer.error, answer.hint
        self.preview.value = _read_preview(answer.value) if not answer.error else None

    async def load_facts(self, recipe: Recipe) -> None:
        """Look at the model's config: from the cache at once, else some seconds in a child of the planner's own."""
        from tui_ft.planning import model_facts

        cancelled = threading.Event()  # the thread ends within a tenth of a second of it
        try:
            value = await asyncio.to_thread(model_facts.facts, recipe.model, cancelled=cancelled)
            self.facts.value, self.facts.error, self.facts.hint = value, "", ""
        except TuiFtError as error:
            self.facts.value, self.facts.error, self.facts.hint = None, error.message, error.hint
        finally:
            cancelled.set()
        self.facts.busy = False

    def make_plan(self, recipe: Recipe) -> None:
        """A few milliseconds; the machine is read once more at each plan, since others use it too."""
        from tui_ft.planning import hardware, planner

        self.hardware = hardware.read()
        facts = self.facts.value if self.facts.key == self.facts_key(recipe) else None
        data = self.data_facts(recipe)
        try:
            self.plan.value = planner.make_plan(recipe, facts=facts, hardware=self.hardware, rows=data.rows if data else None)
            self.plan.error = self.plan.hint = ""
        except ConfigError as error:
            self.plan.error, self.plan.hint = "; ".join(f"{problem.where}: {problem.message}" for problem in error.problems), error.problems[0].hint
        except TuiFtError as error:
            self.plan.error, self.plan.hint = error.message, error.hint

    def data_facts(self, recipe: Recipe) -> DataFacts | None:
        """What the preview found; None unless it is of this very recipe."""
        from tui_ft.planning.data_facts import DataFacts

        seen = self.preview.value
        if seen is None or self.preview.busy or self.preview.key != self.preview_key(recipe):
            return None
        return DataFacts.of(recipe, seen.kept, seen.sampled, seen.findings)

    def data_findings(self, recipe: Recipe) -> list[findings.Finding]:
        """Why a start would be refused for its data, as far as the preview of this very recipe tells."""
        from tui_ft import findings

        if self.preview.busy or self.preview.key != self.preview_key(recipe):
            return []
        if self.preview.error:
            return [findings.Finding("error", "data", self.preview.error, self.preview.hint)]
        facts = self.data_facts(recipe)
        return facts.errors if facts else []

    def data_as_it_is(self, recipe: Recipe) -> DataFacts | None:
        """As `data_facts`, and None too where a file has changed since; asks the disk."""
        facts = self.data_facts(recipe)
        return facts if facts and self._files == _local_files(recipe) else None


def is_here(recipe: Recipe) -> bool:
    """Whether model and data can be looked at without a network: then nobody has to ask for it."""
    return all(name == demo.NAME or Path(name).expanduser().exists() for name in (recipe.model.name, recipe.data.source))


def _local_files(recipe: Recipe) -> dict[str, tuple[int, int]]:
    """Size and time of change of what the preview reads: data, tokenizer, template; in folders as deep as data are looked for."""
    found = {}
    for name in (recipe.model.name, recipe.data.source, recipe.prompt.template):
        path = Path(name).expanduser()
        for file in (path, *path.glob("*"), *path.glob("*/*")):
            with suppress(OSError):
                state = file.stat()
                found[str(file)] = state.st_size, state.st_mtime_ns
    return found


def _read_preview(value: object) -> Preview | None:
    from tui_ft.data.preview import Preview

    return Preview.model_validate(value)
