"""The dataset stage: a version of the demonstrations, fetched and checked, and how it gets versions."""
