"""What is derived: an index that proposes, how it is chosen, built, tuned and served."""
