"""The network: vision encoder, prefix transformer, stage fusion, KV mix, action expert."""

from pi_behavior.network.pi_behavior import PiBehavior, Prefix

__all__ = ["PiBehavior", "Prefix"]
