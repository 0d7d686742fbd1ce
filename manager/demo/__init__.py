"""Histories that are made up, yet decided and recorded as a service would have done it."""
