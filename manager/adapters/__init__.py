"""Where the application meets the kernel, the sockets and the worker."""
