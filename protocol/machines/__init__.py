"""The conversation, as small machines that know nothing of each other.

Each file owns one concern with `State`, `INITIAL`, `decide_*` and `evolve`; `conversation` composes them and routes each command to the one that
owns it. A later capability adds a file here and a line there.

Rules for all: `decide` is pure and may refuse; `evolve` is pure and never fails; a state is a frozen value, so a turn that does not
commit is undone by forgetting it.
"""
