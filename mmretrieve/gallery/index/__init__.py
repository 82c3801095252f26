"""The index, which is derived from the store: choosing, building, tuning and loading it."""
