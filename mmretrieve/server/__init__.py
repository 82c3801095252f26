"""One server over one gallery: a JSON API and MCP, and whatever page is mounted beside them, behind one guard."""
