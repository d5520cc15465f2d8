"""Which channels hold position, and what is lost without them (sections 4.2.1 to 4.2.3, S3)."""
