"""Captions, rewrites, descriptions and roles by a language model behind an OpenAI-compatible endpoint."""
