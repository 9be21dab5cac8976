"""MCP servers that run beside the guest or elsewhere, and their tools."""
