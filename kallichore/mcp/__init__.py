"""Agents beside an IDE: workspaces that a window registers, its channel, and the endpoint that its agents speak to.

A neighbour of ``api`` and ``jupyter``: it stands on the server, and none of the three imports another.
"""
