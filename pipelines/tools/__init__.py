"""Commands around the pipelines: the demo, estimates, checks, lineage, checkpoints."""
