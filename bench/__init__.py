"""Our server beside stock MLflow, one table for each command.

`python -m bench NAME` runs one part, `python -m bench` all of them, each in a process of its own.
A server under measurement has the first core to itself; the load, the stand-ins and PostgreSQL
have the others. Ratios are taken within a round, in which the servers are measured one after the
other while the rest are stopped, and the median over the rounds is quoted.
"""
