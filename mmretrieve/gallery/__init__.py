"""What keeps vectors."""
