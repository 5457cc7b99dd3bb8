"""A conversation as text, by the tokenizer's chat template: transformers' own sandbox, on a fixed date, compiled once."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

from tui_ft.data.conversations import USER

Message = Mapping[str, Any]

LINE_BREAK = "{{- '' }}"
"""Put before a template, keeps what precedes from being glued to, or trimmed with, the template's first characters."""

# A template that writes today's date would give other tokens tomorrow, and a resumed run must see the data it began with.
_FIXED_CLOCK = (
    "{%- macro strftime_now(format) -%}{{- {'%d %b %Y': '26 Jul 2024', '%d %B %Y': '26 July 2024', '%B %d, %Y': 'July 26, 2024'}"
    ".get(format, '2024-07-26') -}}{%- endmacro -%}" + LINE_BREAK
)


class Renderer:
    """Renders as `apply_chat_template` does, without what it repeats on each call: about half the cost of one.

    The template is the tokenizer's at the time this is made.
    """

    def __init__(self, tokenizer: Any, *, asks: bool = False, source: str = "") -> None:
        """`asks`: every text ends with the prompt to answer, unless told otherwise. `source`: another template than the tokenizer's."""
        self._asks = asks
        template = source or tokenizer.chat_template
        source = template.get("default", "") if isinstance(template, dict) else template or ""
        self.source = _FIXED_CLOCK + source if "strftime_now" in source else source
        self._names = dict(tokenizer.special_tokens_map)

    def render(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = (), *, add_generation_prompt: bool | None = None) -> str:
        """The text of a conversation; raises what Jinja raises (`render_errors`)."""
        from transformers.utils.chat_template_utils import render_jinja_template

        shown = [{key: value for key, value in message.items() if value is not None} for message in messages]
        texts, _ = render_jinja_template(
            [shown],  # type: ignore[list-item]
            tools=list(tools) or None,
            chat_template=self.source,
            add_generation_prompt=self._asks if add_generation_prompt is None else add_generation_prompt,
            **self._names,
        )
        return str(texts[0])

    @cached_property
    def header(self) -> str:
        """What the template writes to ask for an answer; empty where it asks by nothing, or takes no plain question."""
        question = [{"role": USER, "content": "Probe question"}]
        try:
            asking = self.render(question, add_generation_prompt=True)
            return asking[common_prefix(asking, self.render(question, add_generation_prompt=False)) :]
        except render_errors():
            return ""


def render_errors() -> tuple[type[Exception], ...]:
    """What a template raises: refusals of its own, and what Python makes of a mistake in it."""
    import jinja2

    return jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError


def line_of(error: BaseException) -> str:
    """`:12` for an error raised while a template rendered: the innermost frame that stands in it."""
    line, trace = 0, error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return f":{line}" if line else ""


def one_of(texts: Collection[str]) -> re.Pattern[str]:
    """Matches any of the texts, the longest first, as tokenizers do; nothing where there are none."""
    return re.compile("|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True)) or r"(?!)")


def common_prefix(one: str, two: str) -> int:
    """Length of what both texts start with; by halving, as comparing slices is far quicker than comparing characters."""
    low, high = 0, min(len(one), len(two))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == two[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
