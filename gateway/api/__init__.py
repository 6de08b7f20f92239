"""The REST API and the pages: whatever is served over plain HTTP by the Quart application behind hypercorn.

    app.py          `create_app(services)`: puts together what follows; request ids, errors, foreign handlers
    services.py     what the application is given
    operation.py    how an operation is declared (`@operations.get(path)`), called, bounded and documented
    parameters.py   query strings and cursors
    shapes.py       what is answered: one struct a resource, made from the store's rows
    openapi.py      the OpenAPI document, made from the same declarations
    readiness.py    whether webhooks would be acknowledged now
    pages.py        static assets: the dashboard, the OpenAPI document
    health.py me.py conversations.py messages.py events.py feed.py quarantine.py metrics.py problem_codes.py    one resource a file

A handler's signature is its declaration: what it takes says whether a key is needed and which parameters there are, what it returns is the
schema of the answer. A new resource is a new file with its `operations`, and one more name in `app.RESOURCES`.
"""
