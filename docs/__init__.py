"""The documentation: pages, and the tool that writes the reference."""
