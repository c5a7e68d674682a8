"""Stage `leaderboard`: choose checkpoints, score the reported instances, package the submission, report."""
