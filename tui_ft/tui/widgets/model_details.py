"""A model's metadata on a few lines."""

from __future__ import annotations

from textual.content import Content

from tui_ft import units
from tui_ft.hub.details import ModelDetails
from tui_ft.tui.text import MUTED, content, line

_TEXT = 60
"""Cells for one foreign word: a licence can be a novel."""


def size_line(details: ModelDetails) -> Content:
    """Parameters, bytes, context, dtype."""
    parts = [
        f"{units.count(details.parameters)} parameters" if details.parameters else "",
        units.size(details.bytes) if details.bytes else "",
        f"context {details.context_length:,}" if details.context_length else "",
    ]
    return Content(", ").join([Content(part) for part in parts if part] + ([line(details.dtype, _TEXT)] if details.dtype else []))


def state_line(details: ModelDetails) -> Content:
    """What it is for and what it costs to use it: chat or base, licence, gated, last change."""
    kind = {True: "chat template", False: "base model, no chat template", None: ""}[details.chat]
    parts = [
        Content(kind),
        Content.assemble("licence ", line(details.licence, _TEXT)) if details.licence else Content(""),
        Content.styled("gated", "$text-warning") if details.gated else Content(""),
        Content.styled("private", "$text-warning") if details.private else Content(""),
        Content("GGUF" if details.gguf else ""),
        Content.styled("has its own code", "$text-warning") if details.needs_code else Content(""),
        Content.assemble("changed ", line(details.changed, 10)) if details.changed else Content(""),
    ]
    return Content(", ").join([part for part in parts if part.plain])


def published(details: ModelDetails) -> Content:
    """What the structure does not tell: the size on disk, what it is for, its terms, and what stands in the way."""
    size = Content(f"{units.size(details.bytes)}, ") if details.bytes else Content("")
    return Content("\n").join([Content.assemble("  ", size, state_line(details)).stylize(MUTED), *_remarks(details)])


def described(details: ModelDetails) -> Content:
    """Everything, with what is missing and why."""
    head = Content.assemble(line(details.architecture or "architecture unknown", _TEXT, "bold"), "  ", size_line(details))
    return Content("\n").join([head, state_line(details), *_remarks(details)])


def _remarks(details: ModelDetails) -> list[Content]:
    if details.note:
        return [content(f"! {details.note}", "$text-warning")]
    return [content("Accept its licence on its page, then log in (F4).", MUTED)] if details.gated and details.place == "hub" else []
