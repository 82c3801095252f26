"""Composers: turn a reference image and a prompt into named terms."""

from mmretrieve.composers.factory import ComposerContext, Parts, make_composer, parts_from

__all__ = ["ComposerContext", "Parts", "make_composer", "parts_from"]
