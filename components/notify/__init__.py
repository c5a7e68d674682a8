"""Stage `notify`: tell what became of a run."""
