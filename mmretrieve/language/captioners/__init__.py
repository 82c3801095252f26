"""Captioners: a zero-shot tagger, the fields of a gallery, local models of transformers. Those of an endpoint are in `llm`."""
