"""Stage `settings`: check all values of a run together, before anything else runs."""
