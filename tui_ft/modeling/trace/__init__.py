"""What a training step will hold, found by running one on fake tensors: the program `python -m tui_ft.modeling.trace`."""
