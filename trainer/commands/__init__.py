"""The half of the command line that needs torch: one file a command, its arguments a dataclass at the top of it."""
