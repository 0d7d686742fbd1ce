"""Linux system calls that Python 3.11 lacks, one thin typed function each.

A leaf: it imports nothing of sandtrail but the owned descriptor. The manager (which clones trees in
its clients' mount namespace) and the worker (which attaches them in its own) both stand on it.

Numbers of the calls used here are the same on x86_64 and aarch64 from 424 on, which is where every
one of them lies (Linux unified the tables in 5.1).
"""
