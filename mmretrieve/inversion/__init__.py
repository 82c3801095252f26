"""Textual inversion: maps an image to a pseudo token, which represents the image in a sentence."""
