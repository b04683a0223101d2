"""Airflow, its database, its broker and the sandbox as processes, for the demo, system tests and benchmarks."""
