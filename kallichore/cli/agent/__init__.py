"""``kcclient mcp``: an MCP server for agents without an IDE."""
