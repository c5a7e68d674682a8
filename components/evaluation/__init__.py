"""Types and records of an evaluation, shared by the stages that plan, run, score and compare rollouts."""
