"""Durable storage: the contract (`contract`), its PostgreSQL implementation (`postgres`) and one in memory for tests (`memory`).

Actors import `store.contract` alone. The gateway opens `store.postgres.store.open_store`.
"""
