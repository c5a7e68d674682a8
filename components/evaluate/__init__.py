"""Stage `evaluate`: one worker runs its shard of rollouts against the policy server."""
