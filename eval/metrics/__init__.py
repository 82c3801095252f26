"""Ranks of targets, and the metrics computed from them."""
