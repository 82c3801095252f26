"""The command line: `mmretrieve COMMAND`."""
