"""The pure part: what a ScannerJob is, what is remembered of it, and what follows from what is known."""
