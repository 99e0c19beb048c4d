"""Our server next to stock MLflow, one table for each command.

`python -m bench NAME` runs one part, `python -m bench` all of them, each in a separate process. The
measured server has the first core to itself; the load, the stand-ins and PostgreSQL use the others.
In each round, the servers are measured one after the other, while the rest are stopped. A ratio
compares two servers in one round, and the median over the rounds is reported.
"""
