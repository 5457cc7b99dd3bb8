"""Every key of the terminal interface, once: bindings, footer, help and palette are made from this table.

Never bound: ctrl+h, ctrl+i, ctrl+j, ctrl+m (the terminal's own), ctrl+a and ctrl+b (prefixes of screen and tmux), alt keys
(unreliable over SSH).
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from textual.binding import Binding

from tui_ft import text

FORBIDDEN = ("ctrl+h", "ctrl+i", "ctrl+j", "ctrl+m", "ctrl+a", "ctrl+b", "ctrl+c")
REBOUND: dict[str, str] = {}
"""By id, the keys that the person has chosen in place of the table's."""


@dataclass(frozen=True)
class Key:
    """One action of one screen."""

    id: str
    """`screen.action`, stable: a keymap rebinds by it."""
    keys: str
    """Comma-separated; the first one is shown."""
    label: str
    """Two words at most, for the footer."""
    tooltip: str
    """One sentence, for help and palette."""
    show: bool = True
    """Whether the footer has room for it."""
    shown_as: str | None = None
    """How footer and help write the key, where Textual's own way is unclear."""
    priority: bool = False
    """Taken before the focused widget: only for keys that text entry has no use for."""
    listed: bool = True
    """Whether help names it; the palette always does."""
    call: str = ""
    """The action with its arguments, where it is not simply named as the id."""

    @property
    def action(self) -> str:
        """The method is `action_…` on the screen (group `app`: on the app)."""
        return self.call or self.id.rpartition(".")[2].replace("-", "_")

    @property
    def shown(self) -> str:
        """The key as help and palette write it, as the person has set it."""
        if self.id in REBOUND:
            return REBOUND[self.id].partition(",")[0]
        return self.shown_as or self.keys.partition(",")[0]

    def binding(self) -> Binding:
        return Binding(
            self.keys,
            self.action,
            self.label,
            show=self.show,
            key_display=self.shown_as,
            priority=self.priority,
            tooltip=self.tooltip,
            id=self.id,
        )


def _chart(screen: str) -> tuple[Key, ...]:
    """The keys of a chart over steps."""
    return (
        Key(f"{screen}.log-scale", "l", "Log y", "Switch the loss axis between linear and logarithmic.", show=False),
        Key(
            f"{screen}.zoom-in", "plus,equals_sign", "Zoom in", "Show half as many steps, around the cursor or the newest.", show=False, shown_as="+"
        ),
        Key(f"{screen}.zoom-out", "minus", "Zoom out", "Show twice as many steps.", show=False, shown_as="-"),
        Key(f"{screen}.pan-left", "less_than_sign", "Earlier", "Move what is shown to earlier steps.", show=False, shown_as="<"),
        Key(f"{screen}.pan-right", "greater_than_sign", "Later", "Move what is shown to later steps.", show=False, shown_as=">"),
        Key(f"{screen}.cursor-left", "left_square_bracket", "Cursor left", "A cursor with the values under it, to the left.", False, "["),
        Key(f"{screen}.cursor-right", "right_square_bracket", "Cursor right", "The cursor to the right.", False, "]"),
        Key(f"{screen}.all-steps", "0", "All steps", "Show all steps again, without a cursor.", show=False),
    )


