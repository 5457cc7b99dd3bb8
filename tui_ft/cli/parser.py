"""The commands and their arguments, in one table. What a command does is imported when it runs."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable

from tui_ft import __version__

Action = Callable[[argparse.Namespace], int]


def _lazily(module: str, name: str) -> Action:
    """The function `name` of a module of this package, imported only when it is called."""
    return lambda arguments: getattr(importlib.import_module(f"tui_ft.cli.{module}"), name)(arguments)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tui-ft",
        description="Fine-tune a language model from the terminal. Without a command: the wizard.",
        epilog="RECIPE is a file or a preset's name. RUN is an id, a unique prefix of one, or 'latest'. Exit codes: 0 done, "
        "1 failed, 2 wrong request, 3 paused or stopped and resumable, 130 stopped now.",
    )
    parser.add_argument("--version", action="version", version=f"tui-ft {__version__}")
    parser.add_argument("--no-mouse", action="store_true", help="leave the mouse to the terminal, for selecting text")
    parser.set_defaults(action=_lazily("screen", "home"))
    commands = parser.add_subparsers(metavar="COMMAND")
    _training(commands)
    _looking(commands)
    _controlling(commands)
    _using(commands)
    return parser


def _command(
    commands: argparse._SubParsersAction, name: str, help: str, action: Action, *, run: bool = False, recipe: bool = False
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=help, description=help)
    command.add_argument("--json", action="store_true", help="print one JSON value on stdout and nothing else there")
    if run:
        command.add_argument("run", metavar="RUN", help="id, unique prefix, or latest")
    if recipe:
        command.add_argument("recipe", metavar="RECIPE", help="a recipe file or a preset's name")
        _settings(command)
    command.set_defaults(action=action)
    return command


def _settings(command: argparse.ArgumentParser) -> None:
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one key, e.g. train.epochs=2 (repeatable)")


def _training(commands: argparse._SubParsersAction) -> None:
    demo = _command(commands, "demo", "the wizard on the demo preset; --headless runs it to its end", _lazily("drive", "demo"))
    demo.add_argument("--headless", action="store_true", help="no screen: run and follow")
    _settings(demo)
    run = _command(commands, "run", "start a run and follow it", _lazily("drive", "run"), recipe=True)
    run.add_argument("--detach", action="store_true", help="return as soon as it has started")
    _queueing(run)
    run.add_argument("--force", action="store_true", help="start although the plan says that it does not fit, or another run has the GPU")
    run.add_argument("--trust-remote-code", action="append", default=[], metavar="REPO@COMMIT", help="let this repository's Python code run")
    resume = _command(commands, "resume", "go on with a paused, stopped, failed or lost run", _lazily("drive", "resume"))
    resume.add_argument("run", metavar="RUN", nargs="?", help="id, unique prefix, or latest")
    resume.add_argument("--all-lost", action="store_true", help="every run whose processes are gone, or were ended by the system")
    _queueing(resume)
    resume.add_argument("--detach", action="store_true", help="return as soon as it has started")
    resume.add_argument("--from", dest="from_step", type=int, metavar="STEP", help="go back to this checkpoint")
    resume.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="learning_rate from there on, or max_steps: more of them extend the run"
    )
    resume.add_argument(
        "--accept", action="append", default=[], metavar="KEY[,KEY]", help="go on although this is not what it was when the run began; or all"
    )


def _queueing(command: argparse.ArgumentParser) -> None:
    command.add_argument("--queue", action="store_true", help="wait until no other run has the GPU, in order")
    command.add_argument("--when-free", metavar="SIZE", help="with --queue: and until so much of its memory is free, e.g. 10GiB")


def _looking(commands: argparse._SubParsersAction) -> None:
    plan = _command(commands, "plan", "what a recipe takes on this machine: memory, batch, time, disk", _lazily("plan", "plan"))
    plan.add_argument("recipe", metavar="RECIPE", nargs="?", help="a recipe file or a preset's name")
    _settings(plan)
    plan.add_argument("--gpu-memory", metavar="SIZE", help="free GPU memory to assume, e.g. 10GiB")
    plan.add_argument("--instant", action="store_true", help="only what is known at once: no model is looked up, no row is counted, nothing traced")
    plan.add_argument("--measure", action="store_true", help="run a few steps with random weights on the GPU in place of counting their memory")
    plan.add_argument("--history", action="store_true", help="what earlier runs took against what was forecast; with RECIPE, those of its model")
    preview = _command(commands, "preview", "what will be learned, token by token", _lazily("look", "preview"), recipe=True)
    preview.add_argument("-n", type=int, default=3, help="samples to show (3)")
    preview.add_argument("--exact", action="store_true", help="count every row instead of a sample")
    _command(commands, "runs", "list the runs", _lazily("look", "runs"))
    _command(commands, "show", "one run in full", _lazily("look", "show"), run=True)
    compare = _command(commands, "compare", "several runs: what came of them, and only the settings that differ", _lazily("look", "compare"))
    compare.add_argument("runs", metavar="RUN", nargs="+", help="id, unique prefix, or latest; two or more")
    status = _command(commands, "status", "one line on what runs now", _lazily("look", "status"))
    status.add_argument("--once", action="store_true", help="print it and end (the default)")
    status.add_argument("--watch", action="store_true", help="print it anew every two seconds")
    attach = _command(commands, "attach", "the dashboard of a run", _lazily("screen", "attach"), run=True)
    attach.add_argument("--no-mouse", action="store_true", help="leave the mouse to the terminal, for selecting text", default=argparse.SUPPRESS)
    logs = _command(commands, "logs", "what the worker wrote", _lazily("look", "logs"), run=True)
    logs.add_argument("-f", "--follow", action="store_true", help="go on printing while it runs")
    checkpoints = _command(
        commands, "checkpoints", "list, verify, zip or delete the checkpoints of a run", _lazily("checkpoints", "checkpoints_of"), run=True
    )
    checkpoints.add_argument("what", metavar="verify | zip | delete", nargs="?", choices=("verify", "zip", "delete"), help="nothing: list them")
    checkpoints.add_argument("step", metavar="STEP", nargs="?", type=int, help="which one; verify without it reads all")
    checkpoints.add_argument("--yes", action="store_true", help="do not ask before a delete")
    _command(commands, "doctor", "look for faults of this machine and installation", _lazily("look", "doctor"))


def _controlling(commands: argparse._SubParsersAction) -> None:
    pause = _command(commands, "pause", "stand still after the current step", _lazily("control", "pause"), run=True)
    pause.add_argument("--free-gpu", action="store_true", help="save, end the process and free all memory; `resume` goes on exactly there")
    _command(commands, "checkpoint", "write a checkpoint after the current step", _lazily("control", "checkpoint"), run=True)
    stop = _command(commands, "stop", "save and stop after the current step", _lazily("control", "stop"), run=True)
    stop.add_argument("--now", action="store_true", help="stop at once, without saving")
    change = _command(commands, "set", "change a running training, e.g. learning_rate=1e-5", _lazily("control", "change"), run=True)
    change.add_argument("settings", metavar="KEY=VALUE", nargs="+", help="learning_rate or max_steps")
    queue = _command(commands, "queue", "the runs that wait for a GPU, in order", _lazily("queue", "listing"))
    actions = queue.add_subparsers(metavar="ACTION")
    _command(actions, "list", "the runs that wait", _lazily("queue", "listing"))
    move = _command(actions, "move", "let a waiting run go ahead or back", _lazily("queue", "move"), run=True)
    move.add_argument("position", metavar="POSITION", type=int, help="1 is the next to begin")
    _command(actions, "cancel", "take a waiting run out of the queue; it can be resumed", _lazily("queue", "cancel"), run=True)
    remove = _command(commands, "rm", "delete a run with its checkpoints and model", _lazily("control", "remove"), run=True)
    remove.add_argument("--yes", action="store_true", help="do not ask")


def _using(commands: argparse._SubParsersAction) -> None:
    chat = _command(commands, "chat", "talk to a run's model", _lazily("talk", "chat"), run=True)
    chat.add_argument("--base", action="store_true", help="the model as it was before training")
    chat.add_argument("--prompt", metavar="TEXT", help="one question instead of a conversation")
    chat.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="longest answer (256)")
    presets = _command(commands, "presets", "recipes by name", _lazily("library", "listing"))
    actions = presets.add_subparsers(metavar="ACTION")
    _command(actions, "list", "all presets", _lazily("library", "listing"))
    show = _command(actions, "show", "one preset as YAML", _lazily("library", "show"))
    show.add_argument("recipe", metavar="NAME")
    _settings(show)
    save = _command(actions, "save", "keep a recipe as a preset", _lazily("library", "save"), recipe=True)
    save.add_argument("name", metavar="NAME")
    save.add_argument("--overwrite", action="store_true", help="replace a preset of that name")
    imported = _command(actions, "import", "read a flat SFTTrainer config into a preset", _lazily("library", "import_flat"))
    imported.add_argument("file", metavar="FILE")
    imported.add_argument("--name", help="name of the preset (the file's)")
    imported.add_argument("--overwrite", action="store_true", help="replace a preset of that name")
    delete = _command(actions, "delete", "delete a preset of your own", _lazily("library", "delete"))
    delete.add_argument("name", metavar="NAME")
