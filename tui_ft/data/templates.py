"""Prompt templates: which Jinja text a recipe means, made safe to learn from and set on the tokenizer.

Ours, the model's own and a user's are all chat templates, rendered by transformers' sandbox. What is set on the tokenizer is saved
with the final model, so that chat uses the very text that training used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from tui_ft.data.conversations import ASSISTANT, TOOL, USER
from tui_ft.data.rendering import LINE_BREAK, Renderer, common_prefix, line_of, one_of, render_errors
from tui_ft.errors import RequestError
from tui_ft.text import one_line

OURS = ("chatml", "alpaca", "human-assistant", "text")
JINJA = (".jinja", ".jinja2", ".j2")
_MARKERS = {
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "alpaca": ("### Instruction:", "### Input:", "### Output:", "### End"),
    "human-assistant": ("Human:", "Assistant:"),
    "text": (),
}
"""What `prompt.add_tokens` turns into tokens; a user's template is searched for <|…|>."""
_END_MARKER = {"chatml": "<|im_end|>", "alpaca": "### End"}
_MAX_BYTES = 1_000_000

# Writes the eos token after every answer of a template that would not end it with a stop token of its own.
_WITH_EOS = (
    "{%- set tui_ft = namespace(messages=[]) -%}{%- for message in messages -%}{%- set tui_ft.messages = tui_ft.messages + "
    "[dict(message, content=message['content'] + eos_token) "
    "if message['role'] == 'assistant' and message['content'] is string and not message['tool_calls'] else message] -%}"
    "{%- endfor -%}{%- set messages = tui_ft.messages -%}" + LINE_BREAK
)

_PROBE: tuple[dict[str, Any], ...] = (
    {"role": USER, "content": "Probe question"},
    {"role": ASSISTANT, "content": "Probe answer"},
    {"role": USER, "content": "Probe reply"},
)
_CALL = {"id": "probe0001", "type": "function", "function": {"name": "probe", "arguments": {"word": "Probe argument"}}}
_CALL_PROBE: tuple[dict[str, Any], ...] = (
    _PROBE[0],
    {"role": ASSISTANT, "content": "", "tool_calls": [_CALL]},
    {"role": TOOL, "content": "Probe result", "name": "probe", "tool_call_id": "probe0001"},
    _PROBE[1],
)
_WORD = {"type": "string", "description": "A word"}
PROBE_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "probe",
        "description": "Probe tool",
        "parameters": {"type": "object", "properties": {"word": _WORD}, "required": ["word"]},
    },
}


class NoTemplateError(RequestError):
    """A base model is to use its own template: everything else about the data can be looked at all the same."""


@dataclass(frozen=True)
class TurnEnds:
    """How the tokenizer's template ends an answer."""

    texts: tuple[str, ...]
    """What follows an answer's text up to and including the token that stops generation: after the last answer, then after an earlier one
    where that differs and does end the turn (gpt-oss ends thoughts in the same way). Empty: no stop token follows."""
    tokens: tuple[str, ...]
    """The stop tokens in them."""
    calls: tuple[str, ...] = ()
    """The control token at which generation stops after a tool call, where the template shows tool calls."""

    @property
    def plain(self) -> str:
        """Plain text that the model has learned to write before the stop token (`### End`): chat cuts it off an answer."""
        return self.texts[0].removesuffix(self.tokens[0]) if self.texts else ""


def markers(template: str, source: str) -> tuple[str, ...]:
    """The markers of a template that may become tokens."""
    return _MARKERS[template] if template in OURS else tuple(dict.fromkeys(re.findall(r"<\|[^\s|'\"]{1,40}\|>", source)))


def source_of(template: str, tokenizer: Any) -> str:
    """The Jinja text that `prompt.template` means.

    Raises:
        RequestError: the model has no template, or the file cannot be read.
    """
    if template == "model":
        own = tokenizer.chat_template
        own = own.get("default") if isinstance(own, dict) else own
        if not own:
            hint = "It is a base model: set prompt.template to chatml, alpaca or human-assistant (or text for plain text)."
            raise NoTemplateError("the model has no chat template of its own", hint)
        return str(own)
    if template in OURS:
        return resources.files("tui_ft.data").joinpath("templates", f"{template}.jinja").read_text("utf-8")
    path = Path(template).expanduser()
    if not template.endswith(JINJA):
        raise RequestError(f"prompt.template {one_line(template)!r} is not known", f"One of model, {', '.join(OURS)}, or a file that ends in .jinja.")
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise RequestError(f"{path} is too large for a template")
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise RequestError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise RequestError(f"the template {path} cannot be read: {error.strerror}", "Check prompt.template.") from None


def install(tokenizer: Any, template: str, source: str, add_tokens: bool) -> None:
    """Set the template on the tokenizer, so that every answer ends in a token at which generation stops.

    Raises:
        RequestError: not valid Jinja (with its line), or it refuses a plain question and answer.
    """
    name = template if template.endswith(JINJA) else f"the {template} template"
    _check_syntax(source, name)
    if template in OURS:
        tokenizer.chat_template = _own_header(tokenizer, template, add_tokens) + source
    else:
        tokenizer.chat_template = source
        if not turn_ends(tokenizer, name).texts:
            tokenizer.chat_template = _WITH_EOS + source
    if not turn_ends(tokenizer, name).texts and template != "text":
        raise RequestError(f"{name} does not write answers as they are, so that no end of turn can be learned", "Use chatml, or mend the template.")


