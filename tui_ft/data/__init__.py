"""From a dataset to tokens and a mask: one road, taken by the preview, the wizard and the training alike.

sources → formats → conversations → language → prompt and mask → lengths → split.
"""
