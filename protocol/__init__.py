"""The pure heart: ids, codecs, frames, signatures, and the machines that decide. No I/O, no clock, no randomness, no trio.

Time and ids arrive as fields. Everything here can be tested by calling it, and replayed years later with the same result.
Where to look: `content`, `commands`, `events` are the neutral vocabulary; `whatsapp/` translates one provider into it; `machines/` decides;
`frames`, `engineio`, `socketio` are what dashboards speak.
"""
