"""Writes the reference pages of the commands, the API and the MCP tools from the programs themselves."""
