"""PostgreSQL behind the store's contract; the only home of asyncpg.

From the outside in: `store` (the class and `open_store`, on trio) delegates through `bridge` (trio to asyncio, the only module that
knows both) to one file per operation, each a coroutine on an asyncpg connection that `pool` keeps alive. `embedded` runs PostgreSQL
itself where no `DATABASE_URL` is given; `migrate` brings the schema up to date.
"""
