"""The store of a gallery: the SQLite ledger, the vectors and the thumbnails."""
