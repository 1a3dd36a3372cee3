"""Floor 4: runs in order - versions, policies, gates. Empty until the issue on series."""
