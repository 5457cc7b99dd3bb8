"""What the wizard finds out while the person chooses: the data as the model will see it, the model's structure, the plan.

Each is asked for again only when a part of the recipe that it depends on has changed; what is slow runs in a child process.
"""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tui_ft import demo
from tui_ft.errors import ConfigError, TuiFtError
from tui_ft.recipe import Plan, Recipe
from tui_ft.tui import child
from tui_ft.tui.widgets.memory_bar import MemoryView
from tui_ft.tui.wizard.finding import Finding
from tui_ft.tui.wizard.forecasting import Forecasting
from tui_ft.tui.wizard.shelf import Shelf

if TYPE_CHECKING:
    from tui_ft import findings
    from tui_ft.data.lengths import Entry
    from tui_ft.data.preview import Preview
    from tui_ft.hardware import Hardware
    from tui_ft.planning.data_facts import DataFacts
    from tui_ft.planning.model_facts import ModelFacts

SAMPLES = 3
"""Rows and samples in the answer itself; those to walk through are on the shelf."""


class Backstage:
    """Holds the findings of one wizard. The methods that wait are meant for workers that can be cancelled."""

    def __init__(self) -> None:
        self.preview: Finding[Preview] = Finding()
        self.exact: Finding[Preview] = Finding()
        """The preview of all rows, where the first answer was of the first ones only; once known it is the preview as well."""
        self.facts: Finding[ModelFacts] = Finding()
        self.plan: Finding[Plan] = Finding()
        self.forecasting = Forecasting()
        self.hardware: Hardware | None = None
        self.disk_free: int | None = None
        """Bytes, where the runs are written."""
        self.moved = ""
        """That the free memory of the plan's GPU is not what it was at the plan before, in words."""
        self.checked: list[findings.Finding] = []
        """What the newest preflight said besides the data's own findings."""
        self.sample_at = 0
        """The sample that is looked at, by its place on the shelf."""
        self.shelf_file: Path | None = None
        """Where the samples of `preview.value` stand, as its `shelf` lists them."""
        self._free: dict[str, int] = {}
        """By uuid, the free memory of each GPU that was last told of."""
        self._shelf = Shelf()
        self._counting = ""
        """The `table_key` of what `exact` was asked for."""
        self._files: dict[str, tuple[int, int]] = {}
        """The local files that the preview read, as they were."""

    def close(self) -> None:
        """Nobody looks any more."""
        self._shelf.close()

    def preview_key(self, recipe: Recipe) -> str:
        return json.dumps(
            [recipe.model.model_dump(mode="json"), recipe.data.model_dump(mode="json"), recipe.prompt.model_dump(mode="json"), recipe.train.seed]
        )

    def table_key(self, recipe: Recipe) -> str:
        """What the table of lengths depends on: it answers every maximum."""
        return self.preview_key(recipe.model_copy(update={"prompt": recipe.prompt.model_copy(update={"max_length": 0, "overlong": ""})}))

    def facts_key(self, recipe: Recipe) -> str:
        return recipe.model.model_dump_json()

    def expect_preview(self, recipe: Recipe) -> None:
        self.preview.expect(self.preview_key(recipe))

    def expect_count(self, recipe: Recipe) -> None:
        self._counting = self.table_key(recipe)
        self.exact.expect(self.preview_key(recipe))

    def expect_facts(self, recipe: Recipe) -> None:
        self.facts.expect(self.facts_key(recipe))

    def counts(self, recipe: Recipe) -> bool:
        """Whether `exact` is, or is about to be, of this recipe's data, whatever the maximum."""
        return self._counting == self.table_key(recipe)

    def wants_count(self, recipe: Recipe) -> bool:
        """Whether only a sample of this recipe's data is known, and nothing is under way to know it all."""
        known, asked = self.preview, self.preview_key(recipe)
        sampled = known.value is not None and known.value.sampled is not None and not known.busy and known.key == asked
        return sampled and not self.exact.busy and self.exact.key != asked and not (self.exact.stopped and self.counts(recipe))

    async def load_preview(self, recipe: Recipe, seconds: float = 300.0) -> None:
        """Ask the data child; the old value stays in sight meanwhile. `expect_preview` comes first."""
        await self._look(self.preview, recipe, "-n", str(SAMPLES), seconds=seconds)

    async def count_all(self, recipe: Recipe) -> None:
        """Ask for all rows, behind everything else; the answer takes the preview's place. `expect_count` comes first."""
        await self._look(self.exact, recipe, "-n", str(SAMPLES), "--exact", seconds=600.0, background=True)

    async def _look(self, found: Finding[Preview], recipe: Recipe, *options: str, seconds: float, background: bool = False) -> None:
        files = await asyncio.to_thread(_local_files, recipe)
        samples: Path | None = None
        try:
            samples = self._shelf.new_file()
            answer = await child.ask(
                "tui_ft.data.preview",
                *(*options, "--shelf", str(samples)),
                stdin=recipe.model_dump_json(),
                seconds=seconds,
                on_progress=found.work.report,
                background=background,
            )
            value = _read_preview(answer.value) if not answer.error else None
            found.busy = False
            found.value, found.error, found.hint, found.details = value, answer.error, answer.hint, answer.details
            if found is self.preview or (value is not None and found.key == self.preview.key and not self.preview.busy):
                self.preview.value, self._files = value, files
                self.shelf_file, samples = samples, self.shelf_file
        except OSError as error:
            found.busy, found.value = False, None
            found.error, found.hint, found.details = f"the data cannot be looked at: {error.strerror}", "", {}
        finally:
            self._shelf.drop(samples)

    def table(self, recipe: Recipe | None) -> tuple[list[Entry], int | None] | None:
        """The lengths of this recipe's samples, and of how many rows where not of all; None while nothing is known.

        Those of all rows hold whatever the maximum is, also while a preview of another maximum is on its way.
        """
        exact, seen = self.exact.value, self.preview.value
        if recipe is not None and exact is not None and not self.exact.busy and self.counts(recipe):
            return exact.length_table, exact.sampled
        return (seen.length_table, seen.sampled) if seen is not None else None

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
        from tui_ft import hardware, home

        self.read_machine(hardware.read())
        self.disk_free = hardware.free_disk(home.runs_folder())
        facts = self.facts.value if self.facts.key == self.facts_key(recipe) else None
        assert self.hardware is not None
        try:
            self.plan.value = self.forecasting.plan(recipe, facts, self.hardware, self.data_facts(recipe))
            self.plan.error = self.plan.hint = ""
        except ConfigError as error:
            self.plan.error, self.plan.hint = "; ".join(f"{problem.where}: {problem.message}" for problem in error.problems), error.problems[0].hint
        except TuiFtError as error:
            self.plan.error, self.plan.hint = error.message, error.hint

    def read_machine(self, now: Hardware) -> bool:
        """Take in a reading; whether the free memory of a GPU has moved since it was last told of, which `moved` then does."""
        from tui_ft import units
        from tui_ft.hardware import MOVED_BYTES

        told = []
        for gpu in now.gpus:
            before = self._free.setdefault(gpu.uuid, gpu.free_bytes)
            if abs(gpu.free_bytes - before) > MOVED_BYTES:
                told.append(f"GPU {gpu.index}: {units.size(gpu.free_bytes)} free now, {units.size(before)} before")
                self._free[gpu.uuid] = gpu.free_bytes
        self.hardware, self.moved = now, "; ".join(told) or self.moved
        return bool(told)

    def memory_shown(self) -> MemoryView | None:
        """What the panel shows of the plan's memory."""
        return self.forecasting.shown(self.plan.value)

    def data_facts(self, recipe: Recipe) -> DataFacts | None:
        """What the preview found; None unless it is of this very recipe."""
        from tui_ft.planning.data_facts import DataFacts

        seen = self.preview.value
        if seen is None or self.preview.busy or self.preview.key != self.preview_key(recipe):
            return None
        return DataFacts.of(recipe, seen.kept, seen.sampled, seen.findings, seen.length_table)

    def all_findings(self, recipe: Recipe | None) -> list[findings.Finding]:
        """Everything to know before a start, errors first: of the data, as far as the preview of this very recipe tells, and of the rest."""
        data = self.data_findings(recipe) if recipe is not None else []
        wrong = {finding.where.partition(".")[0] for finding in self.checked if finding.severity == "error"}
        if self.preview.error and wrong & {"data", "model", "prompt"}:
            data = []  # the same in two wordings helps nobody
        return sorted(dict.fromkeys([*data, *self.checked]), key=lambda finding: ("error", "warning", "ok").index(finding.severity))

    def data_findings(self, recipe: Recipe) -> list[findings.Finding]:
        """What there is to know of the data, as far as the preview of this very recipe tells."""
        from tui_ft import findings

        if self.preview.busy or self.preview.key != self.preview_key(recipe):
            return []
        if self.preview.error:
            return [findings.Finding("error", "data", self.preview.error, self.preview.hint)]
        return self.preview.value.findings if self.preview.value else []

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
