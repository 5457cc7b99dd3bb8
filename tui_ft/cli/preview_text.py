"""A preview as plain text: what became of the rows, then samples token by token. Readable without colour, in a log as on a screen."""

from __future__ import annotations

from collections.abc import Iterator

from tui_ft.cli import output
from tui_ft.data.preview import Preview, PreviewSample
from tui_ft.text import one_line, visible

OPEN, CLOSE, BETWEEN, LINE_END = "⟦", "⟧", "·", "⏎"
_SEVERITIES = {"error": "REFUSED", "warning": "warning", "ok": "note"}
LEGEND = f"{OPEN}learned{CLOSE}  {BETWEEN} between two tokens  {LINE_END} end of a line"


def print_preview(preview: Preview) -> None:
    for line in _lines(preview):
        output.say(line)


def _lines(preview: Preview) -> Iterator[str]:
    looked = f"the first {preview.sampled:,} rows" if preview.sampled is not None else f"{preview.rows:,} rows"
    yield f"{one_line(preview.source)}: {looked}, {preview.kept:,} samples"
    yield f"  format     {preview.format}: {one_line(preview.format_reason)}; {preview.format_confidence:.0%} of the first rows fit"
    if preview.column_parts:
        yield "  columns    " + ", ".join(
            part if part == column else f"{part} = {one_line(column, 60)}" for part, column in preview.column_parts.items()
        )
    if preview.languages:
        counted = ", ".join(f"{one_line(code, 20)} {count:,}" for code, count in preview.languages.items())
        yield f"  languages  {counted} ({one_line(preview.language_source, 60)})"
    lengths = preview.lengths
    yield f"  tokens     {lengths.mean:g} on average, half up to {lengths.p50:,}, 95 % up to {lengths.p95:,}, the longest {lengths.max:,}"
    if lengths.truncated:
        yield f"  too long   {lengths.truncated:,} are cut, {lengths.answer_lost:,} of them lose their whole answer and are left out"
    if preview.trees:
        trees = preview.trees
        yield f"  trees      {trees.trees:,} with {trees.messages:,} messages, {trees.mean_depth:g} deep on average, {trees.max_depth} at most"
    for reason, count in preview.dropped.items():
        yield f"  left out   {count:,}: {one_line(reason)}"
        yield from (f"               {one_line(place)}" for place in preview.dropped_samples.get(reason, []))
    for finding in preview.findings:
        yield f"  {_SEVERITIES[finding.severity]:<10} {_indented(visible(finding))}"
        yield from [f"             → {one_line(finding.hint)}"] if finding.hint else []
    if preview.samples:
        yield f"\n{LEGEND}"
    for number, sample in enumerate(preview.samples, 1):
        learned = sum(token.learned for token in sample.tokens)
        yield f"\nsample {number}: {len(sample.tokens):,} tokens, {learned:,} learned"
        yield _marked(sample)


def _indented(text: str) -> str:
    return text.replace("\n", "\n             ")


def _marked(sample: PreviewSample) -> str:
    """The text with a sign between any two tokens, and brackets around what is learned."""
    parts: list[str] = []
    inside = False
    for token in sample.tokens:
        if token.learned != inside:
            parts.append(OPEN if token.learned else CLOSE)
            inside = token.learned
        elif parts:
            parts.append(BETWEEN)
        parts.append(visible(token.text).replace("\n", f"{LINE_END}\n"))
    return "".join(parts) + (CLOSE if inside else "")
