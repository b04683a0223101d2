"""Many messages in one task: where they come from, how they are sent, and the outcome of each.

Nothing here knows how a task runs. The operator passes the identity of each message, and where to store the progress.
A *leg* is the part of a try that runs until the task ends or is deferred.
"""
