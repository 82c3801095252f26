"""Adapters to other people's frameworks. Each module imports one framework, and nothing imports the modules but those who use them."""
