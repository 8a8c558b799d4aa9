"""Services: contract, base class and host."""
