"""The train stage: trains or fine-tunes a policy on the demonstrations."""
