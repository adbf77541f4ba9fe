"""Images written to disk: whole datasets, resumable, and galleries to look at."""
