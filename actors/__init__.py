"""The actors: one a file, each a shell around a pure machine and the journal. They receive, decide, journal, evolve, answer.

`ports.py` names what they need from the outside (journal, directory, clock); nothing here knows a socket, a provider or SQL.
`tree.py` shows how they are supervised.
"""
