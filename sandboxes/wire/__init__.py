"""The RPC surface of AgentScope Runtime's published SDK: POST /<name> and /<name>_async."""