def _own_header(tokenizer: Any, template: str, add_tokens: bool) -> str:
    start = "bos_token" if adds_bos(tokenizer) else "''"
    marker = _END_MARKER.get(template, "")
    if marker and (add_tokens or is_special(tokenizer, marker)):
        end = f"'{marker}'"
    elif template == "chatml" or not marker:
        end = "eos_token"  # ChatML's marker is nothing but the end of a turn: eos takes its place
    else:
        end = f"'{marker}' + eos_token"
    return f"{{%- set start_of_text = {start} -%}}{{%- set end_of_turn = {end} -%}}"


def adds_bos(tokenizer: Any) -> bool:
    """Whether this tokenizer by itself starts a text with its bos token, which models trained so need."""
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and len(ids) > 1 and ids[0] == tokenizer.bos_token_id


def is_special(tokenizer: Any, text: str) -> bool:
    return text in special_tokens(tokenizer)


def special_tokens(tokenizer: Any) -> set[str]:
    """The texts that this tokenizer reads as one control token."""
    return {token.content for token in tokenizer.added_tokens_decoder.values() if token.special} | set(tokenizer.all_special_tokens)


def probe_text(renderer: Renderer) -> str:
    """What the template makes of plain probes, all in one text; empty where it refuses them all."""
    texts = []
    for messages, tools in ((_PROBE[:2], ()), (_PROBE, ()), (_CALL_PROBE, (PROBE_TOOL,))):
        with suppress(*render_errors()):
            texts += [renderer.render(messages, tools), renderer.render(messages, tools, add_generation_prompt=True)]
    return "\0".join(texts)


def turn_ends(tokenizer: Any, name: str = "the template") -> TurnEnds:
    """How the template set on the tokenizer ends an answer, found by rendering probes.

    Raises:
        RequestError: the template refuses a plain question and answer, with and without a tool; names the place in it.
    """
    renderer, special = Renderer(tokenizer), one_of(special_tokens(tokenizer))
    tools: tuple[dict[str, Any], ...] = ()
    try:
        try:
            last, middle = renderer.render(_PROBE[:2]), renderer.render(_PROBE)
        except render_errors():  # some templates are for conversations with tools alone
            last, middle = renderer.render(_PROBE[:2], [PROBE_TOOL]), renderer.render(_PROBE, [PROBE_TOOL])
            tools = (PROBE_TOOL,)
    except render_errors() as error:
        hint = "It must render a user's question and an assistant's answer."
        raise RequestError(f"{name}{line_of(error)}: {one_line(error, 200)}", hint) from None
    answer, reply = _PROBE[1]["content"], _PROBE[2]["content"]
    after = last.rpartition(answer)[2], middle.rpartition(answer)[2].partition(reply)[0]
    found = [special.search(text) for text in after]
    if answer not in last or not found[0] or not found[1] or after[0][: found[0].start()] != after[1][: found[1].start()]:
        return TurnEnds((), ())
    ends = [(after[0][: found[0].end()], found[0][0])]
    if found[1][0] != found[0][0]:
        if not special.search(after[1], found[1].end()):  # no end of its own for earlier turns before the next turn's header
            return TurnEnds((), ())
        if found[1][0] not in _inside_turns(renderer, special, tools):
            ends.append((after[1][: found[1].end()], found[1][0]))
    return TurnEnds(tuple(text for text, _ in ends), tuple(token for _, token in ends), _call_ends(renderer, special))


def _inside_turns(renderer: Renderer, special: re.Pattern[str], tools: Sequence[dict[str, Any]]) -> set[str]:
    """Control tokens that stand between thinking and answer: the turn goes on after them, so generation must."""
    thinking = {"reasoning_content": "Probe thought", "thinking": "Probe thought"}
    with suppress(*render_errors()):
        text = renderer.render([_PROBE[0], {**_PROBE[1], **thinking}], tools)
        return set(special.findall(text.partition("Probe thought")[2].partition(_PROBE[1]["content"])[0]))
    return set()


def _call_ends(renderer: Renderer, special: re.Pattern[str]) -> tuple[str, ...]:
    """The control token that ends a tool call, where the template shows one."""
    with suppress(*render_errors()):
        own, whole = (renderer.render(_CALL_PROBE[:count], [PROBE_TOOL]).rpartition("Probe argument")[2] for count in (2, len(_CALL_PROBE)))
        shared = own[: common_prefix(own, whole)]  # what a template writes at the end of every conversation is not the call's
        return tuple(special.findall(shared)[-1:]) if "Probe argument" in renderer.render(_CALL_PROBE, [PROBE_TOOL]) else ()
    return ()


def _check_syntax(source: str, name: str) -> None:
    import jinja2
    from transformers.utils.chat_template_utils import render_jinja_template

    syntax: jinja2.TemplateSyntaxError | None = None
    with suppress(Exception):  # what it refuses when rendered is told by turn_ends, with the special tokens in place
        try:
            render_jinja_template([[*_PROBE]], chat_template=source)
        except jinja2.TemplateSyntaxError as error:
            syntax = error
    if syntax:
        raise RequestError(f"{name}:{syntax.lineno}: not valid Jinja: {one_line(syntax.message or '', 200)}", "Mend the template.")
