"""Stage `plan`: which rollouts each evaluation worker does."""
