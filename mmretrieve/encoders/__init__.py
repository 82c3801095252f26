"""What makes vectors."""
