"""The bodies of the HTTP API, and the one place where they meet JSON."""
