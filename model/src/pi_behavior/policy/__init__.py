"""The policy in use: control loop, batching, checkpoints, and the websocket server."""
