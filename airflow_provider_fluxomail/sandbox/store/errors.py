"""Errors of the store."""

from __future__ import annotations


class StoreError(Exception):
    """The data file cannot be used; the text is one line that says why."""


class StoreFullError(Exception):
    """A bound is reached; the text names it."""
