"""Delivery of alerts: what an alert is, the stages it passes, and the sinks it reaches. Knows nothing of markets."""
