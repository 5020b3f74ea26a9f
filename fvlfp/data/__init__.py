"""Examples: the data card, the table and its checks, the built-in drawn faces, the clients."""
