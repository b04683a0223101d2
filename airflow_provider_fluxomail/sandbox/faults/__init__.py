"""Injected faults: their models, which request meets them, and what they do to a response or a stream."""
