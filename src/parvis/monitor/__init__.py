"""What is seen live in a terminal. Everything here needs textual, the extra `monitor`, but for `terminal`."""
