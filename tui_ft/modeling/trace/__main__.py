"""Traces the setups that it is asked for on stdin and prints each forecast as soon as it is there.

With `measure` the same steps are also run on the real device, with random weights, and correct the forecast (tier "measured").

Reads `{"model": {"name", "revision"}, "setups": [a setup, …], "measure": false, "rank": 16}`. Prints one JSON object a line: `{"setup": number,
"fit": …, "seconds": …}` for each setup, or `{"setup": number, "error", "hint"}` where it cannot be traced, and `{"done": true}`. A model that
cannot be built at all is one line `{"error", "hint", "needs_code"}` and exit code 2.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from typing import Any

from tui_ft import collector
from tui_ft.errors import NeedsCode, RequestError, TuiFtError
from tui_ft.modeling import inventory
from tui_ft.text import one_line


def main() -> int:
    collector.relax()
    logging.disable(logging.WARNING)  # the libraries' advice is not about us, and stdout is read by a program
    warnings.simplefilter("ignore")
    request = json.loads(sys.stdin.read())
    try:
        config = inventory.read_config(request["model"]["name"], request["model"].get("revision"))
        inventory.describe(inventory.on_meta(config, request["model"]["name"]))
    except RequestError as error:
        _say({"error": error.message, "hint": error.hint, "needs_code": isinstance(error, NeedsCode)})
        return 2
    for number, setup in enumerate(request["setups"]):
        _say({"setup": number, **_answer(config, setup, measure=bool(request.get("measure")))})
    _say({"done": True})
    return 0


def _answer(config: Any, asked: dict[str, Any], *, measure: bool) -> dict[str, Any]:
    """The forecast with the seconds it took, or why there is none: libraries raise many kinds for what they cannot do on fake tensors."""
    from tui_ft.modeling.trace.fit import fit
    from tui_ft.modeling.trace.measure import flops_per_second, measured
    from tui_ft.modeling.trace.setup import Setup

    began = time.monotonic()
    try:
        setup = Setup.parse(asked)
        found: dict[str, Any] = {"fit": fit(config, setup)}
        if measure:
            found["fit"], step = measured(config, setup, found["fit"])
            found["step_seconds"] = round(step, 4)
        elif setup.device == "cpu":
            found["fit"]["flops_per_second"] = flops_per_second("cpu", setup.precision)
        return {**found, "seconds": round(time.monotonic() - began, 3)}
    except TuiFtError as error:
        return {"error": error.message, "hint": error.hint}
    except Exception as error:
        what = f"{type(error).__name__}: {one_line(error, 300)}"
        return {"error": f"a step of this model cannot be traced ({what})", "hint": "The forecast stays a lower bound."}


def _say(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    sys.exit(main())
