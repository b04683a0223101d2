"""Email about tasks and Dag runs."""
