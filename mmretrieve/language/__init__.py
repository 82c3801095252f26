"""What says pictures in words, and applies prompts to words."""
