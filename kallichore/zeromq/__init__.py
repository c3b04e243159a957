"""A kernel's ZeroMQ sockets on Trio: the five that we connect to, and the one at which it registers.

The five speak `kallichore.wire.zmtp` on sockets of Trio's; the one is libzmq's. pyzmq's own asynchronous layers know
asyncio and Tornado only.
"""
