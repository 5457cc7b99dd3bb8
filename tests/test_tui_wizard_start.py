"""What the wizard's start takes over from its preview, and when it must look again."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tui_ft.recipe import Recipe, files
from tui_ft.tui.wizard.backstage import Backstage


def recipe(source: Path, **data: object) -> Recipe:
    return files.validate({"model": {"name": "builtin:demo"}, "data": {"source": str(source), **data}})


def written(file: Path, *rows: object) -> Path:
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return file


async def preview_of(wanted: Recipe) -> Backstage:
    backstage = Backstage()
    backstage.expect_preview(wanted)
    assert backstage.data_as_it_is(wanted) is None  # not while it is on its way
    await backstage.load_preview(wanted)
    return backstage


async def test_only_a_preview_of_this_very_recipe_and_these_very_files_counts(tmp_path: Path) -> None:
    row = {"prompt": "Why?", "completion": "Because."}
    source = written(tmp_path / "rows.jsonl", *[row] * 20)
    wanted = recipe(source)
    backstage = await preview_of(wanted)
    found = backstage.data_as_it_is(wanted)
    assert found is not None and found.rows == 19 and found.errors == []
    assert backstage.data_as_it_is(wanted.model_copy(update={"name": "another", "about": "of the same data"})) == found
    assert backstage.data_as_it_is(recipe(source, validation=0.5)) is None
    before = source.stat()
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert backstage.data_as_it_is(wanted) is None and backstage.data_facts(wanted) == found
    backstage.expect_preview(wanted)
    assert backstage.data_facts(wanted) is None


async def test_refusals_and_errors_are_taken_over_too(tmp_path: Path) -> None:
    wanted = recipe(written(tmp_path / "rows.jsonl", {"prompt": "Why?", "completion": "Because."}, *[{"prompt": None}] * 9))
    backstage = await preview_of(wanted)
    found = backstage.data_as_it_is(wanted)
    assert found is not None and found.errors
    (stops,) = [finding for finding in backstage.data_findings(wanted) if finding.severity == "error"]
    assert [stops] == found.errors and "rows.jsonl:2" in stops.places[0]
    missing = recipe(tmp_path / "none.jsonl")
    backstage = await preview_of(missing)
    assert backstage.data_as_it_is(missing) is None  # the start looks for itself
    assert "none.jsonl does not exist" in backstage.data_findings(missing)[0].message
