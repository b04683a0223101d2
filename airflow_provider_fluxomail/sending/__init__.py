"""How a message goes out, for every face."""
