"""What a template does with what is in a dataset, found before any row is read: by rendering probes, never by its name."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from tui_ft.data import templates
from tui_ft.data.conversations import ASSISTANT, CALLS, SYSTEM, SYSTEMS, THINKING, TOOL, TWO_IN_A_ROW, USER
from tui_ft.data.rendering import Renderer, one_of, render_errors
from tui_ft.data.tokenizer import own_template
from tui_ft.findings import Finding
from tui_ft.recipe.schema import Prompt
from tui_ft.text import one_line

WHERE = "prompt.template"
_TRY_CHATML = "Leave them out of the data, or set prompt.template to chatml."
_PLAIN = re.compile(r"<[|｜][^<>\n]{1,40}[|｜]>|</?(?:start|end)_of_\w+>|\[/?INST\]")  # markers as models' templates spell them

Probe = list[dict[str, Any]]
_QUESTION: Probe = [{"role": USER, "content": "Probe question"}]
_CHAT: Probe = [*_QUESTION, {"role": ASSISTANT, "content": "Probe answer"}]


def check(tokenizer: Any, prompt: Prompt, holds: Collection[str] | None = None) -> list[Finding]:
    """What is wrong or surprising about the template set on the tokenizer (`tokenizer.load`). Cost: a dozen renderings.

    Args:
        holds: what is in the data, of `conversations.FEATURES`; nothing is said of what a template does to anything else. None: all of them.
    """
    renderer = Renderer(tokenizer)
    tools = () if _rendered(renderer, _CHAT) is not None else (templates.PROBE_TOOL,)
    found = [_bos(tokenizer, renderer, tools), _markers(tokenizer, prompt, renderer, tools), _family(tokenizer, prompt, renderer, tools)]
    if tools:
        message = "the template takes only conversations with tool definitions: the others are left out"
        found.append(Finding("warning", WHERE, message, "Set prompt.template to chatml for data without tools."))
    probes = {
        SYSTEMS: lambda: _system(renderer, tools),
        CALLS: lambda: _tools(renderer),
        THINKING: lambda: _thinking(renderer, tools),
        TWO_IN_A_ROW: lambda: _two_questions(renderer, tools),
    }
    found += [probe() for feature, probe in probes.items() if holds is None or feature in holds]
    found.append(_asks(renderer, tools))
    return [finding for finding in found if finding]


def _rendered(renderer: Renderer, messages: Probe, tools: Sequence[dict[str, Any]] = ()) -> str | None:
    try:
        return renderer.render(messages, tools)
    except render_errors():
        return None


def _bos(tokenizer: Any, renderer: Renderer, tools: Sequence[dict[str, Any]]) -> Finding | None:
    text, bos = _rendered(renderer, _CHAT, tools) or "", tokenizer.bos_token
    if bos and text.startswith(bos * 2):
        return Finding("error", WHERE, f"the template writes the bos token {one_line(bos, 40)} twice", "Take one of them out of the template.")
    if templates.adds_bos(tokenizer) and not text.startswith(bos):
        message = f"the template does not begin with the bos token {one_line(bos, 40)}, with which this model's texts begin"
        return Finding("warning", WHERE, message, "Put {{ bos_token }} first in it, unless the model was trained without.")
    return None


def _spelled_markers(tokenizer: Any, text: str) -> list[str]:
    known = set(tokenizer.get_added_vocab())
    return list(dict.fromkeys(marker for marker in _PLAIN.findall(text) if marker not in known))


def _markers(tokenizer: Any, prompt: Prompt, renderer: Renderer, tools: Sequence[dict[str, Any]]) -> Finding | None:
    if prompt.add_tokens or prompt.template == "model":
        return None
    strange = _spelled_markers(tokenizer, _rendered(renderer, _CHAT, tools) or "")
    if not strange:
        return None
    count = len(tokenizer(strange[0], add_special_tokens=False)["input_ids"])
    message = (
        f"the template's markers are not tokens of this model: {one_line(strange[0], 40)} is read as {count} pieces of text, "
        f"and {one_line(tokenizer.eos_token, 40)} ends a turn"
    )
    hint = "That trains well. prompt.add_tokens makes them tokens (the embedding grows and is trained); the human-assistant template needs none."
    return Finding("warning", WHERE, message, hint)


def _family(tokenizer: Any, prompt: Prompt, renderer: Renderer, tools: Sequence[dict[str, Any]]) -> Finding | None:
    """A chat model taught another family's way of marking turns forgets part of what it knows."""
    own = own_template(tokenizer)
    if prompt.template == "model" or not own:
        return None
    special = one_of(templates.special_tokens(tokenizer) - {tokenizer.bos_token})
    theirs, ours = (set(special.findall(text)) for text in (_own_rendering(tokenizer, own), _rendered(renderer, _CHAT, tools) or ""))
    if not theirs or theirs == ours:
        return None
    message = f"this chat model has a template of its own, of another family: it marks turns by {one_line(', '.join(sorted(theirs)), 60)}"
    return Finding("warning", WHERE, message, "Set prompt.template to model, unless it shall unlearn its own.")


