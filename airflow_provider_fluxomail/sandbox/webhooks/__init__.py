"""Signed webhooks: what is sent to the endpoint, when it is retried, and the log of it."""
