"""The pipelines: what they are made of, their profiles, and how they are compiled."""
