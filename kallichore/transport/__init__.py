"""Where the server listens, how it is found, and who is let in."""
