"""tui-ft: a terminal wizard that fine-tunes language models in runs no terminal can kill."""

__version__ = "0.1.0"
