"""Floor 2: what is on disk - open, create, check, read and write tables and their ids."""
