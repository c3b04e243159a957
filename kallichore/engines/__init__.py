"""How a kernel is placed, reached and ended: as the server's own child, or with a host beside it that outlives the
server.
"""
