"""A report of a log: one file of HTML for people who will never run a command."""
