"""What the wizard tells about itself: how each step stands, what it is doing, what enter does, what cannot be done now, what a field is for."""

from __future__ import annotations

from textual.content import Content
from textual.widget import Widget
from textual.widgets import OptionList

from tui_ft.recipe import Plan
from tui_ft.tui.draft import REQUIRED, Draft
from tui_ft.tui.text import MUTED, content
from tui_ft.tui.widgets.field import Field
from tui_ft.tui.widgets.length_chart import LengthChart
from tui_ft.tui.widgets.stepper import State
from tui_ft.tui.widgets.token_view import TokenView
from tui_ft.tui.wizard.backstage import Backstage
from tui_ft.tui.wizard.dataset import DatasetStep, known_columns
from tui_ft.tui.wizard.finding import Work
from tui_ft.tui.wizard.model import ModelStep
from tui_ft.tui.wizard.prompt import PromptStep
from tui_ft.tui.wizard.resolved import resolved
from tui_ft.tui.wizard.review import ReviewStep
from tui_ft.tui.wizard.step import Step
from tui_ft.tui.wizard.walking import OF_A_STEP, OF_SAMPLES

IN_A_LIST = "Enter takes the highlighted line; space as well where lines are switched on and off."
IN_THE_TOKENS = "n and p go from sample to sample; L, S and T to the longest, the shortest, the next one cut; / searches; v goes on to the lengths."
IN_THE_LENGTHS = "← → or - + move the maximum, with shift or by < > to a power of two. Right of the line is too long; v goes back to the fields."
OF_THE_REVIEW = ("start", "queue", "save_preset")
"""The actions that belong to the last step."""


def step_state(step: type[Step], draft: Draft, backstage: Backstage, seen: bool) -> State:
    """The mark of a step; what must be chosen is missing only once the step was `seen`."""
    wrong = step.problems(draft)
    if wrong:
        return "open" if all(wrong[key] == REQUIRED.get(key) for key in wrong) and not seen else "missing"
    if _warns(step, backstage):
        return "warns"
    return "open" if step is ReviewStep else "done"


def _warns(step: type[Step], backstage: Backstage) -> bool:
    if step is ModelStep:
        return bool(backstage.facts.error)
    found, section = backstage.preview, {DatasetStep: "data", PromptStep: "prompt"}.get(step)
    told = found.value.findings if found.value else []
    wrong = any(finding.severity == "error" and finding.where.partition(".")[0] == section for finding in told)
    return wrong or (step is DatasetStep and bool(found.error))


def note(draft: Draft, backstage: Backstage, width: int) -> Content:
    """What is being looked up and how far it is, in as many words as there is room for; else what the draft began as."""
    if backstage.preview.busy:
        return _under_way("looking at the data", "data", backstage.preview.work, width)
    if backstage.exact.busy:
        return _under_way("counting all rows", "all rows", backstage.exact.work, width)
    if backstage.facts.busy:
        return Content.styled("looking at the model …", MUTED)
    begun = f"from {draft.origin}" if draft.origin else "a new recipe"
    return content(f"{begun}{', changed' if draft.changed else ''}", MUTED)


def _under_way(what: str, short: str, work: Work, width: int) -> Content:
    told, pace = work.text(), work.pace
    if not told:
        return Content.styled(f"{what} … x stops", MUTED)
    share = f"{100 * pace.share:.0f} %" if pace.share is not None else f"{pace.done:,}"
    forms = [f"{what}: {told} · x stops", f"{what}: {pace.text()} · x stops", f"{short}: {pace.text()} · x stops", f"{short}: {share} · x stops"]
    return Content.styled(next((form for form in forms if len(form) <= width), forms[-1]), MUTED)


def hint(focused: Widget | None, following: type[Step] | None) -> str:
    """What the keys do where no field is focused."""
    for kind, words in ((OptionList, IN_A_LIST), (TokenView, IN_THE_TOKENS), (LengthChart, IN_THE_LENGTHS)):
        if isinstance(focused, kind):
            return words
    return way_on(following) if focused and focused.id == "next" else ""


def way_on(following: type[Step] | None) -> str:
    """What enter does on Next; `following` is None at the last step."""
    if following is None:
        return "Enter checks everything once more and starts the run."
    return f"Enter goes on to {following.TITLE}. Tab and the arrow keys reach the fields; escape leaves and keeps the draft."


def belongs(action: str, step: type[Step]) -> bool:
    """Whether an action is of the open step, or of all of them."""
    return (action not in OF_THE_REVIEW or step is ReviewStep) and OF_A_STEP.get(action, step) is step


def why_not(action: str, draft: Draft, backstage: Backstage, step: type[Step], *, first: bool, last: bool) -> str:
    """Why an action cannot be taken at this step; empty where it can."""
    if action == "next" and last:
        return "this is the last step; s starts the run, u puts it into the queue"
    if action == "back" and first:
        return "this is the first step"
    if not belongs(action, step):
        return f"it belongs to the step {ReviewStep.TITLE if action in OF_THE_REVIEW else OF_A_STEP[action].TITLE}"
    if action == "copy_command" and not draft.command():
        return "there is no command until this is saved as a preset"
    seen = backstage.preview.value
    if action in OF_SAMPLES and not (seen and seen.shelf):
        return "there are no samples yet"
    if action == "columns" and not known_columns(backstage):
        return "no row has been read yet"
    if action == "count" and not _countable(backstage):
        return "all rows are counted" if seen else "nothing is being looked at"
    return ""


def _countable(backstage: Backstage) -> bool:
    found, seen = backstage.preview, backstage.preview.value
    return found.busy or backstage.exact.busy or found.stopped or bool(found.error) or (seen is not None and seen.sampled is not None)


def field_help(field: Field, draft: Draft, plan: Plan | None) -> str:
    """What the help says of a field."""
    lines = [f"{field.spec.label}   ({field.key})", field.spec.help]
    stands_for = resolved(field.key, draft, plan)
    if plan and stands_for:
        reason = plan.reasons.get(field.key.rpartition(".")[2], "")
        lines.append(f"auto is {stands_for} here" + (f": {reason}" if reason else ""))
    lines += [f"Accepts: {', '.join(field.spec.choices)}"] if field.spec.choices else []
    lines += [f"It began as: {draft.base_text(field.key) or 'nothing'} (F5 gives it back)"]
    return "\n".join(lines)
