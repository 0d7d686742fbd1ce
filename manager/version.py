"""Which program this is: here, because asking for an installed package's metadata takes longer."""

__version__ = "0.1.0"
