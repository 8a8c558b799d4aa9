"""What carries messages: the interface and its brokers."""
