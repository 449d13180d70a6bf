"""Many fits in one call."""
