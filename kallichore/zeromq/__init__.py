"""ZeroMQ sockets on Trio: receiving, sending and the five sockets that meet a kernel.

pyzmq's own asynchronous layers know asyncio and Tornado only; this room is all we need of one for Trio.
"""
