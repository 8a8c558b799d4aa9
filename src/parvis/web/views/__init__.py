"""What the pages show: each view is made anew from the sources, as parts that are sent when they change."""
