"""Read-only tools over a log. For now there is the fold itself: ``manager.domain.evolve``."""
