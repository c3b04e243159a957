"""The server itself, without any way in: its sessions, configuration, clocks and end.

`kallichore.api` speaks HTTP for it and `kallichore.embed` wires both to listeners; a program that embeds Kallichore can
do without either.
"""

from kallichore.server.following import Follower, follow
from kallichore.server.server import Server, open_server

__all__ = ["Follower", "Server", "follow", "open_server"]
