"""One evaluation run: features, compositions, metrics, record."""
