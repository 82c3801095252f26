"""Encoders: models that turn images and texts into unit vectors of one space."""
