"""The inbox: pages for a browser."""
