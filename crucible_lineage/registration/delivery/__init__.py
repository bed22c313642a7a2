"""Delivery: what waits in the outbox comes to Crucible, by deliverers who work beside the steps."""
