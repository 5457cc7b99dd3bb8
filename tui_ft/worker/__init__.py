"""The training process: `python -m tui_ft.worker RUN_FOLDER ATTEMPT`, started by the supervisor."""
