"""The policy in use: control loop, rules, batching, and the websocket server."""
