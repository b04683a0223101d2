"""Tracking: the HTML that a recipient gets, its pixel and links, unsubscribing, and the source of a message."""
