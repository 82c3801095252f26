"""Speed, each script with the quality of what it measures beside it."""
