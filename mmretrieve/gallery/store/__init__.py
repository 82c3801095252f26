"""The truth: what a gallery holds, on disk, and that not a byte of it is lost or changed unseen."""
