"""Clients that nobody here wrote, against the same service as all other tests."""

from tests.integration.service.conftest import donor, probed, rootfs, service

__all__ = ["donor", "probed", "rootfs", "service"]
