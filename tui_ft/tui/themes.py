"""The colours: a calm dark and a light theme, one of high contrast, one without red against green, and the terminal's own sixteen."""

from __future__ import annotations

import os

from textual.theme import Theme

CALM = Theme(
    name="tui-ft",
    primary="#6aa5c9",
    secondary="#8d9bb5",
    accent="#d9a757",
    foreground="#d4d8de",
    background="#14171c",
    surface="#1a1e24",
    panel="#232830",
    success="#7fb785",
    warning="#d9a757",
    error="#d9776f",
    dark=True,
    variables={"border": "#3a424e", "border-blurred": "#2b313a", "footer-key-foreground": "#d9a757", "input-selection-background": "#6aa5c9 35%"},
)
LIGHT = Theme(
    name="tui-ft-light",
    primary="#1f6f9f",
    secondary="#56637a",
    accent="#8f5f00",
    foreground="#22272e",
    background="#f7f6f2",
    surface="#efede7",
    panel="#e4e1d8",
    success="#2f7a3a",
    warning="#8f5f00",
    error="#b3382f",
    dark=False,
    variables={"border": "#b9b4a6", "border-blurred": "#d3cfc3", "footer-key-foreground": "#8f5f00", "input-selection-background": "#1f6f9f 25%"},
)
CONTRAST = Theme(
    name="tui-ft-contrast",
    primary="#5cc8ff",
    secondary="#c8d4ff",
    accent="#ffd24a",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#1c1c1c",
    success="#5cff7a",
    warning="#ffd24a",
    error="#ff7b72",
    dark=True,
    variables={"border": "#ffffff", "border-blurred": "#9a9a9a", "footer-key-foreground": "#ffd24a", "input-selection-background": "#5cc8ff 45%"},
)
SAFE = Theme(
    name="tui-ft-colour-blind",
    primary="#56b4e9",
    secondary="#999999",
    accent="#f0e442",
    foreground="#d9dce0",
    background="#14171c",
    surface="#1a1e24",
    panel="#232830",
    success="#0099d8",
    warning="#f0e442",
    error="#e69f00",
    dark=True,
    variables={"border": "#3a424e", "border-blurred": "#2b313a", "footer-key-foreground": "#f0e442", "input-selection-background": "#56b4e9 35%"},
)
"""Of Okabe and Ito's palette: what is well is blue, what is wrong orange."""
OURS = (CALM, LIGHT, CONTRAST, SAFE)
SIXTEEN = ("ansi-dark", "ansi-light")
"""Textual's own, of the colours that the terminal has been given."""
NAMES = (*(theme.name for theme in OURS), *SIXTEEN)
_FEW_COLOURS = ("linux", "screen", "vt100", "vt220", "ansi")


def fitting(wanted: str) -> str:
    """The theme to begin with: the wanted one, else one that this terminal can show."""
    if wanted in NAMES:
        return wanted
    few = os.environ.get("TERM", "") in _FEW_COLOURS and "COLORTERM" not in os.environ
    return SIXTEEN[0] if few else CALM.name
