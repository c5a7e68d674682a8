"""The settings stage: checks all values of a run together, before anything else runs."""
