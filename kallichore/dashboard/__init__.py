"""The page that shows the sessions and acts on them, in any browser.

It is static files: all that it shows it gets from the HTTP API, with the token that it was opened with. So this room
knows nothing of sessions; it says which files there are, and what a browser may do with them.
"""
