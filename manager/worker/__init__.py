"""The worker: one process, one thread, no event loop library, no store.

It lives in a mount namespace of its own, takes descriptors and specs from the manager over a unix
socket, assembles root filesystems by descriptor, runs the engines, is the parent of the containers
and tells what became of them. It may be killed at any instant: the containers go on.

Reading order: `server` (what is said), `launch` (one container's life), `root_plan` and `assemble`
(its file trees), `engine` and its two implementations `oci` and `bwrap`, `loop` beneath them all.
"""
