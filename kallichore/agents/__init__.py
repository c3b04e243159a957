"""What coding agents are offered over MCP, in the words of both sides: the tools, their answers, and the protocol.

`kallichore.mcp` serves agents beside an IDE, from inside the server; ``kcclient mcp`` serves those without one, as a
client. What is the same for both is here. All but `protocol` and `standard_streams` is pure; only those two need the
package ``mcp``, which is an extra and takes a second to be imported.
"""
