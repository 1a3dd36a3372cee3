"""What a series records: versions, settings, policies."""
