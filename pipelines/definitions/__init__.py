"""The pipelines, their profiles, and how both are compiled."""
