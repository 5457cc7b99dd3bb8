"""What a run answered to the prompts of its recipe, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from textual.content import Content

from tui_ft.runs.events import Event
from tui_ft.tui.text import line


def shown(samples: Sequence[Event]) -> Content:
    """Each prompt with its answers, the newest first, so that one sees what training changed; equal ones in a row are one line with their steps."""
    prompts = dict.fromkeys(str(sample.get("prompt", "")) for sample in samples)
    parts: list[Content] = []
    for prompt in prompts:
        parts.append(line(prompt, style="bold"))
        answers = [sample for sample in reversed(samples) if str(sample.get("prompt", "")) == prompt]
        for text, alike in groupby(answers, key=lambda sample: str(sample.get("text", ""))):
            steps = [sample.get("step") for sample in alike]
            span = f"{steps[-1]} to {steps[0]}" if len(steps) > 1 else f"{steps[0]}"
            parts.append(Content.assemble((f"  step {span}  ", "$accent"), line(text)))
    return Content("\n").join(parts)
