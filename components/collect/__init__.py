"""Stage `collect`: demonstrations of the household simulator, under DVC."""
