"""The gallery: vectors of images with ids and fields, and searches over them."""
