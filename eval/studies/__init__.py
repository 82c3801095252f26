"""Studies that fill the tables of README and docs."""
