"""How a message is sent, whichever class sends it."""
