"""Stage `evaluate`: one worker runs its share of a plan's rollouts against the policy server."""
