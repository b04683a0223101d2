"""Many messages in one task: where they come from, what became of each, and how they go out.

Nothing here knows how a task is run; the operator brings the keys, and a place for what must survive.
"""
