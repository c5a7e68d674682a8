"""Stage `train`: train or fine-tune a policy on the demonstrations."""
