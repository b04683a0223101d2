"""What the sandbox keeps: messages, events, keys and the request log."""
