"""Judges: models that look at the best items of a search, and score each of them under the query."""
