"""The JAX policy package: network, flow matching, training and the policy server."""
