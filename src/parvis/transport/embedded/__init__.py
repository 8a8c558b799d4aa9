"""A small STOMP broker for one machine, tests and demonstrations."""
