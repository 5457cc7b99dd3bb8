"""Every bundled preset opens in the wizard and shows what it says, step by step, without a network."""

from __future__ import annotations

import pytest
from test_tui_wizard_screen import open_wizard, texts, until

from tui_ft.recipe import presets
from tui_ft.tui.app import TuiFtApp
from tui_ft.tui.widgets.field import Field
from tui_ft.tui.widgets.options import Options, plain

BUNDLED = [preset.name for preset in presets.names() if preset.bundled]


@pytest.mark.parametrize("name", BUNDLED)
async def test_it_opens_at_every_step_and_reviews_whole(name: str) -> None:
    recipe = presets.get(name)
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_wizard(pilot, app, name)
        assert screen.draft.recipe == recipe
        assert recipe.model.name in texts(app)
        shown: dict[str, str] = {}
        for step in range(6):
            screen.query_one("#next").focus()
            await pilot.press(str(step + 1))
            await until(pilot, lambda at=step: screen.at == at)
            assert not screen.query(".-wrong")
            shown |= {field.key: field.text for field in screen.query(Field)}
        assert shown["method.kind"] == recipe.method.kind
        assert float(shown["train.learning_rate"]) == recipe.train.learning_rate
        screen.query_one("#next").focus()
        await pilot.press("7")
        await until(pilot, lambda: screen.at == 6 and f"tui-ft run {name}" in texts(app))


async def test_a_list_is_narrowed_to_what_holds_a_text_and_whole_again_by_escape() -> None:
    app = TuiFtApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_wizard(pilot, app)
        listed = screen.query_one("#presets", Options)
        listed.focus()
        every = [option.id for option in listed.options]
        assert set(BUNDLED) <= set(every)
        await pilot.press("slash", *"QLoRA")
        found = [option.id for option in listed.options]
        assert 0 < len(found) < len(every) and all("qlora" in plain(option).casefold() for option in listed.options)
        await pilot.press("enter", "G")
        assert listed.has_focus and listed.selected == found[-1] and screen.at == 0
        await pilot.press("slash", *"zzz")
        assert [option.disabled for option in listed.options] == [True] and "nothing holds it" in texts(app)
        await pilot.press("enter", "enter")
        assert screen.at == 0 and not screen.draft.origin, "what is no preset is not taken"
        await pilot.press("escape")
        assert [option.id for option in listed.options] == every and listed.has_focus
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is not screen)
