"""Session, URL and caches."""
