"""The commands `presets …`."""

from __future__ import annotations

import argparse
from pathlib import Path

from tui_ft.cli import output
from tui_ft.recipe import files, flat_sft, presets


def listing(arguments: argparse.Namespace) -> int:
    found = presets.names()
    if arguments.json:
        output.print_json([{"name": p.name, "about": p.about, "bundled": p.bundled, "path": str(p.path)} for p in found])
    else:
        output.table([(p.name, "bundled" if p.bundled else "yours", p.about) for p in found], ("NAME", "FROM", "ABOUT"))
    return 0


def show(arguments: argparse.Namespace) -> int:
    recipe = presets.open_recipe(arguments.recipe, arguments.set)
    if arguments.json:
        output.print_json(recipe)
    else:
        output.say(files.dump(recipe).rstrip())
    return 0


def save(arguments: argparse.Namespace) -> int:
    recipe = presets.open_recipe(arguments.recipe, arguments.set)
    return _saved(arguments, presets.save(recipe, arguments.name, arguments.overwrite), [])


def import_flat(arguments: argparse.Namespace) -> int:
    file = Path(arguments.file)
    recipe, notices = flat_sft.import_text(files.read_text(file), str(file))
    recipe = files.absolute(recipe, file.absolute().parent)
    return _saved(arguments, presets.save(recipe, arguments.name or recipe.name, arguments.overwrite), notices)


def _saved(arguments: argparse.Namespace, path: Path, notices: list[str]) -> int:
    for notice in notices:
        output.note(f"note: {notice}")
    if arguments.json:
        output.print_json({"name": path.stem, "path": str(path), "notices": notices})
    else:
        output.say(f"Saved as {path.stem}. `tui-ft run {path.stem}` starts it.")
    return 0


def delete(arguments: argparse.Namespace) -> int:
    presets.delete(arguments.name)
    if arguments.json:
        output.print_json({"name": arguments.name, "deleted": True})
    else:
        output.say(f"The preset {arguments.name} is deleted.")
    return 0
