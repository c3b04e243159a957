"""What outlives a server, in files: the log of each session, its record, and the directory that they are in."""
