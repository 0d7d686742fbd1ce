"""Read-only tools over a log; for now the fold itself, in ``manager.domain.evolve``, is the tool."""
