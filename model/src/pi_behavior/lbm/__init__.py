"""The Large Behavior Model: a language-conditioned diffusion transformer over chunks of actions.

Source: the multitask diffusion transformer of LeRobot, which follows arXiv 2507.05331 (TRI LBM team, 2025).
Its configuration loads without JAX.
"""
