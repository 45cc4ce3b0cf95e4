"""The pure part: what a ScannerJob is, what is remembered, and what follows from what is known."""
