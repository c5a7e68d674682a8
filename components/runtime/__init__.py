"""What runs a stage: its command, executor input and output, progress, child processes."""
