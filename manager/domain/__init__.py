"""The functional core: what a sandbox is, what may happen to it, and what must happen next."""
