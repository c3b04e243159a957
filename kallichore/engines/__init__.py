"""How a kernel with a host of its own is placed, and how a server talks to it."""
