"""Captions, rewrites, descriptions and roles of prompts: built-in rules, files, local models and language models."""
