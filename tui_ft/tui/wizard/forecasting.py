"""The wizard's forecast of memory: what is known is answered at once, what is missing is traced behind everything else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from tui_ft.errors import TuiFtError
from tui_ft.recipe import Plan, Recipe
from tui_ft.tui.widgets.memory_bar import MemoryView
from tui_ft.tui.wizard.finding import Finding

if TYPE_CHECKING:
    from tui_ft.hardware import Hardware
    from tui_ft.planning.data_facts import DataFacts
    from tui_ft.planning.forecast import Fit, Setup
    from tui_ft.planning.history import History
    from tui_ft.planning.model_facts import ModelFacts


class Forecasting:
    """Of one wizard. `found` says whether a trace is under way and how far; its value is how many setups of this model are known."""

    def __init__(self) -> None:
        self.found: Finding[int] = Finding()
        self._traced: tuple[Setup, ...] = ()
        """What the trace that is under way, or was the last, is asked for."""
        self._missing: tuple[Setup, ...] = ()
        self._asked: tuple[tuple[Setup, ...], ModelFacts | None] | None = None
        """What `_known` and `_missing` were looked up for."""
        self._known: dict[Setup, Fit] = {}
        self._model = ""
        self._history: History | None = None
        self._before: Plan | None = None
        """The newest plan of this model whose memory was more than a lower bound."""

    def plan(self, recipe: Recipe, facts: ModelFacts | None, machine: Hardware, data: DataFacts | None) -> Plan:
        """The plan with all that is known at this moment: some milliseconds.

        Raises:
            ConfigError: this machine or model cannot do what the recipe asks for.
        """
        from tui_ft.planning import forecasts, history, planner

        if self._history is None:
            self._history = history.read()  # once a wizard: a file a run
        model = recipe.model.model_dump_json()
        if model != self._model:
            self._model, self._before, self._traced, self._asked, self.found = model, None, (), None, Finding()
        wanted = planner.setups_wanted(recipe, facts=facts, hardware=machine)
        asked = (tuple(wanted), facts)
        if asked != self._asked:  # a file each: for a key that is held down, that would be most of the time
            self._asked = asked
            self._known = forecasts.known(recipe.model, facts, wanted, machine.gpus[0].name if machine.gpus else "")
            self._missing = tuple(forecasts.missing(recipe.model, wanted))
            self.found.value = len(self._known)
        made = planner.make_plan(recipe, facts=facts, hardware=machine, data=data, forecasts=self._known, history=self._history)
        if made.tier != "lower-bound":
            self._before = made
        return made

    def wants_trace(self) -> bool:
        """Whether something is missing that nobody is asked for, or was asked for in vain."""
        return bool(set(self._missing) - set(self._traced))

    def expect(self) -> None:
        """From now on a trace of all that is missing is on its way."""
        self._traced = self._missing
        self.found.expect(self._model)
        self._tell(self._missing)

    async def trace(self, recipe: Recipe, on_arrival: Callable[[], None]) -> None:
        """Ask the tracing child; each answer is kept in the planner's cache, and told. Cancelled, it ends the child. `expect` comes first."""
        from tui_ft.planning import forecasts

        loop, cancelled, waiting = asyncio.get_running_loop(), threading.Event(), list(self._traced)
        found, wanted = self.found, self._traced

        def arrived(setup: Setup, _: Fit | str) -> None:
            """In the event loop: the thread that reads the child only posts."""
            if setup in waiting:
                waiting.remove(setup)
            if self.found is found:
                self._asked = None
                self._tell(waiting)
                on_arrival()

        def post(setup: Setup, told: Fit | str) -> None:
            loop.call_soon_threadsafe(arrived, setup, told)

        try:
            await asyncio.to_thread(forecasts.trace, recipe.model, wanted, on_fit=post, on_refusal=post, cancelled=cancelled)
        except TuiFtError as error:
            found.error, found.hint = f"the memory cannot be forecast: {error.message}", error.hint
        finally:
            cancelled.set()  # the child is ended within a tenth of a second of it
        found.busy = False

    def _tell(self, waiting: Iterable[Setup]) -> None:
        left, all_ = len(tuple(waiting)), len(self._traced)
        self.found.work.report("estimating", all_ - left, all_)

    def shown(self, plan: Plan | None) -> MemoryView | None:
        """The memory to show: the plan's own, or while it is being estimated the one before, told to be so."""
        if plan is None:
            return None
        if not self.found.busy and not self.wants_trace():
            return MemoryView(plan)
        note = f"estimating … {self.found.work.pace.done} of {len(self._traced)}" if self.found.busy else "estimating …"
        if plan.tier == "lower-bound":
            return MemoryView(self._before, note, faded=True) if self._before else MemoryView(plan, note)
        return MemoryView(plan)
