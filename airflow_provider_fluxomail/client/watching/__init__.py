"""Waiting for events of many sends at once."""
