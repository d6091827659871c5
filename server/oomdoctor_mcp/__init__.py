"""The MCP server: thin; it only translates between the protocol and ``oomdoctor``."""
