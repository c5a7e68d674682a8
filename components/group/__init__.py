"""Stage `group`: split the tasks by validation score for fine-tuning."""
