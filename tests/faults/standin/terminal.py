"""A person at a terminal who never rests: `python terminal.py RUN_FOLDER SEED NAME` sends commands and waits for their answers until killed."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

from tui_ft.errors import TuiFtError
from tui_ft.runs import control
from tui_ft.runs.store import Run


def main() -> None:
    run, chance, name = Run(Path(sys.argv[1])), random.Random(int(sys.argv[2])), sys.argv[3]
    while True:
        try:
            rate = round(chance.uniform(0.001, 0.1), 6)
            sent = control.checkpoint(run) if chance.random() < 0.25 else control.change(run, learning_rate=rate)
            print(name, sent, control.wait(run, sent, 10).phase, flush=True)
        except TuiFtError:  # no worker just now
            time.sleep(0.02)


if __name__ == "__main__":
    main()