def _own_rendering(tokenizer: Any, own: str) -> str:
    renderer = Renderer(tokenizer, source=own)
    return _rendered(renderer, _CHAT) or _rendered(renderer, _CHAT, (templates.PROBE_TOOL,)) or ""


def _system(renderer: Renderer, tools: Sequence[dict[str, Any]]) -> Finding | None:
    told = {"role": SYSTEM, "content": "Probe instruction"}
    text = _rendered(renderer, [told, *_CHAT], tools)
    if text is None:
        hint = "Leave system texts out of the data, put them into the first question, or set prompt.template to chatml."
        return Finding("warning", WHERE, "the template refuses a system text: conversations that begin with one are left out", hint)
    if "Probe instruction" not in text:
        return Finding("warning", WHERE, "the template drops system texts: the model is trained as if they were not there", _TRY_CHATML)
    return None


def _tools(renderer: Renderer) -> Finding | None:
    call = {"id": "probe0001", "type": "function", "function": {"name": "probe_call", "arguments": {"word": "Probe argument"}}}
    asked = {"role": ASSISTANT, "content": "", "tool_calls": [call]}
    told = {"role": TOOL, "content": "Probe result", "name": "probe_call", "tool_call_id": "probe0001"}
    text = _rendered(renderer, [*_QUESTION, asked, told, _CHAT[1]], (templates.PROBE_TOOL,))
    if text is not None and "Probe argument" in text and "Probe result" in text:
        return None
    lost = "refuses" if text is None else "drops"
    return Finding("ok", WHERE, f"the template {lost} tool calls or their results: conversations with tool calls are left out", "")


def _thinking(renderer: Renderer, tools: Sequence[dict[str, Any]]) -> Finding | None:
    thought = {"reasoning_content": "Probe thought", "thinking": "Probe thought"}
    last = _rendered(renderer, [*_QUESTION, {**_CHAT[1], **thought}], tools) or ""
    earlier = _rendered(renderer, [*_QUESTION, {**_CHAT[1], **thought}, {"role": USER, "content": "Probe reply"}, _CHAT[1]], tools) or ""
    if "Probe thought" in earlier:
        return None
    what = "of all but the last answer" if "Probe thought" in last else "given apart from the answer"
    return Finding("ok", WHERE, f"the template drops thinking {what}: it is not trained on", "")


def _two_questions(renderer: Renderer, tools: Sequence[dict[str, Any]]) -> Finding | None:
    if _rendered(renderer, [*_QUESTION, {"role": USER, "content": "Probe reply"}, _CHAT[1]], tools) is not None:
        return None
    return Finding("ok", WHERE, "the template refuses two user turns in a row: such conversations are left out", "")


def _asks(renderer: Renderer, tools: Sequence[dict[str, Any]]) -> Finding | None:
    try:
        asked = renderer.render(_QUESTION, tools, add_generation_prompt=True)
    except render_errors():
        return None
    if (_rendered(renderer, _CHAT, tools) or "").startswith(asked):
        return None
    message = f"the template asks for an answer by other text than answers begin with in training: {one_line(asked[-60:], 60)}"
    return Finding("ok", WHERE, message, "Usual where a model can think: chat begins with this text, which training did not show.")
