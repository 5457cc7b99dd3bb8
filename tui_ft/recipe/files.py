"""Recipe files: read with every error at its place, written back, changed by `--set`, made independent of their folder."""

from __future__ import annotations

import difflib
import math
import os
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from tui_ft import demo
from tui_ft.errors import ConfigError, Problem, RequestError
from tui_ft.recipe.schema import Recipe
from tui_ft.text import one_line

MAX_BYTES = 1_000_000  # a recipe has a hundred lines; a larger file is something else, given by mistake
MAX_VALUES = 10_000


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads `2e-4` as a number, as every person means it (YAML 1.1 wants `2.0e-4`)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)$"),
    list("-+0123456789."),
)


def load(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        RequestError: the file cannot be read.
        ConfigError: all that is wrong in it, each with its line.
    """
    return parse(read_text(path), str(path))


def read_text(path: Path) -> str:
    """The text of a small UTF-8 file given by a person.

    Raises:
        RequestError: it is missing, unreadable, too large or not text.
    """
    try:
        if path.is_dir():
            raise RequestError(f"{path} is a folder, not a recipe file", "Name a .yaml file or a preset; `tui-ft presets list` shows them.")
        if path.stat().st_size > MAX_BYTES:
            raise RequestError(f"{path} is too large for a recipe ({path.stat().st_size:,} bytes)", "Did you mean to give it as data.source?")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 text (byte {error.start})", "Save it as UTF-8.") from None
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}", "Check the path and its permissions.") from None


def parse(text: str, name: str = "recipe") -> Recipe:
    """The recipe in a YAML text; `name` is how errors call the text.

    Raises:
        ConfigError: all that is wrong, each with its line.
    """
    tree, lines = parse_yaml(text, name)
    return validate(tree, name, lines)


def parse_yaml(text: str, name: str) -> tuple[dict[str, Any], dict[str, int]]:
    """The mapping in a YAML text, and the line of each dotted key.

    Raises:
        ConfigError: not YAML, or not a mapping.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node and _size(node, {}) > MAX_VALUES:
            raise ConfigError([Problem(name, f"its anchors unfold to more than {MAX_VALUES:,} values", "A recipe has a hundred.")])
        tree = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        reason = getattr(error, "problem", None) or str(error)
        raise ConfigError([Problem(where, f"not valid YAML: {one_line(reason, 200)}")]) from None
    except (RecursionError, ValueError) as error:
        raise ConfigError([Problem(name, f"not valid YAML: {one_line(error, 200)}")]) from None
    if not isinstance(tree, dict):
        raise ConfigError([Problem(name, "a recipe is a mapping of keys to values", "Start from `tui-ft presets show demo`.")])
    return tree, dict(_key_lines(node)) if node else {}


def _size(node: yaml.Node, known: dict[int, float]) -> float:
    """How many values a node unfolds to, its aliases followed; infinite where one holds itself. A few bytes can unfold to gigabytes."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = math.inf
        children = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] = 1 + sum(_size(child, known) for child in children)
    return known[id(node)]


def _key_lines(node: yaml.Node, path: str = "", depth: int = 0) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode) and depth < 8:
        for key, value in node.value:
            dotted = f"{path}.{key.value}" if path else str(key.value)
            yield dotted, key.start_mark.line + 1
            yield from _key_lines(value, dotted, depth + 1)


def validate(tree: Mapping[str, Any], name: str = "", lines: Mapping[str, int] | None = None) -> Recipe:
    """Check a plain mapping against the schema.

    Raises:
        ConfigError: all problems at once, unknown keys with the nearest known one.
    """
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        problems = [_problem(item, name, lines or {}) for item in error.errors()]
        unique = list({(p.where, p.message): p for p in _fold_unions(problems)}.values())
        raise ConfigError(unique) from None


def _problem(item: Any, name: str, lines: Mapping[str, int]) -> Problem:
    path = [str(part) for part in item["loc"]]
    known = [part for index, part in enumerate(path) if _is_field(path[: index + 1])] or path[:1]
    key = ".".join(path if item["type"] == "extra_forbidden" else known)
    line = lines.get(key) or lines.get(key.rpartition(".")[0])
    shown = one_line(key, 100)
    where = ":".join(part for part in (name, str(line) if line else "", f" {shown}" if name and shown else shown) if part)
    if item["type"] == "extra_forbidden":
        return Problem(where, "unknown key", _nearest_key(key))
    if item["type"] == "missing":
        return Problem(where, "is missing", "Every recipe names model.name and data.source.")
    message = str(item["msg"]).removeprefix("Value error, ").replace("Input should", "should")
    given = item.get("input")
    found = "" if isinstance(given, (dict, BaseModel)) or item["type"] == "value_error" else f" (found {one_line(repr(given), 60)})"
    return Problem(where, message + found)


def _fold_unions(problems: list[Problem]) -> Iterator[Problem]:
    """One problem a place: a value that fits no member of a union is one mistake, not one for each member."""
    by_place: dict[str, list[Problem]] = {}
    for problem in problems:
        by_place.setdefault(problem.where, []).append(problem)
    for where, group in by_place.items():
        messages = dict.fromkeys(re.sub(r" \(found .*\)$", "", p.message) for p in group)
        found = re.search(r" \(found .*\)$", group[0].message)
        yield Problem(where, ", or ".join(messages) + (found[0] if found else ""), group[0].hint)


def known_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the format, sections included."""
    for name, field in model.model_fields.items():
        yield prefix + name
        section = _section(field.annotation)
        if section:
            yield from known_keys(section, f"{prefix}{name}.")


def _section(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _is_field(path: list[str]) -> bool:
    return ".".join(path) in set(known_keys())


def _nearest_key(key: str) -> str:
    keys = list(known_keys())
    leaves = {known: known.rpartition(".")[2] for known in keys}
    near = difflib.get_close_matches(key, keys, n=1, cutoff=0.75)
    near = near or [known for known, leaf in leaves.items() if leaf == key.rpartition(".")[2]]
    near = near or [k for k, leaf in leaves.items() if leaf in difflib.get_close_matches(key.rpartition(".")[2], leaves.values(), n=1, cutoff=0.6)]
    return f"Did you mean {near[0]}?" if near else "`tui-ft presets show demo` shows every key."


def with_settings(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """The recipe with each `a.b=value` applied; values are read as YAML.

    Raises:
        ConfigError: an assignment without `=`, an unknown key, a value that does not fit; all at once.
    """
    tree = recipe.model_dump(mode="json")
    problems = []
    keys = set(known_keys())
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip()
        parent, _, leaf = key.rpartition(".")
        if not equals:
            problems.append(Problem(f"--set {one_line(setting, 80)}", "needs the form key=value, e.g. train.epochs=2"))
        elif key not in keys and parent not in _mapping_keys():
            problems.append(Problem(f"--set {one_line(key, 80)}", "unknown key", _nearest_key(key)))
        elif _section_at(key):
            problems.append(Problem(f"--set {key}", "is a section, not a value", f"Name a key inside it, e.g. {key}.{next(iter(tree[key]))}."))
        else:
            target = tree
            for part in parent.split(".") if parent else []:
                target = target[part]
            try:
                target[leaf] = yaml.load(text, Loader=_Loader)
            except (yaml.YAMLError, ValueError):
                problems.append(Problem(f"--set {key}", f"{one_line(text, 60)!r} is not a YAML value"))
    if problems:
        raise ConfigError(problems)
    return validate(tree)


def _section_at(key: str) -> bool:
    field = Recipe.model_fields.get(key)
    return field is not None and _section(field.annotation) is not None


def _mapping_keys() -> set[str]:
    """Keys whose value is a free mapping (`data.columns`), so that `data.columns.output` can be set."""
    return {
        f"{name}.{leaf}"
        for name, field in Recipe.model_fields.items()
        if (section := _section(field.annotation))
        for leaf, sub in section.model_fields.items()
        if get_origin(sub.annotation) is dict
    }


def absolute(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with its local paths made absolute, read as relative to `folder`; Hub ids stay as they are."""
    changed = recipe.model_copy(deep=True)
    changed.model.name = _absolute(recipe.model.name, folder)
    changed.data.source = _absolute(recipe.data.source, folder)
    if recipe.prompt.template.endswith((".jinja", ".jinja2", ".j2")):
        changed.prompt.template = _under(folder, recipe.prompt.template)
    if recipe.output.dir:
        changed.output.dir = _under(folder, recipe.output.dir)
    return changed


def _absolute(name: str, folder: Path) -> str:
    """A path if it is written as one or exists, else the Hub id that it must be."""
    path = _under(folder, name)
    written_as_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith((".json", ".jsonl", ".csv", ".parquet", ".txt"))
    return path if name != demo.NAME and (written_as_path or os.path.exists(path)) else name  # noqa: PTH110 - Path.exists raises for odd names


def _under(folder: Path, name: str) -> str:
    return str((folder / os.path.expanduser(name)).absolute())  # noqa: PTH111 - Path.expanduser raises for an unknown ~user


def dump(recipe: Recipe) -> str:
    """The recipe as YAML in the order of the format; what stands at its default is left out, so that a person reads what matters."""
    tree = recipe.model_dump(mode="json", exclude_defaults=True)
    tree = {"name": recipe.name, **tree, "version": recipe.version}
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120)


def annotation_choices(annotation: Any) -> list[str]:
    """The literal values that an annotation allows, for menus: `Literal["a", "b"] | int` → ["a", "b"]."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType) or (origin is not None and hasattr(annotation, "__metadata__")):
        return [choice for part in get_args(annotation) for choice in annotation_choices(part)]
    if origin is not None and str(origin) == "typing.Literal":
        return [str(value) for value in get_args(annotation)]
    return []
