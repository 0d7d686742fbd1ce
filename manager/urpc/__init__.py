"""gVisor's urpc: remote procedure calls with file descriptors over a unix socket. No domain here.

Only modules whose name ends in `_aio` know an event loop; the worker, which has none, uses the
others. Import from the modules: this file stays empty so that doing so pulls in nothing else.
"""
