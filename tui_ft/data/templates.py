"""Prompt templates: which Jinja text a recipe means, made safe to learn from and set on the tokenizer.

Ours, the model's own and a user's are all chat templates, rendered by transformers' sandbox. What is set on the tokenizer is saved
with the final model, so that chat uses the very text that training used.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from tui_ft.data.conversations import ASSISTANT, USER
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
_LINE_BREAK = "{{- '' }}"  # keeps what precedes from being glued to, or trimmed with, the template's first characters

# Writes the eos token after every answer of a template that would not end it with a stop token of its own.
_WITH_EOS = (
    "{%- set tui_ft = namespace(messages=[]) -%}{%- for message in messages -%}{%- set tui_ft.messages = tui_ft.messages + "
    "[dict(message, content=message['content'] + eos_token) if message['role'] == 'assistant' and message['content'] is string else message] -%}"
    "{%- endfor -%}{%- set messages = tui_ft.messages -%}" + _LINE_BREAK
)

# A template that writes today's date would give other tokens tomorrow, and a resumed run must see the data it began with.
_FIXED_CLOCK = (
    "{%- macro strftime_now(format) -%}{{- {'%d %b %Y': '26 Jul 2024', '%d %B %Y': '26 July 2024', '%B %d, %Y': 'July 26, 2024'}"
    ".get(format, '2024-07-26') -}}{%- endmacro -%}" + _LINE_BREAK
)

_PROBE = [{"role": USER, "content": "Probe question"}, {"role": ASSISTANT, "content": "Probe answer"}, {"role": USER, "content": "Probe reply"}]


@dataclass(frozen=True)
class TurnEnds:
    """How the tokenizer's template ends an answer."""

    texts: tuple[str, ...]
    """What follows an answer's text up to and including the token that stops generation: after the last answer, then after an earlier one
    where that differs. Empty: no stop token follows."""
    tokens: tuple[str, ...]
    """The stop tokens in them."""

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
            raise RequestError("the model has no chat template of its own", hint)
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


def render(tokenizer: Any, messages: list[dict[str, Any]], add_generation_prompt: bool = False) -> str:
    """The text of a conversation, on a fixed date; raises what Jinja raises."""
    template = tokenizer.chat_template
    dated = _FIXED_CLOCK + template if "strftime_now" in template else None
    return str(tokenizer.apply_chat_template(messages, chat_template=dated, tokenize=False, add_generation_prompt=add_generation_prompt))


def render_errors() -> tuple[type[Exception], ...]:
    """What a template raises: refusals of its own, and what Python makes of a mistake in it."""
    import jinja2

    return jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError


def turn_ends(tokenizer: Any, name: str = "the template") -> TurnEnds:
    """How the template set on the tokenizer ends an answer, found by rendering a probe.

    Raises:
        RequestError: the template refuses a plain question and answer; names the place in it.
    """
    answer = _PROBE[1]["content"]
    try:
        last = render(tokenizer, _PROBE[:2])
        middle = render(tokenizer, _PROBE)
    except render_errors() as error:
        hint = "It must render a user's question and an assistant's answer."
        raise RequestError(f"{name}{_line_of(error)}: {one_line(error, 200)}", hint) from None
    special = "|".join(re.escape(token) for token in sorted(special_tokens(tokenizer), key=len, reverse=True))
    found = [re.match(rf"(.*?)({special})(.*)", text.rpartition(answer)[2].partition(_PROBE[2]["content"])[0], re.DOTALL) for text in (last, middle)]
    if answer not in last or not special or not found[0] or not found[1] or found[0][1] != found[1][1]:
        return TurnEnds((), ())
    ends = [found[0]]
    if found[1][2] != found[0][2] and re.search(special, found[1][3]):  # an end of its own for earlier turns, before the next turn's header
        ends.append(found[1])
    elif found[1][2] != found[0][2]:
        return TurnEnds((), ())
    return TurnEnds(tuple(match[1] + match[2] for match in ends), tuple(match[2] for match in ends))


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


def _line_of(error: BaseException) -> str:
    """`:12` for an error raised while a template rendered: the innermost frame that stands in it."""
    line, trace = 0, error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return f":{line}" if line else ""
