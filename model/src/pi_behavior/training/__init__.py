"""Training: one loop, one jitted step, hooks for what surrounds it."""
