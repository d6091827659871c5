"""The smallest server of the SDK: what being ready costs at least."""

from mcp.server import MCPServer

server = MCPServer("bare", version="1")


@server.tool()
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


server.run("stdio")
