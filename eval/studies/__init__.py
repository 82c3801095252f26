"""Studies behind the tables in README and docs."""