TABLE: dict[str, tuple[Key, ...]] = {
    "app": (
        Key("app.help", "f1,question_mark", "Help", "Explain this screen, its keys and the focused field.", shown_as="?"),
        Key("app.glossary", "ctrl+g", "Glossary", "The words of the field, in a sentence or two each.", show=False),
        Key("app.quit", "ctrl+q", "Quit", "Leave tui-ft. Runs go on without it.", show=False),
    ),
    "home": (
        Key("home.open", "enter", "Open", "Look at the selected run, or start from the selected preset."),
        Key("home.new", "n", "New run", "Set up a new run in the wizard."),
        Key("home.demo", "d", "Demo", "Set up the demo: a small model that learns in about a minute, on any machine."),
        Key("home.chat", "c", "Chat", "Talk to the selected run's model."),
        Key("home.resume", "r", "Resume", "Go on with the selected run from its last checkpoint."),
        Key("home.delete", "x", "Delete", "Delete the selected run with its checkpoints and model, after a question."),
        Key("home.sooner", "K,shift+up", "Sooner", "Let the selected run go ahead in the queue.", show=False),
        Key("home.later", "J,shift+down", "Later", "Let the selected run go back in the queue.", show=False),
        Key("home.unqueue", "u", "Unqueue", "Take the selected run out of the queue, after a question; it can be resumed.", show=False),
        Key("home.mark", "space", "Mark", "Mark the selected run, to compare it with others; again, take the mark away.", show=False),
        Key("home.compare", "m", "Compare", "The marked runs on one chart, with the settings that differ.", False),
        Key("home.sort", "o", "Sort", "The runs by another order: newest, name, state, loss.", show=False),
        Key("home.filter", "slash", "Filter", "Show only the runs whose name or state holds a text; escape shows all.", shown_as="/"),
        Key("home.quit", "q", "Quit", "Leave tui-ft. Runs go on without it."),
    ),
    "dashboard": (
        Key("dashboard.pause", "p", "Pause", "Pause after the current step and keep the memory; the same key goes on."),
        Key("dashboard.free", "f", "Free", "Save, pause and free all memory; resuming starts from there."),
        Key("dashboard.resume", "r", "Resume", "Go on: at once if it waits, else from the last checkpoint."),
        Key("dashboard.checkpoint", "c", "Save", "Write a checkpoint after the current step."),
        Key("dashboard.learning-rate", "e", "Rate", "Change the learning rate while it runs."),
        Key("dashboard.stop", "s", "Stop", "Stop after the current step and save, after a question; the run can be resumed."),
        Key("dashboard.stop-now", "S", "Stop now", "Stop at once without saving, after a question.", show=False),
        *_chart("dashboard"),
        Key("dashboard.panel", "v", "View", "The next panel: log, checkpoints, samples.", show=False),
        Key("dashboard.search", "slash", "Search log", "Only the lines of the log that hold a text; escape shows all.", show=False, shown_as="/"),
        Key("dashboard.trouble", "w", "Trouble", "Only the lines of the log that warn or tell of a failure; again, all of them.", show=False),
        Key("dashboard.zip", "z", "Zip", "Pack the selected checkpoint into one file beside it.", show=False),
        Key("dashboard.verify", "V", "Verify", "Read all of the selected checkpoint and say whether it is whole.", show=False),
        Key("dashboard.delete-checkpoint", "x", "Delete", "Delete the selected checkpoint with its ZIP, after a question.", show=False),
        Key("dashboard.resume-from", "R", "Resume from", "Go back to the selected checkpoint and go on from there, after a question.", show=False),
        Key("dashboard.chat", "t", "Chat", "Talk to the model."),
        Key("dashboard.leave", "q,escape", "Leave", "Go back; training continues."),
    ),
    "compare": (
        *_chart("compare"),
        Key("compare.leave", "q,escape", "Leave", "Go back; nothing is changed."),
    ),
    "chat": (
        Key("chat.base", "ctrl+o", "Base", "Switch between the tuned and the untuned model.", priority=True),
        Key("chat.stop", "ctrl+x", "Stop", "End the answer that is being written.", priority=True),
        Key("chat.clear", "ctrl+l", "Clear", "Begin a new conversation.", priority=True),
        Key("chat.leave", "escape", "Leave", "End the model's process and go back."),
    ),
    "wizard": (
        Key("wizard.back", "f7,ctrl+left", "Back", "Go to the step before.", shown_as="F7", priority=True),
        Key("wizard.next", "f8,ctrl+right", "Next", "Go to the next step; enter on the last field does the same.", shown_as="F8", priority=True),
        Key("wizard.next-field", "down", "Next field", "To the next field, as tab.", show=False, call="app.focus_next"),
        Key("wizard.field-before", "up", "Field before", "To the field before.", show=False, call="app.focus_previous"),
        Key("wizard.restore", "f5", "Restore", "Give the focused field its value from the preset or the default back.", shown_as="F5", show=False),
        Key("wizard.undo", "ctrl+z", "Undo", "Take the last change back.", show=False),
        Key("wizard.redo", "ctrl+y", "Redo", "Make the change again that was taken back.", show=False),
        Key(
            "wizard.edit",
            "f2,e",
            "Edit",
            "The recipe as a file in your editor ($VISUAL or $EDITOR); what it says is checked when you come back.",
            False,
            "F2",
        ),
        Key("wizard.plan", "f6", "Plan", "Show or hide the plan in full.", shown_as="F6", priority=True),
        Key("wizard.start-over", "f9", "Start over", "Forget this draft and begin with an empty recipe.", shown_as="F9", show=False),
        *(
            Key(f"wizard.step-{number}", str(number), f"Step {number}", f"Go to {name}.", show=False, listed=False, call=f"go({number})")
            for number, name in enumerate(("model", "dataset", "language", "prompt", "method", "training", "review"), 1)
        ),
        Key("wizard.count", "x", "Stop look", "End the look at the data; pressed again, look once more, or at all rows.", show=False),
        Key("wizard.columns", "c", "Columns", "Say which column plays which part, and see the conversation that results."),
        Key("wizard.panel", "v", "View", "To the samples, to the lengths, and back to the fields.", show=False),
        Key("wizard.next-sample", "n,right", "Next", "The next sample, or the next one that holds what was searched for."),
        Key("wizard.sample-before", "p,left", "Before", "The sample before.", show=False),
        Key("wizard.first-sample", "home", "First", "The first sample.", show=False),
        Key("wizard.last-sample", "end", "Last", "The last sample.", show=False),
        Key("wizard.longest", "L", "Longest", "The longest sample.", show=False),
        Key("wizard.shortest", "S", "Shortest", "The shortest sample.", show=False),
        Key("wizard.truncated", "T", "Truncated", "The next sample that is cut at the maximum.", show=False),
        Key("wizard.search", "slash", "Search", "Only the samples that hold a text; an empty one shows all again.", shown_as="/"),
        Key("wizard.shorter", "minus", "Shorter", "Move the maximum length down a little.", shown_as="-", show=False),
        Key("wizard.longer", "plus,equals_sign", "Longer", "Move the maximum length up a little.", shown_as="- +"),
        Key("wizard.halve", "less_than_sign", "Halve", "Move the maximum length down to the next power of two.", shown_as="<", show=False),
        Key("wizard.double", "greater_than_sign", "Double", "Move the maximum length up to the next power of two.", shown_as=">", show=False),
        Key("wizard.start", "s", "Start", "Check everything once more, create the run and train."),
        Key("wizard.queue", "u", "Queue", "Check everything once more and create the run; it begins by itself when no other run has the GPU."),
        Key("wizard.hub-search", "f3", "Search", "Find a model or dataset by name: on this machine and on the Hub.", shown_as="F3", priority=True),
        Key("wizard.hub-login", "f4", "Log in", "Log in to the Hub, or out, for gated and private repositories.", shown_as="F4", priority=True),
        Key("wizard.save-preset", "w", "Save preset", "Keep this recipe under a name."),
        Key("wizard.copy-command", "y", "Copy", "Copy the equivalent command, in any step; inside tmux to a file as well.", show=False),
        Key("wizard.leave", "escape,q", "Leave", "Go home; the draft is kept for next time."),
    ),
    "reading": (
        Key("reading.scroll-down", "down,j", "Down", "One line down.", show=False),
        Key("reading.scroll-up", "up,k", "Up", "One line up.", show=False),
        Key("reading.page-down", "pagedown,space", "Page down", "A page down.", show=False),
        Key("reading.page-up", "pageup", "Page up", "A page up.", show=False),
    ),
    "lengths": (
        Key("lengths.shorter", "left", "Shorter", "Move the maximum down a little.", show=False, call="screen.shorter"),
        Key("lengths.longer", "right", "Longer", "Move the maximum up a little.", show=False, call="screen.longer"),
        Key("lengths.halve", "shift+left", "Halve", "Move the maximum down to the next power of two.", show=False, call="screen.halve"),
        Key("lengths.double", "shift+right", "Double", "Move the maximum up to the next power of two.", show=False, call="screen.double"),
    ),
    "glossary": (
        Key("glossary.down", "down", "Down", "Further down.", False, call="scroll(3)", priority=True),
        Key("glossary.up", "up", "Up", "Further up.", False, call="scroll(-3)", priority=True),
        Key("glossary.page-down", "pagedown", "Page down", "A page down.", False, call="scroll(15)", priority=True),
        Key("glossary.page-up", "pageup", "Page up", "A page up.", False, call="scroll(-15)", priority=True),
        Key("glossary.leave", "escape", "Close", "Go back.", call="dismiss"),
    ),
    "search": (
        Key("search.down", "down", "Down", "To the next hit, while the text is typed.", call="move(1)", priority=True),
        Key("search.up", "up", "Up", "To the hit before.", call="move(-1)", priority=True),
        Key("search.take", "enter", "Take", "Take the highlighted hit."),
        Key("search.leave", "escape", "Leave", "Go back without a choice.", call="dismiss(None)"),
    ),
    "login": (
        Key("login.out", "ctrl+o", "Log out", "Delete the tokens that the Hub's tools keep on this machine.", call="log_out", priority=True),
        Key("login.leave", "escape", "Leave", "Go back.", call="dismiss"),
    ),
    "consent": (
        Key("consent.yes", "y", "Trust", "Let this very code run in this run.", call="answer(True)"),
        Key("consent.no", "n,q,escape", "No", "Do not run it, do not start.", call="answer(False)"),
    ),
    "log": (Key("log.all-lines", "escape", "All lines", "Show all lines of the log again.", show=False),),
    "list": (
        Key("list.cursor-down", "j", "Down", "One line down.", show=False),
        Key("list.cursor-up", "k", "Up", "One line up.", show=False),
        Key("list.first", "g", "First", "To the first line.", show=False),
        Key("list.last", "G", "Last", "To the last line.", show=False),
    ),
    "narrowed": (
        Key("narrowed.narrow", "slash", "Filter", "Only the lines of a list that hold a text.", show=False, shown_as="/"),
        Key("narrowed.sort", "o", "Sort", "A list by another order: name and size, or validation loss.", show=False),
        Key("narrowed.all-lines", "escape", "All lines", "Show all lines of the list again.", show=False),
    ),
}


