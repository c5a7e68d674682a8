"""What every stage shares: artifacts, lineage, the command line, progress, processes."""
