"""What a user would build instead of a gateway: short honest programs, each at its best sensible settings, measured by the scenario `peers`.

    express_pg.mjs       Express + pg + Socket.IO: committed before the answer
    express_bullmq.mjs   Express + BullMQ + Redis: queued before the answer, stored by a worker
    fastapi_asyncpg.py   FastAPI/uvicorn + asyncpg + python-socketio: committed before the answer
    whatsapp.mjs         what the two Node programs share
    install              their packages, put into build/peers when first wanted
    process              a peer, its database and its Redis as processes

They do less than Parley does, to their advantage: one table with the message as it came and the dedupe id as its key; no conversations, no lists,
no ordered feed to resume, no raw journal, no fencing, one secret for all. Each checks the signature, stores every message and receipt once,
and shows what is new to the dashboards that follow it.
"""
