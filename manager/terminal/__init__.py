"""How commands speak to people and to scripts: options, endings, exit codes, tables, JSON.

Pure manners: nothing here knows a service or a log. The commands of the service and those of the
auditor share them.
"""
