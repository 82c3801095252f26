"""What goes into a gallery: pictures of a source, vectors made elsewhere, other galleries."""
