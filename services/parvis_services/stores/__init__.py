"""Image stores: where images are put and fetched by name, on S3 or in a directory."""
