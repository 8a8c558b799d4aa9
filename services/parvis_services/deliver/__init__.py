"""Services that hand results on."""
