"""The results browser: leaderboards and runs over HTTP, comparisons, and labels of failures."""
