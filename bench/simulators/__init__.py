"""Stand-ins for the outside world. They talk to a gateway over the network, as the real ones would, and know only `protocol`.

    world         invented people and businesses
    acts          what they can send
    life          what happens to one business, in virtual time, and the truth of it
    meta          Meta's webhooks of it: a pure, seeded stream of deliveries
    faults        what goes wrong on the way: duplicates, reordering, delay, broken connections, forgeries; Meta's back-off
    http_client   HTTP/1.1 over one kept-alive connection
    ledger        what the gateway was told and what it answered, on disk, for a checker that comes after a crash
    sender        deliveries to requests, at a rate, with retries
    simulate      what `parley simulate` runs

Meta's other half, the Graph API that takes what a business sends, belongs beside `meta`, in `graph`: it will come with sending.
"""
