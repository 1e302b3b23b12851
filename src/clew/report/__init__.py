"""What a run has to say for itself: one HTML file, one terminal table, coloured traces. No torch."""
