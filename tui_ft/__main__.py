"""`python -m tui_ft` is the command `tui-ft`."""

import sys

from tui_ft.cli import main

if __name__ == "__main__":
    sys.exit(main())
