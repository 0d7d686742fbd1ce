"""The auditor's commands. They read a log; no service needs to run."""
