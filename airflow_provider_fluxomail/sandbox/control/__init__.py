"""The control API under /_sandbox: keys, pauses, clock, messages, events, faults, request log."""
