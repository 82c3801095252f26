"""A server of one gallery: a JSON API, MCP and, if given, a page, behind one authentication."""
