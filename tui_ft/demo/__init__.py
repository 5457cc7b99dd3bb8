"""The embedded demo: a small dataset of our own writing, and a small Llama-architecture model made from it on first use."""

NAME = "builtin:demo"
"""In a recipe, `model.name` and `data.source` of the demo."""
