"""The log in the formats of other tools, one module a format; no format loses a position."""
