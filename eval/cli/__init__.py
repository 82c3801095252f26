"""`python -m eval`: arguments, and what each command does."""
