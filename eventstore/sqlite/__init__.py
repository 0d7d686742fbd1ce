"""The event log as one SQLite file; nothing outside this package knows SQLite."""
