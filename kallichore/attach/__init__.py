"""Clients of a session that come from outside this process.

Whatever they come through, a TCP connection, a Unix socket or a named pipe, it is a stream with a WebSocket in it, so
there is one attachment, `websocket.serve_websocket`, and `channel_sockets` for the ways in that are a session's own.
"""
