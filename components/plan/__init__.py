"""Stage `plan`: which rollouts there are, and by which policies."""
