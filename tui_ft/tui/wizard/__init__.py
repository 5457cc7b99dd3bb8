"""The wizard: a recipe, one step a screen."""
