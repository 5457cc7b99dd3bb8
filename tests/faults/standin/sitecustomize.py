"""On PYTHONPATH this puts the stand-in training into every worker, in place of the one that needs torch; all else is the real thing."""

import os
import sys

if "TUI_FT_CLOCK" in os.environ:
    import stepped_clock

    stepped_clock.step_by_file()
if "tui_ft.worker" in sys.orig_argv:
    import standin_training

    sys.modules["tui_ft.worker.train"] = standin_training
