"""Textual inversion: from a picture to a pseudo token that stands for it in a sentence."""
