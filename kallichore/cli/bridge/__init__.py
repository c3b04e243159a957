"""``kcserver mcp-stdio``: a bridge for agents that speak MCP over standard streams only, to a workspace's endpoint."""
