"""The outside world: stand-ins for providers, and load, for demonstrations, tests and measurements.

Talks to a gateway over the network and as a process, as the real world would; imports only `protocol`.
"""