def bindings(group: str) -> list[Binding]:
    """The bindings of a screen, or of the app."""
    return [key.binding() for key in TABLE[group]]


def find(key_id: str) -> Key:
    """One entry by its id."""
    return next(key for key in TABLE[key_id.partition(".")[0]] if key.id == key_id)


def checked(wanted: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Of the keys that a person has chosen those that can be used, and in words why others cannot.

    Refused are unknown actions, keys that belong to the terminal, and keys that another action of the same screen has.
    """
    known = {key.id: key for group in TABLE.values() for key in group}
    good, problems = dict(wanted), []
    for key_id, chosen in wanted.items():
        parts = [part.strip() for part in chosen.split(",")]
        if key_id not in known:
            near = difflib.get_close_matches(key_id, known, 1)
            why = "is no action" + (f"; did you mean {near[0]}?" if near else "; docs/terminal.md lists them")
        elif not all(re.fullmatch(r"((ctrl|shift)\+)?\w+|[!-~]", part) for part in parts):
            why = f"cannot have the key {text.one_line(chosen, 30)}: write it as f5, ctrl+t or x"
        elif taken := [part for part in parts if part in FORBIDDEN]:
            why = f"cannot have {taken[0]}: it is the terminal's own"
        elif others := [other.id for other in _beside(key_id) if set(parts) & set((wanted.get(other.id) or other.keys).split(","))]:
            why = f"cannot have {chosen}: {others[0]} has it; give that another key as well"
        else:
            continue
        del good[key_id]
        problems.append(f"keys: {text.one_line(key_id, 40)} {why}")
    return good, problems


def _beside(key_id: str) -> list[Key]:
    """The other actions that can be meant on the same screen."""
    screen = key_id.partition(".")[0]
    return [key for group in {screen, "app"} for key in TABLE[group] if key.id != key_id]
