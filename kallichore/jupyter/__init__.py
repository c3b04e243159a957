"""Jupyter's own API onto the same sessions: its REST routes and its kernel WebSocket, for everybody's tools.

A neighbour of `kallichore.api`: both stand on `server` and `session`, and neither knows of the other. A kernel of
Jupyter's API is a session; what it starts `kcclient list` shows, and what was made elsewhere can be found here.
"""
