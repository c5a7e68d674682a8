"""Artifacts: where they lie, how they are named, what they were made from."""
