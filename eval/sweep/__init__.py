"""The PDV plane, measured point by point."""
