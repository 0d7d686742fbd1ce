"""The write side: decide, record, act. No sockets, no processes, no clock: those are ports."""
