"""One evaluation run: vectors of the images, compositions, metrics and records."""
