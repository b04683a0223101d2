"""How tasks wait for an event, in the worker and in the triggerer."""
