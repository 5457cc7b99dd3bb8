"""`tui-ft chat`: a conversation with a run's model, streamed; or one question and its answer."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tui_ft.cli import output
from tui_ft.errors import RequestError
from tui_ft.results.chat import Chat, Message
from tui_ft.runs import checkpoints, store
from tui_ft.runs.store import Run


def chat(arguments: argparse.Namespace) -> int:
    run = store.find(arguments.run)
    prompt = arguments.prompt
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read().strip()
    if arguments.json and not prompt:
        raise RequestError("--json needs a question", "Give --prompt TEXT, or write it to standard input.")
    if prompt == "":
        raise RequestError("the question is empty", "Give --prompt TEXT, or write it to standard input.")
    with Chat(run, base=arguments.base, checkpoint=_newest_checkpoint(run)) as model:
        if prompt is None:
            return _converse(model, arguments)
        pieces = model.ask([{"role": "user", "content": prompt}], max_new_tokens=arguments.max_new_tokens)
        if arguments.json:
            answer = "".join(pieces)
            rate = {"tokens": model.last.tokens, "tokens_per_second": model.last.tokens_per_second} if model.last else {}
            output.print_json({"run": run.id, "prompt": prompt, "answer": answer, **rate})
            return 0
        for piece in pieces:
            print(output.visible(piece), end="", flush=True)
        print()
    return 0


def _newest_checkpoint(run: Run) -> Path | None:
    """For a run that has no final model yet: its newest checkpoint can be talked to as well."""
    steps = [] if run.model.is_dir() else [checkpoint.step for checkpoint in checkpoints.listing(run) if not checkpoint.damage]
    if not steps:
        return None
    output.note(f"{run.id} has no final model yet; this is checkpoint {steps[-1]}.")
    return checkpoints.folder(run, steps[-1])


def _converse(model: Chat, arguments: argparse.Namespace) -> int:
    """Question after question with all that was said before; an empty line or Ctrl+D ends it, /new starts afresh."""
    output.note("Ask something. /new starts afresh; an empty line or Ctrl+D ends.")
    messages: list[Message] = []
    while True:
        try:
            question = input("you> ").strip()
        except EOFError:
            print()
            return 0
        if not question:
            return 0
        if question == "/new":
            messages = []
            continue
        messages.append({"role": "user", "content": question})
        answer = ""
        try:
            for piece in model.ask(messages, max_new_tokens=arguments.max_new_tokens):
                print(output.visible(piece), end="", flush=True)
                answer += piece
        except KeyboardInterrupt:
            model.cancel()
        print()
        messages.append({"role": "assistant", "content": answer})
