"""Jupyter's wire protocol and the client's, sans-I/O: bytes in, values out, and back.

Nothing here knows Trio, ZeroMQ, a clock or a file, so all of it can be read and tested as arithmetic. The
reference is https://jupyter-client.readthedocs.io/en/stable/messaging.html ("the messaging spec" below).
"""
