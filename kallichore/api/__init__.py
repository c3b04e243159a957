"""The HTTP API on quart-trio: what kallichore.json describes.

Seam: this is Kallichore's own API. Another one (Jupyter's, MCP) would be another app over the same server.
"""
