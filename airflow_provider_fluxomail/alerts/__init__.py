"""Alerts: what a callback reports, the messages that say so, and how they are sent."""
